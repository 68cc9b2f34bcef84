"""What counts as lost, and what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conformance.pods import traffic

WORD = {"choices": [{"delta": {"content": "Paris"}, "finish_reason": None}]}
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
ERROR = {"error": {"code": "backend_cut"}}


def stream(*events: Any) -> str:
    texts = (one if isinstance(one, str) else json.dumps(one) for one in events)
    return "".join(f"data: {text}\n\n" for text in texts)


def judged(text: str, status: int = 200, known: str = "Paris") -> str:
    record: traffic.Record = {"kind": "chat-stream", "status": status, "backend": "a"}
    return traffic.judge(record, text, traffic.Known({"chat-stream": {"a": known}}))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param(stream(WORD, END, "[DONE]"), "", id="whole"),
        pytest.param(stream(WORD, "[DONE]"), "no finish_reason", id="no-finish-reason"),
        pytest.param(stream(WORD, END), "no [DONE]", id="no-done"),
        pytest.param(stream(WORD, ERROR), "error in the stream: backend_cut", id="told"),
        pytest.param(stream(WORD, ERROR, "[DONE]"), "[DONE] after an error", id="false-done"),
        pytest.param(stream(END, "[DONE]"), "another text: ''", id="another-text"),
        pytest.param("data: {", "not readable: ", id="garbage"),
        pytest.param("", "no finish_reason", id="nothing"),
    ],
)
def test_a_stream_is_lost_when_it_is_not_whole(text: str, why: str) -> None:
    found = judged(text)
    assert found.startswith(why) if why else found == ""


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_status_is_lost(status: int) -> None:
    assert judged("busy", status).startswith(f"status {status}")


def test_the_first_answer_of_a_backend_is_the_right_one_where_none_is_given() -> None:
    known = traffic.Known({})
    assert known.differs("chat", "a", "Paris") == ""
    assert known.differs("chat", "b", "Rome") == ""
    assert known.differs("chat", "a", "Rome") == "another text: 'Rome'"


def test_vectors_of_the_same_text_may_differ_by_rounding() -> None:
    known = traffic.Known({"embedding": {"a": [1.0, 0.0]}})
    assert known.differs("embedding", "a", [0.999, 0.001]) == ""
    assert known.differs("embedding", "a", [0.0, 1.0]) == "another vector"
