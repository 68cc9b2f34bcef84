"""Every `python` and `bash` block of docs/INTEGRATION-GUIDE.md, run as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.real.stack import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

GUIDE = (ROOT / "docs" / "INTEGRATION-GUIDE.md").read_text(encoding="utf-8")
SNIPPETS = [
    pytest.param(found[1], found[2], id=f"line-{GUIDE.count(chr(10), 0, found.start()) + 1}")
    for found in re.finditer(r"^```(python|bash)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("language", "code"), SNIPPETS)
def test_a_snippet_of_the_guide_works(
    stack: Stack, tmp_path: Path, language: str, code: str
) -> None:
    command = {
        "python": [sys.executable, "-W", "error", "-c"],
        "bash": ["bash", "-euo", "pipefail", "-c"],
    }[language]
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for written, here in (
        ("http://127.0.0.1:8000", stack.url),
        ("http://127.0.0.1:11434", stack.ollama_url),
        ("YOUR-KEY", "sk-full"),
    ):
        code = code.replace(written, here)
    done = subprocess.run(  # noqa: S603 - code of the guide
        [*command, code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "127.0.0.1:8000" not in code


def test_the_guide_has_snippets_in_both_languages() -> None:
    assert {snippet.values[0] for snippet in SNIPPETS} == {"python", "bash"}
    assert len(SNIPPETS) >= 8
