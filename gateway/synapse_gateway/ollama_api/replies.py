"""Ollama's answers, field by field.

The order and the omission of empty fields are those of api/types.go in Ollama 0.17.4
(`ChatResponse`, `GenerateResponse`, `Metrics`): a figure of zero is left out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from synapse_gateway.ollama_api.openai_replies import Function as OpenAIFunction
from synapse_gateway.ollama_api.openai_replies import ToolCall


class Function(msgspec.Struct):
    """The function of a call; `arguments` is an object."""

    index: int
    name: str
    arguments: dict[str, Any]


class Call(msgspec.Struct, omit_defaults=True):
    """A tool call."""

    id: str = ""
    function: Function | None = None


class CallPieces:
    """Puts the tool calls of a stream together from their pieces.

    OpenAI's pieces name their call by `index`. One without an index begins a call if it has a name,
    else goes on with the last.
    """

    def __init__(self) -> None:
        self._calls: dict[int, tuple[ToolCall, OpenAIFunction]] = {}

    def add(self, piece: ToolCall) -> None:
        """Take a piece."""
        function = piece.function or OpenAIFunction()
        index = piece.index
        if index is None:
            last = max(self._calls, default=-1)
            index = last + 1 if function.name or last < 0 else last
        whole, held = self._calls.setdefault(index, (ToolCall(), OpenAIFunction(arguments="")))
        whole.function = held
        whole.id = whole.id or piece.id
        held.name = held.name or function.name
        held.arguments = f"{held.arguments}{function.arguments or ''}"

    def take(self) -> list[ToolCall]:
        """Return the calls in the order in which they began, and forget them."""
        calls = [whole for whole, _ in self._calls.values()]
        self._calls = {}
        return calls


class Metrics(msgspec.Struct, omit_defaults=True):
    """Figures of the last line; durations in nanoseconds."""

    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


def timestamp(nanoseconds: int) -> str:
    """Return a time since the epoch as RFC 3339 in UTC, as Go writes it: no zeros at the end."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


def line(  # noqa: PLR0913 - the fields of one answer
    *,
    model: str,
    created_at: str,
    chat: bool,
    text: str = "",
    thinking: str = "",
    calls: list[Call] | None = None,
    done_reason: str = "",
    logprobs: list[Any] | None = None,
    metrics: Metrics | None = None,
) -> bytes:
    """Return one answer of `/api/chat` or `/api/generate`; it is the last when it has a reason."""
    out: dict[str, Any] = {"model": model, "created_at": created_at}
    holder = out
    if chat:
        holder = out["message"] = {"role": "assistant"}
    holder["content" if chat else "response"] = text
    if thinking:
        holder["thinking"] = thinking
    if calls:
        holder["tool_calls"] = calls
    out["done"] = bool(done_reason)
    if done_reason:
        out["done_reason"] = done_reason
    if logprobs:
        out["logprobs"] = logprobs
    if metrics is not None:
        out.update(msgspec.to_builtins(metrics))
    return msgspec.json.encode(out)


class Calls(NamedTuple):
    """What became of a message's tool calls."""

    whole: list[Call]
    text: str
    """Those whose arguments are no JSON object, as where the length cut the model short: text, as
    Ollama's own parser leaves them."""


def calls_from_openai(calls: list[ToolCall]) -> Calls:
    """Return the tool calls of a message."""
    whole: list[Call] = []
    text = ""
    for call in calls:
        function = call.function or OpenAIFunction()
        name, written = function.name or "", function.arguments or "{}"
        try:
            arguments = msgspec.json.decode(written, type=dict[str, Any])
        except (ValueError, RecursionError):
            text += f'{{"name": {_quoted(name)}, "arguments": {written}'
            continue
        made = Function(index=len(whole), name=name, arguments=arguments)
        whole.append(Call(id=call.id or "", function=made))
    return Calls(whole, text)


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()


def logprobs_from_openai(logprobs: dict[str, Any] | None) -> list[Any]:
    """Return log probabilities as Ollama has them: token, logprob, bytes and the alternatives.

    Ollama's are those of OpenAI's chat completions (recorded: chat_logprobs); llama.cpp writes them
    so for `/v1/completions` as well. OpenAI's reference of that path has parallel lists (`tokens`,
    `token_logprobs`, `top_logprobs`), which vLLM follows.
    """
    if not logprobs:
        return []
    content = logprobs.get("content")
    if isinstance(content, list):
        return [_token(item, alternatives=True) for item in content if isinstance(item, dict)]
    return _from_lists(logprobs)


def _token(item: dict[str, Any], *, alternatives: bool) -> dict[str, Any]:
    out = {key: item[key] for key in ("token", "logprob", "bytes") if item.get(key) is not None}
    top = item.get("top_logprobs")
    if alternatives and isinstance(top, list) and top:
        out["top_logprobs"] = [
            _token(one, alternatives=False) for one in top if isinstance(one, dict)
        ]
    return out


def _from_lists(logprobs: dict[str, Any]) -> list[Any]:
    tokens, values, tops = (
        value if isinstance(value := logprobs.get(key), list) else []
        for key in ("tokens", "token_logprobs", "top_logprobs")
    )
    out = []
    for at, (token, value) in enumerate(zip(tokens, values, strict=False)):
        entry: dict[str, Any] = {"token": token, "logprob": value}
        if at < len(tops) and isinstance(tops[at], dict):
            entry["top_logprobs"] = [
                {"token": name, "logprob": number} for name, number in tops[at].items()
            ]
        out.append(entry)
    return out
