"""Two builds compared by paired turns: the ratio, its interval, and what it decides."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ratio import MIN_TURNS, Comparison, Measure, Ratio, Side, paired_ratio, turn_order

figures = st.floats(1e-3, 1e6)
turns_of_two = st.lists(st.tuples(figures, figures), min_size=2, max_size=40)


def rate(old: list[float], new: list[float]) -> Measure:
    return Measure("rate", "requests/s", True, tuple(old), tuple(new))


def comparison(
    n_turns: int, *, new: float = 1.0, failures: dict[Side, int] | None = None, turns_are_short: bool = False
) -> Comparison:
    measure = rate([1.0] * n_turns, [new] * n_turns)
    return Comparison("title", {"old": "a", "new": "b"}, (measure,), failures or {}, turns_are_short)


@given(turns_of_two)
def test_swapping_the_builds_inverts_the_ratio_and_its_bounds(turns: list[tuple[float, float]]) -> None:
    one = paired_ratio([a for a, _ in turns], [b for _, b in turns])
    other = paired_ratio([b for _, b in turns], [a for a, _ in turns])
    logs = [math.log(bound) for bound in (one.value, one.low, one.high)]
    inverse = [-math.log(bound) for bound in (other.value, other.high, other.low)]
    assert logs == pytest.approx(inverse, rel=1e-9, abs=1e-9)


@given(turns_of_two, st.floats(0.1, 10))
def test_what_slows_both_builds_alike_changes_nothing(turns: list[tuple[float, float]], factor: float) -> None:
    old, new = [a for a, _ in turns], [b for _, b in turns]
    slowed = [factor ** (place + 1) for place in range(len(turns))]
    slowed = [min(max(one, 1e-3), 1e3) for one in slowed]
    before = paired_ratio(new, old)
    after = paired_ratio(
        [a * s for a, s in zip(new, slowed, strict=True)], [b * s for b, s in zip(old, slowed, strict=True)]
    )
    assert math.log(after.value) == pytest.approx(math.log(before.value), abs=1e-9)


def test_the_interval_is_students_for_the_mean_of_the_log_ratios() -> None:
    ratio = paired_ratio([math.exp(0.1), math.exp(0.2), math.exp(0.3)], [1.0, 1.0, 1.0])
    half_width = 4.302652729911275 * 0.1 / math.sqrt(3)  # the 97.5 % point of t with 2 degrees of freedom
    assert (math.log(ratio.value), math.log(ratio.low)) == pytest.approx((0.2, 0.2 - half_width))
    assert math.log(ratio.high) == pytest.approx(0.2 + half_width)


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(20)
    true, n_covered = 0.96, 0
    for _ in range(1_000):
        machine = rng.lognormal(0, 0.3, 20)  # what else the machine does; common to a pair
        old, new = machine * rng.lognormal(0, 0.02, 20), true * machine * rng.lognormal(0, 0.02, 20)
        ratio = paired_ratio(new.tolist(), old.tolist())
        n_covered += ratio.low <= true <= ratio.high
    assert 0.93 <= n_covered / 1_000 <= 0.97


def test_the_order_within_a_pair_changes_from_pair_to_pair() -> None:
    order = list(turn_order(4))
    assert [first for first, _ in order] == ["old", "new", "old", "new"]
    assert all({first, second} == {"old", "new"} for first, second in order)


def test_a_steady_drift_of_the_machine_cancels_in_the_order_of_the_turns() -> None:
    seen: dict[Side, list[float]] = {"old": [], "new": []}
    speed = 1.0
    for pair in turn_order(20):
        for side in pair:
            seen[side].append(speed)
            speed *= 1.01
    assert paired_ratio(seen["new"], seen["old"]).value == pytest.approx(1.0, rel=1e-9)


def test_a_time_is_compared_old_to_new_and_a_rate_new_to_old() -> None:
    halved = Measure("tick", "s", False, (2.0, 2.0), (1.0, 1.0))
    doubled = rate([1.0, 1.0], [2.0, 2.0])
    assert halved.ratio == doubled.ratio == Ratio(2.0, 2.0, 2.0, 2)


@pytest.mark.parametrize(
    ("value", "low", "high", "is_ok"),
    [
        (0.97, 0.96, 0.98, True),
        (0.969, 0.96, 0.999, False),
        (0.90, 0.80, 1.0, True),
        (1.2, 1.1, 1.3, True),
        (0.5, 0.49, 0.51, False),
    ],
)
def test_a_ratio_is_ok_from_0_97_on_or_if_its_interval_reaches_1(
    value: float, low: float, high: float, is_ok: bool
) -> None:
    ratio = Ratio(value, low, high, 20)
    assert ratio.is_ok is is_ok
    assert (ratio.verdict == "missed") is not is_ok


def test_an_interval_that_also_holds_a_larger_loss_says_so() -> None:
    assert Ratio(0.98, 0.971, 0.99, 20).verdict == "ok"
    assert Ratio(0.98, 0.95, 1.01, 20).verdict == "ok, but wide"


@pytest.mark.parametrize("figure", [0.0, -1.0, math.nan, math.inf])
def test_a_figure_that_is_no_measurement_is_refused(figure: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        paired_ratio([1.0, figure], [1.0, 1.0])


def test_turns_without_a_partner_and_single_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="partner"):
        paired_ratio([1.0, 1.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="at least 2"):
        paired_ratio([1.0], [1.0])


def test_fewer_than_20_turns_or_short_ones_decide_nothing() -> None:
    assert comparison(MIN_TURNS).is_ok
    for undecided in (comparison(MIN_TURNS - 1), comparison(MIN_TURNS, turns_are_short=True)):
        assert (undecided.decides, undecided.is_ok) == (False, None)
        assert undecided.verdict_on(undecided.measures[0]) == "undecided"


def test_a_failed_request_misses_however_fast_the_build_is() -> None:
    assert comparison(20, new=1.5).is_ok
    assert comparison(20, new=1.5, failures={"old": 0, "new": 1}).is_ok is False


def test_one_slow_measure_misses() -> None:
    measures = (rate([1.0] * 20, [1.0] * 20), rate([1.0] * 20, [0.9] * 20))
    assert Comparison("title", {"old": "a", "new": "b"}, measures).is_ok is False


def test_the_json_file_holds_the_turns_and_what_follows_from_them() -> None:
    written = json.loads(json.dumps(comparison(20, new=0.9).to_dict()))
    measure = written["measures"][0]
    assert (written["decides"], written["is_ok"], measure["verdict"]) == (True, False, "missed")
    assert paired_ratio(measure["new"], measure["old"]).low == measure["ratio"]["low"]
