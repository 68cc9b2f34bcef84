"""The suite's options."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT_DIR = "build/conformance"


@dataclass(frozen=True)
class Options:
    """What the caller asks for.

    Attributes:
        gateway_url: Base URL of the gateway, without `/v1`; empty where the cluster is to tell.
        api_key: Key that may use everything; empty sends none.
        kubeconfig: File; empty means that there is no cluster to look at.
        context: A context of it; empty takes its current one.
        namespace: Namespace of the release.
        require: Ids of lines that must be supported.
        only: Patterns of line ids; empty means all.
        report_dir: Where the reports go.
        disruptive: Whether the deployment itself may be broken and mended.
        streams: Streams that callers keep open while something is broken.
        rate: Requests a second that they send beside them.
        allow_empty: Whether a deployment without any model passes.
        phase_values: Values files laid over the phases that are installed beside the deployment.
    """

    gateway_url: str
    api_key: str
    kubeconfig: str
    context: str
    namespace: str
    require: tuple[str, ...]
    only: tuple[str, ...]
    report_dir: Path
    disruptive: bool
    streams: int
    rate: float
    allow_empty: bool
    phase_values: tuple[Path, ...] = ()


def add(parser: pytest.Parser) -> None:
    """Add the options to pytest's own."""
    group = parser.getgroup("conformance", "conformance of a live deployment")
    group.addoption("--gateway-url", metavar="URL", default=os.environ.get("GATEWAY_URL", ""))
    group.addoption(
        "--api-key",
        metavar="KEY",
        default=os.environ.get("SYNAPSE_API_KEY", ""),
        help="a key that may use everything (default: SYNAPSE_API_KEY, or the cluster's Secret)",
    )
    group.addoption(
        "--kubeconfig",
        metavar="FILE",
        default=os.environ.get("KUBECONFIG", ""),
        help="the cluster of the deployment (default: KUBECONFIG); without it only the API is seen",
    )
    group.addoption("--context", metavar="NAME", default="", help="a context of the kubeconfig")
    group.addoption("--namespace", metavar="NAME", default="llm-infra", help="of the release")
    group.addoption(
        "--require",
        metavar="FILE",
        default="",
        help="ids of lines, one a line, that must be supported for the run to pass",
    )
    group.addoption(
        "--only",
        metavar="PATTERN",
        action="append",
        default=[],
        help="look at lines whose id matches, such as 'network.*'; may be repeated",
    )
    group.addoption(
        "--required-only", action="store_true", help="look at the lines of --require alone"
    )
    group.addoption("--report-dir", metavar="DIR", default=REPORT_DIR)
    group.addoption(
        "--disruptive",
        action="store_true",
        help="break and mend the deployment itself; without it the suite changes nothing outside "
        "namespaces of its own",
    )
    group.addoption(
        "--traffic",
        metavar="STREAMSxRATE",
        default="20x20",
        help="streams at a time, and requests a second, while something is broken (%(default)s)",
    )
    group.addoption(
        "--phase-values",
        metavar="FILES",
        default=os.environ.get("PHASE_VALUES", ""),
        help="values files, separated by commas, for the phases of the section Upgrades: names of "
        "images, and what the cluster needs besides (default: PHASE_VALUES)",
    )
    group.addoption(
        "--allow-empty", action="store_true", help="pass where the deployment claims no model"
    )


def read(config: pytest.Config) -> Options:
    """Return the options of a run.

    Raises:
        pytest.UsageError: One of them cannot be used.
    """
    url: str = config.getoption("--gateway-url").rstrip("/").removesuffix("/v1")
    kubeconfig: str = config.getoption("--kubeconfig")
    if not url and not kubeconfig:
        raise pytest.UsageError(
            "conformance: give --gateway-url http://HOST:PORT, --kubeconfig FILE, or both"
        )
    if url and not url.startswith(("http://", "https://")):
        raise pytest.UsageError(f"--gateway-url: {url!r} must start with http:// or https://")
    if kubeconfig and not Path(kubeconfig).is_file():
        raise pytest.UsageError(f"--kubeconfig: there is no file {kubeconfig}")
    traffic = re.fullmatch(r"(\d+)x(\d+)", config.getoption("--traffic"))
    if not traffic:
        raise pytest.UsageError("--traffic: must be STREAMSxRATE, such as 20x20")
    required = tuple(_required(config.getoption("--require")))
    only = tuple(config.getoption("--only"))
    phase_values = [Path(name) for name in config.getoption("--phase-values").split(",") if name]
    if missing := [path for path in phase_values if not path.is_file()]:
        raise pytest.UsageError(f"--phase-values: there is no file {missing[0]}")
    if config.getoption("--required-only"):
        if not required:
            raise pytest.UsageError("--required-only: --require names no line")
        only += required
    return Options(
        gateway_url=url,
        api_key=config.getoption("--api-key"),
        kubeconfig=kubeconfig,
        context=config.getoption("--context"),
        namespace=config.getoption("--namespace"),
        require=required,
        only=only,
        report_dir=Path(config.getoption("--report-dir")),
        disruptive=config.getoption("--disruptive"),
        streams=int(traffic[1]),
        rate=float(traffic[2]),
        allow_empty=config.getoption("--allow-empty"),
        phase_values=tuple(phase_values),
    )


def _required(file: str) -> Sequence[str]:
    if not file:
        return []
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise pytest.UsageError(f"--require: {file}: {error.strerror}") from None
    return [name for line in text.splitlines() if (name := line.partition("#")[0].strip())]
