"""Each file of invalid/ is refused with the sentence of its first line, by both Helm versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from charts.synapse.tests.chart import CHART, HELMS, identify, run_helm

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted((CHART / "tests" / "invalid").glob("*.yaml"))


def sentence_of(path: Path) -> str:
    return path.read_text().splitlines()[0].removeprefix("#").strip()


@pytest.mark.slow
@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("path", FILES, ids=identify)
def test_it_is_refused_with_its_sentence(path: Path, helm: str) -> None:
    more = re.findall(r"^# helm: (.+)$", path.read_text(), re.MULTILINE)
    arguments = [word for line in more for word in line.split()]
    done = run_helm(helm, "template", "synapse", str(CHART), "--values", str(path), *arguments)
    assert done.returncode != 0, "it was taken"
    assert sentence_of(path) in done.stderr


def test_there_are_enough_of_them() -> None:
    combinations = [path for path in FILES if path.name.startswith("combination-")]
    assert len(FILES) >= 40
    assert len(combinations) >= 15


def test_every_rule_is_proven_by_a_file() -> None:
    sentences = [sentence_of(path) for path in FILES]
    unproven = []
    for path in (CHART / "templates" / "validate").glob("*.tpl"):
        for text in re.findall(r'append \$errors \(?(?:printf )?"(.*?[.%s])"', path.read_text()):
            shape = ".*".join(re.escape(part) for part in re.split(r"%[.0-9]*[sdf]", text))
            # A sentence that ends in a list may be cut before it.
            shape = shape.replace(re.escape("; known are ") + ".*" + re.escape("."), ".*")
            if not any(re.search(shape, sentence) for sentence in sentences):
                unproven.append(text)
    assert unproven == []
