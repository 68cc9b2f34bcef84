from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="gguf is not installed: make up")

from synapse_llama_cpp import models  # noqa: E402 - after the skip
from synapse_llama_cpp.convert_minilm import (  # noqa: E402 - see above
    SafetensorsFile,
    convert,
    gguf_token,
    tensor_names,
)

pytestmark = pytest.mark.real
WIDTH, INNER, LAYERS = 64, 128, 2
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "walk", "##ing"]


def safetensors(path: Path, tensors: dict[str, Any], kind: str = "F32") -> None:
    """Write a safetensors file."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.astype("<f4").tobytes()
        span = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": span}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def shape_of(name: str) -> tuple[int, ...]:
    if name.endswith("word_embeddings.weight"):
        return (len(VOCABULARY), WIDTH)
    if "position_embeddings" in name:
        return (32, WIDTH)
    if "token_type" in name:
        return (2, WIDTH)
    if name.endswith("bias") or "LayerNorm" in name:
        return (INNER,) if "intermediate" in name else (WIDTH,)
    return {"intermediate.dense.weight": (INNER, WIDTH), "output.dense.weight": (WIDTH, INNER)}.get(
        ".".join(name.split(".")[-3:]) if "attention" not in name else "", (WIDTH, WIDTH)
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A BERT of two layers, laid out as the package does."""
    rng = np.random.default_rng(1)
    tensors = {name: rng.normal(size=shape_of(name)) for name, _ in tensor_names(LAYERS)}
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors(folder / "model.safetensors", tensors)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    config = {
        "max_position_embeddings": 32,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "layer_norm_eps": 1e-12,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_tensor_arrives_under_the_name_that_llama_cpp_reads(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "cache" / "model.gguf"
    convert(source, target)
    read = gguf.GGUFReader(target)
    assert {tensor.name for tensor in read.tensors} == {name for _, name in tensor_names(LAYERS)}
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q8_0"
    assert kinds["position_embd.weight"] == kinds["blk.1.ffn_up.bias"] == "F32"


def test_quantised_weights_stay_close_to_those_of_the_source(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    convert(source, target)
    original = SafetensorsFile(source / "model.safetensors").tensor(
        "encoder.layer.0.attention.self.query.weight"
    )
    (found,) = [t for t in gguf.GGUFReader(target).tensors if t.name == "blk.0.attn_q.weight"]
    restored = gguf.dequantize(found.data, found.tensor_type)
    # A block of 32 numbers shares a scale of its largest number over 127.
    assert np.abs(restored - original).max() < np.abs(original).max() / 127


def test_a_conversion_that_breaks_leaves_nothing(source: Path, tmp_path: Path) -> None:
    (source / "vocab.txt").write_text("nothing\nuseful\n")
    target = tmp_path / "cache" / "model.gguf"
    with pytest.raises(KeyError):
        convert(source, target)
    assert list(target.parent.iterdir()) == []


def test_other_than_float32_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    safetensors(path, {"x": np.zeros((2, 2))}, kind="F16")
    with pytest.raises(ValueError, match="x is F16, expected F32"):
        SafetensorsFile(path).tensor("x")


@pytest.mark.parametrize(
    ("token", "written"),
    [("walk", ("\u2581walk", 1)), ("##ing", ("ing", 1)), ("[CLS]", ("[CLS]", 3))],
)
def test_a_token_is_marked_where_a_word_begins(token: str, written: tuple[str, int]) -> None:
    assert gguf_token(token) == written


def test_the_cache_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert models.cache_directory() == Path("/somewhere/synapse")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert models.cache_directory() == Path.home() / ".cache" / "synapse"


def test_a_new_version_of_the_weights_or_the_writer_is_a_new_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = models.minilm_file_name()
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name}-9")
    assert models.minilm_file_name() != before


def test_the_model_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # The conversion runs in a process of its own.
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    first = models.find_model("all-minilm-l6-v2")
    made = first.stat().st_mtime_ns
    assert models.find_model("all-minilm-l6-v2") == first
    assert first.stat().st_mtime_ns == made
    assert [entry.name for entry in (tmp_path / "synapse").iterdir()] == [first.name]
