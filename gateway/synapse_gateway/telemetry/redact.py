"""Takes credentials out of text before it leaves the process.

What is recognised: Authorization, X-API-Key and Cookie headers, `Bearer` and `Basic` tokens, keys
with a known prefix (OpenAI, Anthropic, Hugging Face, GitHub, AWS), query and form fields whose name
says that they are secret, and passwords in URLs. Patterns of one's own can be added.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MASK = "***"

EXTRA_PATTERNS = "SYNAPSE_TERMINAL_FEED_REDACT_EXTRA_PATTERNS"

_NAMES = r"access_token|ws_auth_key|\w*api_?key|token|passw(?:or)?d|(?:client_)?secret"

# In the order in which they are applied; what is kept is the first group.
_PATTERNS = (
    # Header: value, also as a Python or JSON pair of (byte) strings.
    r"""(?i)(\b(?:proxy-)?authorization\b["']?\s*[:=,]\s*(?:b?["'])?)(?:\w+\s+)?[^\s"',;]+""",
    r"""(?i)(\b(?:x-api-key|api-key|set-cookie|cookie)\b["']?\s*[:=,]\s*(?:b?["'])?)[^"'\r\n]+""",
    r"(?i)(\b(?:bearer|basic)\s+)[a-z0-9._~+/=-]+",
    rf"""(?i)(\b(?:{_NAMES})["']?\s*[=:]\s*["']?)[^\s"'&,;]+""",
    r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+(?=@)",
    r"()\b(?:sk|pk|rk)-[A-Za-z0-9_-]{6,}",
    r"()\b(?:hf_|ghp_|gho_|ghs_|github_pat_|xox[abp]-|AKIA|AIza)[A-Za-z0-9_-]{10,}",
)


class Redactor:
    """Replaces credentials by `***`."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        """Build one.

        Args:
            extra: Regular expressions; whatever they match is replaced.

        Raises:
            ConfigError: One of them is none.
        """
        self._patterns = [re.compile(pattern) for pattern in _PATTERNS]
        self._extra: list[re.Pattern[str]] = []
        for pattern in extra:
            try:
                self._extra.append(re.compile(pattern))
            except re.error as error:
                raise ConfigError(
                    f"{EXTRA_PATTERNS}: {pattern!r} is not a regular expression: {error}"
                ) from error

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Redactor:
        """Build one with the patterns of the environment, which `||` divides.

        Raises:
            ConfigError: One of them is no regular expression.
        """
        return cls(filter(None, environ.get(EXTRA_PATTERNS, "").split("||")))

    def __call__(self, text: str) -> str:
        """Return the text without credentials."""
        for pattern in self._patterns:
            text = pattern.sub(_masked, text)
        for pattern in self._extra:
            text = pattern.sub(MASK, text)
        return text


def _masked(match: re.Match[str]) -> str:
    return f"{match[1]}{MASK}"
