"""What the process is told when it starts, by flags and environment; the rest is in the file."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CONFIG_PATH = Path("/config/backends.yaml")
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """How the gateway's process runs.

    Attributes:
        host: Address to listen on.
        port: TCP port of the API.
        ollama_port: TCP port that answers Ollama's API as well; 0 opens none.
        config_path: Configuration file.
        config_named: Whether somebody named that file; the default one may be missing.
        log_level: One of `LOG_LEVELS`.
        redis_url: Redis that shares limits and probes between replicas; None keeps them local.
        instance_id: Name of this replica in logs, events and traces.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    ollama_port: int = 0
    config_path: Path = DEFAULT_CONFIG_PATH
    config_named: bool = False
    log_level: str = "INFO"
    redis_url: str | None = None
    instance_id: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ServeOptions:
        """Return the options that the environment names; an empty variable counts as unset.

        Raises:
            ConfigError: A variable has a value that cannot be.
        """
        path = environ.get("SYNAPSE_GATEWAY_CONFIG_PATH")
        return cls(
            config_path=Path(path) if path else DEFAULT_CONFIG_PATH,
            config_named=bool(path),
            log_level=parse_log_level(environ.get("SYNAPSE_LOG_LEVEL") or "INFO"),
            redis_url=environ.get("SYNAPSE_REDIS_URL") or None,
            instance_id=environ.get("SYNAPSE_INSTANCE_ID")
            or environ.get("HOSTNAME")
            or socket.gethostname(),
        )

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the gateway."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_log_level(text: str) -> str:
    """Return the level's name in upper case.

    Raises:
        ConfigError: There is no such level.
    """
    level = text.upper()
    if level not in LOG_LEVELS:
        known = ", ".join(LOG_LEVELS)
        raise ConfigError(f"SYNAPSE_LOG_LEVEL: must be one of {known} (got {text!r})")
    return level
