"""The rules against the failover table of the design, row by row."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from synapse_gateway.routing.outcome import RULES, Counts, Outcome, of_status

FAILURE, NEITHER, SUCCESS = Counts.FAILURE, Counts.NEITHER, Counts.SUCCESS


class Row(NamedTuple):
    """A row of the table: what follows from an outcome."""

    next_target: bool
    counts: Counts
    status: int


TABLE = {
    # connect: refused, reset, timeout, DNS
    Outcome.REFUSED: Row(True, FAILURE, 503),
    Outcome.RESET: Row(True, FAILURE, 503),
    Outcome.CONNECT_TIMEOUT: Row(True, FAILURE, 504),
    Outcome.DNS: Row(True, FAILURE, 503),
    Outcome.TLS: Row(True, FAILURE, 502),
    # head
    Outcome.THROTTLED: Row(True, NEITHER, 503),
    Outcome.SERVER_ERROR: Row(True, FAILURE, 502),
    Outcome.MISROUTED: Row(True, NEITHER, 404),
    Outcome.CREDENTIALS: Row(True, NEITHER, 502),
    Outcome.NOT_SUPPORTED: Row(True, NEITHER, 400),
    Outcome.CLIENT_ERROR: Row(False, NEITHER, 400),
    Outcome.CONTEXT_EXCEEDED: Row(False, NEITHER, 400),
    # before the first content
    Outcome.FIRST_TOKEN_TIMEOUT: Row(True, FAILURE, 504),
    Outcome.ERROR_FIRST: Row(True, FAILURE, 502),
    Outcome.EMPTY: Row(True, FAILURE, 502),
    Outcome.MALFORMED: Row(True, FAILURE, 502),
    # mid-stream
    Outcome.CUT: Row(False, FAILURE, 502),
    Outcome.STALLED: Row(False, FAILURE, 504),
    Outcome.MALFORMED_EVENT: Row(False, FAILURE, 502),
    Outcome.ERROR_EVENT: Row(False, FAILURE, 502),
    # any
    Outcome.CALLER_LEFT: Row(False, NEITHER, 499),
    Outcome.STOPPED: Row(False, NEITHER, 503),
    Outcome.DEADLINE: Row(False, NEITHER, 504),
    Outcome.OK: Row(False, SUCCESS, 200),
}


def test_every_outcome_has_a_rule_and_a_row() -> None:
    assert set(RULES) == set(Outcome) == set(TABLE)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_rule_says_what_its_row_says(outcome: Outcome) -> None:
    rule = RULES[outcome]
    assert Row(rule.next_target, rule.counts, rule.status) == TABLE[outcome]


def test_only_connecting_in_vain_proves_that_nothing_was_done() -> None:
    proving = {outcome for outcome, rule in RULES.items() if rule.nothing_sent}
    assert proving == {
        Outcome.REFUSED,
        Outcome.RESET,
        Outcome.CONNECT_TIMEOUT,
        Outcome.DNS,
        Outcome.TLS,
    }


def test_only_a_throttling_target_cools_down() -> None:
    assert [o for o, rule in RULES.items() if rule.cools_down] == [Outcome.THROTTLED]


def test_nothing_follows_once_the_caller_has_seen_a_part() -> None:
    seen = [rule for rule in RULES.values() if rule.mid_stream]
    assert len(seen) == 4
    assert not any(rule.next_target for rule in seen)


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        pytest.param([200, 201, 204, 206], Outcome.OK, id="ok"),
        pytest.param([300, 301, 302, 304, 307, 399], Outcome.MALFORMED, id="redirect"),
        pytest.param([401, 403], Outcome.CREDENTIALS, id="credentials"),
        pytest.param([404], Outcome.MISROUTED, id="misrouted"),
        pytest.param([429], Outcome.THROTTLED, id="throttled"),
        pytest.param([400, 402, 405, 409, 413, 415, 422, 499], Outcome.CLIENT_ERROR, id="caller"),
        pytest.param([500, 502, 503, 504, 507, 529, 599], Outcome.SERVER_ERROR, id="server"),
        pytest.param([501], Outcome.NOT_SUPPORTED, id="not-supported"),
    ],
)
def test_a_status_alone_says(statuses: list[int], outcome: Outcome) -> None:
    assert {of_status(status) for status in statuses} == {outcome}
