"""The soak benchmark's own rules: what is left out of a slope, who is killed when, and what minutes of retention delete."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from benchmarks.soak.__main__ import FIRST_KILLS, LATER_KILLS, QUICK, Done, _next_victim, _short_of
from benchmarks.soak.outcome import Outcome
from benchmarks.soak.samples import Series
from benchmarks.soak.upkeep import IN_DAYS, MINUTES_PER_DAY
from benchmarks.witness import Ledger
from selfheal.services.maintenance import cutoffs
from selfheal.settings import load_settings
from tests.times import T0


def test_the_first_seconds_of_each_life_of_a_process_are_left_out() -> None:
    series = Series()
    for life in range(2):
        for number in range(40):
            series.add(1_000.0 * life + 10.0 * number, 500.0 - number if number < 10 else 400.0, life)
    whole, warm = series.trend(), series.trend(after_start_s=100.0)
    assert whole is not None and warm is not None
    assert whole.mean < -1_000, "it seems to shrink"
    assert (warm.as_list(), warm.n_samples) == ([0.0, 0.0, 0.0], 60)


def test_every_process_is_killed_at_first_and_only_short_lived_ones_later() -> None:
    left = list(FIRST_KILLS)
    first = [_next_victim(left, is_first=True) for _ in FIRST_KILLS]
    assert Counter(first) == Counter(FIRST_KILLS)
    random.seed(1)
    assert {_next_victim(left, is_first=False) for _ in range(50)} == set(LATER_KILLS)


def test_retention_in_minutes_reaches_everything_that_is_ever_deleted() -> None:
    settings = load_settings().model_copy(update=dict.fromkeys(IN_DAYS, 10 / MINUTES_PER_DAY))
    old = replace(cutoffs(settings, T0, T0), left_behind=T0 - timedelta(minutes=10))
    assert {getattr(old, name) for name in old.__slots__} == {T0 - timedelta(minutes=10)}


def test_what_was_not_done_is_a_problem() -> None:
    problems = list(_short_of(Done(), QUICK, Ledger([])))
    for what in ("ticks", "kills", "maintenances", "promotions", "predictions", "labels"):
        assert any(what in problem for problem in problems), what
    assert "no runs were deleted: what is kept was not measured" in problems


def outcome(**changes: object) -> Outcome:
    values = {
        "hours": 2.0,
        "slope_pct_per_day": {},
        "evidence_bytes_per_prediction": 100.0,
        "acknowledged": 1,
        "labels_acknowledged": 1,
        "lost": 0,
        "duplicated": 0,
        "wrong_values": 0,
        "verify_findings": (),
        "stuck": (),
        "kills_by": {},
        "ticks": 1,
        "maintenances": 1,
        "promotions": 1,
        "n_starts": 1,
        "deleted": {},
        "is_quick": True,
    }
    return Outcome(**(values | changes))  # type: ignore[arg-type]


def test_a_quick_run_judges_no_slope_and_everything_else() -> None:
    assert outcome().problems == []
    assert outcome(lost=1, stuck=("after a kill of api: it does not answer",)).problems == [
        "stuck: after a kill of api: it does not answer",
        "lost: 1",
    ]
    assert "api rss: too few samples to tell" in outcome(is_quick=False).problems


def test_what_is_kept_for_ever_is_bounded_and_unknown_is_not() -> None:
    for figure in (float("nan"), 1e6):
        assert any(
            "kept for each" in one for one in outcome(is_quick=False, evidence_bytes_per_prediction=figure).problems
        )
