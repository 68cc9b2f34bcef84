"""The `synapse` command.

This module only parses: what a command needs is imported when it runs, so that `synapse --help`
and shell completion stay quick. Exit codes: 0 done, 1 refused or found wrong, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

from synapse_gateway import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    _Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_EXTERNAL = {
    "up": ("synapse_gateway.up", "main_up", "run the gateway and its backends on this machine"),
    "down": ("synapse_gateway.up", "main_down", "stop what `up` started"),
}
"""Commands that parse their own arguments: module, function, help."""
EXPLAIN = "routes explain"
"""A command of two words beside `routes [FILE]`, which argparse cannot tell apart itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: Arguments after the program's name; None takes those of the process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        return _dispatch(arguments)
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not fail again while flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in _EXTERNAL:
        module, function, _ = _EXTERNAL[arguments[0]]
        return int(getattr(importlib.import_module(module), function)(arguments[1:]) or 0)
    if " ".join(arguments[:2]) == EXPLAIN:
        arguments = [EXPLAIN, *_options_first(arguments[2:])]
    options = build_parser().parse_args(arguments)
    # imported late: `errors` and what follows it are not needed to print a usage
    config_error = importlib.import_module("synapse_gateway.errors").ConfigError
    try:
        module, function = options.run
        return int(getattr(importlib.import_module(module), function)(options, os.environ))
    except config_error as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _options_first(arguments: list[str]) -> list[str]:
    """Put `--key NAME` before the words: argparse takes no optional word behind an option."""
    if "--key" not in arguments[:-1]:
        return arguments
    at = arguments.index("--key")
    return [*arguments[at : at + 2], *arguments[:at], *arguments[at + 2 :]]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    parser = argparse.ArgumentParser(
        prog="synapse", description="One OpenAI-compatible endpoint in front of local AI services."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_config(commands)
    _add_routes(commands)
    _add_decommission(commands)
    for name, (_, _, text) in _EXTERNAL.items():
        commands.add_parser(name, help=text, add_help=False)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=("synapse_gateway.cli", "print_version"))
    return parser


def print_version(_options: argparse.Namespace, _environ: object) -> int:
    """Print the version."""
    sys.stdout.write(f"{__version__}\n")
    return 0


def _add_serve(commands: _Commands) -> None:
    serve = commands.add_parser("serve", help="run the gateway")
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=_port, help="TCP port of the API (default: 8000)")
    serve.add_argument(
        "--config",
        metavar="FILE",
        help="configuration (default: SYNAPSE_GATEWAY_CONFIG_PATH or /config/backends.yaml)",
    )
    serve.add_argument(
        "--ollama-port",
        type=_port,
        metavar="PORT",
        help="TCP port that answers Ollama's API as well, such as 11434 (default: 0, none)",
    )
    serve.add_argument(
        "--log-level", metavar="LEVEL", help="default: SYNAPSE_LOG_LEVEL or INFO; also DEBUG, ..."
    )
    serve.set_defaults(run=("synapse_gateway.commands.serve", "run"))


def _add_config(commands: _Commands) -> None:
    config = commands.add_parser("config", help="check, show or convert configuration files")
    verbs = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = verbs.add_parser("check", help="say everything that is wrong or doubtful in files")
    check.add_argument("files", nargs="+", metavar="FILE")
    check.add_argument("--strict", action="store_true", help="fail on warnings as well")
    show = verbs.add_parser("show", help="print what a file comes to, secrets left out")
    show.add_argument("file", metavar="FILE")
    convert = verbs.add_parser("import", help="print a file of any dialect as a native one")
    convert.add_argument("file", metavar="FILE")
    schema = verbs.add_parser("schema", help="print the JSON Schema of native files")
    schema.add_argument(
        "--reference", action="store_true", help="print the tables of docs/configuration.md instead"
    )
    for parser, function in (
        (check, "check"),
        (show, "show"),
        (convert, "convert"),
        (schema, "schema"),
    ):
        parser.set_defaults(run=("synapse_gateway.commands.config", function))


def _add_routes(commands: _Commands) -> None:
    show = commands.add_parser("routes", help="print the route table")
    explain = commands.add_parser(
        EXPLAIN,
        help="say where a request would go, and why",
        description="REQUEST is a path and a JSON body, such as "
        '\'/v1/chat/completions {"model": "auto", "messages": [...]}\', or @FILE that holds them. '
        "Without a path it is a chat.",
    )
    explain.add_argument("request", metavar="REQUEST")
    explain.add_argument("--key", metavar="NAME", help="explain it for the holder of this key")
    for parser, function in ((show, "show"), (explain, "explain")):
        parser.add_argument("file", nargs="?", metavar="FILE", help="default: as for serve")
        parser.set_defaults(run=("synapse_gateway.commands.routes", function))


def _add_decommission(commands: _Commands) -> None:
    # imported here, and light: the many options stand beside what reads them
    options = importlib.import_module("synapse_gateway.commands.decommission_options")
    parser = commands.add_parser(
        "decommission",
        help="move Ollama instances of other namespaces to the gateway, or back",
        description=options.DESCRIPTION,
    )
    options.add(parser)
    parser.set_defaults(run=("synapse_gateway.commands.decommission", "run"))


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535 (got {text!r})")
    return int(text)
