# ruff: noqa: RUF001 - the marks of many scripts

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.audio_api.sentences import MAX_CHARS, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("One sentence without an end", ["One sentence without an end"]),
        ('He said "Stop!" Then he ran.', ['He said "Stop!"', "Then he ran."]),
        ("Wait... what?! No way.", ["Wait...", "what?!", "No way."]),
        (
            "Dr. Smith met J. Doe at 3.50 p.m. on Sept. 3. They spoke, e.g. of tea.",
            ["Dr. Smith met J. Doe at 3.50 p.m. on Sept. 3.", "They spoke, e.g. of tea."],
        ),
        ("It costs 3.50. Not 4.", ["It costs 3.50.", "Not 4."]),
        ("synapse.example.com is up. See docs/API.md.", None),
        ("今日は。元気ですか？はい！", ["今日は。", "元気ですか？", "はい！"]),
        ("नमस्ते। आप कैसे हैं?", ["नमस्ते।", "आप कैसे हैं?"]),
        ("هل أنت بخير؟ نعم.", ["هل أنت بخير؟", "نعم."]),
        ("A title\n\nThe text.", ["A title", "The text."]),
        ("These:\none\ntwo", ["These:", "one\ntwo"]),
        ("... well. --- Yes. ***", ["... well.", "--- Yes. ***"]),
    ],
)
def test_a_text_is_cut_where_its_sentences_end(text: str, expected: list[str] | None) -> None:
    found = split(text)
    if expected is None:
        assert [piece.split()[0] for piece in found] == ["synapse.example.com", "See"]
    else:
        assert found == expected


def test_a_long_sentence_is_cut_at_a_comma_or_else_a_blank() -> None:
    clause = "and so it went on, as it always had"
    pieces = split(", ".join([clause] * 40))
    assert all(len(piece) <= MAX_CHARS for piece in pieces)
    assert all(piece.endswith((",", clause)) for piece in pieces)
    words = split("word " * 300)
    assert all(re.fullmatch("word( word)*", piece) for piece in words)


TEXTS = st.text(
    st.sampled_from("abcd ABC.!?,;:…。？।\n\"')0123") | st.characters(codec="utf-8"), max_size=300
)


@given(text=TEXTS, longest=st.integers(10, 60))
def test_nothing_is_lost_and_nothing_is_unspeakable(text: str, longest: int) -> None:
    pieces = split(text, longest)
    speakable = any(letter.isalnum() for letter in text)
    assert bool(pieces) == speakable
    assert all(any(letter.isalnum() for letter in piece) for piece in pieces)
    if speakable:
        assert "".join("".join(pieces).split()) == "".join(text.split())
