"""The log: JSON, one line an event, and one line a request.

Every line has `ts` (RFC 3339, UTC), `level`, `instance`, and either `logger` and `message` (with
`fields` and `exception` where there are any) or `event: request` and the fields of `AccessLine`.
Credentials are taken out of everything that is text; prompts are nowhere in it.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from synapse_gateway.telemetry.writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synapse_gateway.telemetry.record import AttemptRecord, RequestRecord
    from synapse_gateway.telemetry.writer import Sink

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_PLAIN_ID = re.compile(r"[0-9a-fA-F-]{1,64}")
_MAX_TEXT = 8192
_MAX_REMEMBERED = 1024

FOREIGN_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "fastapi")
"""Loggers that bring handlers of their own; they are made to use ours."""


class AttemptLine(msgspec.Struct, omit_defaults=True):
    """An attempt in the access log."""

    backend: str
    outcome: str
    order: int
    status: int = 0
    ms: float = 0.0
    head_ms: float = 0.0
    reused: bool = False


class AccessLine(msgspec.Struct, omit_defaults=True):
    """A request in the access log; what is 0, false or empty is left out.

    Times are milliseconds.
    """

    ts: str
    level: str
    event: str
    instance: str
    request_id: str
    method: str
    route: str
    status: int
    duration_ms: float
    caller: str = ""
    client: str = ""
    model: str = ""
    model_asked: str = ""
    backend: str = ""
    stream: bool = False
    ttft_ms: float = 0.0
    queued_ms: float = 0.0
    overhead_ms: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_estimated: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    error: str = ""
    fallback: str = ""
    cut: str = ""
    disconnected: bool = False
    auto_rule: str = ""
    trace_id: str = ""
    attempts: list[AttemptLine] = []
    path: str = ""
    """Where there is no such route."""


class Timestamps:
    """Writes wall-clock seconds as RFC 3339 with milliseconds, the whole second from memory."""

    __slots__ = ("_prefix", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def __call__(self, seconds: float) -> str:
        """Return for example `2026-01-31T12:00:00.123Z`."""
        whole = int(seconds)
        if whole != self._second:
            prefix = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._second, self._prefix = whole, prefix
        return f"{self._prefix}{int((seconds - whole) * 1000):03d}Z"


class AccessLog:
    """Writes a line for each request that has ended."""

    def __init__(self, writer: LineWriter, instance: str, redact: Callable[[str], str]) -> None:
        """Build one.

        Args:
            writer: Where the lines go.
            instance: Name of this replica.
            redact: Takes credentials out of what callers name.
        """
        self._write = writer.write
        self._instance = instance
        self._redact = redact
        self._stamp = Timestamps()
        self._encode = msgspec.json.Encoder().encode
        self._cleaned: dict[str, str] = {}

    def finished(self, record: RequestRecord) -> None:
        """Write the line of a request."""
        self._write(self._encode(self._line(record)) + b"\n")

    def _line(self, record: RequestRecord) -> AccessLine:
        started = record.started
        first = record.first_content
        status = record.code
        duration = record.ended - started
        attempts = record.attempts
        asked = record.model_asked
        request_id = record.id
        return AccessLine(
            self._stamp(record.started_unix + duration),
            "error" if status >= 500 or record.cut else "info",
            "request",
            self._instance,
            # Callers may choose it, and then it may be anything.
            request_id if _PLAIN_ID.fullmatch(request_id) else self._redact(request_id),
            record.method,
            record.route,
            status,
            round(duration * 1e3, 3),
            record.caller,
            record.client,
            record.model,
            asked if asked == record.model else self._clean(asked),
            attempts[-1].backend if attempts else "",
            record.stream,
            round((first - started) * 1e3, 3) if first else 0.0,
            round(record.queued * 1e3, 3),
            round(record.overhead * 1e3, 3),
            record.tokens_in,
            record.tokens_out,
            record.tokens_estimated,
            record.bytes_in,
            record.bytes_out,
            record.error,
            record.fallback,
            record.cut,
            record.disconnected,
            record.auto_rule,
            f"{record.trace_id:032x}" if record.trace_id else "",
            [_attempt_line(attempt) for attempt in attempts],
            self._clean(record.path) if record.path else "",
        )

    def _clean(self, asked: str) -> str:
        """Redact a model's name, which may be anything; aliases come often and are remembered."""
        cleaned = self._cleaned.get(asked)
        if cleaned is None:
            if len(self._cleaned) >= _MAX_REMEMBERED:
                self._cleaned.clear()
            cleaned = self._cleaned[asked] = self._redact(asked)
        return cleaned


def _attempt_line(attempt: AttemptRecord) -> AttemptLine:
    started = attempt.started
    return AttemptLine(
        attempt.backend,
        attempt.outcome,
        attempt.order,
        attempt.status,
        round((attempt.ended - started) * 1e3, 3),
        round((attempt.head - started) * 1e3, 3) if attempt.head else 0.0,
        attempt.reused,
    )


class JsonFormatter(logging.Formatter):
    """Formats a record of the standard library as one line of JSON."""

    def __init__(self, instance: str, redact: Callable[[str], str]) -> None:
        """Build one.

        Args:
            instance: Name of this replica.
            redact: Takes credentials out of every text.
        """
        super().__init__()
        self._instance = instance
        self._redact = redact
        self._stamp = Timestamps()
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its line feed."""
        line: dict[str, Any] = {
            "ts": self._stamp(record.created),
            "level": record.levelname.lower(),
            "instance": self._instance,
            "logger": record.name,
            "message": self._clean(_message(record)),
        }
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if fields:
            line["fields"] = {name: self._plain(value) for name, value in fields.items()}
        if record.exc_info and record.exc_info[0] is not None:
            # The end says what happened.
            line["exception"] = self._clean(self.formatException(record.exc_info)[-_MAX_TEXT:])
        return self._encoder.encode(line).decode()

    def _clean(self, text: str) -> str:
        # Half a surrogate pair would make the line no UTF-8.
        return self._redact(text[:_MAX_TEXT].encode("utf-8", "backslashreplace").decode())

    def _plain(self, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._clean(str(value))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # Arguments that do not fit: the fault of a log call must not lose the event.
        return f"{record.msg} {record.args!r}"


class LineHandler(logging.Handler):
    """Hands formatted records to a LineWriter; warnings and worse are written at once."""

    def __init__(self, writer: LineWriter) -> None:
        """Build one that writes to `writer`."""
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            line = self.format(record).encode() + b"\n"
        except Exception as error:  # noqa: BLE001 - it must not end a request
            # Not `handleError`: that prints the record as it is, credentials and all.
            fault = {"level": "error", "logger": record.name, "message": "unformattable log record"}
            line = msgspec.json.encode({**fault, "fields": {"error": type(error).__name__}}) + b"\n"
        self._writer.write(line, hurry=record.levelno >= logging.WARNING)

    def flush(self) -> None:
        """Write what is held."""
        self._writer.flush()


class Logs:
    """The log of the process: a writer that the logging module and the access log share."""

    def __init__(
        self, writer: LineWriter, access: AccessLog | None, handler: LineHandler, before: Any
    ) -> None:
        """Use `setup`."""
        self.writer = writer
        self.access = access
        """None where the level leaves requests out."""
        self._handler = handler
        self._before = before

    def close(self) -> None:
        """Write everything, and give the logging module back what it had before."""
        root = logging.getLogger()
        root.removeHandler(self._handler)
        level, handlers = self._before
        root.setLevel(level)
        for handler in handlers:
            root.addHandler(handler)
        logging.captureWarnings(capture=False)
        self.writer.close()


def setup(
    level: str,
    *,
    instance: str,
    redact: Callable[[str], str],
    sink: Sink | None = None,
    foreign: Iterable[str] = FOREIGN_LOGGERS,
) -> Logs:
    """Make the whole process log JSON lines.

    The server must be started without a log configuration of its own (`log_config=None`).

    Args:
        level: DEBUG, INFO, WARNING or ERROR; above INFO requests are not logged.
        instance: Name of this replica.
        redact: Takes credentials out of every text.
        sink: Where the lines go; None is standard output.
        foreign: Loggers that are made to use this log.
    """
    writer = LineWriter(sys.stdout.buffer if sink is None else sink)
    handler = LineHandler(writer)
    handler.setFormatter(JsonFormatter(instance, redact))
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    for old in before[1]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in foreign:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Requests have their own line.
    logging.getLogger("uvicorn.access").disabled = True
    logging.captureWarnings(capture=True)
    wanted = root.isEnabledFor(logging.INFO)
    access = AccessLog(writer, instance, redact) if wanted else None
    return Logs(writer, access, handler, before)
