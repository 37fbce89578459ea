"""Labels that are withheld: nothing is learned from them or counted with them until a person releases them, by a decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from selfheal.adapters.postgres import alerts, decisions
from selfheal.adapters.postgres.label_quarantines import label_quarantines
from selfheal.adapters.postgres.predictions import count_labels, count_labels_received_after, labelled_rows
from selfheal.domain.records import Action, LabelQuarantine, Trigger
from selfheal.kit.errors import PermanentError, UnknownQuarantineError
from selfheal.services.label_quarantines import release_labels
from selfheal.services.platform import Platform
from tests.services.steps import decide, tick, unmet
from tests.times import T0
from tests.traffic import SECOND, Sent, serve, toy_rows

HOUR = timedelta(hours=1)
N_ROWS = 800


def learned(platform: Platform) -> int:
    return len(labelled_rows(platform.store, max_rows=10_000))


def served(platform: Platform, *sizes: int) -> list[Sent]:
    """Serve batches, an hour apart, the labels of each received a second after its last prediction."""
    batches: list[Sent] = []
    for number, n_rows in enumerate(sizes):
        start = T0 + SECOND if not batches else batches[-1].last_at + HOUR
        batches.append(serve(platform, toy_rows(n_rows, number + 1), start=start))
    return batches


def quarantine(batch: Sent, **fields: object) -> LabelQuarantine:
    at = batch.last_at + SECOND
    return replace(LabelQuarantine("a1", 1, at, ("inverted",), ended_at=at), **fields)  # type: ignore[arg-type]


def test_withheld_labels_count_nowhere_until_a_person_releases_them(platform: Platform) -> None:
    first, wrong, sent = served(platform, 300, 200, 250)
    period = first.created_at[0] - HOUR, sent.last_at + HOUR
    n_sampled = len(platform.traffic.label_delay_sample(1, *period))
    platform.traffic.record_label_quarantine(quarantine(wrong))
    assert 0 < len(platform.traffic.label_delay_sample(1, *period)) <= n_sampled - 100
    assert learned(platform) == 550
    assert count_labels(platform.store, sound_only=True) == (750, 550)
    assert count_labels(platform.store) == (750, 750)
    assert count_labels_received_after(platform.store, first.created_at[0]) == 550

    now = sent.last_at + HOUR
    with pytest.raises(UnknownQuarantineError, match="not released are: a1"):
        release_labels(platform, "b2", reason="x", actor="ada", now=now)
    with pytest.raises(PermanentError, match="a reason"):
        release_labels(platform, "a1", reason=" ", actor="ada", now=now)
    release_labels(platform, "a1", reason="the sender was right", actor="ada", now=now)
    assert learned(platform) == 750
    assert count_labels(platform.store, sound_only=True) == (750, 750)
    (decided,) = decisions.recent(platform.store, limit=1)
    assert (decided.action, decided.actor, decided.champion_version) == (Action.RELEASE_LABELS, "ada", 1)
    assert decided.reason.endswith("count again: the sender was right")
    with pytest.raises(PermanentError, match="released by ada already"):
        release_labels(platform, "a1", reason="again", actor="ada", now=now)


def test_labels_of_other_sources_and_versions_are_not_withheld(platform: Platform) -> None:
    (sent,) = served(platform, 300)
    platform.traffic.record_label_quarantine(quarantine(sent, label_source="nobody's"))
    platform.traffic.record_label_quarantine(quarantine(sent, quarantine_id="a2", model_version=2))
    assert learned(platform) == 300
    platform.traffic.record_label_quarantine(quarantine(sent, quarantine_id="a3", label_source="test"))
    assert learned(platform) == 0


def test_inverted_labels_are_found_by_a_tick_and_neither_prove_harm_nor_start_a_retraining(platform: Platform) -> None:
    right = serve(platform, toy_rows(N_ROWS))
    tick(platform, right.last_at + SECOND)
    assert label_quarantines(platform.store) == []
    rows = toy_rows(600, 2)
    wrong = serve(platform, rows.assign(true_label=1 - rows["true_label"]), start=right.last_at + HOUR)
    found = tick(platform, wrong.last_at + SECOND)
    assert found.verdict.value == "stable"
    assert any("are withheld" in reason for reason in found.reasons)
    (open_now,) = label_quarantines(platform.store, 1)
    assert open_now.is_open
    assert learned(platform) == N_ROWS
    assert "labels_suspect" in {row.kind for row in alerts.list_alerts(platform.store, only_open=True)}
    decision = decide(platform, Trigger.MANUAL, wrong.last_at + HOUR)
    assert unmet(decision) == {"sound_labels"}
    assert open_now.quarantine_id in decision.reason

    release_labels(platform, open_now.quarantine_id, reason="so it is", actor="ada", now=wrong.last_at + HOUR)
    assert "labels_suspect" not in {row.kind for row in alerts.list_alerts(platform.store, only_open=True)}
    tick(platform, wrong.last_at + 2 * HOUR)
    assert not [one for one in label_quarantines(platform.store) if one.is_open]
