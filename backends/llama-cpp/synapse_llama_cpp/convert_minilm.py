"""Writes all-MiniLM-L6-v2 as a q8_0 GGUF file, from the safetensors file of its package.

Layout of safetensors: 8 bytes little-endian length, a JSON header, then raw tensors.
Tensor and key names of the result are those that llama.cpp reads for the architecture ``bert``
(gguf-py ``constants.py``; llama.cpp ``convert_hf_to_gguf.py``, class BertModel).
"""

import contextlib
import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[np.float32]

_NORMAL_TOKEN = 1
_CONTROL_TOKEN = 3
_WORD_START = "\u2581"  # llama.cpp marks where a word begins; BERT marks where one goes on

_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# Small tables that llama.cpp adds row by row: it wants them unquantised.
_KEPT_AS_FLOAT = {"position_embd.weight", "token_types.weight"}


class SafetensorsFile:
    """Read-only view of the float32 tensors of a safetensors file."""

    def __init__(self, path: Path) -> None:
        """Map the file ``path`` into memory and read its header."""
        self._data: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        (length,) = struct.unpack("<Q", self._data[:8].tobytes())
        self._start = 8 + int(length)
        self._header: dict[str, Any] = json.loads(self._data[8 : self._start].tobytes())

    def __contains__(self, name: str) -> bool:
        return name in self._header

    def tensor(self, name: str) -> Tensor:
        """The tensor ``name`` in its own shape.

        Raises:
            ValueError: When it is not of type F32.
        """
        entry = self._header[name]
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} is {entry['dtype']}, expected F32")
        first, last = entry["data_offsets"]
        raw = self._data[self._start + first : self._start + last]
        return raw.view("<f4").reshape(entry["shape"])


def tensor_names(layers: int) -> Iterator[tuple[str, str]]:
    """Pairs of the name in the source and the name in GGUF, for a BERT of so many layers."""
    yield from _EMBEDDINGS.items()
    for layer in range(layers):
        for source, target in _LAYER.items():
            for part in ("weight", "bias"):
                yield f"encoder.layer.{layer}.{source}.{part}", f"blk.{layer}.{target}.{part}"


def gguf_token(token: str) -> tuple[str, int]:
    """A WordPiece token as llama.cpp writes it, and its GGUF token type.

    >>> gguf_token("##ing"), gguf_token("[CLS]")
    (('ing', 1), ('[CLS]', 3))
    """
    if token.startswith("[") and token.endswith("]"):
        return token, _CONTROL_TOKEN
    if token.startswith("##"):
        return token[2:], _NORMAL_TOKEN
    return _WORD_START + token, _NORMAL_TOKEN


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary: list[str]) -> None:
    tokens = [gguf_token(token) for token in vocabulary]
    number = {token: index for index, token in enumerate(vocabulary)}
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_vocab_size(len(vocabulary))
    writer.add_token_type_count(2)
    writer.add_token_list([text.encode() for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(number["[CLS]"])
    writer.add_eos_token_id(number["[SEP]"])
    writer.add_sep_token_id(number["[SEP]"])
    writer.add_unk_token_id(number["[UNK]"])
    writer.add_pad_token_id(number["[PAD]"])
    writer.add_mask_token_id(number["[MASK]"])


def _write_parameters(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def _write_tensors(writer: gguf.GGUFWriter, weights: SafetensorsFile, layers: int) -> None:
    prefix = "" if "embeddings.word_embeddings.weight" in weights else "bert."
    quantised = gguf.GGMLQuantizationType.Q8_0
    for source, target in tensor_names(layers):
        tensor = weights.tensor(prefix + source)
        if tensor.ndim == 1 or target in _KEPT_AS_FLOAT:
            writer.add_tensor(target, tensor.astype(np.float32))
        else:
            writer.add_tensor(target, gguf.quantize(tensor, quantised), raw_dtype=quantised)


@contextlib.contextmanager
def _appears_whole(target: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``target`` only once it is complete on disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def convert(source: Path, target: Path) -> None:
    """Write the model of the directory ``source`` as the GGUF file ``target``, atomically."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    vocabulary = (source / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    weights = SafetensorsFile(source / "model.safetensors")
    with _appears_whole(target) as part:
        writer = gguf.GGUFWriter(part, "bert")
        _write_parameters(writer, config)
        _write_vocabulary(writer, vocabulary)
        _write_tensors(writer, weights, config["num_hidden_layers"])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
