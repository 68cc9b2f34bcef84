"""What every model server of ``backends/`` has in common, so that each is only its model.

Health, readiness, metrics, bounded concurrency and queue, request limits, errors in OpenAI's
shape, graceful stop, and the safe reading of uploaded audio. See ``backends/README.md``.
"""

from .admission import Admission
from .app import create_app
from .audio_input import Audio, AudioLimits, decode_upload, decoding
from .errors import (
    BadRequest,
    CallerLeft,
    MediaTooLarge,
    ModelNotFound,
    NotImplementedByModel,
    Overloaded,
    ServiceError,
    Unavailable,
    UnprocessableField,
    UnsupportedMedia,
)
from .metrics import Metrics
from .options import Options, add_options, read_options
from .run import StartError, run
from .streams import event, file_response, stay, stream_response

__all__ = [
    "Admission",
    "Audio",
    "AudioLimits",
    "BadRequest",
    "CallerLeft",
    "MediaTooLarge",
    "Metrics",
    "ModelNotFound",
    "NotImplementedByModel",
    "Options",
    "Overloaded",
    "ServiceError",
    "StartError",
    "Unavailable",
    "UnprocessableField",
    "UnsupportedMedia",
    "add_options",
    "create_app",
    "decode_upload",
    "decoding",
    "event",
    "file_response",
    "read_options",
    "run",
    "stay",
    "stream_response",
]
