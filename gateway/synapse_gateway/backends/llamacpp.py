"""llama.cpp's HTTP server (`llama-server`, or the same server inside a Python process).

Proven against: the real server of xllamacpp 2026.10.11549 with SmolLM2-135M and all-MiniLM-L6-v2;
its answers are kept in `gateway/tests/exchanges/llamacpp/` (made by `record_probes.py` there), and
`gateway/tests/backends/test_real_llamacpp.py` fills its two slots. The router's list of models
(`status.value`) is read as its sources have it:
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/server-models.h (not run here).

Probe, none of which generates a token: `/health` (503 while the model loads), `/props` (slots,
context, whether it sleeps), `/v1/models`, `/metrics` (running and deferred requests). `/slots` is
only read when the server was started without `--metrics`: reading it counts as work, so a server
with `--sleep-idle-seconds` would never sleep, and one that sleeps wakes. The others leave it alone
(seen on the real server). A sleeping server wakes by itself with the next request, in about a
second, so it is not reported asleep; its models are `cold`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Capability, DiscoveredModel, ModelFile, Probe, Refusal
from synapse_gateway.backends.exposition import read_gauges
from synapse_gateway.backends.openai_compatible import PASSED_THROUGH, TEXT, OpenAICompatible

if TYPE_CHECKING:
    from synapse_gateway.backends.base import Http, Reply

PROCESSING = "llamacpp:requests_processing"
DEFERRED = "llamacpp:requests_deferred"
_ROUTER_STATES = {"loaded": "hot", "loading": "cold", "unloaded": "cold", "sleeping": "cold"}


class Load(NamedTuple):
    """What the engine has to do."""

    busy: int | None = None
    waiting: int | None = None


class LlamaCpp(OpenAICompatible):
    """Adapter for `llamacpp`."""

    capabilities = TEXT | PASSED_THROUGH | frozenset({Capability.TRANSCRIPTIONS})
    health_path = "/health"
    context_phrases = ("exceeds the available context size", "is too large to process")
    busy_phrases = ("loading model",)
    invalid_phrases = (
        "failed to parse tools",
        "failed to parse messages",
        "unknown reasoning format",
        "cannot use both json_schema and grammar",
    )
    unsupported_phrases = (
        "input is not supported",  # an image or audio for a text model
        "does not support logits computation",  # text from an embedding model
    )

    async def models(
        self, http: Http, reply: Reply, *, listed: bool
    ) -> tuple[DiscoveredModel, ...] | None:
        """Return the models; of a router, each with its own state."""
        del reply, listed
        found = await answers.ask_if_there(http, "/v1/models")
        if found is None:
            return None
        data = answers.items(answers.mapping(answers.parse(found.body)).get("data"))
        return tuple(_model(item) for item in data if isinstance(item.get("id"), str)) or None

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Add slots, load and sleep."""
        found = await answers.ask_if_there(http, "/props")
        props = answers.mapping(answers.parse(found.body)) if found is not None else {}
        sleeping = props.get("is_sleeping") is True
        slots = answers.number(props.get("total_slots"))
        load = Load()
        if slots and not sleeping:
            load = await self._load(http, props, slots)
        if sleeping and models:
            models = tuple(msgspec.structs.replace(model, state="cold") for model in models)
        return Probe(
            up=True,
            status=reply.status,
            detail="asleep; the next request wakes it" if sleeping else "ok",
            models=models,
            slots=slots or None,
            busy=load.busy,
            waiting=load.waiting,
            version=answers.text(props.get("build_info")),
        )

    async def _load(self, http: Http, props: dict[str, Any], slots: int) -> Load:
        if props.get("endpoint_metrics") is not False:
            try:
                reply = await answers.ask(http, "/metrics", timeout=answers.EXTRA_TIMEOUT)
            except answers.Unreachable as error:
                # It is served between two batches only, so a late answer means a busy engine.
                late = isinstance(error.__cause__, TimeoutError)
                return Load(busy=slots) if late else Load()
            gauges = read_gauges(reply.body, (PROCESSING, DEFERRED)) if reply.status == 200 else {}
            if PROCESSING in gauges:
                deferred = gauges.get(DEFERRED)
                return Load(int(gauges[PROCESSING]), None if deferred is None else int(deferred))
        if props.get("endpoint_slots") is False:
            return Load()
        found = await answers.ask_if_there(http, "/slots")
        if found is None:
            return Load()
        listed = answers.items(answers.parse(found.body))
        return Load(sum(slot.get("is_processing") is True for slot in listed))

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        """Say what an error answer means; a prompt too long has a type of its own."""
        if answers.error_of(body).kind == "exceed_context_size_error":
            return Refusal.CONTEXT_EXCEEDED
        return super().refusal(status, body)


def _model(item: dict[str, Any]) -> DiscoveredModel:
    meta = answers.mapping(item.get("meta"))
    status = answers.mapping(item.get("status")).get("value")
    return DiscoveredModel(
        id=item["id"],
        state=_ROUTER_STATES.get(status, "hot") if isinstance(status, str) else "hot",
        context=answers.number(meta.get("n_ctx")),
        size=answers.number(meta.get("size")),
        file=ModelFile(
            size=answers.number(meta.get("size")) or 0,
            format="gguf",
            parameter_size=_in_words(answers.number(meta.get("n_params"))),
        ),
    )


def _in_words(parameters: int | None) -> str:
    """Write a number of parameters as Ollama does (format.HumanNumber), such as `134.52M`."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters and parameters >= size:
            return f"{parameters / size:.2f}".rstrip("0").rstrip(".") + unit
    return ""
