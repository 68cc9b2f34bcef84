"""The reader of Prometheus expositions takes what it is asked for and minds nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.backends.exposition import MAX_BYTES, read_gauges, read_labelled


def test_samples_are_summed_over_their_labels() -> None:
    text = b'# HELP a x\n# TYPE a gauge\na{engine="0"} 3.0\na{e="1",m="x y"} 2 1700000000\nb 7\n'

    assert read_gauges(text, ("a", "b", "c")) == {"a": 5.0, "b": 7.0}


@pytest.mark.parametrize(
    "line",
    [
        b"a",
        b"a{",
        b'a{x="1"',
        b"a NaN",
        b"a +Inf",
        b"a seven",
        b"# a 1",
        b"",
        b"ab 1",
        b"\xff\x00 1",
    ],
)
def test_what_is_no_sample_is_passed_over(line: bytes) -> None:
    assert read_gauges(line + b"\nb 1\n", ("a", "b")) == {"b": 1.0}


def test_a_label_chooses_among_samples() -> None:
    text = b's{state="awake",e="0"} 1.0\ns{state="asleep",e="0"} 0.0\n'

    assert read_labelled(text, "s", b'state="awake"') == 1.0
    assert read_labelled(text, "s", b'state="asleep"') == 0.0
    assert read_labelled(text, "s", b'state="gone"') is None


def test_an_exposition_without_end_is_read_up_to_a_bound() -> None:
    text = b"# filler\n" * (MAX_BYTES // 9 + 1) + b"a 1\n"

    assert read_gauges(text, ("a",)) == {}


@given(st.binary())
def test_any_bytes_are_survived(data: bytes) -> None:
    assert set(read_gauges(data, ("a",))) <= {"a"}
