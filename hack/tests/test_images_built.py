"""The images themselves, where they have been built: who runs, what is inside, what is not."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest
from hack.tests.containers import PODMAN, containers_conf, missing

ROOT = Path(__file__).resolve().parents[2]
CHART = (ROOT / "charts" / "synapse" / "Chart.yaml").read_text(encoding="utf-8")
VERSION = CHART.split("appVersion:")[1].split()[0].strip('"')
# Megabytes of 10^6 bytes that an image may take; docs/images.md says what takes them.
SIZES = {
    "gateway": 190,
    "llama-cpp": 370,
    "piper-tts": 520,
    "whisper-stt": 680,
    "pyannote-speaker": 380,
    "deepfilter-audio": 370,
}
FORBIDDEN = """
import importlib.util, os, pathlib, pwd, shutil
tools = [name for name in ("pip", "pip3", "gcc", "cc", "make", "git", "curl") if shutil.which(name)]
tools += [name for name in ("pip", "setuptools", "hatchling") if importlib.util.find_spec(name)]
cache = os.path.join(pwd.getpwuid(0).pw_dir, ".cache")
places = ("/etc/pip.conf", "/run/secrets", "/build", "/tools", cache)
print(tools + [place for place in places if os.path.exists(place)])
"""
BYTECODE = """
import pathlib, sys
files = list(pathlib.Path("/opt/synapse").rglob("*.pyc"))
files += list(pathlib.Path("/usr/lib/python3.13/asyncio").rglob("*.pyc"))
flags = {int.from_bytes(file.read_bytes()[4:8], "little") for file in files}
print(bool(files), flags)
"""

pytestmark = pytest.mark.slow


def podman(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"CONTAINERS_CONF": str(containers_conf(folder))}
    return subprocess.run(
        [PODMAN, *arguments], input=stdin, capture_output=True, text=True, check=False, env=environ
    )


@pytest.fixture(params=SIZES)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if reason := missing("podman", "runc"):
        pytest.skip(reason)
    name = f"docker.io/library/synapse-{request.param}:{VERSION}"
    if podman(tmp_path, "image", "exists", name).returncode != 0:
        pytest.skip(f"there is no {name}; run: make images")
    return name


def run_python(image: str, folder: Path, program: str) -> str:
    flags = ("--rm", "--network", "none", "--read-only", "--cap-drop", "ALL")
    done = podman(folder, "run", *flags, "--entrypoint", "python3", image, "-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_process_is_root(image: str, tmp_path: Path) -> None:
    assert (
        run_python(image, tmp_path, "import os; print(os.getuid(), os.getgid())") == "10001 10001"
    )


def test_nothing_of_the_build_is_inside(image: str, tmp_path: Path) -> None:
    assert run_python(image, tmp_path, FORBIDDEN) == "[]"


def test_bytecode_needs_no_time_of_its_source(image: str, tmp_path: Path) -> None:
    unchecked_hash = 1  # PEP 552
    assert run_python(image, tmp_path, BYTECODE) == f"True {{{unchecked_hash}}}"


def test_an_image_stays_small(image: str, tmp_path: Path) -> None:
    size = int(podman(tmp_path, "image", "inspect", "--format", "{{.Size}}", image).stdout)
    allowed = SIZES[image.split("/synapse-")[1].split(":", maxsplit=1)[0]]
    assert size <= allowed * 1_000_000


@pytest.mark.parametrize("image", [name for name in SIZES if name != "gateway"], indirect=True)
def test_licences_of_what_a_server_loads_are_inside(image: str, tmp_path: Path) -> None:
    name = image.split("/synapse-")[1].split(":", maxsplit=1)[0]
    inside = run_python(image, tmp_path, "print(open('/LICENSES.md').read())")
    assert inside == (ROOT / "backends" / name / "LICENSES.md").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(
    ("image", "paths"),
    [
        ("pyannote-speaker", ["/diarize"]),
        ("deepfilter-audio", ["/denoise", "/convert"]),
    ],
    indirect=["image"],
)
def test_a_server_works_with_a_root_that_is_read_only(
    image: str, paths: list[str], tmp_path: Path
) -> None:
    name = f"synapse-test-{uuid.uuid4().hex[:8]}"
    flags = ("--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp")  # noqa: S108
    try:
        started = podman(tmp_path, "run", "-d", "--rm", "--name", name, *flags, image)
        assert started.returncode == 0, started.stderr
        program = (ROOT / "hack" / "tests" / "upload_tone.py").read_text(encoding="utf-8")
        asked = podman(tmp_path, "exec", "-i", name, "python3", "-", *paths, stdin=program)
        assert asked.stdout.strip() == str([200] * len(paths)), asked.stderr
    finally:
        podman(tmp_path, "rm", "--force", "--time", "5", name)
