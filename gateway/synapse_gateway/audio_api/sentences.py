"""Cuts a text into sentences that are spoken one by one.

A sentence ends behind `.`, `!`, `?` or `...` (with the quotes and brackets that close there) where
a blank follows, behind the marks of scripts that write no blanks, and at the end of a paragraph. An
abbreviation, an initial or a number's point ends none. Sentences that are long are cut further,
where a comma or at least a blank allows it: a listener waits for a whole one.
"""

# ruff: noqa: RUF001 - the marks of many scripts

from __future__ import annotations

import re

MAX_CHARS = 400
"""A longer sentence is cut; half a minute of speech."""

_END = re.compile(
    r"""
      (?P<end> [.!?…]+ ["'”’»)\]]* ) (?=\s)     # Latin, Greek, Cyrillic ...
    | [。！？｡︒]+ ["'”’」』）]*                  # Chinese, Japanese
    | [।॥۔؟]+ ["'”’)]* (?=\s)                  # Devanagari, Arabic, Urdu
    | \n\s*\n | (?<=[:;]) \s*\n                 # paragraphs, lists
    """,
    re.VERBOSE,
)
_NO_END = re.compile(
    r"""
      (?: ^ | [\s(\["'“‘«] )
      (?: [A-Za-z]                              # an initial, or a letter of "e.g."
        | (?: [A-Za-z]\.)+ [A-Za-z]
        | Mr | Mrs | Ms | Dr | Prof | Sr | Jr | St | Mt | Rev | Gen | Col | Sgt | Capt | Lt
        | vs | etc | approx | resp | Fig | fig | No | Nr | Vol | pp | Inc | Ltd | Co | Corp
        | Jan | Feb | Mar | Apr | Jun | Jul | Aug | Sept? | Oct | Nov | Dec
      ) \. $
    """,
    re.VERBOSE,
)
_SOFT = re.compile(r"[,;:—–،、，；][\s]*|\s+")


def split(text: str, longest: int = MAX_CHARS) -> list[str]:
    """Return the sentences of a text, in order; none is without a letter or digit.

    Args:
        text: What is to be spoken, with at least one letter or digit.
        longest: Characters of a sentence at most.
    """
    sentences: list[str] = []
    start = 0
    for match in _END.finditer(text):
        before = text[start : match.end()]
        if match["end"] == "." and _NO_END.search(before[-12:]):
            continue
        sentences.append(before)
        start = match.end()
    sentences.append(text[start:])
    pieces = [piece for sentence in sentences for piece in _shorter(sentence.strip(), longest)]
    return _speakable(pieces)


def _shorter(sentence: str, longest: int) -> list[str]:
    pieces = []
    while len(sentence) > longest:
        cut = _cut_of(sentence, longest)
        pieces.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    pieces.append(sentence)
    return pieces


def _cut_of(sentence: str, longest: int) -> int:
    """Return where to cut: behind the last mark, else the last blank, else anywhere."""
    blank = mark = 0
    for match in _SOFT.finditer(sentence, 0, longest):
        if match[0].isspace():
            blank = match.end()
        else:
            mark = match.end()
    return (mark if mark > longest // 3 else blank) or longest


def _speakable(pieces: list[str]) -> list[str]:
    """Join what has nothing to speak to its neighbour."""
    joined: list[str] = []
    waiting = ""
    for piece in pieces:
        if any(letter.isalnum() for letter in piece):
            joined.append(f"{waiting} {piece}".strip())
            waiting = ""
        elif joined:
            joined[-1] = f"{joined[-1]} {piece}".strip()
        else:
            waiting = f"{waiting} {piece}".strip()
    return joined
