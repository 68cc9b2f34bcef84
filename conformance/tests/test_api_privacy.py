"""What errors tell; this module is the last of its section, so that it has seen them all."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from conformance.suite.gateway import QUESTION
from conformance.suite.lines import line

if TYPE_CHECKING:
    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence

ADDRESS = re.compile(r"https?://[\w.-]+(:\d+)?|\b\d{1,3}(\.\d{1,3}){3}:\d+|Traceback|\.py\b")


@line("api.errors.private", "No error of the run shows an address, a path or a stack trace")
def test_errors_are_private(gateway: Gateway, evidence: Evidence) -> None:
    gateway.http.post("/v1/chat/completions", json={"model": "no-such", "messages": QUESTION})
    for text in gateway.errors:
        try:
            said = json.dumps(json.loads(text))
        except ValueError:
            said = text
        found = ADDRESS.search(said)
        assert not found, f"{found[0]!r} in {said[:300]}"
    evidence("errors looked at", len(gateway.errors))
