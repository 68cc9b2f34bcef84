"""TensorRT-LLM's `trtllm-serve`.

Not run: it needs an NVIDIA GPU. Proven against its source,
https://github.com/NVIDIA/TensorRT-LLM/blob/main/tensorrt_llm/serve/openai_server.py, from which the
answers in `gateway/tests/exchanges/tensorrt-llm/` are taken, and
https://github.com/NVIDIA/TensorRT-LLM/issues/9277 for the text of a prompt too long.

Probe: `/health`, `/v1/models`, `/version`. Its `/metrics` is not read: it hands out the engine's
iteration statistics once, so a probe would take them from whoever collects them; `/health_generate`
generates a token. It tells nothing of its queue, so the gateway's own count decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Capability, Probe
from synapse_gateway.backends.openai_compatible import OpenAICompatible

if TYPE_CHECKING:
    from synapse_gateway.backends.base import DiscoveredModel, Http, Reply


class TensorrtLlm(OpenAICompatible):
    """Adapter for `tensorrt-llm`."""

    capabilities = frozenset({Capability.CHAT, Capability.COMPLETIONS, Capability.RESPONSES})
    health_path = "/health"
    context_phrases = ("should not exceed max_num_tokens", "larger than max_seq_len")

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Add the version."""
        found = await answers.ask_if_there(http, "/version")
        version = answers.mapping(answers.parse(found.body)).get("version") if found else None
        return Probe(
            up=True, status=reply.status, detail="ok", models=models, version=answers.text(version)
        )
