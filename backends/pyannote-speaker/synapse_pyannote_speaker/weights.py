"""Reads the weights of a PyTorch checkpoint without PyTorch.

The format is the one from before PyTorch 1.6: four pickles (magic number, protocol version, system
information, the object, whose tensors name their storages), the list of storage keys, then each
storage as its element count and raw little-endian data. Nothing of a pickle is ever called but the
few builders below, so a checkpoint cannot run code.
"""

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "LongStorage": "<i8"}


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(
    storage: str, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(data: _Tensor, *_: object) -> _Tensor:
    return data


class _Ignored:
    """Stands for everything of the checkpoint that is not weights, such as an optimiser's state."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Knows tensors and storages, and nothing else that could be called."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.types: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        return _Ignored

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, *_rest = pid
        self.types[key] = kind
        return str(key)


def read_weights(path: Path, member: str) -> dict[str, Array]:
    """The arrays of the state dictionary under ``member`` of a checkpoint, by their names.

    Raises:
        ValueError: The file is not such a checkpoint.
    """
    try:
        with path.open("rb") as file:
            return _read(file, member)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is not a checkpoint that can be read") from error


def _read(file: IO[bytes], member: str) -> dict[str, Array]:
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError
    for _ in range(2):
        _Unpickler(file).load()
    reader = _Unpickler(file)
    state = reader.load()[member]
    keys = _Unpickler(file).load()
    storages = {key: _storage(file, reader.types[key]) for key in keys}
    return {name: _view(storages[one.storage], one) for name, one in state.items()}


def _storage(file: IO[bytes], kind: str) -> npt.NDArray[Any]:
    (count,) = struct.unpack("<q", file.read(8))
    width = np.dtype(kind).itemsize
    return np.frombuffer(file.read(count * width), kind, count)


def _view(storage: npt.NDArray[Any], tensor: _Tensor) -> Array:
    width = storage.itemsize
    view = np.lib.stride_tricks.as_strided(
        storage[tensor.offset :], tensor.size, [stride * width for stride in tensor.stride]
    )
    return np.ascontiguousarray(view, np.float32)
