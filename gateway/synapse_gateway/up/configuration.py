"""The gateway configuration that `synapse up` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from synapse_gateway.up.foreign import API_KEY_VARIABLE
from synapse_gateway.up.plan import EMBEDDED_MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_gateway.up.foreign import Foreign
    from synapse_gateway.up.plan import Embedded

HEADER = """\
# Written by `synapse up`, which writes it anew at each start. The gateway reads it again when it
# changes, so a change made here holds until then. Every setting: `synapse config schema`.
"""

# Streams get this long to end at `synapse down`, before the processes are ended by force.
SHUTDOWN_GRACE = 20.0


def foreign_name(number: int) -> str:
    """Name of the user's server, counted from 0."""
    return "mine" if number == 0 else f"mine-{number + 1}"


def configuration(
    embedded: Sequence[Embedded],
    ports: Mapping[str, int],
    foreign: Sequence[Foreign],
    *,
    with_key: bool,
) -> dict[str, Any]:
    """Return the configuration as plain values, in the shape of `config.settings.Settings`.

    Args:
        embedded: Model servers that run on this machine.
        ports: Their ports, by name.
        foreign: Servers of the user; where they chat, `auto` means the first one's model.
        with_key: Whether the user's servers get the key in `BACKEND_API_KEY`.
    """
    backends = {server.name: _embedded_backend(server, ports[server.name]) for server in embedded}
    for number, server in enumerate(foreign):
        backends[foreign_name(number)] = _foreign_backend(server, with_key=with_key)
    theirs = _foreign_models(foreign)
    models = theirs | (_embedded_models(theirs) if embedded else {})
    chats = (server.chat_model for server in foreign)
    default = next((chat for chat in chats if chat), "smollm2" if embedded else None)
    tree: dict[str, Any] = {"auth": "anonymous", "backends": backends}
    if models:
        tree["models"] = models
    if default:
        tree["auto"] = {"default": default}
    tree["limits"] = {"shutdown_grace": SHUTDOWN_GRACE}
    return tree


def _embedded_backend(server: Embedded, port: int) -> dict[str, Any]:
    # Seen on the next probe when one of these came back: they are all on this machine.
    backend: dict[str, Any] = {
        "url": f"http://127.0.0.1:{port}",
        "type": server.kind,
        "device": "cpu",
        "probe_interval": 1.0,
    }
    if server.slots is not None:
        backend["slots"] = server.slots
    return backend


def _foreign_models(foreign: Sequence[Foreign]) -> dict[str, Any]:
    """Every model that the user's servers list; the next server is the spare of the one before."""
    models: dict[str, Any] = {}
    for number, server in enumerate(foreign):
        for name in server.models:
            targets = models.setdefault(name, {"targets": []})["targets"]
            target = {"backend": foreign_name(number), "model": name, "order": len(targets) + 1}
            targets.append(target)
    return models


def _embedded_models(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The embedded models, less the names that mean a model of the user."""
    return {
        name: model | {"aliases": [alias for alias in model["aliases"] if alias not in theirs]}
        for name, model in EMBEDDED_MODELS.items()
        if name not in theirs
    }


def _foreign_backend(server: Foreign, *, with_key: bool) -> dict[str, Any]:
    backend: dict[str, Any] = {"url": server.url, "type": server.kind}
    if with_key:
        backend["api_key_env"] = API_KEY_VARIABLE
    return backend


def as_yaml(tree: Mapping[str, Any]) -> str:
    """Return the configuration file's text."""
    return HEADER + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)
