"""Notices that a configuration has changed, and reads it again.

Files are compared by their content, once a second. That sees what notification by inode does not:
a ConfigMap, where a symlink among the parents is swapped, an editor that renames a new file into
place, a network file system.
"""

from __future__ import annotations

import asyncio
import logging
from hashlib import sha256
from typing import TYPE_CHECKING

from synapse_gateway.config.load import load
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from synapse_gateway.config.load import Loaded

_log = logging.getLogger(__name__)

Contents = tuple[tuple["Path", str], ...]
"""Files, each with the SHA-256 of what it holds, or why it cannot be read."""


class ConfigWatcher:
    """Watches a configuration file, and the files that it refers to.

    A change counts once two looks in a row have found the same, so that a file that is being
    written is left alone until it is whole.

    Args:
        path: The configuration file.
        environ: The process environment.
        loaded: What runs now; its files are watched.
        on_change: Takes the new configuration. It refuses one by raising `ConfigError`.
        on_refused: Takes the reason why a changed file is not used; what ran before runs on.
        interval: Seconds between two looks.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        loaded: Loaded,
        *,
        on_change: Callable[[Loaded], None],
        on_refused: Callable[[ConfigError], None],
        interval: float = 1.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._environ = environ
        self._on_change = on_change
        self._on_refused = on_refused
        self._interval = interval
        self._sleep = sleep
        self._files = loaded.files
        self._used = look(self._files)
        self._previous = self._used

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._sleep(self._interval)
            await self.check()

    async def check(self) -> None:
        """Look once, and take over a change that has settled."""
        now = await asyncio.to_thread(look, self._files)
        settled = now == self._previous
        self._previous = now
        if settled and now != self._used:
            self._used = now
            try:
                loaded = await asyncio.to_thread(load, self._path, self._environ)
                await self._watch(loaded.files)
                self._on_change(loaded)
            except ConfigError as error:
                self._on_refused(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next file may be better
                _log.exception("a changed configuration could not be taken over")
                self._on_refused(ConfigError(f"{self._path}: {type(error).__name__}"))

    async def _watch(self, files: tuple[Path, ...]) -> None:
        """Watch other files from now on.

        Those that were watched before count as they were when the change was noticed, so that a
        change since then is noticed as well.
        """
        known = dict(self._used)
        added = await asyncio.to_thread(look, [path for path in files if path not in known])
        known.update(added)
        self._files = files
        self._used = self._previous = tuple((path, known[path]) for path in files)


def look(files: Iterable[Path]) -> Contents:
    """Return what the files hold now."""
    return tuple((path, _digest(path)) for path in files)


def _digest(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return str(error.strerror)
