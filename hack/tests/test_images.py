"""What the images are made of: the lock's packages, one first layer, and no tools in the last."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from hack.images.compare_layers import compare
from hack.images.requirements import main, names, select
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "hack" / "images" / "packages"
LOCK = {
    "gateway": "gateway",
    "wheel": "gateway",
    "llama-cpp": "embedded",
    "llama-cpp-convert": "embedded",
    "piper-tts": "embedded",
    "whisper-stt": "embedded",
    "pyannote-speaker": "embedded",
    "deepfilter-audio": "embedded",
    "openvoice": "embedded",
    "not-for-unit-tests": "test",
}
DOCKERFILES = {
    "gateway": ROOT / "gateway" / "Dockerfile",
    **{
        name: ROOT / "backends" / name / "Dockerfile"
        for name in (
            "llama-cpp",
            "piper-tts",
            "whisper-stt",
            "pyannote-speaker",
            "deepfilter-audio",
        )
    },
}
# Declared, but not needed for what the image does.
LEFT_OUT = {
    "hf-xet": "a faster download; no server downloads",
    "llama-cpp-python": "declared by the package of weights; xllamacpp runs them",
    "llm": "declared by the package of weights",
    "sentence-transformers": "declared by the package of weights",
    **dict.fromkeys(
        ("librosa", "scipy", "torch", "typing", "webrtcvad"),
        "declared by Resemblyzer, whose weights alone are used",
    ),
}
# gguf names the file that it wrote at build time; requests is for downloads by it.
WITHOUT_DEPENDENCIES = {"llama-cpp": {"gguf"}, "llama-cpp-convert": {"gguf"}}
IN_THE_IMAGE = {"python_version": "3.13", "python_full_version": "3.13.5", "extra": ""}


def listed(image: str) -> list[str]:
    return names((PACKAGES / f"{image}.txt").read_text(encoding="utf-8"))


def lock(image: str) -> str:
    return (ROOT / "locks" / f"{LOCK[image]}.txt").read_text(encoding="utf-8")


def test_every_list_has_its_lock() -> None:
    assert {file.stem for file in PACKAGES.glob("*.txt")} == LOCK.keys()


@pytest.mark.parametrize("image", LOCK)
def test_every_name_of_a_list_is_in_the_lock_with_hashes(image: str) -> None:
    chosen = select(lock(image), listed(image))
    pinned = re.findall(r"^[a-z0-9-]+(?===)", chosen, re.MULTILINE)
    assert sorted(pinned) == sorted(listed(image))
    assert chosen.count("--hash=sha256:") >= len(listed(image))


@pytest.mark.parametrize("image", ["wheel", *DOCKERFILES])
def test_what_a_package_declares_is_in_the_image_too(image: str) -> None:
    inside = set(listed(image))
    lacking = set()
    for name in inside - WITHOUT_DEPENDENCIES.get(image, set()):
        try:
            declared = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed here; run: make test")
        for requirement in map(Requirement, declared):
            if requirement.marker is None or requirement.marker.evaluate(IN_THE_IMAGE):
                lacking.add(canonicalize_name(requirement.name))
    assert lacking - inside - LEFT_OUT.keys() == set()


def test_a_name_that_the_lock_lacks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("uvicorn\nno-such-package  # a comment\n")
    assert main([str(ROOT / "locks" / "gateway.txt"), str(wanted)]) == 1
    assert capsys.readouterr().err == f"{wanted}: not in the lock: no-such-package\n"


def test_an_entry_keeps_its_version_and_hashes_and_the_others_are_the_rest() -> None:
    first = "a==1 \\\n    --hash=sha256:00\n"
    second = "b==2 ; python_version < '3' \\\n    --hash=sha256:11\n"
    assert select(f"# head\n{first}{second}", ["b"]) == second
    assert select(f"# head\n{first}{second}", ["b"], invert=True) == first


def stages(image: str) -> list[str]:
    """The stages of a Dockerfile, comments left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILES[image].read_text(encoding="utf-8"), flags=re.MULTILINE)
    return re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]


def test_every_image_stands_on_the_same_first_layer() -> None:
    assert len({stages(image)[0] for image in DOCKERFILES}) == 1
    assert stages("gateway")[0].startswith("FROM docker.io/library/debian:trixie-slim AS python\n")


@pytest.mark.parametrize("image", DOCKERFILES)
def test_a_server_is_the_first_process_and_not_root(image: str) -> None:
    last = stages(image)[-1]
    assert "USER 10001:10001\n" in last
    assert re.search(r'^ENTRYPOINT \["', last, re.MULTILINE)
    assert "HEALTHCHECK" not in last
    assert "pip" not in last.replace("piper", "")


@pytest.mark.parametrize("image", DOCKERFILES)
def test_everything_is_installed_by_hash(image: str) -> None:
    build = stages(image)[1].replace("\\\n", " ")
    installs = re.findall(r"pip [^&\n]*install [^&\n]*", build)
    assert installs
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)


def test_ports_that_the_deployment_names_are_exposed() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in services.values():
        command = " ".join(service.get("command", []))
        match = re.search(r"--port[= ](\d+)", command)
        if match and service["image"].startswith("synapse-"):
            image = service["image"].split(":")[0].removeprefix("synapse-")
            exposed = re.search(r"^EXPOSE (.*)$", stages(image)[-1], re.MULTILINE)
            assert exposed is not None
            assert match[1] in exposed[1].split(), image


def layout(folder: Path, files: dict[str, tuple[str, int]]) -> Path:
    """An OCI image layout with one layer of the files {path: (text, time)}."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return f"sha256:{digest}"

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for path, (text, time) in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime = len(text), time
            archive.addfile(member, io.BytesIO(text.encode()))
    manifest = {"layers": [{"digest": put(layer.getvalue())}]}
    index = {"manifests": [{"digest": put(json.dumps(manifest).encode())}]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def test_the_same_files_are_the_same_layer(tmp_path: Path) -> None:
    files = {"etc/a": ("1", 0)}
    same, lines = compare(layout(tmp_path / "one", files), layout(tmp_path / "two", files))
    assert same
    assert lines[0].startswith("layer 1: the same, sha256:")


def test_files_that_differ_are_named_with_what_differs(tmp_path: Path) -> None:
    one = layout(tmp_path / "one", {"a": ("1", 0), "b": ("1", 0), "c": ("1", 0), "d": ("1", 0)})
    two = layout(tmp_path / "two", {"a": ("1", 0), "b": ("2", 0), "c": ("1", 9), "e": ("1", 0)})
    same, lines = compare(one, two)
    assert not same
    assert lines == [
        "layer 1: 4 files differ",
        "  b: content",
        "  c: time",
        "  d: only in the first",
        "  e: only in the second",
    ]


def test_an_unknown_image_is_refused_with_the_known_ones() -> None:
    build = ROOT / "hack" / "images" / "build.sh"
    done = subprocess.run([build, "gatway"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unknown image 'gatway': expected gateway, llama-cpp" in done.stderr


def test_the_selection_is_printed_for_pip() -> None:
    program = ROOT / "hack" / "images" / "requirements.py"
    command = [sys.executable, str(program), str(ROOT / "locks" / "gateway.txt")]
    done = subprocess.run(
        [*command, str(PACKAGES / "wheel.txt")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("hatchling==")
