"""Rules of the seasonal null: what came and went is no drift when it comes again, and whatever goes further or stays is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from selfheal.domain.monitoring.seasons import (
    MAX_REMEMBERED,
    MORE_MISSING,
    REMEMBERED_FOR,
    Calm,
    Channel,
    Kind,
    Move,
    Position,
    explain,
    unlearned,
)
from selfheal.domain.records import SeasonMemory, Verdict

BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HIGHER = Kind("age", "newest rows", "higher")
CAMPAIGN = range(10, 13)
"""Hours of the day."""


def move(effect: float = 0.2, kind: Kind = HIGHER, margin: float = 0.05) -> Move:
    return Move(kind, effect, margin)


def lived(
    moved: dict[int, Move], hours: Iterable[int], calm: Calm | None = None, verdict: Verdict = Verdict.BENIGN_SHIFT
) -> tuple[Calm, list[int]]:
    """Live through hourly ticks; return what is known then, and the hours at which a move counted as drift."""
    calm, drifted = calm or Calm(SeasonMemory(BEGAN)), []
    for hour in hours:
        moves = [moved[hour]] if hour in moved else []
        found = explain(moves, calm, BEGAN + hour * HOUR)
        assert found.memory is not None
        if len(found.sentences) < len(moves):
            drifted.append(hour)
        calm = Calm(found.memory, verdict if hour in drifted else Verdict.STABLE)
    return calm, drifted


def campaign(day: int, effect: float = 0.2, hours: Iterable[int] = CAMPAIGN) -> dict[int, Move]:
    return {24 * day + hour: move(effect) for hour in hours}


def test_a_campaign_is_drift_once_and_known_from_then_on() -> None:
    _, drifted = lived(campaign(1) | campaign(3) | campaign(5), range(24 * 7))
    assert drifted == [34, 35, 36]


def test_what_is_known_is_said_in_plain_words() -> None:
    calm, _ = lived(campaign(1), range(24 * 3))
    found = explain([move()], calm, BEGAN + 3 * DAY)
    assert found.sentences == {HIGHER: "as once before, by up to 0.20 and for up to 2 h"}


@pytest.mark.parametrize(
    ("again", "is_drift"),
    [
        (campaign(3, 0.25), False),
        (campaign(3, 0.26), True),
        (campaign(3, hours=range(10, 15)), False),
        (campaign(3, hours=range(10, 20)), True),
        ({24 * 3: move(kind=HIGHER._replace(direction="lower"))}, True),
        ({24 * 3: move(kind=HIGHER._replace(window="look-back"))}, True),
        ({24 * 3: move(kind=HIGHER._replace(column="income"))}, True),
    ],
    ids=[
        "within the margin",
        "further",
        "a little longer",
        "longer",
        "other direction",
        "other window",
        "other column",
    ],
)
def test_only_the_same_move_within_its_limits_is_known(again: dict[int, Move], is_drift: bool) -> None:
    calm, _ = lived(campaign(1), range(24 * 3))
    assert bool(lived(again, range(24 * 3, 24 * 4), calm)[1]) == is_drift


def test_a_shift_that_stays_is_reported_as_soon_as_it_is_longer_than_any_before() -> None:
    calm, _ = lived(campaign(1), range(24 * 3))
    stays = {hour: move() for hour in range(24 * 3, 24 * 9)}
    _, drifted = lived(stays, range(24 * 3, 24 * 9), calm)
    assert drifted == list(range(24 * 3 + 5, 24 * 9))


def test_a_shift_that_flickers_does_not_explain_itself() -> None:
    """Two days of drift with a tick below the threshold now and then are one excursion, which has not come back."""
    flickering = {hour: move() for hour in range(24, 72) if hour % 7}
    _, drifted = lived(flickering, range(24 * 4))
    assert drifted == list(flickering)


@pytest.mark.parametrize("verdict", [Verdict.HARMFUL_SHIFT, Verdict.BROKEN_FEED])
def test_what_was_harmful_or_broken_is_not_learned(verdict: Verdict) -> None:
    _, drifted = lived(campaign(1) | campaign(3), range(24 * 5), verdict=verdict)
    assert drifted == [34, 35, 36, 82, 83, 84]


def test_a_slow_drift_does_not_raise_its_own_limit() -> None:
    """Each campaign is a little stronger than the one before, always within its margin."""
    stronger = {hour: one for day in range(1, 40, 2) for hour, one in campaign(day, 0.2 + 0.005 * day).items()}
    _, drifted = lived(stronger, range(24 * 40))
    assert next(hour // 24 for hour in drifted if hour // 24 > 1) <= 13


def test_a_campaign_is_forgotten_after_more_than_a_year() -> None:
    calm, _ = lived(campaign(1), range(24 * 3))
    for later, is_known in ((REMEMBERED_FOR - DAY, True), (REMEMBERED_FOR + 3 * DAY, False)):
        after = explain([], calm, BEGAN + later).memory
        assert after is not None
        assert bool(explain([move()], Calm(after), BEGAN + later + HOUR).sentences) == is_known


def test_memory_is_bounded() -> None:
    calm = Calm(SeasonMemory(BEGAN))
    moves = [move(kind=Kind(f"column_{i}", "newest rows", "higher")) for i in range(MAX_REMEMBERED + 10)]
    memory = explain(moves, calm, BEGAN + HOUR).memory
    assert memory is not None
    assert len(memory.excursions) == MAX_REMEMBERED


def test_a_declared_column_is_no_drift_and_says_who_declared_it() -> None:
    calm = Calm(SeasonMemory(BEGAN), None, {"age": "declared seasonal by ann on 2026-01-05: school holidays"})
    found = explain([move(0.9)], calm, BEGAN + HOUR)
    assert found.sentences == {HIGHER: "declared seasonal by ann on 2026-01-05: school holidays"}


def test_a_declared_column_that_goes_missing_is_drift_as_ever() -> None:
    gone = HIGHER._replace(direction=MORE_MISSING)
    found = explain([move(kind=gone)], Calm(SeasonMemory(BEGAN), declared={"age": "declared seasonal by ann"}), BEGAN)
    assert found.sentences == {}


def test_time_in_which_nobody_looked_is_not_learned_as_a_length() -> None:
    moved = {34: move()} | {34 + 24 * 90: move()}
    calm, _ = lived(moved, [*range(35), *range(34 + 24 * 90, 24 * 93)])
    (one,) = calm.memory.excursions
    assert (one.known_effect, one.known_seconds) == (0.0, 0.0)


def test_the_same_tick_twice_learns_nothing_more() -> None:
    calm, _ = lived(campaign(1), range(24 * 3))
    once = explain([move()], calm, BEGAN + 3 * DAY).memory
    assert once is not None
    again = explain([move()], Calm(once), BEGAN + 3 * DAY).memory
    assert again == once


def test_nothing_is_explained_before_anything_is_known() -> None:
    assert explain([move()], Calm(SeasonMemory(BEGAN)), BEGAN + HOUR).sentences == {}


def varied(hours: Iterable[int], amplitude: float, calm: Calm | None = None) -> Calm:
    """Live through hourly ticks of a daily cycle that stays below the threshold."""
    rng = np.random.default_rng(1)
    calm = calm or Calm(SeasonMemory(BEGAN))
    for hour in hours:
        at = amplitude * np.sin(2 * np.pi * hour / 24) + rng.normal(0, 0.02)
        memory = explain([], calm, BEGAN + hour * HOUR, [Position("age", "newest rows", at, 0.02**2)]).memory
        assert memory is not None
        calm = Calm(memory)
    return calm


def is_explained(effect: float, calm: Calm, hour: int) -> bool:
    return bool(explain([move(effect, margin=0.05)], calm, BEGAN + hour * HOUR).sentences)


@pytest.mark.parametrize(("amplitude", "is_known"), [(0.0, False), (0.1, True)])
def test_a_cycle_below_the_threshold_explains_a_short_move_just_above_it(amplitude: float, is_known: bool) -> None:
    calm = varied(range(24 * 20), amplitude)
    assert is_explained(0.13, calm, 24 * 20) == is_known
    assert not is_explained(0.2, calm, 24 * 20)


def test_days_without_traffic_are_no_blocks_of_time() -> None:
    """A cycle that was seen on six days is not known better after a month without traffic."""
    calm = varied(range(24 * 6), 0.1)
    assert not is_explained(0.13, calm, 24 * 40)
    assert is_explained(0.13, varied(range(24 * 40, 24 * 41), 0.1, calm), 24 * 41)


def test_a_window_that_is_compared_again_is_in_the_means_once() -> None:
    """Labels that arrive make another tick of the same rows."""
    once = varied([*range(24), 24], 0.1).memory.spreads
    assert varied([*range(24), 24, 24, 24], 0.1).memory.spreads == once
    assert [(one.n_ticks, one.n_days, one.since, one.until) for one in once] == [(25, 2, BEGAN, BEGAN + DAY)]


def test_spreads_of_columns_that_are_gone_are_forgotten() -> None:
    calm = varied([0], 0.1)
    after = [explain([], calm, BEGAN + later).memory for later in (REMEMBERED_FOR, REMEMBERED_FOR + HOUR)]
    assert [len(memory.spreads) for memory in after if memory is not None] == [1, 0]
    places = [Position(f"column_{i}", "newest rows", 0.1, 0.01) for i in range(MAX_REMEMBERED + 10)]
    memory = explain([], calm, BEGAN + HOUR, places).memory
    assert memory is not None
    assert len(memory.spreads) == MAX_REMEMBERED
    assert "age" not in {one.column for one in memory.spreads}


def test_a_move_that_a_declaration_explains_counts_as_no_known_one() -> None:
    """Else its limits, which nobody has seen, would seem to rest on it once the declaration is withdrawn."""
    declared = Calm(SeasonMemory(BEGAN), None, {"age": "declared seasonal by ann"})
    for hour in range(24 * 2):
        moves = [campaign(1)[hour]] if hour in campaign(1) else []
        memory = explain(moves, declared, BEGAN + hour * HOUR).memory
        assert memory is not None
        declared = replace(declared, memory=memory)
    calm, _ = lived(campaign(3), range(24 * 2, 24 * 5), Calm(declared.memory))
    assert [one.n_known for one in calm.memory.excursions] == [1]


def test_ticks_that_are_far_apart_do_not_end_what_each_of_them_sees() -> None:
    """Else each tick of a shift that stays would be an excursion, and the first would explain all others."""
    stays = {hour: move() for hour in range(48, 480, 12)}
    assert lived(stays, range(0, 480, 12))[1] == list(stays)


NOT_COMPARED: tuple[Channel, ...] = (Channel("age", "look-back"), HIGHER.channel._replace(is_missing_rate=True))
"""What a tick with few rows compares: its newest rows are its only ones, and have no known age."""


def passed(calm: Calm, hours: Iterable[int], verdict: Verdict = Verdict.STABLE) -> Calm:
    """Let hourly ticks pass that do not compare the newest rows of the column."""
    for hour in hours:
        memory = explain([], calm, BEGAN + hour * HOUR, compared=NOT_COMPARED).memory
        assert memory is not None
        calm = Calm(memory, verdict)
    return calm


def test_a_window_that_was_not_compared_has_not_come_back() -> None:
    """Else a night of little traffic would end a shift that stays, and it would be known as a season from then on."""
    calm, drifted = lived({hour: move() for hour in range(10, 13)}, range(13))
    calm, later = lived({hour: move() for hour in range(21, 40)}, range(21, 40), passed(calm, range(13, 21)))
    assert (drifted, later) == ([10, 11, 12], list(range(21, 40)))
    (one,) = calm.memory.excursions
    assert (one.since, one.known_effect) == (BEGAN + 10 * HOUR, 0.0)


def test_what_was_not_compared_for_a_day_is_not_learned() -> None:
    calm, _ = lived(campaign(1), range(24, 37))
    calm, _ = lived({}, range(70, 120), passed(calm, range(37, 70)))
    assert [(one.is_over, one.known_effect) for one in calm.memory.excursions] == [(True, 0.0)]


def test_harm_seen_while_a_window_is_not_compared_spoils_what_is_under_way_in_it() -> None:
    calm, _ = lived(campaign(1), range(24, 37))
    calm, _ = lived({}, range(40, 70), passed(calm, range(37, 40), Verdict.HARMFUL_SHIFT))
    assert [one.known_effect for one in calm.memory.excursions] == [0.0]


def test_a_short_pause_of_comparison_leaves_a_campaign_to_be_learned() -> None:
    calm, _ = lived(campaign(1), range(24, 37))
    calm, _ = lived({}, range(40, 70), passed(calm, range(37, 40)))
    assert [one.known_effect for one in calm.memory.excursions] == [0.2]


def after_harm(calm: Calm, day: int) -> tuple[Calm, str]:
    """Let labels prove, later, that there was harm all that day."""
    memory, sentence = unlearned(calm.memory, BEGAN + day * DAY, BEGAN + (day + 1) * DAY)
    return replace(calm, memory=memory), sentence


def test_labels_that_show_harm_late_take_back_what_was_learned_then() -> None:
    calm, drifted = lived(campaign(1) | campaign(3), range(24 * 8))
    assert drifted == [34, 35, 36], "the second is known"
    calm, sentence = after_harm(calm, 1)
    assert sentence == (
        "no season any more: age higher (newest rows), as labels show harm from 2026-01-06 00:00 to 2026-01-07 00:00 UTC"
    )
    assert len(lived(campaign(9), range(24 * 8, 24 * 10), calm)[1]) == len(CAMPAIGN)


def test_what_passed_over_harm_is_known_no_more() -> None:
    """It was learned in sound time, but explained a move that did harm."""
    calm, _ = lived(campaign(1) | campaign(3), range(24 * 8))
    calm, sentence = after_harm(calm, 3)
    assert "age higher" in sentence
    assert len(lived(campaign(9), range(24 * 8, 24 * 10), calm)[1]) == len(CAMPAIGN)


@pytest.mark.parametrize("harmful_day", [2, 4, 6])
def test_harm_at_another_time_leaves_a_season_known(harmful_day: int) -> None:
    calm, _ = lived(campaign(1) | campaign(3), range(24 * 8))
    calm, sentence = after_harm(calm, harmful_day)
    assert sentence == ""
    assert lived(campaign(9), range(24 * 8, 24 * 10), calm)[1] == []


def test_of_several_that_gave_the_limits_the_sound_ones_remain() -> None:
    calm, _ = lived(campaign(1, 0.2) | campaign(3, 0.4) | campaign(5, 0.2), range(24 * 8))
    calm, _ = after_harm(calm, 3)
    (one,) = calm.memory.excursions
    assert (one.known_effect, one.n_known, len(one.learned)) == (0.2, 1, 1)
    assert lived(campaign(9, 0.2) | campaign(11, 0.4), range(24 * 8, 24 * 13), calm)[1] == [
        24 * 11 + h for h in CAMPAIGN
    ]


def test_an_excursion_that_is_not_over_is_not_learned_once_its_beginning_proves_harmful() -> None:
    calm, _ = lived({hour: move() for hour in range(24, 72)}, range(72))
    calm, _ = after_harm(calm, 1)
    calm, _ = lived({}, range(72, 120), calm)
    assert [(one.is_over, one.known_effect) for one in calm.memory.excursions] == [(True, 0.0)]


def test_limits_of_unknown_times_do_not_outlive_harm() -> None:
    calm, _ = lived(campaign(1), range(24 * 8))
    (one,) = calm.memory.excursions
    memory = replace(calm.memory, excursions=(replace(one, learned=()),))
    assert unlearned(memory, BEGAN + 5 * DAY, BEGAN + 6 * DAY).memory.excursions[0].known_effect == 0


def test_variation_from_day_to_day_is_learned_anew_after_harm() -> None:
    calm = varied(range(24 * 20), 0.1)
    assert is_explained(0.13, calm, 24 * 20)
    calm, _ = after_harm(calm, 4)
    assert not is_explained(0.13, calm, 24 * 20)
    assert is_explained(0.13, varied(range(24 * 20, 24 * 28), 0.1, calm), 24 * 28)
