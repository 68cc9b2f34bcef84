"""API keys: who calls, and what he may reach.

A key is kept as its SHA-256 only. A plain digest is enough, and slow hashing would be wrong: keys
are long random strings, not passwords, and one is looked up for every request.

Where keys come from, and what wins: entries of `keys` in the configuration file (`sha256`, `env` or
`file`), then `SYNAPSE_API_KEYS` and `SYNAPSE_API_KEYS_FILE`, whose entries are `name=key` or
`name=sha256:<64 hex digits>`, divided by commas or lines. One name may have several keys, so that a
key can be replaced without an interruption; an entry of the environment whose name the
configuration file also has takes that name's limits. One key under two names is refused.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from synapse_gateway.config.settings import AuthMode, Key, KeyLimits, Settings
from synapse_gateway.errors import ConfigError, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

ANONYMOUS = "anonymous"
"""Name of the caller without a key; all of them share its limits."""

_HOW = "send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class Caller(msgspec.Struct, frozen=True, eq=False):
    """Who sent a request, resolved once when the configuration is read.

    Attributes:
        name: Name of the key; never the key.
        anonymous: Whether no known key was sent.
        priority: 0 to 9; 9 leaves the queue first.
        requests_per_minute: None is unlimited, as for the two below.
        tokens_per_minute: Of prompt and answer together.
        concurrency: Requests in flight at once.
        limited: Whether any of these three is set.
        exact: Names of models it may use; None means all.
        prefixes: Beginnings of names it may use.
    """

    name: str
    anonymous: bool
    priority: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    limited: bool
    exact: frozenset[str] | None
    prefixes: tuple[str, ...]

    @classmethod
    def build(
        cls, name: str, limits: KeyLimits, *, anonymous: bool = False, group: str | None = None
    ) -> Caller:
        """Return the caller of a configured key.

        Args:
            name: The key's.
            limits: What it may.
            anonymous: Whether it stands for callers without one.
            group: Its worker group: it reaches the models of that one's workers, and those that
                `limits` names.
        """
        models = limits.models
        if models is None and group is not None:
            models = ()
        rates = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency)
        return cls(
            name=name,
            anonymous=anonymous,
            priority=limits.priority,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            concurrency=limits.concurrency,
            limited=any(rate is not None for rate in rates),
            exact=None if models is None else frozenset(m for m in models if m[-1:] != "*"),
            prefixes=tuple(m[:-1] for m in models or () if m[-1:] == "*"),
        )

    @property
    def reading(self) -> Caller:
        """The same caller where no model has to work for him: only his requests are counted."""
        return msgspec.structs.replace(
            self,
            tokens_per_minute=None,
            concurrency=None,
            limited=self.requests_per_minute is not None,
        )

    def allows(self, model: str) -> bool:
        """Say whether it may see and call a model of the table, by the table's own name."""
        exact = self.exact
        return exact is None or model in exact or model.startswith(self.prefixes)


class KeyRing:
    """Every key of the gateway, and the anonymous caller where there is one.

    Immutable: a reloaded configuration makes a new one.
    """

    def __init__(self, callers: Mapping[bytes, Caller], anonymous: Caller | None) -> None:
        """Build from callers by the SHA-256 of their keys."""
        self._callers = {digest: (digest, caller) for digest, caller in callers.items()}
        self.anonymous = anonymous
        self.names = frozenset(caller.name for caller in callers.values()) | (
            {anonymous.name} if anonymous else set()
        )

    def __len__(self) -> int:
        return len(self._callers)

    def __repr__(self) -> str:
        return f"KeyRing({len(self)} keys, anonymous callers {'in' if self.anonymous else 'out'})"

    @classmethod
    def build(cls, settings: Settings, environ: Mapping[str, str]) -> KeyRing:
        """Resolve every key of a configuration.

        Args:
            settings: The configuration.
            environ: The process environment.

        Raises:
            ConfigError: A key cannot be resolved, or two names share one; all faults, a line each.
        """
        found: list[tuple[str, bytes]] = []
        faults: list[str] = []
        for name, key in settings.keys.items():
            try:
                found.append((name, _resolve(name, key, environ)))
            except ConfigError as fault:
                faults.append(str(fault))
        for source, text in _listed(environ, faults):
            found.extend(_parse(source, text, faults))
        callers = _callers(settings, found, faults)
        if faults:
            raise ConfigError("\n".join(faults))
        anonymous = None
        if settings.auth is AuthMode.ANONYMOUS:
            anonymous = Caller.build(ANONYMOUS, settings.limits.anonymous, anonymous=True)
        return cls(callers, anonymous)

    def authenticate(self, authorization: bytes | None, x_api_key: bytes | None) -> Caller:
        """Return who sent a request.

        Both headers may be there (some clients always fill one of them): a known key in either
        will do. Where anonymous callers are let in, an unknown key counts as none: most clients
        cannot be made to send no key, and send a word such as `none`.

        Args:
            authorization: Value of the Authorization header.
            x_api_key: Value of the X-API-Key header.

        Raises:
            Unauthorized: No known key was sent, and there is no anonymous caller.
        """
        if authorization is not None:
            caller = self._find(_bearer(authorization))
            if caller is not None:
                return caller
        if x_api_key is not None:
            caller = self._find(x_api_key.strip())
            if caller is not None:
                return caller
        if self.anonymous is not None:
            return self.anonymous
        if not authorization and not x_api_key:
            raise Unauthorized(f"This gateway needs an API key; {_HOW}", code="missing_api_key")
        raise Unauthorized(f"This API key is not known here; check it, and {_HOW}")

    def _find(self, key: bytes) -> Caller | None:
        digest = sha256(key).digest()
        entry = self._callers.get(digest)
        if entry is not None and hmac.compare_digest(entry[0], digest):
            return entry[1]
        return None


def check_exposure(ring: KeyRing, host: str, *, on_loopback: bool) -> None:
    """Refuse to serve when nobody could call, or when anybody could from elsewhere.

    Args:
        ring: The keys.
        host: Address that the server is to listen on.
        on_loopback: Whether only this machine can reach it.

    Raises:
        ConfigError: There is no key, and no anonymous caller or no loopback address.
    """
    if len(ring):
        return
    give = "set SYNAPSE_API_KEYS=name=key (or `keys` in the configuration file)"
    if ring.anonymous is None:
        raise ConfigError(
            f"no API key is configured, so nobody could call: {give}, or let everybody in with "
            "`auth: anonymous` in the configuration file (or SYNAPSE_AUTH=anonymous)"
        )
    if not on_loopback:
        raise ConfigError(
            f"without any API key the gateway listens on loopback only, not on {host}: {give}, "
            "or listen on 127.0.0.1"
        )


def _bearer(authorization: bytes) -> bytes:
    """Return the token of a Bearer header; the scheme's case does not matter (RFC 9110, 11.1)."""
    if authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    return b""


def _resolve(name: str, key: Key, environ: Mapping[str, str]) -> bytes:
    """Return the SHA-256 of a key of the configuration file."""
    at = f"keys.{name}"
    given = [source for source in ("sha256", "env", "file") if getattr(key, source) is not None]
    if len(given) != 1:
        raise ConfigError(
            f"{at}: exactly one of sha256, env, file must be given "
            f"(got {' and '.join(given) or 'none'})"
        )
    if key.sha256 is not None:
        return bytes.fromhex(key.sha256)
    if key.env is not None:
        value = environ.get(key.env, "")
        if not value.strip():
            raise ConfigError(f"{at}.env: the environment variable {key.env} is not set, or empty")
        return _digest(value)
    try:
        value = Path(str(key.file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{at}.file: cannot read {key.file}: {_why(error)}") from error
    if not value.strip():
        raise ConfigError(f"{at}.file: {key.file} is empty; it must hold the key")
    return _digest(value)


def _listed(environ: Mapping[str, str], faults: list[str]) -> list[tuple[str, str]]:
    """Return the texts that list keys, each with the name of the variable it came by."""
    texts = []
    if environ.get("SYNAPSE_API_KEYS"):
        texts.append(("SYNAPSE_API_KEYS", environ["SYNAPSE_API_KEYS"]))
    path = environ.get("SYNAPSE_API_KEYS_FILE")
    if path:
        try:
            texts.append(("SYNAPSE_API_KEYS_FILE", Path(path).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"SYNAPSE_API_KEYS_FILE: cannot read {path}: {_why(error)}")
    return texts


def _parse(source: str, text: str, faults: list[str]) -> list[tuple[str, bytes]]:
    """Return the names and digests of a list; a fault names the entry by number, never its text."""
    entries = []
    items = (item.strip() for item in re.split(r"[,\n]", text))
    kept = [item for item in items if item and not item.startswith("#")]
    for number, item in enumerate(kept, start=1):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (name and equals and value):
            faults.append(f"{source}: entry {number} must be name=key, for example app=sk-...")
        elif value.startswith("sha256:"):
            digest = value.removeprefix("sha256:").lower()
            if _HEX_DIGEST.fullmatch(digest):
                entries.append((name, bytes.fromhex(digest)))
            else:
                faults.append(f"{source}: entry {number}: sha256: must be followed by 64 digits")
        else:
            entries.append((name, _digest(value)))
    return entries


def _callers(
    settings: Settings, found: list[tuple[str, bytes]], faults: list[str]
) -> dict[bytes, Caller]:
    by_name: dict[str, Caller] = {}
    by_digest: dict[bytes, Caller] = {}
    for name, digest in found:
        if name == ANONYMOUS:
            faults.append(f"keys.{name}: this name means callers without a key; choose another")
            continue
        if name not in by_name:
            key = settings.keys.get(name, Key())
            by_name[name] = Caller.build(name, key, group=key.group)
        other = by_digest.setdefault(digest, by_name[name])
        if other.name != name:
            faults.append(f"keys.{name}: has the same key as keys.{other.name}; give each its own")
    return by_digest


def _digest(key: str) -> bytes:
    return sha256(key.strip().encode()).digest()


def _why(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return error.strerror or type(error).__name__
