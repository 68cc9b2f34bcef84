"""`synapse config check | show | import | schema`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from synapse_gateway.config import Dialect, load
from synapse_gateway.config.schema import render_json_schema, render_reference
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from synapse_gateway.config import Loaded

HIDDEN = "(hidden)"


def check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print what is wrong or doubtful in each file."""
    failed = False
    for name in arguments.files:
        try:
            loaded = load(Path(name), environ)
        except ConfigError as error:
            failed = True
            _complain("error", str(error))
            continue
        _warn(loaded)
        failed = failed or (arguments.strict and bool(loaded.warnings))
        sys.stdout.write(f"{name}: {_summary(loaded)}\n")
    return 1 if failed else 0


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the effective configuration of a file, secrets left out."""
    loaded = load(Path(arguments.file), environ)
    plain = _standalone(loaded)
    for backend in plain.get("backends", {}).values():
        if "headers" in backend:
            backend["headers"] = dict.fromkeys(backend["headers"], HIDDEN)
    for key in plain.get("keys", {}).values():
        if "sha256" in key:
            key["sha256"] = HIDDEN
    for group in plain.get("groups", {}).values():
        group["ws_auth_keys_sha256"] = [HIDDEN] * len(group["ws_auth_keys_sha256"])
    sys.stdout.write(f"# {arguments.file}: {_summary(loaded)}\n# hash: {loaded.hash}\n")
    sys.stdout.write(_dump(plain))
    return 0


def convert(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print a file as a native one; what it cannot take along is said on standard error."""
    loaded = load(Path(arguments.file), environ)
    _warn(loaded)
    plain = _standalone(loaded)
    if loaded.dialect is Dialect.LITELLM:
        for name, backend in plain.get("backends", {}).items():
            if backend.pop("headers", None) is not None:
                variable = f"{name}_API_KEY".upper().replace("-", "_")
                backend["api_key_env"] = variable
                message = (
                    f"backends.{name}: put its api_key into the environment variable {variable}"
                )
                _complain("note", message)
    sys.stdout.write(_dump(plain))
    return 0


def schema(arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    """Print the JSON Schema, or the reference."""
    sys.stdout.write(render_reference() if arguments.reference else render_json_schema())
    return 0


def _standalone(loaded: Loaded) -> dict[str, Any]:
    """Return the settings as plain values that stand for all files they were made from."""
    plain = loaded.settings.as_plain()
    plain.pop("groups_file", None)
    return plain


def _dump(plain: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text


def _summary(loaded: Loaded) -> str:
    settings = loaded.settings
    counts = (
        (len(settings.backends), "backend"),
        (len(settings.models), "model"),
        (len(settings.routes), "route"),
        (len(settings.keys), "key"),
        (len(loaded.warnings), "warning"),
    )
    words = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts]
    return f"{loaded.dialect.value} file, {', '.join(words)}"


def _warn(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        _complain("warning", str(warning))


def _complain(kind: str, text: str) -> None:
    sys.stderr.write("".join(f"{kind}: {line}\n" for line in text.splitlines()))
