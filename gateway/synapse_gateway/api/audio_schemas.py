"""What the contract's audio routes answer, as JSON Schema for the API's description."""

from __future__ import annotations

from typing import Any

_SECONDS = {"type": "number", "minimum": 0}
_MAYBE_SECONDS = {"type": ["number", "null"], "minimum": 0}
_SHARE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_WORD = _object(
    {"word": {"type": "string"}, "start": _SECONDS, "end": _SECONDS, "probability": _SHARE}
)
_SEGMENT = _object(
    {"id": {"type": "integer"}, "text": {"type": "string"}, "start": _SECONDS, "end": _SECONDS},
    words=_list(_WORD),
)
LANGUAGE = _object({"code": {"type": "string"}, "name": {"type": "string"}})
VOICE = _object(
    {
        "voice_id": {"type": "string"},
        "name": {"type": "string"},
        "created_at": {"type": "string", "format": "date-time"},
        "references_count": {"type": "integer", "minimum": 1},
        "references": _list(
            _object(
                {
                    "id": {"type": "string"},
                    "filename": {"type": "string"},
                    "sha256": {"type": "string"},
                    "bytes": {"type": "integer"},
                    "seconds": _SECONDS,
                    "sample_rate": {"type": "integer"},
                    "channels": {"type": "integer"},
                    "loudness_dbfs": {"type": ["number", "null"]},
                }
            )
        ),
    }
)
ANSWERS: dict[str, dict[str, Any]] = {
    "/stt/transcribe": _object(
        {
            "text": {"type": "string"},
            "language": {"type": ["string", "null"]},
            "language_probability": _SHARE,
            "duration": _MAYBE_SECONDS,
            "segments": _list(_SEGMENT),
        }
    ),
    "/stt/detect-language": _object(
        {
            "detected_language": {"type": "string"},
            "probability": _SHARE,
            "all_languages": _list(LANGUAGE),
        }
    ),
    "/speakers/diarize": _object(
        {
            "num_speakers": {"type": "integer", "minimum": 0},
            "duration": _SECONDS,
            "segments": _list(
                _object({"speaker": {"type": "string"}, "start": _SECONDS, "end": _SECONDS})
            ),
        }
    ),
    "/speakers/verify": _object(
        {
            "is_same_speaker": {"type": "boolean"},
            "similarity_score": {"type": "number"},
            "threshold": {"type": "number"},
        }
    ),
}
"""By path; the others answer with sound or events."""
