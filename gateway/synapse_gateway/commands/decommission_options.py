"""The options of `synapse decommission`; imports nothing that takes time."""

from __future__ import annotations

import argparse

DESCRIPTION = (
    "Finds Ollama instances of other namespaces, compares their models with the gateway's, and "
    "shows what would be done. --apply lets their Service names lead to the gateway, then scales "
    "them to zero; --undo puts everything back."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to the command's parser."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--apply", action="store_true", help="do it; without, show the plan only")
    mode.add_argument("--undo", action="store_true", help="put back what --apply has changed")
    parser.add_argument(
        "--dry-run", action="store_true", help="change nothing (also with --apply or --undo)"
    )
    _add_where(parser)
    _add_gateway(parser)
    _add_exceptions(parser)
    parser.add_argument("--output", choices=("table", "json"), default="table")


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="default: KUBECONFIG, ~/.kube/config, or the account of this pod",
    )
    parser.add_argument("--context", metavar="NAME", help="a context of the kubeconfig")
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", action="append", default=[], help="may be repeated"
    )
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", help="default, but for --apply and --undo"
    )
    parser.add_argument(
        "-l",
        "--selector",
        metavar="LABELS",
        default="",
        help="labels of the Services to move (default: those named ollama or with port 11434)",
    )
    parser.add_argument(
        "--image",
        metavar="REGEX",
        default=r"(^|/)ollama[a-z0-9._-]*$",
        help="repository of an Ollama's image, without its tag (default: %(default)s)",
    )


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gateway-service",
        metavar="NAME.NAMESPACE",
        default="synapse-gateway.llm-infra",
        help="a Service of the gateway; the one in front of the same pods that has port 11434 is "
        "used (default: %(default)s)",
    )
    parser.add_argument(
        "--gateway-url",
        metavar="URL",
        default="",
        help="where the gateway answers this command (default: through the API server; in a pod, "
        "directly)",
    )
    parser.add_argument("--cluster-domain", metavar="NAME", default="cluster.local")
    parser.add_argument(
        "--drain",
        metavar="SECONDS",
        type=_seconds,
        default=300.0,
        help="from the change of the name until the old pods stop (default: %(default)g)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=600.0,
        help="for pods to become ready again with --undo (default: %(default)g)",
    )


def _add_exceptions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-missing",
        metavar="MODEL",
        action="append",
        default=[],
        help="a model that the gateway may lack; may be repeated",
    )
    parser.add_argument(
        "--allow-unlisted",
        metavar="NAMESPACE/SERVICE",
        action="append",
        default=[],
        help="an instance whose models need not be listed; may be repeated",
    )
    parser.add_argument(
        "--instance-url",
        metavar="NAMESPACE/SERVICE=URL",
        action="append",
        default=[],
        help="where an instance answers this command, such as a port that is forwarded",
    )
    parser.add_argument(
        "--callers-send-keys",
        action="store_true",
        help="the applications send keys of the gateway already (its own: SYNAPSE_API_KEY)",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"must be seconds from 0 to 86400 (got {text!r})")
    return value
