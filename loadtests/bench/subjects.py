"""What is measured, as it is set up: the Go harness, nginx as the reference, and the gateway."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests.bench import interpreter
from loadtests.bench.processes import (
    HARNESS_CORE,
    PROXY_CORE,
    BenchError,
    Children,
    apt_install,
    can_apt_install,
    family,
    free_port,
    get_json,
    pinned,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).parent
GENEROUS = 1_000_000_000
"""Limits that are counted for every request and that no run reaches."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A proxy under test, or the upstream itself.

    Attributes:
        name: direct, nginx or gateway.
        port: Where it takes plain requests.
        stream_port: Where it takes streams; nginx buffers on one port and not on the other.
        pids: Its processes.
    """

    name: str
    port: int
    stream_port: int
    pids: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A running set: upstream, nginx and, if it was asked for, the gateway."""

    load: Path
    upstream_port: int
    upstream_pid: int
    direct: Proxy
    nginx: Proxy
    gateway: Proxy | None
    children: Children
    python: str
    """What the gateway runs on, for the report."""

    @property
    def proxies(self) -> list[Proxy]:
        """Everything that is measured, in the order of the report."""
        return [self.direct, self.nginx] + ([self.gateway] if self.gateway else [])

    def control(self, **values: int) -> None:
        """Set the upstream's behaviour and forget its counts."""
        query = "&".join(f"{name}={value}" for name, value in values.items())
        get_json(self.upstream_port, f"/bench/control?{query}")
        get_json(self.upstream_port, "/bench/reset")

    def client(self, mode: str, port: int, **flags: float) -> dict[str, Any]:
        """Run the client to its end and return what it measured."""
        command = [str(self.load), mode, "-address", f"127.0.0.1:{port}"]
        for name, value in flags.items():
            command += [
                f"-{name.replace('_', '-')}",
                f"{value:g}" if value % 1 else str(int(value)),
            ]
        done = subprocess.run(  # noqa: S603 - our own program
            pinned(HARNESS_CORE, command), capture_output=True, text=True, check=False, timeout=7200
        )
        self.children.check()
        if done.returncode:
            raise BenchError(f"{mode} on port {port}: {done.stderr.strip()}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def require_tools(say: Callable[[str], None]) -> None:
    """Install nginx where it is absent and that is possible; say what to do where it is not.

    Raises:
        BenchError: Something is missing that cannot be installed from here.
    """
    for tool, how in (("go", "install Go 1.22 or later"), ("taskset", "install util-linux")):
        if shutil.which(tool) is None:
            raise BenchError(f"{tool} is not installed, and the benchmark needs it: {how}")
    if (os.cpu_count() or 1) < 2:
        raise BenchError("the benchmark needs two cores: one for the proxy, one for both its ends")
    missing = [tool for tool in ("nginx", "wrk") if _tool(tool) is None]
    if not missing:
        return
    names = " and ".join(missing)
    if not can_apt_install():
        raise BenchError(
            f"{names} not found, and only root on a Debian-like system can install it from here: "
            f"install {names} with your package manager, then run this again"
        )
    say(f"installing {names} with apt-get")
    apt_install(missing)


def _tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def build_harness(folder: Path) -> tuple[Path, Path]:
    """Build the Go programs; return upstream and load."""
    done = subprocess.run(  # noqa: S603
        ["go", "build", "-o", str(folder) + "/", "./cmd/..."],  # noqa: S607
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"go build failed:\n{done.stderr.strip()}")
    return folder / "upstream", folder / "load"


def start(
    children: Children, say: Callable[[str], None], *, keys: int, gateway: bool, models: int = 20
) -> Setup:
    """Start everything and wait until it answers."""
    python = interpreter.for_gateway(say) if gateway else interpreter.own()
    upstream, load = build_harness(children.folder)
    ports = [free_port(), free_port()]
    upstream_pid = children.start(
        "upstream",
        HARNESS_CORE,
        [str(upstream), "-ports", ",".join(map(str, ports)), "-seconds", "7200"],
    )
    for port in ports:
        children.await_status(port, "/health")
    return Setup(
        load=load,
        upstream_port=ports[0],
        upstream_pid=upstream_pid,
        direct=Proxy(name="direct", port=ports[0], stream_port=ports[0], pids=[]),
        nginx=start_nginx(children, ports),
        gateway=start_gateway(children, python.path, ports, keys=keys, models=models)
        if gateway
        else None,
        children=children,
        python=python.name,
    )


def start_nginx(children: Children, upstreams: Sequence[int]) -> Proxy:
    """Start nginx with one worker on the proxy's core."""
    plain, unbuffered = free_port(), free_port()
    file = children.folder / "nginx.conf"
    file.write_text(nginx_config(children.folder, upstreams, plain, unbuffered), encoding="utf-8")
    command = [str(_tool("nginx")), "-c", str(file), "-p", str(children.folder)]
    pid = children.start("nginx", PROXY_CORE, command)
    children.await_status(plain, "/health")
    children.await_status(unbuffered, "/health")
    return Proxy(name="nginx", port=plain, stream_port=unbuffered, pids=family(pid))


def nginx_config(folder: Path, upstreams: Sequence[int], plain: int, unbuffered: int) -> str:
    """Return a reference proxy's configuration: keep-alive both ways, access log, two servers."""
    servers = "\n".join(f"    server 127.0.0.1:{port};" for port in upstreams)
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log {folder}/nginx-access.log combined;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  keepalive_requests 100000000;
  upstream engines {{
{servers}
    keepalive 1024;
    keepalive_requests 100000000;
  }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  server {{
    listen 127.0.0.1:{plain} backlog=4096;
    location / {{ proxy_pass http://engines; }}
  }}
  server {{
    listen 127.0.0.1:{unbuffered} backlog=4096;
    location / {{ proxy_pass http://engines; proxy_buffering off; }}
  }}
}}
"""


def start_gateway(
    children: Children, python: str, upstreams: Sequence[int], *, keys: int, models: int
) -> Proxy:
    """Start the gateway with everything switched on, on the proxy's core."""
    file = children.folder / "gateway.yaml"
    file.write_text(
        json.dumps(gateway_config(upstreams, keys=keys, models=models)), encoding="utf-8"
    )
    port = free_port()
    command = [
        python,
        "-m",
        "synapse_gateway",
        "serve",
        "--config",
        str(file),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    root = HERE.parents[1]
    path = os.pathsep.join([str(root / "gateway"), *filter(None, [os.environ.get("PYTHONPATH")])])
    pid = children.start("gateway", PROXY_CORE, command, {"PYTHONPATH": path})
    children.await_status(port, "/readyz")
    return Proxy(name="gateway", port=port, stream_port=port, pids=family(pid))


def gateway_config(upstreams: Sequence[int], *, keys: int, models: int) -> dict[str, Any]:
    """Return a configuration with keys, per-key limits, models on two backends, caps and a breaker.

    JSON is YAML, so the gateway reads it as its native file.
    """
    limits = {
        "requests_per_minute": GENEROUS,
        "tokens_per_minute": GENEROUS,
        "concurrency": GENEROUS,
    }
    names = [f"engine-{number}" for number in range(len(upstreams))]
    return {
        "auth": "keys",
        "backends": {
            name: {"url": f"http://127.0.0.1:{port}", "health": "/health", "slots": 512}
            for name, port in zip(names, upstreams, strict=True)
        },
        "models": {
            f"bench-{number:03}": {
                "targets": [{"backend": name, "max_in_flight": 4096} for name in names]
            }
            for number in range(models)
        },
        "keys": {
            f"caller-{number:04}": {
                "sha256": sha256(f"sk-bench-{number:04}".encode()).hexdigest(),
                **limits,
            }
            for number in range(keys)
        },
    }
