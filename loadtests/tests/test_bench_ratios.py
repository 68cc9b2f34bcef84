import json
import math

import pytest
from loadtests.bench.ratios import (
    Aim,
    Row,
    Sense,
    Verdict,
    added_row,
    bound_row,
    close_latencies,
    divide,
    growth,
    percentile,
    rate_row,
    times_row,
)

QUARTER = Aim(sense=Sense.AT_LEAST, bound=0.25)
THREE_TIMES = Aim(sense=Sense.AT_MOST, bound=3)


def rates(direct: float, nginx: float, gateway: float) -> dict[str, list[float]]:
    """One disturbed round on each side of the true figure: the median must drop both."""
    return {
        "direct": [direct, direct * 0.1, direct * 9],
        "nginx": [nginx * 0.1, nginx, nginx * 9],
        "gateway": [gateway * 9, gateway * 0.1, gateway],
    }


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        pytest.param(range(1, 101), 99, 99, id="ninety-ninth-of-a-hundred"),
        pytest.param(range(1, 101), 50, 50, id="median-is-nearest-rank"),
        pytest.param([3, 1, 2], 50, 2, id="values-need-not-be-sorted"),
        pytest.param([3, 1, 2], 0, 1, id="zeroth-is-the-smallest"),
        pytest.param([7], 99, 7, id="one-value"),
    ],
)
def test_percentile_is_nearest_rank(values: list[float], percent: int, expected: float) -> None:
    assert percentile(list(values), percent) == expected


def test_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 50))


def test_nothing_is_divided_by_nothing() -> None:
    assert math.isnan(divide(1.0, 0.0))


@pytest.mark.parametrize(
    ("sense", "value", "holds"),
    [
        pytest.param(Sense.AT_LEAST, 1.0, True, id="at-least-takes-the-bound"),
        pytest.param(Sense.AT_LEAST, 0.99, False, id="at-least-refuses-less"),
        pytest.param(Sense.AT_MOST, 1.0, True, id="at-most-takes-the-bound"),
        pytest.param(Sense.AT_MOST, 1.01, False, id="at-most-refuses-more"),
        pytest.param(Sense.UNDER, 1.0, False, id="under-refuses-the-bound"),
        pytest.param(Sense.UNDER, 0.99, True, id="under-takes-less"),
        pytest.param(Sense.AT_MOST, math.nan, False, id="not-measured-is-not-met"),
    ],
)
def test_aim(sense: Sense, value: float, holds: bool) -> None:
    assert Aim(sense=sense, bound=1.0).holds(value) is holds


def test_rate_is_compared_by_medians() -> None:
    row = rate_row("r", "1/s", rates(100, 40, 10), QUARTER, saturates=True)
    assert (row.direct, row.nginx, row.gateway) == (100, 40, 10)
    assert row.ratio == pytest.approx(0.25)
    assert row.verdict is Verdict.MET


def test_rate_under_its_aim_is_missed() -> None:
    row = rate_row("r", "1/s", rates(100, 40, 9), QUARTER, saturates=True)
    assert row.verdict is Verdict.MISSED


def test_rate_does_not_count_when_nginx_reaches_the_harness() -> None:
    row = rate_row("r", "1/s", rates(100, 80, 60), QUARTER, saturates=True)
    assert row.verdict is Verdict.DOES_NOT_COUNT
    assert "counts only if nginx stays under 0.8 of direct: it is at 0.80" in row.note


def test_rate_that_was_set_counts_without_room_in_the_harness() -> None:
    row = rate_row("r", "1/s", rates(100, 100, 99), QUARTER, saturates=False)
    assert row.verdict is Verdict.MET


def test_added_time_is_what_each_proxy_puts_on_top_of_direct() -> None:
    row = added_row("p50", "us", rates(20, 60, 140), THREE_TIMES)
    assert row.ratio == pytest.approx(3.0)
    assert row.verdict is Verdict.MET


def test_added_time_does_not_count_when_nginx_adds_nothing() -> None:
    row = added_row("p50", "us", rates(60, 60, 140), THREE_TIMES)
    assert row.verdict is Verdict.DOES_NOT_COUNT


def test_a_gateway_that_was_not_measured_gets_no_verdict() -> None:
    absent = {"direct": [20.0], "nginx": [60.0], "gateway": [math.nan]}
    found = [
        rate_row("r", "1/s", absent, QUARTER, saturates=False),
        added_row("a", "us", absent, THREE_TIMES),
        times_row("t", "us", absent, THREE_TIMES),
        bound_row("b", "us", absent, THREE_TIMES),
    ]
    assert {row.verdict for row in found} == {Verdict.NO_AIM}


def test_times_are_compared_with_nginx_and_bounds_with_the_aim() -> None:
    figures = rates(1, 2, 6)
    assert times_row("t", "ms", figures, THREE_TIMES).verdict is Verdict.MET
    assert bound_row("b", "ms", figures, THREE_TIMES).verdict is Verdict.MISSED


def test_close_latencies_are_joined_by_name_and_count_the_unseen() -> None:
    left = {"left-0": 1_000_000, "left-1": 2_000_000, "left-2": 3_000_000}
    closed = {"left-1": 4_500_000, "left-0": 2_000_000, "left-9": 1}
    assert close_latencies(left, closed) == ([1.0, 2.5], 1)


def test_growth_counts_from_the_first_look_after_the_start() -> None:
    points = [{"requests": n * 100_000.0, "rss": 50.0 + n} for n in range(1, 11)]
    assert growth(points, "rss", 100_000) == 9.0
    assert math.isnan(growth(points[:1], "rss", 200_000))


def test_a_ratio_that_is_not_a_number_is_null_in_json() -> None:
    plain = Row(name="r", unit="", ratio=math.nan, aim=QUARTER).as_plain()
    assert json.loads(json.dumps(plain, allow_nan=False))["ratio"] is None
    assert plain["aim"] == ">= 0.25"
