"""`synapse routes` and `synapse routes explain`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_gateway.config import load
from synapse_gateway.config.options import ServeOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from synapse_gateway.config import Settings
    from synapse_gateway.config.settings import Backend, Target

HEADINGS = ("MODEL", "ORDER", "BACKEND", "TYPE", "DEVICE", "NAME THERE", "WEIGHT", "ALIASES")


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the route table."""
    sys.stdout.write(render(_settings(arguments, environ)))
    return 0


def explain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print why a request goes where it goes; 1 if the gateway would refuse it."""
    settings = _settings(arguments, environ)
    # imported late, because this takes most of the gateway
    room = importlib.import_module("synapse_gateway.commands.explain")
    text, served = room.explain(settings, arguments.request, arguments.key)
    sys.stdout.write(text)
    return 0 if served else 1


def _settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    named = arguments.file
    path = ServeOptions.from_environ(environ).config_path if named is None else Path(named)
    return load(path, environ).settings


def render(settings: Settings) -> str:
    """Return the tables of models and of routes."""
    tables = []
    if settings.models:
        tables.append(_table([HEADINGS, *_model_rows(settings)]))
    if settings.routes:
        rows = [
            (path, route.backend or f"{route.model} (model)")
            for path, route in settings.routes.items()
        ]
        tables.append(_table([("PATH", "BACKEND"), *rows]))
    if not tables:
        tables.append("no models and no routes: what the backends themselves list is served\n")
    return "\n".join(tables)


def _model_rows(settings: Settings) -> Iterator[tuple[str, ...]]:
    for name, model in settings.models.items():
        aliases = ", ".join(model.aliases)
        ordered = sorted(model.targets, key=lambda target: target.order)
        for number, target in enumerate(ordered):
            backend = settings.backends[target.backend]
            first = number == 0
            yield (name if first else "", *_target_cells(name, target, backend), aliases * first)
        for fallback in model.fallbacks:
            yield ("", "then", fallback, "(model)", "", "", "", "")


def _target_cells(model: str, target: Target, backend: Backend) -> tuple[str, ...]:
    return (
        str(target.order),
        target.backend,
        backend.type.value,
        backend.device.value if backend.device else "-",
        target.model or model,
        f"{target.weight:g}",
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"
