"""Ways to be wrong, and the lines that each must fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.meta_tests.fakes import Passing

DONE = b"data: [DONE]\n\n"


class Defect(NamedTuple):
    """A way to be wrong.

    Attributes:
        name: What it is called.
        spoil: What it does to answers.
        lines: The lines that fail by it, and no others.
    """

    name: str
    spoil: Callable[[Passing], None]
    lines: set[str]


def _chats(passing: Passing) -> bool:
    return passing.path == "/v1/chat/completions" and passing.status == 200


def two_ends(passing: Passing) -> None:
    if _chats(passing) and passing.streams:
        passing.replace(DONE, DONE + DONE)


def no_end(passing: Passing) -> None:
    if _chats(passing) and passing.streams:
        passing.replace(DONE, b"")


def a_word_is_lost(passing: Passing) -> None:
    if _chats(passing) and passing.streams:
        passing.replace(b'" capital"', b'""')


def streams_are_collected(passing: Passing) -> None:
    if passing.streams:
        passing.whole()


def usage_unasked(passing: Passing) -> None:
    if _chats(passing) and passing.streams and b"stream_options" not in passing.body:
        usage = b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2},"choices"'
        passing.replace(b'"choices"', usage)


def headers_are_dropped(passing: Passing) -> None:
    for name in [name for name in passing.headers if name.startswith("x-synapse-")]:
        del passing.headers[name]


def another_request_id(passing: Passing) -> None:
    passing.headers["x-request-id"] = "another"


def a_model_twice(passing: Passing) -> None:
    if passing.path == "/v1/models" and passing.status == 200:
        passing.change(lambda body: {**body, "data": [*body["data"], body["data"][0]]})


def any_model_is_found(passing: Passing) -> None:
    if passing.path.startswith("/v1/models/") and passing.status == 404:
        passing.status = 200
        model = {"id": "no/such:model", "object": "model", "created": 0, "owned_by": "a"}
        passing.pieces = [json.dumps(model).encode()]


def bad_json_is_a_500(passing: Passing) -> None:
    if passing.body == b"{" and passing.status == 400:
        passing.status = 500


def errors_name_no_field(passing: Passing) -> None:
    if passing.status == 400 and passing.path == "/v1/chat/completions":

        def spoil(body: Any) -> Any:
            body["error"]["param"] = None
            return body

        passing.change(spoil)


def errors_name_an_address(passing: Passing) -> None:
    if passing.status == 404 and b"no-such" in passing.body:
        passing.replace(b"does not exist", b"is not at http://10.0.0.7:8000")


def keys_are_off(passing: Passing) -> None:
    if passing.status == 401:
        passing.status = 200
        passing.headers.pop("www-authenticate", None)
        passing.pieces = [b'{"object":"list","data":[]}']


def keys_are_off_for_ollama(passing: Passing) -> None:
    if passing.status == 401 and passing.path.startswith("/api/"):
        passing.status = 200


def a_wrong_key_is_repeated(passing: Passing) -> None:
    if passing.status == 401:
        key = (passing.asked.get("authorization", "")).removeprefix("Bearer ").encode()
        passing.replace(b'"message":"', b'"message":"' + key + b": ")


def vectors_in_another_order(passing: Passing) -> None:
    if passing.path == "/v1/embeddings" and passing.status == 200:
        passing.change(lambda body: {**body, "data": body["data"][::-1]})


def another_method_is_not_found(passing: Passing) -> None:
    if passing.status == 405 and passing.path.startswith("/v1/"):
        passing.status = 404


def a_path_is_missing(passing: Passing) -> None:
    if passing.path == "/v1/rerank" and passing.status != 401:
        passing.status = 404
        error = {"message": "there is none", "type": "a", "param": None, "code": "not_found"}
        passing.pieces = [json.dumps({"error": error}).encode()]


def a_backend_is_down(passing: Passing) -> None:
    if passing.path == "/health":
        passing.replace(b'"status":"healthy","code"', b'"status":"unhealthy","code"')


def no_models(passing: Passing) -> None:
    if passing.path == "/v1/models":
        passing.change(lambda body: {**body, "data": []})


def ollamas_stream_has_no_end(passing: Passing) -> None:
    if passing.path == "/api/chat":
        passing.replace(b'"done":true', b'"done":false')


DEFECTS = [
    Defect("[DONE] comes twice", two_ends, {"api.chat.stream"}),
    Defect("[DONE] does not come", no_end, {"api.chat.stream"}),
    Defect("a word of a stream is lost", a_word_is_lost, {"api.chat.stream"}),
    Defect("streams are collected on the way", streams_are_collected, {"api.chat.stream.live"}),
    Defect("usage comes unasked", usage_unasked, {"api.chat.usage"}),
    Defect("headers are dropped", headers_are_dropped, {"api.chat.headers", "api.chat.auto"}),
    Defect("the request id is another", another_request_id, {"api.chat.headers"}),
    Defect("a model is listed twice", a_model_twice, {"api.models.list"}),
    Defect("any model is found", any_model_is_found, {"api.models.unknown"}),
    Defect("broken JSON is a 500", bad_json_is_a_500, {"api.errors.nasty"}),
    Defect("errors name no field", errors_name_no_field, {"api.errors.fields"}),
    Defect("errors name an address", errors_name_an_address, {"api.errors.private"}),
    Defect("keys are off for Ollama's API", keys_are_off_for_ollama, {"api.keys.required"}),
    Defect("a wrong key is repeated", a_wrong_key_is_repeated, {"api.keys.wrong"}),
    Defect("vectors come in another order", vectors_in_another_order, {"api.embeddings"}),
    Defect("another method is not found", another_method_is_not_found, {"api.errors.routes"}),
    Defect("a described path is missing", a_path_is_missing, {"deployment.openapi"}),
    Defect("a backend is down", a_backend_is_down, {"deployment.healthy"}),
    Defect("Ollama's stream has no end", ollamas_stream_has_no_end, {"api.ollama.chat"}),
]
