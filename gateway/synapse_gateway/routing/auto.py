"""Automatic choice of a model from what a request holds."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.config.settings import Auto, AutoRule

NAMES = frozenset({"", "auto", "synapse:auto", "synapse-auto"})
"""Values of `model` that ask for it."""


class Facts(NamedTuple):
    """What the rules look at."""

    chars: int
    """Characters of text in all messages."""
    last_user_text: str
    tools: bool
    images: bool
    key: str
    """Name of the caller's key."""


class AutoChoice(NamedTuple):
    """The model, and the rule that named it (`default` where none holds)."""

    model: str
    rule: str


def choose_model(
    auto: Auto, facts: Facts, default: str, usable: Callable[[str], bool]
) -> AutoChoice:
    """Return the first rule's model whose conditions all hold.

    Args:
        auto: The rules.
        facts: The request.
        default: Model when no rule holds and the configuration names no default.
        usable: Says whether this caller may use a model for what he asks; one that he may not is
            passed over.
    """
    for rule in auto.rules:
        if _holds(rule, facts) and usable(rule.model):
            return AutoChoice(rule.model, rule.name)
    named = auto.default if auto.default and usable(auto.default) else default
    return AutoChoice(named, "default")


def _holds(rule: AutoRule, facts: Facts) -> bool:
    return (
        (rule.min_chars is None or facts.chars >= rule.min_chars)
        and (rule.max_chars is None or facts.chars <= rule.max_chars)
        and (rule.tools is None or facts.tools is rule.tools)
        and (rule.images is None or facts.images is rule.images)
        and (not rule.keys or facts.key in rule.keys)
        and (not rule.keywords or _pattern(rule.keywords).search(facts.last_user_text) is not None)
    )


@lru_cache(maxsize=256)
def _pattern(keywords: tuple[str, ...]) -> re.Pattern[str]:
    words = "|".join(re.escape(word) for word in keywords)
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
