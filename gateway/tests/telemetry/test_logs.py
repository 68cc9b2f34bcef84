"""The log of the process, and the line of each request, as a reader of the output gets them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from synapse_gateway.telemetry.hub import Telemetry
from synapse_gateway.telemetry.logs import FOREIGN_LOGGERS, AccessLog, Logs, Timestamps, setup
from synapse_gateway.telemetry.metrics import Metrics
from synapse_gateway.telemetry.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "sk-canary-0123456789abcdef"
PROMPT = "the canary sings at midnight"


def fail(error: Exception, cause: Exception | None = None, *, prompt: str = "") -> None:
    """Raise an error where a prompt is at hand, as in any frame that serves a request."""
    local = prompt
    assert local == prompt
    raise error from cause


class Log:
    """A set-up log, and what it has written."""

    def __init__(self, logs: Logs, sink: io.BytesIO) -> None:
        self.logs = logs
        self._sink = sink

    def handle(self, message: str, *arguments: object) -> None:
        """Log past the test runner, which keeps texts, and takes faults of a call for its own."""
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, message, arguments, None)
        self.logs._handler.handle(record)

    @property
    def text(self) -> str:
        self.logs.writer.flush()
        return self._sink.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        [line] = self.lines
        return line

    @property
    def access(self) -> AccessLog:
        assert self.logs.access is not None
        return self.logs.access


@pytest.fixture
def make_log() -> Iterator[Callable[..., Log]]:
    made: list[Log] = []
    kept = {name: vars(logging.getLogger(name)).copy() for name in FOREIGN_LOGGERS}

    def make(level: str = "INFO") -> Log:
        sink = io.BytesIO()
        made.append(Log(setup(level, instance="pod-1", redact=Redactor(), sink=sink), sink))
        return made[-1]

    yield make
    for log in reversed(made):
        log.logs.close()
    for name, values in kept.items():
        vars(logging.getLogger(name)).update(values)


@pytest.fixture
def log(make_log: Callable[..., Log]) -> Log:
    return make_log()


def test_a_record_is_one_line_with_time_level_source_and_instance(log: Log) -> None:
    logging.getLogger("synapse_gateway.proxy").warning("lost\n%s of %d", "one", 3)
    line = log.line
    stamp = datetime.fromisoformat(line.pop("ts"))
    assert stamp.utcoffset() is not None
    assert line == {
        "level": "warning",
        "instance": "pod-1",
        "logger": "synapse_gateway.proxy",
        "message": "lost\none of 3",
    }


def test_extra_values_are_fields(log: Log) -> None:
    extra = {"backend": "vllm", "seconds": 1.5, "up": False, "why": None, "path": {"a": 1}}
    logging.getLogger("x").info("probe", extra=extra)
    assert log.line["fields"] == {**extra, "path": "{'a': 1}"}


def test_an_exception_is_there_with_its_end(log: Log) -> None:
    try:
        fail(RuntimeError("x" * 20_000 + " the end"))
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    assert log.line["exception"].endswith("the end")
    assert len(log.line["exception"]) < 10_000


def test_exc_info_without_an_exception_adds_nothing(log: Log) -> None:
    logging.getLogger("x").error("failed", exc_info=True)  # noqa: LOG014 - that is the case
    assert "exception" not in log.line


def test_arguments_that_do_not_fit_lose_no_event(log: Log) -> None:
    log.handle("%d apples", "many")
    assert log.line["message"] == "%d apples ('many',)"


def test_text_that_is_no_unicode_is_written_escaped(log: Log) -> None:
    log.handle("half a pair \ud800")
    assert log.line["message"] == "half a pair \\ud800"


def test_a_record_that_cannot_be_formatted_says_no_more_than_that(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    class Rude:
        def __str__(self) -> str:
            raise LookupError(KEY)

    log.handle("hello %s", Rude())
    assert log.line["message"] == "unformattable log record"
    assert log.line["fields"] == {"error": "LookupError"}
    assert KEY not in capsys.readouterr().err


def test_the_level_holds(make_log: Callable[..., Log]) -> None:
    log = make_log("WARNING")
    logging.getLogger("x").info("hidden")
    logging.getLogger("x").warning("seen")
    assert log.line["message"] == "seen"
    assert log.logs.access is None


def test_warnings_are_log_lines(log: Log) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert log.line["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in log.line["message"]


async def test_the_servers_own_lines_are_ours_and_its_access_log_is_off(log: Log) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    # No signal handlers: the test is not the process.
    running = asyncio.create_task(server._serve())
    for _ in range(1000):
        if server.started:
            break
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /secret-path HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 204")
    writer.close()
    await writer.wait_closed()
    server.should_exit = True
    await running
    assert {line["logger"] for line in log.lines} == {"uvicorn.error"}
    assert "secret-path" not in log.text


def test_standard_output_is_where_lines_go_and_closing_gives_everything_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out: Any = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    logs = setup("INFO", instance="pod-1", redact=Redactor(), foreign=())
    assert root.handlers != before[1]
    logging.getLogger("x").info("hello")
    # As `logging.shutdown` does when the process ends.
    logs._handler.flush()
    assert b'"message":"hello"' in out.buffer.getvalue()
    logs.close()
    assert (root.level, root.handlers) == before


def test_a_request_is_one_line_with_all_that_is_known_of_it(log: Log, records: Any) -> None:
    attempts = [
        records.attempt(outcome="refused", status=0, head=0.0, ended=1000.501),
        records.attempt(backend="ollama", order=2, reused=True),
    ]
    record = records.request(
        attempts=attempts, fallback="refused", model_asked="llama", auto_rule="code", trace_id=1
    )
    log.access.finished(record)
    assert log.line == {
        "ts": "2027-01-15T08:00:02.750Z",
        "level": "info",
        "event": "request",
        "instance": "pod-1",
        "request_id": "0193c6f0-7b1d-7d4e-9f1a-0123456789ab",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "duration_ms": 2750.0,
        "caller": "app",
        "client": "192.0.2.7",
        "model": "llama3.1",
        "model_asked": "llama",
        "backend": "ollama",
        "stream": True,
        "ttft_ms": 750.0,
        "queued_ms": 250.0,
        "overhead_ms": 0.5,
        "tokens_in": 12,
        "tokens_out": 41,
        "bytes_in": 300,
        "bytes_out": 5000,
        "fallback": "refused",
        "auto_rule": "code",
        "trace_id": "00000000000000000000000000000001",
        "attempts": [
            {"backend": "vllm", "outcome": "refused", "order": 1, "ms": 501.0 - 500},
            {
                "backend": "ollama",
                "outcome": "ok",
                "order": 2,
                "status": 200,
                "ms": 2250.0,
                "head_ms": 100.0,
                "reused": True,
            },
        ],
    }


def test_a_request_that_reached_nothing_has_a_short_line(log: Log, records: Any) -> None:
    record = records.request(
        status=401, attempts=[], first_content=0.0, error="invalid_api_key", disconnected=True
    )
    log.access.finished(record)
    assert "backend" not in log.line
    assert "ttft_ms" not in log.line
    assert (log.line["error"], log.line["disconnected"]) == ("invalid_api_key", True)


@pytest.mark.parametrize(
    ("changes", "level"), [({"status": 502}, "error"), ({"cut": "stalled"}, "error"), ({}, "info")]
)
def test_a_failed_request_is_an_error(
    log: Log, records: Any, changes: dict[str, Any], level: str
) -> None:
    log.access.finished(records.request(**changes))
    assert log.line["level"] == level


def test_a_time_is_written_to_the_millisecond() -> None:
    stamp = Timestamps()
    assert stamp(1_800_000_000.0) == "2027-01-15T08:00:00.000Z"
    assert stamp(1_800_000_000.9999) == "2027-01-15T08:00:00.999Z"
    assert stamp(1_800_000_001.5) == "2027-01-15T08:00:01.500Z"


def test_names_of_models_are_remembered_within_bounds(log: Log, records: Any) -> None:
    for number in range(1500):
        log.access.finished(records.request(model="", model_asked=f"model {number}"))
        log.access.finished(records.request(model="", model_asked="again"))
    assert len(log.access._cleaned) <= 1024
    assert len(log.lines) == 3000


def test_a_key_or_a_prompt_never_comes_out_by_any_path(
    log: Log, records: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    metrics = Metrics()
    telemetry = Telemetry(metrics, log.access)
    telemetry.finished(
        records.request(
            id=f"x {KEY}",
            model_asked=KEY,
            model="",
            traceparent=KEY,
            attempts=[records.attempt(outcome="ok")],
        )
    )
    telemetry.finished(None)  # type: ignore[arg-type] # what fails is logged, too
    logger = logging.getLogger("canary")
    headers = {"authorization": f"Bearer {KEY}", "x-api-key": KEY, "cookie": f"a={KEY}"}
    logger.info("headers %s", headers)
    logger.info("raw %r", [(name.encode(), value.encode()) for name, value in headers.items()])
    logger.info("url %s", f"http://gateway/dashboard/login?access_token={KEY[3:]}&next=/")
    logger.info("fields", extra={"headers": headers, "key": KEY})
    try:
        try:
            fail(ValueError(f"bad header Authorization: Bearer {KEY}"), prompt=PROMPT)
        except ValueError as error:
            fail(RuntimeError(f"could not send {KEY}"), error)
    except RuntimeError:
        logger.exception("failed with %s", KEY)
    assert len(log.lines) == 8
    everything = log.text + metrics.render()[0].decode() + "".join(capfd.readouterr())
    assert KEY not in everything
    assert KEY[3:] not in everything
    assert PROMPT not in everything
