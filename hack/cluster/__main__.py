"""`make cluster` and what belongs to it: python3 -m hack.cluster COMMAND."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from hack.cluster import external, faults, inside, lifecycle, programs
from hack.cluster.places import NODE_PLACES
from hack.cluster.pods import PodName
from hack.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable


def up(_: argparse.Namespace) -> None:
    """Bring the cluster up with the chart in it; what is there already is kept."""
    if external.kubeconfig():
        external.deploy()
    else:
        lifecycle.up()


def down(_: argparse.Namespace) -> None:
    """Take the cluster down, and say what is left of it."""
    if external.kubeconfig():
        external.remove()
    else:
        lifecycle.down()


def load(arguments: argparse.Namespace) -> None:
    """Load images that buildah has into both nodes."""
    lifecycle.load(arguments.references)


def enter(arguments: argparse.Namespace) -> None:
    """Run a command in the cluster's network, with its DNS; takes the place of this process."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    command, environment = inside.command(arguments.where, words or [os.environ.get("SHELL", "sh")])
    os.execvpe(command[0], command, environment)  # noqa: S606


def signal_of(name: str) -> int:
    """Number of a signal: KILL, TERM, 9 ..."""
    if name.isdigit():
        return int(name)
    return signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"]


def add_faults(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand for each fault."""
    names = parser.add_subparsers(required=True, metavar="FAULT")

    def add(name: str, function: Callable[..., object]) -> argparse.ArgumentParser:
        return names.add_parser(name, help=(function.__doc__ or "").splitlines()[0])

    for name, function in (("cut", faults.cut), ("mend", faults.mend)):
        sub = add(name, function)
        sub.add_argument("node", choices=sorted(NODE_PLACES))
        sub.set_defaults(run=lambda a, do=function: do(a.node))
    for name, plain in (
        ("stop-api", faults.stop_api),
        ("start-api", faults.start_api),
        ("heal", faults.heal),
    ):
        add(name, plain).set_defaults(run=lambda _, do=plain: do())
    for name, on_pod in (("freeze", faults.freeze), ("thaw", faults.thaw), ("clean", faults.clean)):
        sub = add(name, on_pod)
        sub.add_argument("pod", type=PodName.parse, metavar="[NAMESPACE/]POD")
        sub.set_defaults(run=lambda a, do=on_pod: do(a.pod))
    sub = add("kill", faults.kill)
    sub.add_argument("pod", type=PodName.parse, metavar="[NAMESPACE/]POD")
    sub.add_argument("--container", default="")
    sub.add_argument("--signal", type=signal_of, default=signal.SIGKILL)
    sub.set_defaults(run=lambda a: faults.kill(a.pod, a.container, a.signal))
    for name in ("drop", "lose"):
        sub = add(name, getattr(faults, name))
        sub.add_argument("pod", type=PodName.parse, metavar="[NAMESPACE/]POD")
        sub.add_argument("--port", type=int, default=0, help="only this TCP port of the pod")
        sub.add_argument(
            "--spare-probes", action="store_true", help="leave the node's own packets alone"
        )
        if name == "lose":
            sub.add_argument("--percent", type=float, required=True)
            sub.set_defaults(
                run=lambda a: faults.lose(a.pod, a.percent, a.port, spare_probes=a.spare_probes)
            )
        else:
            sub.set_defaults(run=lambda a: faults.drop(a.pod, a.port, spare_probes=a.spare_probes))
    sub = add("slow", faults.slow)
    sub.add_argument("pod", type=PodName.parse, metavar="[NAMESPACE/]POD")
    sub.add_argument("--rate", required=True, help="such as 64kbit")
    sub.set_defaults(run=lambda a: faults.slow(a.pod, a.rate))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python3 -m hack.cluster", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, function in (("up", up), ("down", down)):
        command = commands.add_parser(name, help=function.__doc__)
        command.set_defaults(run=function)
    command = commands.add_parser("build", help="build what is missing of programs and images")
    command.set_defaults(run=lambda _: lifecycle.build())
    command = commands.add_parser("status", help=lifecycle.status.__doc__)
    command.set_defaults(run=lambda _: lifecycle.status())
    command = commands.add_parser("collect", help=lifecycle.collect.__doc__)
    command.add_argument("folder")
    command.set_defaults(run=lambda a: lifecycle.collect(a.folder))
    command = commands.add_parser("add", help=lifecycle.add.__doc__)
    command.add_argument("part", choices=(*programs.EXTRAS, "phases"))
    command.set_defaults(run=lambda a: lifecycle.add(a.part))
    command = commands.add_parser("load", help=load.__doc__)
    command.add_argument("references", nargs="+", metavar="IMAGE")
    command.set_defaults(run=load)
    command = commands.add_parser("enter", help=enter.__doc__)
    command.add_argument(
        "--as",
        dest="where",
        default=inside.DEFAULT,
        metavar="WHO",
        help="clients, foreign (also clients@node2), node1, node2 or outside; clients by default",
    )
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    command.set_defaults(run=enter)
    add_faults(commands.add_parser("fault", help="break something on purpose, or mend it"))
    return top


def main() -> int:
    """Run one command; the exit code."""
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
    except ClusterError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; run it again to go on\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
