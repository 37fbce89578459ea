"""A promoted version watched by the one it replaced."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import decisions, model_versions, probations
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.spoiled_periods import record_spoiled_period
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.probation import CANNOT_COMPARE, FAILED, NO_EVIDENCE, ROLLBACK_FAILED
from selfheal.domain.records import Action, ModelVersion, ProbationOutcome, SpoiledPeriod, Stage
from selfheal.kit.errors import ModelRefusedError
from selfheal.services.platform import Platform, open_platform
from selfheal.services.probation import due_evaluation, resolve_finished_alerts, watch_probation
from selfheal.services.promotion.going_live import force_promote, rollback, stage
from tests.candidates import log_worse_model, passed, twin_of_champion
from tests.clones import copy_of
from tests.conftest import TEMPLATE, WITH_MLFLOW, drop_databases
from tests.times import T0
from tests.traffic import SECOND, Sent, ingest_all, journal_labels, serve, toy_rows

HOUR = timedelta(hours=1)
FORCED_AT = T0 + HOUR
PROBATION = timedelta(hours=72)
"""PROBATION_HOURS as shipped."""


TEMPLATE_NAME = "probation_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def template(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Version 2 in production by a person's word: it predicts the opposite of what is true. Version 3 is a twin of the first."""
    data_dir = tmp_path_factory.mktemp("probation") / "data"
    settings = copy_of(server, TEMPLATE, bootstrapped_template, TEMPLATE_NAME, data_dir, kinds=WITH_MLFLOW)
    platform = open_platform(settings)
    twin = twin_of_champion(platform)
    for number, shadow in ((2, log_worse_model(platform)), (3, twin)):
        staged = stage(platform, shadow, passed(platform, shadow).decision, T0)
        assert (staged.version, staged.stage) == (number, Stage.STAGING)
    force_promote(platform, 2, reason="a person's word", actor="ada", now=FORCED_AT)
    platform.close()
    yield data_dir
    drop_databases(server, TEMPLATE_NAME)


@pytest.fixture
def forced(server: EmbeddedServer, template: Path, tmp_path: Path) -> Iterator[Platform]:
    """A platform of its own with version 2 on probation. MLflow's tables are shared: tests only move aliases there."""
    name = f"probation{next(_numbers)}"
    platform = open_platform(copy_of(server, TEMPLATE_NAME, template, name, tmp_path / "data"))
    yield platform
    platform.close()
    drop_databases(server, name)


def force(platform: Platform, version: int, now: datetime) -> None:
    force_promote(platform, version, reason="a person's word", actor="ada", now=now)


def served(platform: Platform, n_rows: int = 300, **options: Any) -> Sent:
    return serve(platform, toy_rows(n_rows), start=FORCED_AT + SECOND, **options)


def champion(platform: Platform) -> ModelVersion:
    return model_versions.champion(platform.store)


def open_alerts(platform: Platform) -> dict[str, str]:
    """Messages by kind."""
    return {row.kind: row.message for row in alert_queries.list_alerts(platform.store, only_open=True)}


# A worse version


def test_a_worse_version_is_rolled_back_once_by_its_probation(forced: Platform) -> None:
    assert watch_probation(forced, FORCED_AT).reason == "it has served nothing yet"

    sent = served(forced, 150)
    early = watch_probation(forced, sent.last_at + HOUR)
    assert (early.n_labels, early.outcome, early.is_on_probation) == (150, None, True), "too few labels to tell"
    assert champion(forced).version == 2

    sent = serve(forced, toy_rows(150, seed=2), start=sent.last_at + SECOND)
    report = watch_probation(forced, sent.last_at + HOUR)
    assert (report.version, report.n_labels, report.outcome) == (2, 300, ProbationOutcome.FAILED)
    assert champion(forced).version == 1
    assert forced.registry.alias_version(PRODUCTION_ALIAS) == 1

    for hour in range(2, 4):
        assert not watch_probation(forced, sent.last_at + hour * HOUR).is_harmful
    (recorded,) = decisions.recent(forced.store, actions=[Action.ROLLBACK])
    assert (recorded.actor, recorded.trigger_reason, recorded.reason) == ("probation", "probation", report.reason)
    assert champion(forced).version == 1
    (kept,) = probations.outcomes(forced.store)
    assert (kept.version, kept.outcome, kept.promoted_at) == (2, "failed", FORCED_AT)


def test_a_rollback_opens_one_alert_that_stays_until_another_version_goes_live(forced: Platform) -> None:
    now = served(forced).last_at + HOUR
    watch_probation(forced, now)
    for _ in range(2):
        resolve_finished_alerts(forced, now + HOUR)
        (alert,) = alert_queries.list_alerts(forced.store)
        assert (alert.source, alert.kind, alert.severity, alert.model_version) == ("probation", FAILED, "critical", 2)
        assert alert.message.startswith("Version 1 is in production again: version 2 failed its probation (Brier score")
        assert alert.resolved_at is None
        watch_probation(forced, now + HOUR)
    force(forced, 2, now + 2 * HOUR)
    resolve_finished_alerts(forced, now + 2 * HOUR)
    assert open_alerts(forced) == {}


def test_a_version_that_came_back_is_not_on_probation(forced: Platform) -> None:
    now = served(forced).last_at + HOUR
    watch_probation(forced, now)
    report = watch_probation(forced, now + HOUR)
    assert (report.version, report.is_on_probation, report.outcome) == (1, False, None)
    assert due_evaluation(forced, now + HOUR) == (None, "No version is on probation.")


def test_a_rollback_that_was_cut_short_is_taken_up_again(forced: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ConnectionError("the machine is gone")

    now = served(forced).last_at + HOUR
    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr("selfheal.services.probation.rollback", crash)
        watch_probation(forced, now)
    assert champion(forced).version == 2
    name, sentence = due_evaluation(forced, now)
    assert "rollback" in (name or "")
    assert sentence == "Version 2 failed its probation and is still in production."
    assert watch_probation(forced, now + HOUR).is_harmful
    assert champion(forced).version == 1
    assert len(decisions.recent(forced.store, actions=[Action.ROLLBACK])) == 1


def test_a_rollback_that_is_refused_is_an_alert_and_no_failure(
    forced: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelRefusedError("the file is damaged")

    monkeypatch.setattr("selfheal.services.probation.rollback", refuse)
    now = served(forced).last_at + HOUR
    for hour in range(2):
        watch_probation(forced, now + hour * HOUR)
    assert champion(forced).version == 2
    alerts = open_alerts(forced)
    assert set(alerts) == {FAILED, ROLLBACK_FAILED}
    assert "version 1 could not take over: the file is damaged" in alerts[ROLLBACK_FAILED]
    assert due_evaluation(forced, now)[0] != due_evaluation(forced, now + HOUR)[0], (
        "tried again, but not more than hourly"
    )
    assert due_evaluation(forced, now)[0] == due_evaluation(forced, now + timedelta(minutes=5))[0]
    resolve_finished_alerts(forced, now)
    assert set(open_alerts(forced)) == {FAILED, ROLLBACK_FAILED}, "the trouble goes on"


def test_a_rollback_that_comes_too_late_leaves_the_newer_version_in_production(
    forced: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the rollback a person promotes version 3: that one has done nothing wrong."""
    now = served(forced).last_at + HOUR

    def late(*arguments: Any, **options: Any) -> None:
        force(forced, 3, now)
        rollback(*arguments, **options)

    monkeypatch.setattr("selfheal.services.probation.rollback", late)
    assert watch_probation(forced, now).is_harmful
    assert champion(forced).version == 3
    assert "version 3" in open_alerts(forced)[ROLLBACK_FAILED]


# What counts


def test_rows_served_by_the_old_version_do_not_count(forced: Platform) -> None:
    served(forced, version=model_versions.model_version(forced.store, 1))  # an API that had not swapped yet
    assert watch_probation(forced, T0 + 2 * HOUR).n_labels == 0


def test_rows_of_a_broken_feed_do_not_count(forced: Platform) -> None:
    sent = served(forced)
    spoiled = SpoiledPeriod(2, sent.created_at[0], sent.created_at[249], ("income x 1000",))
    record_spoiled_period(forced.store, "tick", spoiled)
    report = watch_probation(forced, sent.last_at + HOUR)
    assert (report.n_labels, report.outcome) == (50, None)
    assert champion(forced).version == 2


def test_early_labels_of_one_class_do_not_judge(forced: Platform) -> None:
    """Failures are known at once, the rest not yet: only failures are labelled so far."""
    rows = toy_rows(1_000)
    sent = serve(forced, rows, start=FORCED_AT + SECOND, labelled_share=0.0)
    failed = [i for i, label in enumerate(rows[TRUE_LABEL]) if label == 1]
    assert len(failed) > forced.settings.min_probation_labels
    ids = [sent.prediction_ids[i] for i in failed]
    journal_labels(forced.settings.data_dir, ids, [1] * len(ids), received_at=sent.last_at + SECOND)
    ingest_all(forced)
    report = watch_probation(forced, sent.last_at + HOUR)
    assert (report.n_labels, report.outcome) == (0, None)
    assert "not identifiable" in report.reason
    assert champion(forced).version == 2


def test_an_old_version_that_cannot_score_is_told_while_it_lasts(forced: Platform) -> None:
    now = served(forced).last_at + HOUR
    known = champion(forced).contract_hash
    _set_contract_of_version_1(forced, "0" * 64)
    report = watch_probation(forced, now)
    assert (report.is_blind, report.outcome) == (True, None)
    assert "trained under contract 000000000000" in open_alerts(forced)[CANNOT_COMPARE]
    _set_contract_of_version_1(forced, known)
    assert watch_probation(forced, now + HOUR).is_harmful
    assert set(open_alerts(forced)) == {FAILED}


def test_a_version_with_another_threshold_alone_is_rolled_back_by_what_it_decides(forced: Platform) -> None:
    """Version 3 gives the probabilities of version 1: no score of probabilities can tell that it flags everything."""
    now = served(forced).last_at + HOUR
    watch_probation(forced, now)
    with forced.store.engine.begin() as connection:
        connection.execute(text("UPDATE model_metadata SET threshold = 0.001 WHERE version = 3"))
    force(forced, 3, now)
    sent = serve(forced, toy_rows(600), start=now + SECOND)
    report = watch_probation(forced, sent.last_at + HOUR)
    assert (report.version, report.outcome) == (3, ProbationOutcome.FAILED), report.reason
    assert report.reason.startswith("F1 ")
    assert champion(forced).version == 1
    assert [(row.version, row.outcome) for row in probations.outcomes(forced.store)] == [(3, "failed"), (2, "failed")]


def _set_contract_of_version_1(platform: Platform, contract_hash: str) -> None:
    with platform.store.engine.begin() as connection:
        connection.execute(
            text("UPDATE model_metadata SET contract_hash = :hash WHERE version = 1"), {"hash": contract_hash}
        )


# The end


def test_a_version_that_has_passed_is_never_rolled_back(forced: Platform) -> None:
    """What it does wrong later is monitoring's to find. (Version 3 is as good as what it replaced.)"""
    now = served(forced).last_at + HOUR
    watch_probation(forced, now)
    force(forced, 3, now)
    serve(forced, toy_rows(300), start=now + SECOND)
    end = now + PROBATION
    assert watch_probation(forced, end - HOUR).outcome is None
    for hour in range(2):
        assert watch_probation(forced, end + hour * HOUR).outcome is ProbationOutcome.PASSED
    name, sentence = due_evaluation(forced, end + HOUR)
    assert (name, sentence.startswith("The probation of version 3 has ended")) == (None, True)
    worse_now = serve(forced, toy_rows(300, scenario="overheating"), start=end + 2 * HOUR)
    assert watch_probation(forced, worse_now.last_at).outcome is ProbationOutcome.PASSED
    assert champion(forced).version == 3


def test_without_enough_labels_probation_goes_on_and_ends_without_evidence(forced: Platform) -> None:
    served(forced, labelled_share=0.5)
    end = FORCED_AT + PROBATION
    assert watch_probation(forced, end).outcome is None
    latest = FORCED_AT + timedelta(hours=forced.settings.probation_max_hours)
    for moment in (latest, latest + HOUR):
        assert watch_probation(forced, moment).outcome is ProbationOutcome.NO_EVIDENCE
    (alert,) = alert_queries.list_alerts(forced.store, only_open=True)
    assert (alert.kind, alert.severity) == (NO_EVIDENCE, "info")
    assert champion(forced).version == 2
    alert_queries.acknowledge_alert(forced.store, alert.alert_id, "ada", latest)
    resolve_finished_alerts(forced, latest)
    assert open_alerts(forced) == {}


def test_labels_that_come_late_still_judge(forced: Platform) -> None:
    """Probation was to be over, but nobody could tell yet: it is the labels that end it."""
    sent = served(forced, labelled_share=0.0)
    end = FORCED_AT + PROBATION
    assert watch_probation(forced, end + HOUR).is_on_probation
    labels = toy_rows(300)[TRUE_LABEL].astype(int).tolist()
    journal_labels(forced.settings.data_dir, sent.prediction_ids, labels, received_at=end + HOUR)
    ingest_all(forced)
    assert watch_probation(forced, end + 2 * HOUR).is_harmful
    assert champion(forced).version == 1


# When to look


def test_a_look_is_due_once_there_are_labels_and_at_the_end(forced: Platform) -> None:
    assert due_evaluation(forced, FORCED_AT)[0] is None
    sent = served(forced, 150)
    assert due_evaluation(forced, sent.last_at) == (None, "Version 2 has 150 labels; the next evaluation is at 200.")
    sent = serve(forced, toy_rows(150, seed=2), start=sent.last_at + SECOND)
    first, _ = due_evaluation(forced, sent.last_at)
    sent = serve(forced, toy_rows(5, seed=3), start=sent.last_at + SECOND)
    assert due_evaluation(forced, sent.last_at)[0] == first, "few more labels say little more"
    serve(forced, toy_rows(50, seed=4), start=sent.last_at + SECOND)
    assert due_evaluation(forced, sent.last_at)[0] != first
    assert due_evaluation(forced, FORCED_AT + PROBATION)[0] is not None
