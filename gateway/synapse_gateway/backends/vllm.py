"""vLLM's OpenAI-compatible server.

Not run: no build of vLLM for this kind of machine can be installed from a public registry. Proven
against what its own documentation and issues show, kept with their addresses in
`gateway/tests/exchanges/vllm/`: metrics (https://docs.vllm.ai/en/latest/usage/metrics/), sleep mode
(https://docs.vllm.ai/en/latest/features/sleep_mode/), and the texts of refusals
(https://github.com/vllm-project/vllm/issues/20409 and
https://github.com/harbor-framework/harbor/pull/996 for the text of 0.16 to 0.19).

Probe: `/health` (500 or 503 once the engine is dead), `/v1/models` (`max_model_len`), `/metrics`
(requests running and waiting, sleep state), `/version`. `/is_sleeping`, which the server only has
with `VLLM_SERVER_DEV_MODE=1`, is asked where the metrics do not tell. A request to a sleeping vLLM
neither fails nor answers, so its state must be known before one is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Capability, Probe, Refusal
from synapse_gateway.backends.exposition import read_gauges, read_labelled
from synapse_gateway.backends.openai_compatible import PASSED_THROUGH, TEXT, OpenAICompatible

if TYPE_CHECKING:
    from synapse_gateway.backends.base import DiscoveredModel, Http, Reply

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
SLEEP_STATE = "vllm:engine_sleep_state"


class Vllm(OpenAICompatible):
    """Adapter for `vllm`."""

    capabilities = TEXT | PASSED_THROUGH | {Capability.TRANSCRIPTIONS, Capability.TRANSLATIONS}
    health_path = "/health"
    context_field = "max_model_len"
    context_phrases = (
        "maximum context length",
        "the model's context length is only",
        "longer than the maximum model length",
    )

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        """Say what an error answer means; an unknown model has a type and words of its own."""
        error = answers.error_of(body)
        if error.kind == "NotFoundError" and "does not exist" in error.message:
            return Refusal.MODEL_NOT_FOUND
        return super().refusal(status, body)

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Add load, sleep and version."""
        found = await answers.ask_if_there(http, "/metrics")
        exposition = found.body if found is not None else b""
        gauges = read_gauges(exposition, (RUNNING, WAITING))
        asleep = await self._asleep(http, exposition)
        if asleep and models:
            models = tuple(msgspec.structs.replace(model, state="warm") for model in models)
        return Probe(
            up=True,
            status=reply.status,
            detail="asleep" if asleep else "ok",
            models=models,
            busy=int(gauges[RUNNING]) if RUNNING in gauges else None,
            waiting=int(gauges[WAITING]) if WAITING in gauges else None,
            asleep=asleep,
            version=await self._version(http),
        )

    async def _asleep(self, http: Http, exposition: bytes) -> bool:
        awake = read_labelled(exposition, SLEEP_STATE, b'sleep_state="awake"')
        if awake is not None:
            return awake == 0
        found = await answers.ask_if_there(http, "/is_sleeping")
        if found is None:
            return False
        return answers.mapping(answers.parse(found.body)).get("is_sleeping") is True

    async def _version(self, http: Http) -> str:
        found = await answers.ask_if_there(http, "/version")
        if found is None:
            return ""
        return answers.text(answers.mapping(answers.parse(found.body)).get("version"))
