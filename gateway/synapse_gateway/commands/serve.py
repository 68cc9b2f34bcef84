"""`synapse serve`."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_gateway.auth.keys import KeyRing, check_exposure
from synapse_gateway.config import ServeOptions, load_for_serving
from synapse_gateway.config.options import parse_log_level

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until told to stop.

    Raises:
        ConfigError: The options or the configuration cannot be used, or nobody could call.
    """
    options = options_of(arguments, environ)
    loaded = load_for_serving(options, environ)
    ring = KeyRing.build(loaded.settings, environ)
    check_exposure(ring, options.host, on_loopback=options.on_loopback)
    # only now, so that a refusal does not wait for the whole gateway to be imported
    serve = importlib.import_module("synapse_gateway.app").serve
    return int(serve(options) or 0)


def options_of(arguments: argparse.Namespace, environ: Mapping[str, str]) -> ServeOptions:
    """Return the options that flags and environment give, a flag before a variable."""
    options = ServeOptions.from_environ(environ)
    given = {
        "host": arguments.host,
        "port": arguments.port,
        "ollama_port": arguments.ollama_port,
        "config_path": None if arguments.config is None else Path(arguments.config),
        "config_named": None if arguments.config is None else True,
        "log_level": None if arguments.log_level is None else parse_log_level(arguments.log_level),
    }
    return dataclasses.replace(
        options, **{name: value for name, value in given.items() if value is not None}
    )
