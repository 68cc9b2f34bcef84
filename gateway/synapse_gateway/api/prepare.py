"""From a caller's bytes to a request that the proxy can serve: parse, resolve, allow, shape."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from synapse_gateway.api import bodies
from synapse_gateway.api.call import header_lines
from synapse_gateway.api.catalog import find_model
from synapse_gateway.api.multipart import encode, new_boundary
from synapse_gateway.backends.base import Capability
from synapse_gateway.config.settings import Policy
from synapse_gateway.errors import (
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    NotSupported,
    UnsupportedMedia,
)
from synapse_gateway.proxy.events import EventCutter
from synapse_gateway.proxy.readers import StreamReader
from synapse_gateway.proxy.request import Form, ProxyRequest
from synapse_gateway.routing import auto

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.api.multipart import Form as Multipart
    from synapse_gateway.api.routes import HotRoute
    from synapse_gateway.auth.keys import Caller
    from synapse_gateway.proxy.body import Joined
    from synapse_gateway.proxy.dialects import Dialect
    from synapse_gateway.routing.table import ModelRoute, RouteTable
    from synapse_gateway.telemetry.record import RequestRecord

PREFIX_CHARS = 2048
"""Characters of a prompt's beginning that prefix affinity looks at."""
SESSION_HEADER = b"x-synapse-session"

_OF_MESSAGES = (bodies.Chat, bodies.Messages)
_CHATS = (*_OF_MESSAGES, bodies.Responses)

_FORWARDED = (
    b"accept",
    b"anthropic-version",
    b"anthropic-beta",
    b"openai-beta",
    b"tracestate",
    b"user-agent",
)


class Resolver:
    """Resolves models for one caller.

    Args:
        table: The route table.
        caller: Whose key it is.
        record: Noted in as things become known.
    """

    def __init__(self, table: RouteTable, caller: Caller, record: RequestRecord) -> None:
        self._table = table
        self._caller = caller
        self._record = record

    def resolve(
        self,
        name: str | None,
        path: str,
        capability: Capability,
        facts: Callable[[], auto.Facts] | None,
    ) -> ModelRoute:
        """Return the route of a model's name.

        Args:
            name: As the caller wrote it; none, empty or `auto` for automatic choice.
            path: Path that serves models of no table.
            capability: What is asked.
            facts: What automatic choice looks at; None takes the first model that can do it,
                one that does not chat if there is one.

        Raises:
            ModelNotFound: There is no such model for this caller.
            InvalidRequest: It cannot do this.
            NotSupported: No model of the deployment can.
        """
        name = name or ""
        self._record.model_asked = name[:200]
        if name in auto.NAMES:
            route = self._automatic(path, capability, facts)
        else:
            route = find_model(self._table, name) or self._table.path(path)
        if route is None or not self._caller.allows(route.name or name):
            self._refuse_all(capability)
            raise ModelNotFound(
                f"The model {name[:200]!r} does not exist. GET /v1/models lists those that do.",
                param="model",
            )
        self._record.model = route.name
        if not route.plan(capability).orders:
            self._refuse_all(capability)
            raise InvalidRequest(
                f"model: {route.name or name!r} cannot do this kind of request.",
                param="model",
                code="model_not_capable",
            )
        return route

    def service(self, path: str, capability: Capability) -> ModelRoute:
        """Return what serves a path whose requests name no model.

        Raises:
            NotSupported: Nothing of the deployment can.
            Forbidden: The key is limited to models that are others.
        """
        route = self._table.service(path, capability)
        if route is None:
            raise NotSupported(f"No backend of this deployment can do this ({capability.value}).")
        if not self._caller.allows(route.name or path):
            raise Forbidden(f"This key may not use {path}.")
        self._record.model = route.name
        return route

    def can(self, path: str, capability: Capability) -> bool:
        """Say whether anything serves a path whose requests name no model."""
        return self._table.service(path, capability) is not None

    def _refuse_all(self, capability: Capability) -> None:
        if not self._table.offers(capability):
            raise NotSupported(f"No backend of this deployment can do this ({capability.value}).")

    def _automatic(
        self,
        path: str,
        capability: Capability,
        facts: Callable[[], auto.Facts] | None,
    ) -> ModelRoute | None:
        def usable(route: ModelRoute | None) -> bool:
            return (
                route is not None
                and bool(route.plan(capability).orders)
                and self._caller.allows(route.name)
            )

        able = list(filter(usable, self._table.models.values()))
        if facts is None:
            # what chats may be able to do this as well, but was not put there for it
            able.sort(key=lambda route: bool(route.plan(Capability.CHAT).orders))
        first = able[0] if able else None
        if facts is None or first is None:
            return first or self._table.path(path)
        choice = auto.choose_model(
            self._table.settings.auto,
            facts(),
            first.name,
            lambda name: usable(self._table.model(name)),
        )
        self._record.auto_rule = choice.rule
        return self._table.model(choice.model)


def prepare_json(
    route: HotRoute,
    body: bytes,
    headers: dict[bytes, bytes],
    resolver: Resolver,
    caller: Caller,
    record: RequestRecord,
) -> ProxyRequest:
    """Make the request of a route that takes JSON.

    Raises:
        RequestError: The caller's mistake.
    """
    kind = headers.get(b"content-type")
    if kind is not None and not _is_json(kind):
        raise UnsupportedMedia("Content-Type: must be application/json.")
    assert route.body is not None  # noqa: S101 - multipart routes are prepared elsewhere
    parsed = bodies.parse(route.body, body)
    if caller.exact is not None:
        bodies.refuse_other_spellings(body)
        # a model named twice: the backend gets the one that was looked at
        body = bodies.with_fields(body, {})
    if isinstance(parsed, bodies.Completion):
        bodies.refuse_several_of_nothing(parsed)
    chats = isinstance(parsed, _CHATS)
    model = resolver.resolve(
        parsed.model,
        route.path,
        route.capability,
        (lambda: _facts(parsed, caller)) if chats else None,
    )
    stream = parsed.stream is True or (
        isinstance(parsed, bodies.Speech) and parsed.stream_format is not None
    )
    record.stream = stream
    fields: dict[str, Any] = {}
    strip_usage = False
    if stream and route.asks_usage and isinstance(parsed, bodies.Generating):
        options = parsed.stream_options
        strip_usage = options is None or options.include_usage is not True
        if strip_usage:
            fields["stream_options"] = bodies.stream_options(body) | {"include_usage": True}
    form = Form(
        path=route.path,
        body_for=_json_body(body, parsed.model, fields),
        dialect=route.dialect,
        expects_json=route.expects_json,
        strip_usage=strip_usage,
    )
    if model.config.rewrite_model and parsed.model not in (None, *auto.NAMES):
        rewrite_answers(form, parsed.model or "")
    affinity, session = _affinity(parsed, headers, model)
    return ProxyRequest(
        record=record,
        capability=route.capability,
        route=model,
        form=form,
        headers=forwarded(headers, b"application/json"),
        stream=stream,
        deadline=record.started + model.plan(route.capability).overall,
        priority=caller.priority,
        affinity=affinity,
        session=session,
        extra_headers=route_header(record),
    )


def prepare_multipart(
    route: HotRoute,
    form: Multipart,
    headers: dict[bytes, bytes],
    resolver: Resolver,
    caller: Caller,
    record: RequestRecord,
) -> ProxyRequest:
    """Make the request of a route of OpenAI's API that takes form data with a recording.

    Raises:
        RequestError: The caller's mistake.
    """
    if not form.files("file"):
        raise InvalidRequest("file: is required, as a file", param="file", code="missing_field")
    asked = form.fields.get("model")
    model = resolver.resolve(asked, route.path, route.capability, None)
    record.stream = stream = form.fields.get("stream", "").lower() == "true"
    boundary = new_boundary()

    def body_for(name: str) -> Joined:
        chosen = form if not name or name == asked else form.with_field("model", name)
        return encode(chosen.parts, boundary)

    affinity = session_affinity(headers)
    return ProxyRequest(
        record=record,
        capability=route.capability,
        route=model,
        form=Form(
            path=route.path,
            body_for=body_for,
            dialect=route.dialect,
            expects_json=False,
            hold=sys.maxsize,
        ),
        headers=forwarded(headers, b"multipart/form-data; boundary=" + boundary),
        stream=stream,
        deadline=record.started + model.plan(route.capability).overall,
        priority=caller.priority,
        affinity=affinity,
        session=affinity is not None,
        extra_headers=route_header(record),
    )


def rewrite_answers(form: Form, name: str) -> None:
    """Have `model` in every answer read as the caller wrote it."""

    def whole(body: bytes) -> bytes:
        return bodies.renamed(body, name) if body.startswith(b"{") else body

    def event(raw: bytes) -> bytes:
        start = raw.find(b"{")
        if start < 0:
            return raw
        end = raw.rfind(b"}") + 1
        try:
            return raw[:start] + whole(raw[start:end]) + raw[end:]
        except ValueError:
            return raw

    def reader(dialect: Dialect, largest: int) -> StreamReader:
        return StreamReader(
            EventCutter(largest), dialect, strip_usage=form.strip_usage, rewrite=event
        )

    form.whole = whole
    form.reader = reader


def forwarded(headers: dict[bytes, bytes], content_type: bytes) -> bytes:
    """Return the header lines that a backend gets of the caller's."""
    kept = [(name, headers[name]) for name in _FORWARDED if name in headers]
    return header_lines([(b"content-type", content_type), *kept])


def route_header(record: RequestRecord) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header that says why automatic choice took this model."""
    if not record.auto_rule:
        return ()
    return ((b"x-synapse-route", f"auto:{record.auto_rule}".encode("latin-1", "replace")),)


def session_affinity(headers: dict[bytes, bytes]) -> int | None:
    """Return the hash of the caller's session, if he names one."""
    session = headers.get(SESSION_HEADER)
    return None if session is None else _hash(session)


def _affinity(
    parsed: bodies.Body, headers: dict[bytes, bytes], model: ModelRoute
) -> tuple[int | None, bool]:
    session = session_affinity(headers)
    if session is not None:
        return session, True
    if model.config.policy is not Policy.PREFIX_AFFINITY:
        return None, False
    return _hash(_prompt_start(parsed)), False


def _prompt_start(parsed: bodies.Body) -> bytes:
    if isinstance(parsed, bodies.Completion):
        return str(parsed.prompt)[:PREFIX_CHARS].encode()
    if isinstance(parsed, _OF_MESSAGES):
        start = b""
        for message in parsed.messages or ():
            start += message.role.encode() + b":"
            if isinstance(message.content, Raw):
                start += bytes(message.content)
            if len(start) >= PREFIX_CHARS:
                break
        return start[:PREFIX_CHARS]
    return b""


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _json_body(body: bytes, asked: str | None, fields: dict[str, Any]) -> Callable[[str], bytes]:
    made: dict[str, bytes] = {}

    def body_for(name: str) -> bytes:
        if (not name or name == asked) and not fields:
            return body
        result = made.get(name)
        if result is None:
            changed = {"model": name, **fields} if name and name != asked else fields
            result = made[name] = bodies.with_fields(body, changed)
        return result

    return body_for


def _facts(parsed: bodies.Body, caller: Caller) -> auto.Facts:
    chars = 0
    last_user = ""
    images = False
    tools = bool(getattr(parsed, "tools", None))
    if isinstance(parsed, _OF_MESSAGES):
        for message in parsed.messages or ():
            text, has_image = bodies.text_of(message.content)
            chars += len(text)
            images = images or has_image
            if message.role == "user":
                last_user = text
    elif isinstance(parsed, bodies.Responses):
        last_user, images = bodies.text_of(parsed.input)
        chars = len(last_user)
    return auto.Facts(chars, last_user, tools, images, caller.name)


def _is_json(kind: bytes) -> bool:
    name = kind.partition(b";")[0].strip().lower()
    # curl's -d says it is a form; OpenAI's own API takes that for JSON too
    return name in {b"application/json", b"application/x-www-form-urlencoded", b"text/plain"} or (
        name.endswith(b"+json")
    )
