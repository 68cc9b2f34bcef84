"""A right gateway passes, and one that is wrong in one way fails exactly the lines of that way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance.meta_tests import fakes
from conformance.meta_tests.defects import DEFECTS, Defect, keys_are_off, no_models, two_ends
from conformance.meta_tests.runs import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conformance.meta_tests.runs import Outcome

pytestmark = pytest.mark.slow

ABSENT = {
    "api.audio.convert",
    "api.audio.denoise",
    "api.keys.anonymous",  # it wants keys
    "api.limits.concurrency",  # who is kept to what is seen in a cluster
    "api.limits.models",
    "api.limits.rate",
    "api.rerank",  # its engine is of a kind that does not
    "api.speakers.diarize",
    "api.speakers.verify",
    "api.speech",
    "api.speech.formats",
    "api.transcriptions",
    "api.transcriptions.errors",
    "api.transcriptions.formats",
    "api.transcriptions.stream",
    "api.translations",
}
"""What the right gateway does not have."""
LOOKED_AT = (f"--api-key={KEY}", "--only=deployment.*", "--only=api.*")


def test_a_right_gateway_supports_what_it_has(right: str, suite: Callable[..., Outcome]) -> None:
    outcome = suite(f"--gateway-url={right}", *LOOKED_AT)
    assert outcome.code == 0, outcome.text
    assert {name for name, tag in outcome.lines().items() if tag} == ABSENT
    assert "passed" in outcome.text.strip().splitlines()[-1]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_wrong_gateway_fails_its_lines(
    right: str, suite: Callable[..., Outcome], defect: Defect
) -> None:
    with fakes.relayed(right, defect.spoil) as wrong:
        outcome = suite(f"--gateway-url={wrong}", *LOOKED_AT)
    failed = {name for name, tag in outcome.lines().items() if tag in ("failure", "error")}
    assert failed == defect.lines, outcome.text
    assert outcome.code == 1


def test_keys_that_are_off_fail_where_they_are_required(
    right: str, suite: Callable[..., Outcome], tmp_path: Path
) -> None:
    required = tmp_path / "required"
    required.write_text("api.keys.required  # and why\n", encoding="utf-8")
    with fakes.relayed(right, keys_are_off) as wrong:
        chosen = (f"--gateway-url={wrong}", f"--api-key={KEY}", "--only=api.keys.*")
        assert suite(*chosen).code == 0
        outcome = suite(*chosen, f"--require={required}")
    assert outcome.code == 1
    assert outcome.lines()["api.keys.required"] == "failure"
    assert "api.keys.required is required, but not supported" in outcome.text
    assert "required lines: 0 of 1 supported" in outcome.text


def test_a_required_line_that_nobody_looks_at_fails_the_run(
    right: str, suite: Callable[..., Outcome], tmp_path: Path
) -> None:
    required = tmp_path / "required"
    required.write_text("api.chat.streem\ndeployment.claims\n", encoding="utf-8")
    outcome = suite(f"--gateway-url={right}", "--only=api.chat.*", f"--require={required}")
    assert outcome.code == 4
    assert "no chosen test has the line api.chat.streem; is api.chat.stream meant?" in outcome.text
    assert "no chosen test has the line deployment.claims" in outcome.text


def test_a_deployment_that_claims_nothing_fails_unless_that_is_allowed(
    right: str, suite: Callable[..., Outcome]
) -> None:
    with fakes.relayed(right, no_models) as empty:
        chosen = (f"--gateway-url={empty}", f"--api-key={KEY}", "--only=deployment.claims")
        outcome = suite(*chosen)
        assert outcome.code == 1
        assert "--allow-empty" in outcome.text
        assert suite(*chosen, "--allow-empty").code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give --gateway-url http://HOST:PORT, --kubeconfig FILE, or both"),
        (["--gateway-url=localhost:8000"], "must start with http:// or https://"),
        (["--gateway-url=http://127.0.0.1:9"], "no gateway answers at http://127.0.0.1:9"),
        (["--kubeconfig=/no/such/file"], "--kubeconfig: there is no file /no/such/file"),
        (
            ["--gateway-url=http://127.0.0.1:9", "--require=/no/such/file"],
            "--require: /no/such/file: No such file",
        ),
    ],
)
def test_an_option_that_cannot_be_used_is_named(
    suite: Callable[..., Outcome], arguments: list[str], sentence: str
) -> None:
    outcome = suite(*arguments)
    assert outcome.code == 4
    assert sentence in outcome.text


def test_a_failure_shows_the_request_without_the_key(
    right: str, suite: Callable[..., Outcome]
) -> None:
    with fakes.relayed(right, two_ends) as wrong:
        outcome = suite(f"--gateway-url={wrong}", f"--api-key={KEY}", "--only=api.chat.stream")
    for name in ("junit.xml", "report.md", "report.html"):
        assert KEY not in (outcome.folder / name).read_text(encoding="utf-8")
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert "curl -i -X POST" in page
    assert "$SYNAPSE_API_KEY" in page
    assert "[DONE] comes more than once" in page
