"""`synapse decommission`."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING

from synapse_gateway.decommission import (
    DecommissionError,
    Kube,
    Options,
    Plan,
    Refusal,
    Run,
    as_json,
    find_cluster,
    make_plan,
    render,
    steps,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

KEY = "SYNAPSE_API_KEY"
"""Environment variable that holds a key of the gateway."""


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Show the plan, carry it out, or undo it; 1 where something is refused, 2 on wrong usage."""
    wrong = _usage(arguments)
    if wrong:
        sys.stderr.write(f"synapse decommission: {wrong}\n")
        return 2
    try:
        kube = Kube(find_cluster(arguments.kubeconfig, arguments.context, environ))
        if arguments.undo:
            return _undo(kube, arguments)
        plan = make_plan(kube, options_of(arguments), environ.get(KEY, ""))
        return _apply(kube, arguments, plan)
    except DecommissionError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def options_of(arguments: argparse.Namespace) -> Options:
    """Return what the command line asks for."""
    name, _, namespace = arguments.gateway_service.partition(".")
    return Options(
        namespaces=tuple(arguments.namespace),
        selector=arguments.selector,
        image=arguments.image,
        gateway=(namespace, name),
        gateway_url=arguments.gateway_url,
        cluster_domain=arguments.cluster_domain,
        allow_missing=frozenset(arguments.allow_missing),
        allow_unlisted=frozenset(arguments.allow_unlisted),
        instance_urls=dict(entry.partition("=")[::2] for entry in arguments.instance_url),
        callers_send_keys=arguments.callers_send_keys,
        drain=arguments.drain,
        timeout=arguments.timeout,
    )


def _usage(arguments: argparse.Namespace) -> str | None:
    """Return what is wrong with the arguments, as argparse cannot see it."""
    changes = (arguments.apply or arguments.undo) and not arguments.dry_run
    if changes and not (arguments.namespace or arguments.all_namespaces):
        return "say where: --namespace NAMESPACE or --all-namespaces"
    if arguments.namespace and arguments.all_namespaces:
        return "either --namespace or --all-namespaces"
    if not all(arguments.gateway_service.partition(".")[::2]):
        return f"--gateway-service must be NAME.NAMESPACE (got {arguments.gateway_service!r})"
    urls = [entry.partition("=")[2] for entry in arguments.instance_url]
    for option, url in [("--instance-url", url) for url in urls] + [
        ("--gateway-url", arguments.gateway_url or "http://")
    ]:
        if not url.startswith(("http://", "https://")):
            return f"{option} must end in a URL with http:// or https:// (got {url!r})"
    try:
        re.compile(arguments.image)
    except re.error as error:
        return f"--image must be a regular expression ({error})"
    return None


def _apply(kube: Kube, arguments: argparse.Namespace, plan: Plan) -> int:
    table = arguments.output == "table"
    if table:
        sys.stdout.write(render(plan))
    run = Run(kube, options_of(arguments), _say, time.sleep)
    refused = bool(plan.refusals)
    try:
        if arguments.apply and not arguments.dry_run:
            if refused:
                raise Refusal("nothing was changed")
            run.apply(plan)
            if table:
                sys.stdout.write("Done. `synapse decommission --undo` puts it back.\n")
        elif table and not refused:
            todo = steps(plan, arguments.drain)
            _list("With --apply, in this order:", todo or ["nothing is left to do"])
    finally:
        if not table:
            _json(as_json(plan, run.changes))
    return 1 if refused else 0


def _undo(kube: Kube, arguments: argparse.Namespace) -> int:
    run = Run(kube, options_of(arguments), _say, time.sleep)
    table = arguments.output == "table"
    if arguments.dry_run:
        todo = run.undo_steps()
        if table:
            _list("With --undo:", todo or ["nothing is left to undo"])
        else:
            _json({"steps": todo})
        return 0
    refused = run.undo()
    if not table:
        _json({"changes": run.changes, "refused": refused})
    elif not run.changes and not refused:
        sys.stdout.write("nothing was left to undo\n")
    for sentence in refused:
        sys.stderr.write(f"refused: {sentence}\n")
    return 1 if refused else 0


def _list(heading: str, sentences: Sequence[str]) -> None:
    sys.stdout.write("\n".join([heading, *(f"  {sentence}" for sentence in sentences)]) + "\n")


def _json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
