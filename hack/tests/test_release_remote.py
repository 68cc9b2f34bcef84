"""`make release-gateway-remote` against a real sshd and a real registry on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
MAKE = shutil.which("make") or "make"
NEEDED = {
    "sshd": ("/usr/sbin/sshd", "openssh-server"),
    "ssh": ("/usr/bin/ssh", "openssh-client"),
    "docker-registry": ("/usr/bin/docker-registry", "docker-registry"),
    "buildah": ("/usr/bin/buildah", "buildah"),
}

pytestmark = pytest.mark.slow


class Machines(NamedTuple):
    """The host that builds, the registry that it pushes to, a Helm that writes down its call."""

    ssh: str
    registry: str
    builder: Path
    dockerfile: Path
    helm: Path
    record: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended at once"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on port {port}")


@contextlib.contextmanager
def server(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    missing = [package for path, package in NEEDED.values() if not Path(path).exists()]
    if missing:
        pytest.skip(f"needs the Debian packages {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("sshd that lets this user in needs root")
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(key, check=True)
    ssh_port, registry_port = free_port(), free_port()
    (tmp_path / "sshd_config").write_text(
        f"Port {ssh_port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\nPidFile {tmp_path}/pid\n"
    )
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/images}}}}\n"
        f"http: {{addr: 127.0.0.1:{registry_port}}}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    record = tmp_path / "record"
    ssh = f"ssh -p {ssh_port} -i {tmp_path}/user -o StrictHostKeyChecking=no "
    ssh += "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    store = f"--storage-driver vfs --root {tmp_path}/store --runroot {tmp_path}/run"
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY README.md /README.md\n")
    found = Machines(
        ssh,
        f"127.0.0.1:{registry_port}",
        script(tmp_path / "buildah", f'exec /usr/bin/buildah {store} "$@"'),
        dockerfile,
        script(tmp_path / "helm", f'echo "$@" >>{record}'),
        record,
    )
    sshd = [NEEDED["sshd"][0], "-D", "-e", "-f", str(tmp_path / "sshd_config")]
    registry = [NEEDED["docker-registry"][0], "serve", str(tmp_path / "registry.yml")]
    with (
        server(sshd, ssh_port, tmp_path / "sshd.log"),
        server(registry, registry_port, tmp_path / "registry.log"),
    ):
        yield found


def release(machines: Machines, remote: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "SSH": machines.ssh,
        "BUILD_FLAGS": "--isolation chroot",
        "PUSH_FLAGS": "--tls-verify=false",
        "GATEWAY_DOCKERFILE": str(machines.dockerfile),
    }
    variables = [
        f"REGISTRY={machines.registry}/ai",
        f"BUILDER={machines.builder}",
        f"HELM={machines.helm}",
        "FORGE_HOST=root@127.0.0.1",
        f"REMOTE_DIR={remote}",
        "VALUES=values/starter.yaml",
        *settings,
    ]
    return subprocess.run(
        [MAKE, "--no-print-directory", "release-gateway-remote", *variables],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def test_what_is_deployed_is_the_digest_of_the_push(machines: Machines, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    (remote / ".synapse-release").touch()
    (remote / "left-behind").write_text("of an earlier release")
    done = release(machines, remote, "GATEWAY_REMOTE_TAG=v7")
    assert done.returncode == 0, done.stdout + done.stderr
    url = f"http://{machines.registry}/v2/ai/synapse-gateway/manifests/v7"
    accept = "application/vnd.oci.image.manifest.v1+json"
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - on loopback
        digest = answer.headers["Docker-Content-Digest"]
    call = machines.record.read_text()
    assert f"--set gateway.image.tag=v7 --set gateway.image.digest={digest}" in call
    assert f"images.registry={machines.registry}/ai" in call
    assert (remote / "charts" / "synapse" / "Chart.yaml").is_file()
    assert not (remote / "left-behind").exists()


def test_a_folder_that_holds_something_else_is_left_alone(
    machines: Machines, tmp_path: Path
) -> None:
    remote = tmp_path / "home"
    remote.mkdir()
    (remote / "thesis").write_text("years of work")
    done = release(machines, remote)
    assert done.returncode != 0
    assert f"{remote} on root@127.0.0.1 holds something else; name another" in done.stderr
    assert (remote / "thesis").read_text() == "years of work"
    assert not machines.record.exists()


@pytest.mark.parametrize("folder", ["/", ".", "..", "a/../.."])
def test_a_folder_that_is_none_of_its_own_is_refused(machines: Machines, folder: str) -> None:
    done = release(machines, Path("x"), f"REMOTE_DIR={folder}")
    assert done.returncode != 0
    assert "REMOTE_DIR: must be a folder of its own" in done.stderr


def test_the_tag_is_the_time_unless_one_is_named(machines: Machines, tmp_path: Path) -> None:
    assert release(machines, tmp_path / "remote").returncode == 0
    url = f"http://{machines.registry}/v2/ai/synapse-gateway/tags/list"
    with urllib.request.urlopen(url, timeout=10) as answer:
        (tag,) = json.load(answer)["tags"]
    assert re.fullmatch(r"\d{8}T\d{6}Z", tag)


def test_a_build_that_fails_deploys_nothing(machines: Machines, tmp_path: Path) -> None:
    machines.dockerfile.write_text("FROM scratch\nCOPY no-such-file /x\n")
    done = release(machines, tmp_path / "remote")
    assert done.returncode != 0
    assert not machines.record.exists()
