"""Backends: one adapter a kind, which knows how that kind is probed and how it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_gateway.backends.chatterbox import Chatterbox
from synapse_gateway.backends.deepfilter import Deepfilter
from synapse_gateway.backends.faster_whisper import FasterWhisper
from synapse_gateway.backends.litellm import Litellm
from synapse_gateway.backends.llamacpp import LlamaCpp
from synapse_gateway.backends.ollama import Ollama
from synapse_gateway.backends.openai_compatible import OpenAICompatible
from synapse_gateway.backends.openvoice import OpenVoice
from synapse_gateway.backends.piper import Piper
from synapse_gateway.backends.pyannote import Pyannote
from synapse_gateway.backends.sglang import Sglang
from synapse_gateway.backends.speaches import Speaches
from synapse_gateway.backends.tensorrt_llm import TensorrtLlm
from synapse_gateway.backends.vllm import Vllm
from synapse_gateway.config.settings import BackendType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_gateway.backends.base import Adapter

__all__ = ["ADAPTERS", "adapter"]

ADAPTERS: Mapping[BackendType, type[OpenAICompatible]] = {
    BackendType.OPENAI_COMPATIBLE: OpenAICompatible,
    BackendType.OLLAMA: Ollama,
    BackendType.VLLM: Vllm,
    BackendType.LLAMACPP: LlamaCpp,
    BackendType.SGLANG: Sglang,
    BackendType.TENSORRT_LLM: TensorrtLlm,
    BackendType.LITELLM: Litellm,
    BackendType.SPEACHES: Speaches,
    BackendType.FASTER_WHISPER: FasterWhisper,
    BackendType.PIPER: Piper,
    BackendType.OPENVOICE: OpenVoice,
    BackendType.CHATTERBOX: Chatterbox,
    BackendType.PYANNOTE: Pyannote,
    BackendType.DEEPFILTER: Deepfilter,
}


def adapter(kind: BackendType) -> Adapter:
    """Return the adapter that speaks to a kind of backend."""
    return ADAPTERS[kind]()
