"""Declarations by people: who may declare what, that it counts in the next tick, and that it is in the chain."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from selfheal.domain.monitoring.declarations import ROWS, Declared, newest_of_each
from selfheal.domain.records import Action, Excursions, LearnedExcursion, SeasonMemory, Verdict
from selfheal.kit.errors import PermanentError
from selfheal.services.declarations import declarations, declare
from selfheal.services.platform import Platform
from selfheal.services.repositories import DecisionRepository
from selfheal.services.tick import collect, compare, conclude, measure
from selfheal.services.verification.decided import check_chain
from selfheal.simulate.replay.memory.records import MemoryDecisions
from tests import builders
from tests.services.steps import tick, whole_tick
from tests.times import T0
from tests.traffic import serve, toy_rows

HOUR = timedelta(hours=1)
WHY = {"reason": "inventory week", "actor": "ann"}


def test_a_declaration_counts_until_it_is_withdrawn(platform: Platform) -> None:
    declare(platform, Declared.SEASONAL, "load_ratio", now=T0, **WHY)
    declare(platform, Declared.SOUND, "restarts", now=T0 + HOUR, **WHY)
    assert declarations(platform).seasonal == {
        "load_ratio": f"declared seasonal by ann on {T0:%Y-%m-%d}: inventory week"
    }
    assert set(declarations(platform).sound) == {"restarts"}
    declare(platform, Declared.NOT_SEASONAL, "load_ratio", now=T0 + 2 * HOUR, **WHY)
    assert declarations(platform).seasonal == {}
    assert check_chain(platform, None).findings == ()


@pytest.mark.parametrize("kind", ["postgres", "replay"])
def test_a_declaration_counts_however_many_come_after_it(platform: Platform, kind: str) -> None:
    """Only the newest one about a column counts, so that others do not push it out."""
    repository: DecisionRepository = platform.decisions if kind == "postgres" else MemoryDecisions()
    for hour, declared in enumerate(
        ("seasonal:age", "sound:age", "seasonal:not_age", "not_sound:age", "sound:_rows", "not_sound:_rows")
    ):
        repository.record(
            builders.decision(
                decision_id=f"d{hour}", action=Action.DECLARE, declared=declared, created_at=T0 + hour * HOUR
            )
        )
    newest = [one.declared for one in repository.newest_declarations()]
    assert newest == ["not_sound:_rows", "not_sound:age", "seasonal:not_age", "seasonal:age"]
    assert set(newest_of_each(repository.newest_declarations()).seasonal) == {"age", "not_age"}


@pytest.mark.parametrize(
    ("what", "column", "reason", "named"),
    [
        (Declared.SEASONAL, "nonsense", "because", "there is no column 'nonsense'"),
        (Declared.SEASONAL, ROWS, "because", "there is no column '_rows'"),
        (Declared.SOUND, "strain", "because", "there is no column 'strain'"),
        (Declared.SOUND, "load_ratio", " ", "a reason"),
        (Declared.NOT_SOUND, "load_ratio", "because", "nothing to withdraw"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(
    platform: Platform, what: Declared, column: str, reason: str, named: str
) -> None:
    with pytest.raises(PermanentError, match=named):
        declare(platform, what, column, reason=reason, actor="ann", now=T0)


def test_what_was_declared_of_a_column_that_is_gone_can_be_withdrawn(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(platform, Declared.SEASONAL, "load_ratio", now=T0, **WHY)
    monkeypatch.setattr(type(platform.contract), "feature_names", ("restarts",))
    declare(platform, Declared.NOT_SEASONAL, "load_ratio", now=T0 + HOUR, **WHY)
    assert declarations(platform).seasonal == {}


def test_what_a_person_declares_sound_is_no_broken_feed_and_says_so(platform: Platform) -> None:
    rows = toy_rows(300).assign(load_ratio=0.7)
    sent = serve(platform, rows, labelled_share=0)
    assert whole_tick(platform, sent.last_at).verdict is Verdict.BROKEN_FEED
    declare(platform, Declared.SOUND, "load_ratio", now=sent.last_at, **WHY)
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    report = compare(platform, proxy.window)
    assert report.feed_problems == ()
    assert any("declared sound by ann" in sentence for sentence in report.explained)


def test_rows_of_a_feed_that_is_declared_sound_count_again_until_that_is_withdrawn(platform: Platform) -> None:
    sent = serve(platform, toy_rows(300).assign(load_ratio=0.7))
    assert whole_tick(platform, sent.last_at).verdict is Verdict.BROKEN_FEED

    def n_sound() -> tuple[int, int]:
        return platform.traffic.count_labels(since=T0 - HOUR, sound_only=True)

    assert n_sound() == (0, 0)
    declare(platform, Declared.SOUND, "restarts", now=sent.last_at, **WHY)
    assert n_sound() == (0, 0), "another column"
    decision = declare(platform, Declared.SOUND, "load_ratio", now=sent.last_at + HOUR, **WHY)
    assert n_sound() == (300, 300)
    assert [one.accepted_by for one in platform.traffic.spoiled_periods().values()] == [decision.decision_id]
    assert check_chain(platform, None).findings == ()
    declare(platform, Declared.NOT_SOUND, "load_ratio", now=sent.last_at + 2 * HOUR, **WHY)
    assert n_sound() == (0, 0)


def test_a_tick_that_was_under_way_when_the_feed_was_declared_sound_excludes_nothing(platform: Platform) -> None:
    sent = serve(platform, toy_rows(300).assign(load_ratio=0.7))
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    report = compare(platform, proxy.window)
    assert report.feed_columns == ("load_ratio",)
    declare(platform, Declared.SOUND, "load_ratio", now=sent.last_at, **WHY)
    conclude(platform, proxy, report, measure(platform, proxy.window), sent.last_at)
    assert platform.traffic.count_labels(since=T0 - HOUR, sound_only=True) == (300, 300)


def test_rows_that_no_declaration_gives_back_are_found_by_verify(platform: Platform) -> None:
    sent = serve(platform, toy_rows(300).assign(load_ratio=0.7))
    tick_id = whole_tick(platform, sent.last_at).window.tick_id
    seasonal = declare(platform, Declared.SEASONAL, "load_ratio", now=sent.last_at, **WHY)
    for by in (seasonal.decision_id, "no decision"):
        platform.traffic.accept_spoiled_periods({tick_id: by})
        (finding,) = check_chain(platform, None).findings
        assert f"tick {tick_id}" in finding
        assert f"counts by decision {by}, which does not declare it sound" in finding


def test_a_tick_learns_from_the_one_before_it_and_stores_that_with_the_version(platform: Platform) -> None:
    rows = toy_rows(300)
    rows["load_ratio"] = np.minimum(5.0, rows["load_ratio"] + 1.0)
    sent = serve(platform, rows, labelled_share=0)
    assert whole_tick(platform, sent.last_at).verdict.is_shift
    version = platform.versions.champion().version
    memory = platform.ticks.season_memory(version)
    assert memory is not None
    assert {one.column for one in memory.excursions} >= {"load_ratio"}
    assert all(one.since == sent.last_at and one.is_reported for one in memory.excursions)
    assert platform.ticks.season_memory(version + 1) is None


def test_a_repeated_tick_does_not_replace_what_was_learned(platform: Platform) -> None:
    sent = serve(platform, toy_rows(300), labelled_share=0)
    version = platform.versions.champion().version
    first, second = SeasonMemory(T0), SeasonMemory(T0 + HOUR)
    outcome = tick(platform, sent.last_at, seasons=first)
    tick(platform, sent.last_at, seasons=second)
    assert platform.ticks.season_memory(version) == replace(first, tick_id=outcome.window.tick_id)
    assert builders.drift_report().seasons is None


def test_a_tick_whose_labels_prove_harm_takes_back_what_was_learned_then(platform: Platform) -> None:
    sent = serve(platform, toy_rows(300), labelled_share=0)
    version, at = platform.versions.champion().version, sent.last_at - 10 * HOUR
    known = Excursions(
        *("load_ratio", "look-back", "higher", at, at + HOUR),
        is_over=True,
        n_known=1,
        known_effect=0.3,
        known_seconds=3_600.0,
        learned=(LearnedExcursion(at, at + HOUR, 0.3),),
    )
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    drift = builders.drift_report(window=proxy.window, seasons=SeasonMemory(T0, sent.last_at, (known,)))
    harm = {"brier_excess": 0.1, "brier_excess_low": 0.05, "matured_since": at - HOUR, "matured_until": at}
    outcome, _ = conclude(
        platform, proxy, drift, builders.performance(window=proxy.window, **harm), sent.last_at + HOUR
    )
    assert outcome.verdict is Verdict.HARMFUL_SHIFT
    assert outcome.reasons[-1].startswith("no season any more: load_ratio higher (look-back), as labels show harm from")
    memory = platform.ticks.season_memory(version)
    assert memory is not None
    assert [(one.known_effect, one.learned) for one in memory.excursions] == [(0.0, ())]
    row = platform.ticks.latest(version)
    assert row is not None
    assert outcome.reasons[-1] in row.reasons
