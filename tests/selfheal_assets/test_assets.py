"""The asset graph under Dagster's own runtime, on the toy use case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from selfheal.monitoring.report import list_reports, reports_folder
from selfheal.platform import Platform
from selfheal.records import Action, Trigger
from selfheal.settings import Settings
from selfheal.store import decisions, models, monitoring
from selfheal.supervise import FITS_DONE
from tests.selfheal_assets.conftest import Dagster, metadata_of, retraining_config, table_of
from tests.traffic import serve, toy_rows

pytestmark = pytest.mark.integration

DRIFTED_ROWS = 1_000


def live_through_drift(dagster: Dagster) -> None:
    """Drifted, labelled traffic, and one look at it."""
    serve(dagster.platform, toy_rows(DRIFTED_ROWS, scenario="overheating"))
    assert dagster.run("monitoring_job").success


def contents(platform: Platform) -> dict[str, list[str]]:
    """Every row of every table but the reading positions (they carry the time of the last look)."""
    with platform.store.engine.connect() as connection:
        return {
            table.name: sorted(str(row) for row in connection.execute(text(f'SELECT * FROM "{table.name}"')))
            for table in platform.store.tables.metadata.sorted_tables
            if table.name != "journal_positions"
        }


def test_bootstrap_brings_the_first_version_into_production(
    make_dagster: Callable[[Settings], Dagster], settings: Settings
) -> None:
    dagster = make_dagster(settings)
    result = dagster.run("bootstrap_job")
    assert result.success
    champion = models.production_version(dagster.platform.store)
    assert champion is not None
    assert champion.trigger_reason == Trigger.BOOTSTRAP
    assert "SYNTHETIC" in metadata_of(result, "training_data")["data"]
    assert metadata_of(result, "training_set")["dropped_copies"] == 0
    calibration = {row["rows"]: row for row in table_of(result, "shadow_model", "calibration")}
    assert calibration["out of fold"]["slope"] == pytest.approx(1.0, abs=0.2)
    log = [entry.user_message for entry in dagster.instance.all_logs(result.run_id)]
    told = [found.group(1) for line in log if (found := FITS_DONE.search(f" - {line}"))]
    assert told[-1] == "fits done: 16 of 16"
    comparing = {g["gate"]: g["status"] for g in table_of(result, "gate_verdict", "gates")}
    assert comparing["f1_improvement"] == "NOT_APPLICABLE"
    assert comparing["auc_roc"] == "PASS"


def test_drift_is_healed_by_the_jobs_that_the_sensors_launch(dagster: Dagster) -> None:
    live_through_drift(dagster)
    result = dagster.run("retraining_job", retraining_config(trigger="drift", reason="test", actor="test"))
    assert result.success
    assert metadata_of(result, "production_model")["version"] == 2
    gathered = metadata_of(result, "training_set")
    assert gathered["original_source"].startswith("the training set of version 1")
    assert gathered["original_weight"] < 1.0, "the relation has changed"
    assert len(table_of(result, "training_set", "original_weight_log_losses")) > 1
    assert {evaluation.passed for evaluation in result.get_asset_check_evaluations()} == {True}
    probation = dagster.run("probation_job")
    assert metadata_of(probation, "probation_report")["is_on_probation"] is True


def test_a_rejected_shadow_leaves_production_untouched_and_the_run_green(
    make_dagster: Callable[[Settings], Dagster], make_settings: Callable[..., Settings]
) -> None:
    dagster = make_dagster(make_settings(min_auc=0.99))
    live_through_drift(dagster)
    before = models.list_versions(dagster.platform.store)
    result = dagster.run("retraining_job", retraining_config(trigger="drift"))
    assert result.success
    failed = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
    assert failed == {"auc_roc"}
    assert models.list_versions(dagster.platform.store) == before
    assert decisions.recent(dagster.platform.store, 1)[0].action is Action.REJECT


def test_each_asset_can_be_materialised_alone_and_twice_changes_no_row(dagster: Dagster) -> None:
    live_through_drift(dagster)
    assert dagster.run("retraining_job", retraining_config(trigger="drift")).success
    assert dagster.materialize("training_data").success
    everything = sorted(key.to_user_string() for key in dagster.definitions.resolve_asset_graph().get_all_asset_keys())
    for asset in everything:
        assert dagster.materialize(asset).success, asset
    before = contents(dagster.platform)
    for asset in everything:
        assert dagster.materialize(asset).success, asset
    assert contents(dagster.platform) == before


def test_a_changed_reference_fails_the_materialisation_with_the_expected_digest(dagster: Dagster) -> None:
    assert dagster.materialize("training_data", "reference_data").success
    platform = dagster.platform
    (copy,) = (platform.settings.data_dir / "reference").iterdir()
    copy.write_bytes(copy.read_bytes() + b" ")
    result = dagster.materialize("reference_data")
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    cause = failure.step_failure_data.error.cause or failure.step_failure_data.error
    assert "expected sha256" in cause.message
    assert copy.name in cause.message
    checked = dagster.materialize("training_data")
    assert checked.success


def test_monitoring_without_traffic_gives_no_verdict_and_no_failure(dagster: Dagster) -> None:
    result = dagster.run("monitoring_job")
    assert result.success
    assert dagster.platform.store.engine is not None
    materialised = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()}
    assert materialised == {"prediction_logs", "label_store"}


def test_a_skipped_retraining_is_a_kept_decision_with_its_reasons(dagster: Dagster) -> None:
    result = dagster.run("retraining_job", retraining_config(trigger="schedule"))
    assert result.success
    decision = decisions.recent(dagster.platform.store, 1)[0]
    assert decision.action is Action.SKIP
    assert "0 labelled predictions" in decision.reason
    assert {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()} == {"retraining_decision"}


def test_every_asset_tells_people_what_it_is(dagster: Dagster) -> None:
    graph = dagster.definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.group_name != "default", key
        assert node.code_version, key


def test_a_change_of_state_writes_a_report_and_so_does_a_person(dagster: Dagster) -> None:
    live_through_drift(dagster)
    folder = reports_folder(dagster.platform.settings.data_dir)
    (written,) = list_reports(folder)
    assert written.overview is not None
    assert written.evidently is not None
    tick = monitoring.latest_tick(dagster.platform.store)
    assert tick is not None
    assert Path(tick.report_ref).name == written.evidently.name
    for path in written.files:
        path.unlink()
    result = dagster.materialize("monitoring_report")
    assert result.success
    assert metadata_of(result, "monitoring_report")["report"].endswith(f"/monitoring/reports/{written.overview.name}")
    assert [report.name for report in list_reports(folder)] == [written.name]


def test_reports_of_different_windows_are_refused(dagster: Dagster) -> None:
    live_through_drift(dagster)
    serve(
        dagster.platform,
        toy_rows(300, seed=5),
        start=models.production_version(dagster.platform.store).promoted_at.replace(hour=15),
    )  # type: ignore[union-attr]
    assert dagster.materialize("proxy_metrics").success
    result = dagster.materialize("monitoring_alerts")
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert "different windows" in failure.step_failure_data.user_failure_data.description


def test_the_definitions_are_valid_for_dagster(dagster: Dagster) -> None:
    dg.Definitions.validate_loadable(dagster.definitions)
