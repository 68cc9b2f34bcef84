"""Which engine a server runs."""

import logging
from dataclasses import dataclass

from synapse_serving import StartError

from .encoder import Encoder, packaged_weights
from .engine import EncoderEngine, Engine
from .pyannote_engine import NotThere, PyannoteEngine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for on the command line.

    Attributes:
        engine: ``auto``, ``pyannote`` or ``resemblyzer``.
        pipeline: pyannote's pipeline.
        device: Where pyannote computes.
        threads: Threads that one computation uses.
    """

    engine: str
    pipeline: str
    device: str
    threads: int

    def load(self) -> Engine:
        """The engine, loaded; blocking.

        Raises:
            StartError: The engine that was asked for is not there.
        """
        if self.engine != "resemblyzer":
            try:
                return PyannoteEngine(self.pipeline, self.device, self.threads)
            except NotThere as error:
                if self.engine == "pyannote":
                    raise StartError(f"--engine pyannote: {error}") from error
                log.warning("the engine is resemblyzer, because %s", error)
        return EncoderEngine(Encoder(packaged_weights()))
