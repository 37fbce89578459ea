"""From a request to a verdict."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from selfheal.adapters.datasets import Dataset
from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.adapters.postgres.predictions import labelled_rows
from selfheal.adapters.postgres.spoiled_periods import spoiled_periods
from selfheal.domain.records import Action, Decision, Trigger
from selfheal.domain.retraining.class_counts import EVALUATION
from selfheal.domain.retraining.dataset import LOGGED, ORIGIN, ORIGINAL
from selfheal.domain.retraining.snapshot import FILE_NAME, to_parquet
from selfheal.kit.errors import (
    IntegrityError,
    InvalidDataError,
    ModelRefusedError,
    ServiceUnavailableError,
    TrainingFailedError,
)
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import promote, rollback
from selfheal.services.retraining import (
    decide_retraining,
    gather_training_set,
    judge,
    original_rows,
    record_out_of_time,
    train_shadow,
)
from selfheal.services.retraining_signals import find_onset
from selfheal.settings import Settings
from tests.candidates import champion, log_worse_model, mlflow_client, passed, twin_of_champion
from tests.services.steps import decide, retrain, tick, unmet
from tests.times import T0
from tests.traffic import SECOND, Sent, ingest_all, journal_labels, serve, toy_rows

HOUR = timedelta(hours=1)
N_ROWS = 1_500


def test_a_retraining_that_may_not_start_is_recorded_with_every_reason(make_settings: Callable[..., Settings]) -> None:
    platform = open_platform(make_settings(promotion_cooldown_days=7.0))
    promote(platform, passed(platform, twin_of_champion(platform)), T0 + SECOND)
    serve(platform, toy_rows(100), start=T0 + HOUR, labelled_share=0.1)
    decision = decide(platform, Trigger.DRIFT, T0 + 2 * HOUR, "e1")
    assert decision.action is Action.SKIP
    assert unmet(decision) == {"cooldown", "labelled_samples", "matured_samples", "label_coverage", "sound_feed"}
    assert "cooling down until 2026-03-09" in decision.reason
    assert "10 labelled predictions, 667 wanted" in decision.reason
    assert decisions.recent(platform.store, limit=1) == [decision]
    assert decide(platform, Trigger.DRIFT, T0 + 3 * HOUR, "e1") == decision, "the same state is recorded once"
    assert len(decisions.recent(platform.store, actions=[Action.SKIP])) == 1
    platform.close()


def test_a_broken_feed_is_not_trained_on(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND, feed_problems=("load_ratio: always 1",))
    for trigger in (Trigger.DRIFT, Trigger.SCHEDULE, Trigger.MANUAL):
        decision = decide(platform, trigger, sent.last_at + HOUR, "e1")
        assert decision.action is Action.SKIP
        assert unmet(decision) == {"sound_feed"}


def test_a_champion_of_another_contract_is_told_before_anything_is_trained(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND)
    with platform.store.engine.begin() as connection:
        connection.execute(text("UPDATE model_metadata SET contract_hash = 'another'"))
    decision = decide(platform, Trigger.MANUAL, sent.last_at + HOUR)
    assert (decision.action, unmet(decision)) == (Action.SKIP, {"champion"})
    assert "version 1 is in production, but was trained under another contract" in decision.reason


def test_what_a_broken_feed_sent_is_never_learned_from_and_what_came_before_and_after_is(platform: Platform) -> None:
    sound = serve(platform, toy_rows(N_ROWS))
    tick(platform, sound.last_at + SECOND, feed_checked_since=sound.created_at[-500])
    assert spoiled_periods(platform.store, 1) == {}

    broken = serve(platform, toy_rows(300, 2), start=sound.last_at + HOUR)
    problem = {"feed_problems": ("load_ratio: always 1",)}
    tick(platform, broken.last_at + SECOND, feed_checked_since=broken.created_at[50], **problem)
    still_broken = serve(platform, toy_rows(300, 3), start=broken.last_at + HOUR)
    tick(platform, still_broken.last_at + SECOND, feed_checked_since=still_broken.created_at[100], **problem)
    tick(platform, still_broken.last_at + SECOND, feed_checked_since=still_broken.created_at[100], **problem)

    repaired = serve(platform, toy_rows(800, 4), start=still_broken.last_at + HOUR)
    tick(platform, repaired.last_at + SECOND, feed_checked_since=repaired.created_at[200])
    decision = decide(platform, Trigger.MANUAL, repaired.last_at + HOUR)
    assert decision.action is Action.TRAIN
    times = labelled_rows(platform.store, max_rows=10_000, sound_only=True)["created_at"].tolist()
    assert times == [*sound.created_at[:-1], *repaired.created_at[201:]]
    gathered = gather_training_set(platform, decision, None, decision.created_at).frame
    assert gathered.loc[gathered[ORIGIN] == LOGGED, "created_at"].tolist() == times
    assert len(labelled_rows(platform.store, max_rows=10_000)) == N_ROWS + 300 + 300 + 800


def test_a_skip_is_another_row_only_for_other_unmet_conditions_or_another_attempt(platform: Platform) -> None:
    """The sensors ask every 30 seconds; a label more changes a sentence, not the decision."""
    serve(platform, toy_rows(100), start=T0 + HOUR, labelled_share=0.1)
    first = decide(platform, Trigger.DRIFT, T0 + 2 * HOUR, "e1")
    for i in range(3):
        sent = serve(platform, toy_rows(20, seed=i), start=T0 + (3 + i) * HOUR, labelled_share=0.1)
        assert decide(platform, Trigger.DRIFT, sent.last_at, "e1") == first
    assert unmet(first) == {"labelled_samples", "matured_samples", "label_coverage", "sound_feed"}
    tick(platform, sent.last_at)
    evaluated_at = decide(platform, Trigger.DRIFT, sent.last_at + HOUR, "e1")
    assert unmet(evaluated_at) == {"labelled_samples", "matured_samples", "label_coverage"}
    assert decide(platform, Trigger.DRIFT, sent.last_at + HOUR, "e2") != evaluated_at
    assert len(decisions.recent(platform.store, actions=[Action.SKIP])) == 3


def test_a_person_is_answered_each_time_and_the_calendar_every_week(platform: Platform) -> None:
    def asked(trigger: Trigger, now: datetime, **who: str) -> str:
        values = {"episode_id": None, "actor": "ann", "reason": "audit"} | who
        return decide_retraining(platform, trigger, now=now, **values).decision_id  # type: ignore[arg-type]

    by_hand = [
        asked(Trigger.MANUAL, T0, **who) for who in ({}, {"actor": "bob"}, {"request_id": "r1"}, {"request_id": "r2"})
    ]
    assert len(set(by_hand)) == 4
    assert asked(Trigger.MANUAL, T0 + HOUR, request_id="r1") == by_hand[2], "the run of a request may be repeated"
    monday = asked(Trigger.SCHEDULE, T0)
    assert asked(Trigger.SCHEDULE, T0 + HOUR) == monday
    assert asked(Trigger.SCHEDULE, T0 + timedelta(days=7)) != monday


def training_fails(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str = "train"
) -> Decision:
    """A training of the episode e1, as a run makes it, that ends with this error."""
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND)
    started = decide(platform, Trigger.DRIFT, sent.last_at + HOUR, "e1")
    assert started.action is Action.TRAIN
    assert decide(platform, Trigger.DRIFT, sent.last_at + 2 * HOUR, "e1") == started, (
        "a run taken again goes on with it"
    )

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched, pytest.raises(type(error)):
        patched.setattr(f"selfheal.services.retraining.{where}", fail)
        train_shadow(platform, gather_training_set(platform, started, None, started.created_at), sent.last_at)
    return started


@pytest.mark.parametrize("where", ["train", "training_set"])
@pytest.mark.parametrize(
    "error",
    [
        ServiceUnavailableError("MLflow does not answer"),
        OperationalError("SELECT", {}, Exception("Postgres is gone")),
        OSError(28, "No space left on device"),
        IntegrityError("the champion's rows were changed"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_outside_of_the_model_spends_no_attempt_and_waits_for_no_labels(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    started = training_fails(platform, monkeypatch, error, where)
    assert decide(platform, Trigger.DRIFT, started.created_at + HOUR, "e1") == started, "tried again on the same labels"
    serve(platform, toy_rows(1, seed=3), start=started.created_at)
    again = decide(platform, Trigger.DRIFT, started.created_at + HOUR, "e1")
    assert (again.action, again.attempt) == (Action.TRAIN, 1)


@pytest.mark.parametrize(
    ("error", "where"),
    [(TrainingFailedError("does not converge"), "train"), (InvalidDataError("one class only"), "training_set")],
)
def test_a_training_that_failed_for_its_model_or_rows_is_an_attempt_and_the_next_one_waits_for_labels(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    """Else each label that comes in would start the same failure again."""
    started = training_fails(platform, monkeypatch, error, where)
    sent_until = started.created_at - HOUR
    serve(platform, toy_rows(1, seed=3), start=sent_until + HOUR)
    again = decide(platform, Trigger.DRIFT, sent_until + 2 * HOUR, "e1")
    assert (unmet(again), again.attempt) == ({"back_off"}, 2)
    serve(platform, toy_rows(N_ROWS // 4, seed=4), start=sent_until + 2 * HOUR)
    assert decide(platform, Trigger.DRIFT, sent_until + 3 * HOUR, "e1").action is Action.TRAIN


def test_a_training_that_ran_out_of_time_is_an_attempt_too(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    started = training_fails(platform, monkeypatch, MemoryError())
    record_out_of_time(platform, "e1", started.attempt, "ended after 4 h", started.created_at)
    serve(platform, toy_rows(1, seed=3), start=started.created_at)
    again = decide(platform, Trigger.DRIFT, started.created_at + HOUR, "e1")
    assert (unmet(again), again.attempt) == ({"back_off"}, 2)


def label_failures_first(platform: Platform, rows: pd.DataFrame) -> Sent:
    """Serves the rows: a failure is known within minutes, that there was none only after an hour."""
    sent = serve(platform, rows, step=10 * SECOND, labelled_share=0.0)
    came: dict[datetime, dict[UUID, int]] = defaultdict(dict)
    for prediction_id, made_at, label in zip(sent.prediction_ids, sent.created_at, rows["true_label"], strict=True):
        came_at = next_slot(made_at if label else made_at + HOUR)
        if came_at <= sent.last_at:
            came[came_at][prediction_id] = int(label)
    for moment, labels in came.items():
        journal_labels(platform.settings.data_dir, list(labels), list(labels.values()), received_at=moment)
    ingest_all(platform)
    return sent


def test_labels_that_come_before_the_others_are_neither_counted_nor_learned_from(platform: Platform) -> None:
    """The newest labels are all 1."""
    rows = toy_rows(N_ROWS)
    sent = label_failures_first(platform, rows)
    tick(platform, sent.last_at)

    decision = decide(platform, Trigger.MANUAL, sent.last_at + HOUR)
    conditions = {condition.name: condition for condition in decision.conditions}
    assert "come within 70 minutes" in conditions["matured_samples"].reason, "an hour, and the batches"
    gathered = gather_training_set(platform, decision, None, decision.created_at)
    logged = gathered.frame[gathered.frame[ORIGIN] == LOGGED]
    assert logged["created_at"].max() <= sent.last_at - HOUR
    assert decision.n_labels == len(logged)
    assert gathered.info.label_coverage_pct == pytest.approx(100.0, abs=1.0)
    assert logged["true_label"].mean() == pytest.approx(rows["true_label"].mean(), abs=0.04)


def next_slot(moment: datetime) -> datetime:
    """The next full ten minutes: labels come in batches."""
    return T0 + timedelta(minutes=10) * math.ceil((moment - T0) / timedelta(minutes=10))


def test_labels_for_ids_nobody_issued_count_for_nothing(platform: Platform) -> None:
    sent = serve(platform, toy_rows(300), labelled_share=0.0)
    journal_labels(platform.settings.data_dir, [uuid4() for _ in range(2_000)], [0, 1] * 1_000)
    ingest_all(platform)
    tick(platform, sent.last_at + SECOND)
    decision = decide(platform, Trigger.MANUAL, sent.last_at + HOUR)
    assert decision.action is Action.SKIP
    assert "0 labelled predictions, 667 wanted" in decision.reason


def test_after_a_rollback_the_cooldown_counts_from_the_rollback_also_for_the_first_version(
    make_settings: Callable[..., Settings],
) -> None:
    platform = open_platform(make_settings(promotion_cooldown_days=7.0))
    assert "cooldown" not in unmet(decide(platform, Trigger.SCHEDULE, T0 + HOUR)), "a bootstrap does not count"
    promote(platform, passed(platform, twin_of_champion(platform)), T0 + HOUR)
    back_at = T0 + timedelta(days=6)
    rollback(platform, to_version=1, reason="worse", actor="test", now=back_at)
    assert "cooldown" in unmet(decide(platform, Trigger.SCHEDULE, back_at + timedelta(days=6)))
    assert "cooldown" not in unmet(decide(platform, Trigger.SCHEDULE, back_at + timedelta(days=7)))
    platform.close()


def test_after_a_rollback_the_labels_of_before_are_not_waited_for_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt had 1,500 labels of what is not counted any more: a quarter more of the new ones took nine months."""
    started = training_fails(platform, monkeypatch, InvalidDataError("one class only"), "training_set")
    promote(platform, passed(platform, twin_of_champion(platform)), started.created_at + HOUR)
    rollback(platform, to_version=1, reason="worse", actor="test", now=started.created_at + 2 * HOUR)
    sent = serve(platform, toy_rows(700, seed=5), start=started.created_at + 3 * HOUR)
    tick(platform, sent.last_at + SECOND)
    again = decide(platform, Trigger.DRIFT, sent.last_at + HOUR, "e1")
    assert (again.action, unmet(again), again.n_labels) == (Action.TRAIN, set(), 700)
    assert again.attempt == 2, "the attempts of an episode are counted through a rollback: no storm"


# After a change


def test_after_a_change_rows_since_then_count_and_older_ones_are_weighed(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    earlier = sent.last_at - SECOND
    tick(platform, earlier)
    before = retrain(platform, decide(platform, Trigger.MANUAL, earlier), earlier)
    assert (before.decision.onset, before.decision.verdict_number, before.is_promotion) == (None, 1, False)

    start = sent.last_at + HOUR
    changed = serve(platform, toy_rows(700, seed=5, scenario="overheating"), start=start)
    tick(platform, changed.last_at + SECOND)
    decision = decide(platform, Trigger.MANUAL, changed.last_at + HOUR)
    assert decision.onset is not None
    assert decision.onset.low <= sent.last_at <= decision.onset.high
    assert abs(decision.n_labels - 700) <= 60
    assert decisions.find(platform.store, decision.decision_id) == decision, "the onset is kept with the decision"
    (labels,) = (one.reason for one in decision.conditions if one.name == "labelled_samples")
    assert "labelled predictions since the relation between score and outcome changed at 2026-" in labels

    rows = gather_training_set(platform, decision, None, decision.created_at)
    recent, older = (rows.frame[rows.frame[ORIGIN] == origin] for origin in (LOGGED, ORIGINAL))
    assert (recent["created_at"] > decision.onset.at).all()
    assert (older["created_at"].dropna() <= decision.onset.at).all()
    assert rows.info.changed_at == decision.onset.at
    assert rows.info.n_before_change == older["created_at"].count()
    assert "labelled predictions from before the change" in rows.info.original_source  # type: ignore[operator]
    verdict = retrain(platform, decision, decision.created_at).decision
    assert (verdict.onset, verdict.verdict_number) == (decision.onset, 1), (
        "what was tried before spends nothing of today's level"
    )


def test_early_labels_of_one_class_are_no_change(platform: Platform) -> None:
    """Those of the newest rows are all 1; those that have matured decide."""
    sent = label_failures_first(platform, toy_rows(N_ROWS))
    assert find_onset(platform, champion(platform), None) is not None
    tick(platform, sent.last_at + SECOND)
    assert decide(platform, Trigger.MANUAL, sent.last_at + HOUR).onset is None


# The champion's own rows


def test_the_champions_training_rows_are_weighed_against_the_recent_ones(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND)
    info = gather_training_set(platform, decide(platform, Trigger.MANUAL, sent.last_at + HOUR), None, T0).info
    assert info.original_source.startswith("the training set of version 1 (3,000 SYNTHETIC")  # type: ignore[union-attr]
    assert info.n_original == (3_000 - info.n_copied_inputs if info.original_weight else 0)
    assert len(info.weight_log_losses) > 1


def test_a_champion_without_a_training_set_is_stood_in_for_by_the_first_baseline(platform: Platform) -> None:
    promote(platform, passed(platform, twin_of_champion(platform)), T0 + SECOND)
    originals = original_rows(platform, champion(platform))
    assert originals is not None
    assert (originals.source, len(originals.frame)) == ("the first baseline", 3_000)


def test_a_changed_training_set_of_the_champion_is_not_learned_from(platform: Platform) -> None:
    worse = log_worse_model(platform)
    promote(platform, passed(platform, worse), T0 + SECOND)
    kept = platform.registry.training_set(worse)
    assert original_rows(platform, champion(platform)).frame.equals(kept.frame)  # type: ignore[union-attr]
    forged = replace(kept, frame=kept.frame.assign(true_label=1 - kept.frame["true_label"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        path.write_bytes(to_parquet(forged))
        mlflow_client(platform).log_artifact(worse.mlflow_run_id, str(path))
    with pytest.raises(IntegrityError, match="has changed: its rows should have sha256"):
        original_rows(platform, champion(platform))


def test_a_second_bootstrap_is_skipped(platform: Platform) -> None:
    decision = decide(platform, Trigger.BOOTSTRAP, T0 + HOUR)
    assert decision.action is Action.SKIP
    assert decision.reason == "version 1 is in production already"


def test_nothing_but_a_bootstrap_starts_without_a_champion(empty_platform: Platform) -> None:
    decision = decide(empty_platform, Trigger.SCHEDULE, T0)
    assert decision.action is Action.SKIP
    assert "champion" in unmet(decision)
    assert decide(empty_platform, Trigger.BOOTSTRAP, T0).action is Action.TRAIN


def test_a_rejected_shadow_leaves_production_untouched_and_the_next_attempt_waits_for_labels(
    platform: Platform,
) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    now = sent.last_at + HOUR
    tick(platform, now)
    before = model_versions.list_versions(platform.store)
    verdict = retrain(platform, decide(platform, Trigger.DRIFT, now, "e1"), now)
    assert verdict.decision.action is Action.REJECT
    assert "f1_improvement" in verdict.decision.failed_gates
    assert model_versions.list_versions(platform.store) == before, "it is not even registered"
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1

    again = decide(platform, Trigger.DRIFT, now + HOUR, "e1")
    assert again.action is Action.SKIP
    assert unmet(again) == {"back_off"}
    assert again.attempt == 2
    serve(platform, toy_rows(N_ROWS // 4, seed=3), start=now)
    assert decide(platform, Trigger.DRIFT, now + 2 * HOUR, "e1").action is Action.TRAIN


def test_the_same_training_is_run_and_judged_once_even_after_its_promotion(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS, scenario="overheating"))
    now = sent.last_at + HOUR
    tick(platform, now)
    decision = decide(platform, Trigger.MANUAL, now)
    rows = gather_training_set(platform, decision, None, decision.created_at)
    shadow = train_shadow(platform, rows, now)
    verdict = judge(platform, shadow, rows, now)
    assert train_shadow(platform, rows, now + HOUR) == shadow
    assert judge(platform, shadow, rows, now + HOUR).decision == verdict.decision
    promote(platform, verdict, now)
    assert judge(platform, shadow, rows, now + HOUR).decision == verdict.decision, "it was compared with version 1"


@pytest.mark.parametrize("n_before", [0, 500], ids=["changed since the promotion", "changed later"])
def test_a_run_that_was_killed_before_the_promotion_of_its_verdict_is_gone_on_with(
    platform: Platform, n_before: int
) -> None:
    start = T0 + SECOND if not n_before else serve(platform, toy_rows(n_before)).last_at + SECOND
    sent = serve(platform, toy_rows(N_ROWS, scenario="overheating"), start=start)
    now = sent.last_at + HOUR
    tick(platform, now)
    decision = decide(platform, Trigger.PERFORMANCE, now, "e1")
    assert (decision.onset is None) == (n_before == 0)
    verdict = retrain(platform, decision, now)
    assert verdict.decision.action is Action.PROMOTE
    assert decide(platform, Trigger.PERFORMANCE, now + HOUR, "e1") == decision, "as before the verdict"
    assert retrain(platform, decision, now + HOUR).decision == verdict.decision, "trained and judged once"
    promote(platform, verdict, now + HOUR)
    assert decide(platform, Trigger.PERFORMANCE, now + 2 * HOUR, "e1").attempt == 2


@pytest.mark.parametrize("n_before", [0, 500], ids=["changed since the promotion", "changed later"])
def test_a_model_that_is_refused_after_its_verdict_has_spent_its_attempt(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, n_before: int
) -> None:
    """Else each label that comes in would train the next one that is refused."""
    start = T0 + SECOND if not n_before else serve(platform, toy_rows(n_before)).last_at + SECOND
    sent = serve(platform, toy_rows(N_ROWS, scenario="overheating"), start=start)
    now = sent.last_at + HOUR
    tick(platform, now)
    verdict = retrain(platform, decide(platform, Trigger.PERFORMANCE, now, "e1"), now)

    def refuse(*_: object) -> None:
        raise ModelRefusedError("it scores otherwise once it is loaded")

    monkeypatch.setattr("selfheal.services.promotion.going_live.validate", refuse)
    with pytest.raises(ModelRefusedError):
        promote(platform, verdict, now)
    again = decide(platform, Trigger.PERFORMANCE, now + HOUR, "e1")
    assert (again.attempt, unmet(again)) == (2, {"back_off"})


def test_rows_gathered_for_a_decision_nobody_recorded_are_not_trained_on(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND)
    rows = gather_training_set(platform, decide(platform, Trigger.MANUAL, sent.last_at + HOUR), None, T0)
    forged = replace(rows, info=replace(rows.info, decision_id="nobody"))
    with pytest.raises(IntegrityError, match="names decision nobody, which is not recorded"):
        train_shadow(platform, forged, sent.last_at + HOUR)


# Classes


def test_a_retraining_whose_parts_lack_a_class_is_not_started_and_says_how_many_are_missing(platform: Platform) -> None:
    """1,450 labels, 8 of class 1 among the newest 435: for a long time such a training began again and again, and failed."""
    labels = np.zeros(1_450, dtype=np.int64)
    labels[:1_015:85], labels[1_030::55] = 1, 1
    sent = serve(platform, toy_rows(1_450).assign(true_label=labels))
    tick(platform, sent.last_at + SECOND)
    for trigger in (Trigger.DRIFT, Trigger.SCHEDULE, Trigger.MANUAL):
        decision = decide(platform, trigger, sent.last_at + HOUR, "e1")
        assert (decision.action, unmet(decision)) == (Action.SKIP, {"class_counts"})
        assert "the 435 rows to be judged on (the newest) need 2 more of class 1 (there are 8)" in decision.reason
    serve(platform, toy_rows(2, seed=3).assign(true_label=1), start=sent.last_at + SECOND)
    decision = decide(platform, Trigger.MANUAL, sent.last_at + HOUR)
    assert decision.action is Action.TRAIN
    gathered = gather_training_set(platform, decision, None, decision.created_at)
    counted = {c.name: c for c in decision.conditions}["class_counts"].reason
    n_judged = int(gathered.part(EVALUATION)["true_label"].sum())
    assert counted.endswith(f"{n_judged} of {gathered.info.n_evaluation} to be judged on (the newest)")


def test_the_classes_are_counted_as_the_training_set_will_have_them(platform: Platform) -> None:
    """Training rows with the inputs of an evaluation row are dropped: here all of class 1."""
    rows = toy_rows(1_400)
    rows["true_label"] = np.arange(1_400) % 7 == 0
    judged = rows.iloc[980:][rows["true_label"].iloc[980:]]
    is_old = (rows.index < 980) & rows["true_label"]
    inputs = list(platform.contract.input_names)
    rows.loc[is_old, inputs] = judged[inputs].iloc[np.arange(is_old.sum()) % len(judged)].to_numpy()
    sent = serve(platform, rows)
    tick(platform, sent.last_at + SECOND)
    decision = decide(platform, Trigger.DRIFT, sent.last_at + HOUR, "e1")
    assert (decision.action, unmet(decision)) == (Action.SKIP, {"class_counts"})
    assert "need 10 more of class 1 (there are 0)" in decision.reason
    assert "140 rows that repeat the inputs of evaluation rows do not count" in decision.reason


def test_a_bootstrap_whose_rows_lack_a_class_is_a_plain_sentence_and_no_failure(empty_platform: Platform) -> None:
    frame = toy_rows(500).assign(true_label=0)
    dataset = Dataset(frame, "real", "rows.csv", "digest")
    asked = {"episode_id": None, "actor": "test", "reason": "first", "bootstrap_data": dataset}
    decision = decide_retraining(empty_platform, Trigger.BOOTSTRAP, now=T0, **asked)  # type: ignore[arg-type]
    assert (decision.action, unmet(decision)) == (Action.SKIP, {"class_counts"})
    assert decision.reason.startswith("of 500 labelled rows, the 300 rows to fit and tune on need 10 more of class 1")
    asked["bootstrap_data"] = replace(dataset, frame=toy_rows(500))
    assert decide_retraining(empty_platform, Trigger.BOOTSTRAP, now=T0, **asked).action is Action.TRAIN  # type: ignore[arg-type]


# Probation
