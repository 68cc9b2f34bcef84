from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.audio_api.sniff import audio_format, describe
from synapse_gateway.audio_api.wav import Format

RECORDINGS = {
    "wav": (Format(1, 1, 16000, 16).head(None), "WAV"),
    "rf64": (b"RF64\xff\xff\xff\xffWAVEds64", "WAV"),
    "flac": (b"fLaC\0\0\0\x22", "FLAC"),
    "ogg": (b"OggS\0\x02" + bytes(8), "Ogg"),
    "mp3-with-tags": (b"ID3\x04\0\0\0\0\0\0", "MP3"),
    "mp3": (b"\xff\xfb\x90\x64" + bytes(8), "MP3"),
    "mp3-of-24-khz": (b"\xff\xf3\x84\xc4" + bytes(8), "MP3"),
    "mp2": (b"\xff\xfd\x84\x04" + bytes(8), "MP3"),
    "aac": (b"\xff\xf1\x50\x80\x02\x1f\xfc", "AAC"),
    "mp4": (b"\0\0\0\x20ftypM4A \0\0\0\0", "MP4"),
    "webm": (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "WebM or Matroska"),
    "aiff": (b"FORM\0\0\0\0AIFFCOMM", "AIFF"),
    "aifc": (b"FORM\0\0\0\0AIFCFVER", "AIFF"),
    "caf": (b"caff\0\x01\0\0desc", "CAF"),
    "au": (b".snd\0\0\0\x18", "AU"),
    "amr": (b"#!AMR\n", "AMR"),
    "wma": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", "WMA"),
}
OTHERS = {
    "pdf": (b"%PDF-1.7", "a PDF"),
    "png": (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
    "gif": (b"GIF89a", "a GIF image"),
    "zip": (b"PK\x03\x04\x14", "a ZIP archive"),
    "gzip": (b"\x1f\x8b\x08", "a gzip archive"),
    "elf": (b"\x7fELF\x02", "a program"),
    "exe": (b"MZ\x90\0", "a program"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "a RIFF file without sound"),
    "json": (b' {"a": 1}', "JSON"),
    "html": (b"<!doctype html>", "HTML or XML"),
    "text": (b"hello there, this is text", "no audio format that is known here"),
    "zeros": (bytes(64), "no audio format that is known here"),
    "ones": (b"\xff" * 64, "no audio format that is known here"),
    "short-sync": (b"\xff\xfb", "no audio format that is known here"),
    "reserved-version": (b"\xff\xeb\x90\x64", "no audio format that is known here"),
    "reserved-bit-rate": (b"\xff\xfb\xf0\x64", "no audio format that is known here"),
    "reserved-rate": (b"\xff\xfb\x9c\x64", "no audio format that is known here"),
    "reserved-adts-rate": (b"\xff\xf1\x7c\x80", "no audio format that is known here"),
    "no-adts-layer": (b"\xff\xe1\x50\x80", "no audio format that is known here"),
    "form-of-words": (b"FORM\0\0\0\0FTXT", "no audio format that is known here"),
}


@pytest.mark.parametrize(("head", "name"), RECORDINGS.values(), ids=RECORDINGS)
def test_recordings_are_known_by_their_first_bytes(head: bytes, name: str) -> None:
    assert audio_format(head) == name


@pytest.mark.parametrize(("head", "name"), OTHERS.values(), ids=OTHERS)
def test_what_is_none_is_named(head: bytes, name: str) -> None:
    assert (audio_format(head), describe(head)) == (None, name)


@given(head=st.binary(max_size=64))
def test_any_bytes_are_told_apart(head: bytes) -> None:
    audio_format(head)
    assert describe(head)
