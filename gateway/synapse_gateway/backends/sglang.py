"""SGLang's runtime server.

Not run: it needs a GPU. Proven against what its documentation and issues show, kept with their
addresses in `gateway/tests/exchanges/sglang/`: native API
(https://docs.sglang.io/docs/basic_usage/native_api.md), metrics
(https://docs.sglang.io/docs/references/production_metrics.md), the text of a prompt too long
(https://github.com/QwenLM/Qwen3/issues/1321).

Probe: `/v1/models` (`max_model_len`), then `/server_info` (`/get_server_info` before it was
renamed) for slots and version, and `/metrics`, which exist with `--enable-metrics`. `/health` is
NOT probed: unless the server is started with `SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0` it
generates a token (python/sglang/srt/entrypoints/http_server.py). Where that is set, `health:
/health` may be configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Probe
from synapse_gateway.backends.exposition import read_gauges
from synapse_gateway.backends.openai_compatible import PASSED_THROUGH, TEXT, OpenAICompatible

if TYPE_CHECKING:
    from synapse_gateway.backends.base import DiscoveredModel, Http, Reply

RUNNING = "sglang:num_running_reqs"
QUEUED = "sglang:num_queue_reqs"


class Sglang(OpenAICompatible):
    """Adapter for `sglang`."""

    capabilities = TEXT | PASSED_THROUGH
    context_field = "max_model_len"
    context_phrases = ("longer than the model's context length", "maximum context length")
    busy_phrases = ("the request queue is full",)

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Add slots, load and version."""
        info = await self._info(http)
        found = await answers.ask_if_there(http, "/metrics")
        gauges = read_gauges(found.body, (RUNNING, QUEUED)) if found is not None else {}
        return Probe(
            up=True,
            status=reply.status,
            detail="ok",
            models=models,
            slots=_slots(info),
            busy=int(gauges[RUNNING]) if RUNNING in gauges else None,
            waiting=int(gauges[QUEUED]) if QUEUED in gauges else None,
            version=answers.text(info.get("version")),
        )

    async def _info(self, http: Http) -> dict[str, Any]:
        for path in ("/server_info", "/get_server_info"):
            found = await answers.ask_if_there(http, path)
            if found is not None:
                return answers.mapping(answers.parse(found.body))
        return {}


def _slots(info: dict[str, Any]) -> int | None:
    """Return what the scheduler settled on, which is often less than what was asked for."""
    settled = [
        answers.number(state.get("effective_max_running_requests_per_dp")) or 0
        for state in answers.items(info.get("internal_states"))
    ]
    return sum(settled) or answers.number(info.get("max_running_requests")) or None
