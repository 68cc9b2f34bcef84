"""Each adapter makes of its kind's recorded answers what the gateway needs to know.

What the recordings are and where they come from: `gateway/tests/exchanges/README.md`.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.backends import ADAPTERS, adapter
from synapse_gateway.backends.base import Capability, Refusal, Reply
from synapse_gateway.config.settings import BackendType
from tests.backends.support import Recorded, recorded

LLAMACPP = {
    "/health": "health",
    "/props": "props",
    "/v1/models": "v1_models",
    "/metrics": "metrics",
    "/slots": "slots",
}
VLLM = {"/health": "health", "/v1/models": "v1_models", "/metrics": "metrics"}
OLLAMA = {"/api/version": "version", "/api/tags": "tags", "/api/ps": "ps_loaded"}
GENERATING = {"/health_generate", "/v1/chat/completions", "/v1/completions", "/generate"}


def test_every_kind_has_an_adapter() -> None:
    assert set(ADAPTERS) == set(BackendType)


# -- llama.cpp


async def test_llamacpp_tells_slots_context_and_load() -> None:
    http = Recorded("llamacpp", {**LLAMACPP, "/metrics": "metrics_busy"})

    probe = await adapter(BackendType.LLAMACPP).probe(http, None)

    assert (probe.up, probe.status, probe.slots, probe.busy) == (True, 200, 2, 2)
    assert probe.waiting is not None
    assert probe.waiting > 0
    assert probe.models is not None
    assert probe.models[0].state == "hot"
    assert probe.models[0].context == 512
    assert "/slots" not in http.asked, "reading /slots keeps an idle server from going to sleep"


async def test_llamacpp_without_metrics_tells_its_load_by_slots() -> None:
    http = Recorded("llamacpp", {**LLAMACPP, "/metrics": None, "/slots": "slots_busy"})  # type: ignore[dict-item]

    probe = await adapter(BackendType.LLAMACPP).probe(http, None)

    assert (probe.busy, probe.waiting) == (2, None)


async def test_llamacpp_that_is_late_with_its_metrics_is_taken_for_busy() -> None:
    http = Recorded("llamacpp", {**LLAMACPP, "/metrics": TimeoutError()})

    probe = await adapter(BackendType.LLAMACPP).probe(http, None)

    assert (probe.up, probe.busy, probe.waiting) == (True, 2, None)


async def test_llamacpp_asleep_is_up_and_left_alone() -> None:
    sleeping = {"/props": "props_sleeping", "/v1/models": "v1_models_sleeping"}
    http = Recorded("llamacpp", {**LLAMACPP, **sleeping, "/health": "health_sleeping"})

    probe = await adapter(BackendType.LLAMACPP).probe(http, None)

    assert (probe.up, probe.asleep, probe.busy) == (True, False, None), "a request wakes it"
    assert probe.detail == "asleep; the next request wakes it"
    assert probe.models is not None
    assert [model.state for model in probe.models] == ["cold"]
    assert {"/metrics", "/slots"}.isdisjoint(http.asked)


async def test_llamacpp_that_loads_is_down_and_says_so() -> None:
    http = Recorded("llamacpp", {"/health": "health_loading"})

    probe = await adapter(BackendType.LLAMACPP).probe(http, None)

    assert (probe.up, probe.status) == (False, 503)
    assert probe.detail == "answers with status 503: Loading model"


async def test_llamacpp_router_tells_the_state_of_each_model() -> None:
    class Router(Recorded):
        async def request(self, method: str, path: str, **more: Any) -> Reply:
            if path == "/v1/models":
                body = (
                    b'{"data":[{"id":"a","status":{"value":"loaded"}},{"id":"b","status":{"value":'
                    b'"unloaded"}},{"id":"c","status":{"value":"sleeping"}}],"object":"list"}'
                )
                return Reply(200, {}, body)
            return await super().request(method, path, **more)

    probe = await adapter(BackendType.LLAMACPP).probe(
        Router("llamacpp", {"/health": "health"}), None
    )

    assert probe.models is not None
    assert [(model.id, model.state) for model in probe.models] == [
        ("a", "hot"),
        ("b", "cold"),
        ("c", "cold"),
    ]
    assert (probe.slots, probe.busy) == (None, None)


# -- vLLM


async def test_vllm_tells_load_and_context() -> None:
    probe = await adapter(BackendType.VLLM).probe(
        Recorded("vllm", {**VLLM, "/version": "version"}), None
    )

    assert (probe.up, probe.busy, probe.waiting, probe.asleep) == (True, 3, 5, False)
    assert probe.models is not None
    assert probe.models[0].context == 32768
    assert probe.version == "0.20.0"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"/metrics": "metrics_sleeping"}, id="by-metrics"),
        pytest.param({"/metrics": None, "/is_sleeping": "is_sleeping"}, id="by-is_sleeping"),
    ],
)
async def test_vllm_asleep_is_known_before_a_request_hangs(more: dict[str, Any]) -> None:
    probe = await adapter(BackendType.VLLM).probe(Recorded("vllm", {**VLLM, **more}), None)

    assert (probe.up, probe.asleep, probe.detail) == (True, True, "asleep")
    assert probe.models is not None
    assert probe.models[0].state == "warm"


async def test_vllm_is_awake_where_nothing_tells() -> None:
    http = Recorded("vllm", {"/health": "health", "/v1/models": "v1_models"})

    probe = await adapter(BackendType.VLLM).probe(http, None)

    assert (probe.asleep, probe.busy, probe.waiting) == (False, None, None)


# -- Ollama


async def test_ollama_tells_which_models_are_loaded_and_where() -> None:
    probe = await adapter(BackendType.OLLAMA).probe(Recorded("ollama", OLLAMA), None)

    models = {model.id: model for model in probe.models or ()}
    assert probe.version == "0.17.4"
    assert models["smollm2:latest"].state == "hot"
    assert models["smollm2:latest"].context == 4096
    assert (models["smollm2:latest"].size or 0) > (models["smollm2:latest"].size_vram or 0)
    assert models["all-minilm:latest"].state == "cold"
    assert models["all-minilm:latest"].size is None


# -- SGLang


async def test_sglang_tells_load_and_settled_slots() -> None:
    answers = {"/v1/models": "v1_models", "/server_info": "server_info", "/metrics": "metrics"}
    http = Recorded("sglang", answers)

    probe = await adapter(BackendType.SGLANG).probe(http, None)

    assert (probe.busy, probe.waiting, probe.slots) == (162, 2826, 128)
    assert probe.version == "0.5.9"
    assert "/health" not in http.asked, "its /health generates a token"


async def test_sglang_before_the_renaming_tells_too() -> None:
    answers = {"/v1/models": "v1_models", "/get_server_info": "server_info"}

    probe = await adapter(BackendType.SGLANG).probe(Recorded("sglang", answers), None)

    assert (probe.slots, probe.busy) == (128, None)


# -- others


async def test_tensorrt_llm_keeps_its_statistics() -> None:
    answers = {"/health": "health", "/v1/models": "v1_models", "/version": "version"}
    http = Recorded("tensorrt-llm", answers)

    probe = await adapter(BackendType.TENSORRT_LLM).probe(http, None)

    assert (probe.up, probe.version) == (True, "1.2.0rc2")
    assert "/metrics" not in http.asked, "reading them takes them from whoever collects them"


async def test_litellm_calls_no_model() -> None:
    http = Recorded("litellm", {"/health/liveliness": "liveliness", "/v1/models": "v1_models"})

    probe = await adapter(BackendType.LITELLM).probe(http, None)

    assert probe.up
    assert [model.id for model in probe.models or ()] == ["smollm2", "dead"]
    assert "/health" not in http.asked, "its /health calls every model"


async def test_speaches_tells_what_each_model_does() -> None:
    answers = {"/health": "health", "/v1/models": "v1_models", "/api/ps": "ps"}

    probe = await adapter(BackendType.SPEACHES).probe(Recorded("speaches", answers), None)

    whisper, kokoro = probe.models or ()
    assert (whisper.state, kokoro.state) == ("hot", "cold")
    assert whisper.capabilities == {Capability.TRANSCRIPTIONS, Capability.TRANSLATIONS}
    assert kokoro.capabilities == {Capability.SPEECH}


@pytest.mark.parametrize(
    ("health", "answer", "up"),
    [
        (None, {"/api/model-info": "model_info"}, True),
        (None, {"/api/model-info": "model_info_unloaded"}, False),
        ("/api/ui/initial-data", {"/api/ui/initial-data": "initial_data"}, True),
    ],
)
async def test_chatterbox_is_up_when_its_model_is_loaded(
    health: str | None, answer: dict[str, str], *, up: bool
) -> None:
    probe = await adapter(BackendType.CHATTERBOX).probe(Recorded("chatterbox", answer), health)

    assert (probe.up, probe.status) == (up, 200)
    assert probe.languages == (("en", "English"),)
    assert probe.voices == ()


async def test_chatterbox_tells_its_voices() -> None:
    answers = {"/api/model-info": "model_info", "/v1/audio/voices": "v1_voices"}
    probe = await adapter(BackendType.CHATTERBOX).probe(Recorded("chatterbox", answers), None)

    assert probe.voices == ("Abigail.wav", "Emily.wav")


@pytest.mark.parametrize("kind", [BackendType.FASTER_WHISPER, BackendType.PIPER])
async def test_our_own_servers_tell_what_computes_and_what_waits(kind: BackendType) -> None:
    class Server(Recorded):
        async def request(self, method: str, path: str, **more: Any) -> Reply:
            bodies = {
                "/health": b'{"status":"ok"}',
                "/metrics": b"synapse_backend_requests_in_flight 5.0\n"
                b"synapse_backend_requests_queued 3.0\n",
                "/languages": b'[{"code": "en", "name": "English"}, {"code": "es"}, 5, {}]',
            }
            if path in bodies:
                return Reply(200, {}, bodies[path])
            return await super().request(method, path, **more)

    probe = await adapter(kind).probe(Server("none", {}), None)

    assert (probe.up, probe.busy, probe.waiting) == (True, 2, 3)
    speaks = kind is BackendType.PIPER
    assert probe.languages == ((("en", "English"), ("es", "es")) if speaks else ())


async def test_a_plain_openai_server_is_probed_by_its_models() -> None:
    http = Recorded("llamacpp", LLAMACPP)

    probe = await adapter(BackendType.OPENAI_COMPATIBLE).probe(http, None)

    assert probe.up
    assert http.asked == ["/v1/models"]
    assert [model.id for model in probe.models or ()]


async def test_a_configured_health_path_decides() -> None:
    http = Recorded("llamacpp", {"/mine": "health_loading", **LLAMACPP})

    probe = await adapter(BackendType.OPENAI_COMPATIBLE).probe(http, "/mine")

    assert (probe.up, probe.status) == (False, 503)
    assert http.asked == ["/mine"]


async def test_a_server_without_a_model_list_is_asked_for_its_health() -> None:
    http = Recorded("llamacpp", {"/health": "health"})

    probe = await adapter(BackendType.OPENAI_COMPATIBLE).probe(http, None)

    assert (probe.up, probe.models) == (True, None)


# -- every kind


@pytest.mark.parametrize("kind", list(BackendType))
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 9)"), "connection refused"),
        (ConnectionResetError(), "connection reset"),
        (TimeoutError(), "no answer in time"),
        (socket.gaierror(-2, "Name or service not known"), "name does not resolve"),
        (ssl.SSLCertVerificationError("host.internal"), "TLS failed"),
        (OSError(113, "No route to host: 10.1.2.3"), "connection failed"),
    ],
)
async def test_an_unreachable_backend_is_down_in_words_without_address(
    kind: BackendType, error: OSError, words: str
) -> None:
    every = dict.fromkeys(
        ("/health", "/v1/models", "/api/version", "/health/liveliness", "/api/model-info"), error
    )

    probe = await adapter(kind).probe(Recorded("none", every), None)

    assert (probe.up, probe.status, probe.detail) == (False, 0, words)


@pytest.mark.parametrize("kind", list(BackendType))
async def test_a_refused_key_is_said(kind: BackendType) -> None:
    class Guarded(Recorded):
        async def request(self, method: str, path: str, **more: Any) -> Reply:
            return Reply(401, {}, b'{"error":{"message":"bad key"}}')

    probe = await adapter(kind).probe(Guarded("none", {}), None)

    assert (probe.up, probe.status) == (False, 401)
    assert probe.detail == "refuses the gateway's key with status 401: bad key"


@given(body=st.one_of(st.binary(), st.sampled_from([b"[]", b'{"data":7}', b'{"data":[{"id":7}]}'])))
@pytest.mark.parametrize("kind", list(BackendType))
def test_nonsense_in_every_answer_is_survived(kind: BackendType, body: bytes) -> None:
    class Nonsense(Recorded):
        async def request(self, method: str, path: str, **more: Any) -> Reply:
            self.asked.append(path)
            return Reply(200, {}, body)

    http = Nonsense("none", {})
    coroutine = adapter(kind).probe(http, None)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)  # nothing in it waits

    assert done.value.value.status == 200
    assert GENERATING.isdisjoint(http.asked)


# -- refusals


@pytest.mark.parametrize(
    ("kind", "folder", "name", "meaning"),
    [
        ("llamacpp", "llamacpp", "v1_chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("llamacpp", "llamacpp", "v1_chat_stream_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("llamacpp", "llamacpp", "v1_embeddings_too_long", Refusal.CONTEXT_EXCEEDED),
        ("llamacpp", "llamacpp", "health_loading", Refusal.OVERLOADED),
        ("llamacpp", "llamacpp", "v1_chat_image", Refusal.NOT_SUPPORTED),
        ("llamacpp", "llamacpp", "v1_chat_on_embedding_model", Refusal.NOT_SUPPORTED),
        ("llamacpp", "llamacpp", "v1_chat_wrong_type", None),
        ("llamacpp", "llamacpp", "v1_embeddings_on_chat_model", None),
        ("openai-compatible", "llamacpp", "v1_chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("openai-compatible", "vllm", "v1_chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("openai-compatible", "sglang", "v1_chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("ollama", "ollama", "v1_chat_unknown_model", Refusal.MODEL_NOT_FOUND),
        ("ollama", "ollama", "chat_unknown_model", Refusal.MODEL_NOT_FOUND),
        ("ollama", "ollama", "unknown_path", None),
        ("ollama", "ollama", "v1_embeddings_queue_full", Refusal.OVERLOADED),
        ("ollama", "ollama", "embed_queue_full", Refusal.OVERLOADED),
        ("ollama", "ollama", "chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("ollama", "ollama", "chat_bad_option", Refusal.INVALID_REQUEST),
        ("ollama", "ollama", "chat_bad_format", Refusal.INVALID_REQUEST),
        ("ollama", "ollama", "chat_runner_killed", None),
        ("ollama", "ollama", "embed_no_input", Refusal.INVALID_REQUEST),
        ("ollama", "ollama", "v1_embeddings_no_input", Refusal.INVALID_REQUEST),
        ("litellm", "litellm", "v1_chat_unknown_model", Refusal.MODEL_NOT_FOUND),
        ("litellm", "litellm", "v1_chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("litellm", "litellm", "v1_chat_wrong_key", Refusal.CREDENTIALS),
        ("litellm", "litellm", "v1_chat_dead_backend", None),
        ("vllm", "vllm", "v1_chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("vllm", "vllm", "v1_chat_context_exceeded_0_16", Refusal.CONTEXT_EXCEEDED),
        ("vllm", "vllm", "v1_chat_unknown_model", Refusal.MODEL_NOT_FOUND),
        ("sglang", "sglang", "v1_chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("sglang", "sglang", "v1_chat_queue_full", Refusal.OVERLOADED),
        ("tensorrt-llm", "tensorrt-llm", "v1_chat_context_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("speaches", "speaches", "v1_transcriptions_unknown_model", Refusal.MODEL_NOT_FOUND),
        ("chatterbox", "chatterbox", "v1_speech_unloaded", Refusal.OVERLOADED),
    ],
)
def test_refusals_mean(kind: str, folder: str, name: str, meaning: Refusal | None) -> None:
    answer = recorded(folder, name)

    assert adapter(BackendType(kind)).refusal(answer.status, answer.body) is meaning


@pytest.mark.parametrize("kind", list(BackendType))
@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("context_length_exceeded", Refusal.CONTEXT_EXCEEDED),
        ("model_not_found", Refusal.MODEL_NOT_FOUND),
        ("invalid_api_key", Refusal.CREDENTIALS),
        ("rate_limit_exceeded", None),
    ],
)
def test_openai_codes_mean_the_same_everywhere(
    kind: BackendType, code: str, meaning: Refusal | None
) -> None:
    body = f'{{"error":{{"message":"words","type":"t","param":null,"code":"{code}"}}}}'.encode()

    assert adapter(kind).refusal(400, body) is meaning


@given(status=st.integers(400, 599), body=st.binary())
@pytest.mark.parametrize("kind", list(BackendType))
def test_any_error_body_is_survived(kind: BackendType, status: int, body: bytes) -> None:
    adapter(kind).refusal(status, body)


@pytest.mark.parametrize("kind", list(BackendType))
def test_openai_paths_are_the_backends_own(kind: BackendType) -> None:
    assert adapter(kind).upstream_path("/v1/chat/completions") == "/v1/chat/completions"
