"""In memory and in Postgres, the same traffic gives the same answers: rows, order, types and bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.parity import Sender
from selfheal.domain.records import LabelQuarantine, SpoiledPeriod
from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings, default_settings
from selfheal.simulate.replay.deployment import Deployment, Selection
from selfheal.simulate.replay.engine import replay
from selfheal.simulate.replay.memory.platform import MemoryPlatform
from selfheal.simulate.replay.memory.traffic import as_datetime, prediction_id_of, row_of
from selfheal.simulate.replay.ours import install
from selfheal.simulate.replay.policy import Keep, View
from tests.simulate.replay.small import CHANGED, DAY, deployment
from tests.toy_use_case import keyed

pytestmark = pytest.mark.integration

HOURS = np.timedelta64(60, "h")
SMALL = replace(CHANGED, name="small", champion_age_days=1.0, days_after=2.0, per_day=300.0)


class Looking:
    """A policy that fills a platform in memory and asks it, at one moment, what a test asks."""

    def __init__(self, at: np.datetime64, ask: Callable[[MemoryPlatform], None]) -> None:
        self._at, self._ask = at, ask
        self._platform: MemoryPlatform | None = None

    def decide(self, view: View) -> Keep:
        if self._platform is None:
            self._platform = MemoryPlatform(default_settings(), view.contract)
            self._platform.note_live(install(self._platform, view.model, as_datetime(view.started)).version)
        self._platform.traffic.view = view
        if view.now == self._at:
            self._ask(self._platform)
        return Keep()


def answers(traffic: Any, lived: Deployment) -> dict[str, Any]:
    """Everything that the loop asks, about windows of several lengths."""
    start, now = as_datetime(lived.start), as_datetime(lived.start + HOURS)
    later = start + timedelta(hours=7, microseconds=13)
    whole = traffic.window_of(1, start)
    part = traffic.window_of(1, later, now - timedelta(hours=5))
    spoiled = SpoiledPeriod(1, later, later + timedelta(hours=2), ("a reason",))
    traffic.record_spoiled_period("a tick", spoiled)
    traffic.record_spoiled_period("overlapping", replace(spoiled, ended_at=later + timedelta(hours=3)))
    accepted = replace(spoiled, started_at=later + timedelta(hours=9), ended_at=later + timedelta(hours=11))
    traffic.record_spoiled_period("accepted", replace(accepted, columns=("load_ratio",)))
    traffic.accept_spoiled_periods({"accepted": "a decision", "overlapping": "another"})
    traffic.accept_spoiled_periods({"overlapping": None})
    suspect = LabelQuarantine("q", 1, later + timedelta(hours=20), ("a reason",))
    traffic.record_label_quarantine(suspect)
    traffic.record_label_quarantine(replace(suspect, ended_at=later + timedelta(hours=24)))
    other = replace(suspect, quarantine_id="r", started_at=start, released_at=now, released_by="somebody")
    traffic.record_label_quarantine(other)
    traffic.record_label_quarantine(replace(other, released_at=None, released_by=None))
    return {
        "sound_rows_of_version": traffic.sound_rows(1, later, now, 200),
        "newest_labels": traffic.newest_labels(1, now, 30),
        "earlier_labels": traffic.newest_labels(1, now - timedelta(hours=9), 10_000),
        "spoiled": (dict(traffic.spoiled_periods(1)), len(traffic.spoiled_periods()), dict(traffic.spoiled_periods(2))),
        "quarantines": (list(traffic.label_quarantines(1)), list(traffic.label_quarantines(2))),
        "not_received_later": traffic.labelled_rows(max_rows=10_000, received_before=now - timedelta(hours=8)),
        "latest_activity": traffic.latest_activity(now),
        "windows": (whole, part, traffic.window_of(1, now), traffic.window_of(2, start)),
        "nth": [traffic.time_of_nth_newest(1, start, now, n) for n in (1, 100, 10_000)],
        "window_rows": traffic.window_rows(part, 10_000),
        "newest_rows": traffic.newest_rows(whole, 50),
        "newest_of_version": traffic.newest_of_version(1, 70),
        "labelled_rows": traffic.labelled_rows(since=later, until=now, model_version=1, max_rows=40),
        "sound_rows": traffic.labelled_rows(since=start, max_rows=10_000, sound_only=True, usable_only=False),
        "labelled_times": traffic.labelled_keys(since=start, max_rows=10_000).drop(columns="inputs_key"),
        "counts": [traffic.count_labels(since=since, sound_only=sound) for since in (None, later) for sound in (0, 1)],
        "received_after": traffic.count_labels_received_after(later, since=start, until=now),
        "delays": traffic.label_delay_sample(1, start, now).sort_values("age_s", ignore_index=True),
        "proxy": [round(x, 12) for x in (whole and traffic.proxy_metrics(whole).entropy, whole.n_labels)],
    }


@pytest.mark.parametrize("selection", [Selection.ALL, Selection.FLAGGED_ONLY])
def test_every_question_has_the_same_answer_in_memory_and_in_postgres(
    empty_platform: Platform, selection: Selection
) -> None:
    lived = replace(deployment(SMALL), selection=selection)
    found: list[dict[str, Any]] = []
    replay(lived, Looking(lived.start + HOURS, lambda p: found.append(answers(p.traffic, lived))))
    install(empty_platform, lived.champion, as_datetime(lived.start))
    Sender(lived, empty_platform).send(lived.start + HOURS)
    (in_memory,), in_postgres = found, answers(empty_platform.traffic, lived)
    for name, expected in in_postgres.items():
        if isinstance(expected, pd.DataFrame):
            assert len(expected) > 0, name
            pd.testing.assert_frame_equal(in_memory[name], expected, check_exact=True, obj=name)
        else:
            assert in_memory[name] == expected, name


def test_a_key_has_the_same_answer_in_memory_and_in_postgres(settings: Settings) -> None:
    lived = deployment(SMALL)
    lived = replace(lived, stream=replace(lived.stream, contract=keyed, entity=lived.stream.entity // 3))
    found: list[dict[str, Any]] = []
    replay(lived, Looking(lived.start + HOURS, lambda p: found.append(answers(p.traffic, lived))))
    platform = open_platform(settings.model_copy(update={"use_case": "tests.toy_use_case:keyed"}))
    try:
        install(platform, lived.champion, as_datetime(lived.start))
        Sender(lived, platform).send(lived.start + HOURS)
        (in_memory,), in_postgres = found, answers(platform.traffic, lived)
    finally:
        platform.close()
    for name in ("window_rows", "newest_rows", "newest_of_version", "labelled_rows", "sound_rows", "labelled_times"):
        assert in_postgres[name]["_entity"].nunique() > 5, name
        pd.testing.assert_frame_equal(in_memory[name], in_postgres[name], check_exact=True, obj=name)


def test_rows_of_equal_inputs_have_equal_keys_and_others_have_not() -> None:
    lived = deployment(replace(SMALL, name="resent", resent_share=0.3))
    found: list[pd.DataFrame] = []
    replay(lived, Looking(lived.end - DAY, lambda p: found.append(p.traffic.labelled_keys(max_rows=10_000))))
    (keys,) = found
    known = np.flatnonzero(lived.stream.label_time <= lived.end - DAY)[-len(keys) :]
    inputs = pd.DataFrame({name: lived.stream.columns[name][known] for name in lived.stream.contract.input_names})
    assert 0 < inputs.duplicated().sum() < len(inputs)
    assert keys["inputs_key"].duplicated().tolist() == inputs.duplicated().tolist()


def test_an_id_tells_the_row() -> None:
    ids = [prediction_id_of(row) for row in range(0, 3_000, 7)]
    assert ids == sorted(ids), "Postgres orders equal times by id"
    assert [row_of(one) for one in ids] == list(range(0, 3_000, 7))
