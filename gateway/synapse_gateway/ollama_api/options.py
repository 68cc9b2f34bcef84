"""The `options` of a request, and the OpenAI fields that mean the same.

Names and types are those of api/types.go (`Options`, `Runner`) in Ollama 0.17.4. An option that is
not given is left to the backend's own default; Ollama's defaults (temperature 0.8, top_k 40 ...)
are not imposed on other engines.
"""

from __future__ import annotations

import msgspec

Number = int | float | None


class Options(msgspec.Struct):
    """Options that Ollama knows; others are ignored, as it does (recorded: chat_unknown_option)."""

    temperature: Number = None
    top_p: Number = None
    top_k: Number = None
    min_p: Number = None
    typical_p: Number = None
    seed: Number = None
    num_predict: Number = None
    stop: list[str] | None = None
    repeat_penalty: Number = None
    repeat_last_n: Number = None
    presence_penalty: Number = None
    frequency_penalty: Number = None
    # What follows belongs to how Ollama loads a model; it is checked and goes no further.
    num_keep: Number = None
    num_ctx: Number = None
    num_batch: Number = None
    num_gpu: Number = None
    main_gpu: Number = None
    num_thread: Number = None
    use_mmap: bool | None = None


class Sampling(msgspec.Struct, omit_defaults=True):
    """The part of an OpenAI body that `Options` decides.

    OpenAI's own names where there are any; else those of llama.cpp's server, and
    `repetition_penalty` besides for vLLM and SGLang, which call `repeat_penalty` so. llama.cpp
    ignores names that it does not know (recorded: v1_chat_sampling).
    """

    temperature: Number = None
    top_p: Number = None
    top_k: Number = None
    min_p: Number = None
    typical_p: Number = None
    seed: Number = None
    max_tokens: Number = None
    stop: list[str] | None = None
    repeat_penalty: Number = None
    repetition_penalty: Number = None
    repeat_last_n: Number = None
    presence_penalty: Number = None
    frequency_penalty: Number = None


def to_sampling(options: Options) -> Sampling:
    """Return what an OpenAI body says for these options.

    Ollama takes whole numbers from fractions by cutting them off. `num_predict` of 0 or less means
    no limit (recorded: chat_num_predict_zero), a negative `seed` a random one: neither has an
    OpenAI value, so the field is left out.
    """
    limit, seed = _whole(options.num_predict), _whole(options.seed)
    return Sampling(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=_whole(options.top_k),
        min_p=options.min_p,
        typical_p=options.typical_p,
        seed=seed if seed is not None and seed >= 0 else None,
        max_tokens=limit if limit is not None and limit > 0 else None,
        stop=options.stop or None,
        repeat_penalty=options.repeat_penalty,
        repetition_penalty=options.repeat_penalty,
        repeat_last_n=_whole(options.repeat_last_n),
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
    )


def _whole(value: Number) -> int | None:
    return None if value is None else int(value)
