"""The asset graph under Dagster's own runtime, on the toy use case."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

import selfheal
from selfheal.adapters.postgres import decisions, model_versions, ticks
from selfheal.domain.records import Action, Trigger
from selfheal.kit.code_version import PACKAGE, code_version
from selfheal.services.platform import Platform
from selfheal.services.reports.files import list_reports, reports_folder
from selfheal.settings import Settings
from selfheal_assets.assets import RUNS_TAG
from selfheal_assets.assets.retraining import RequestTrigger, RetrainingRequest
from selfheal_assets.definitions import build_definitions
from selfheal_assets.interruptions import MAX_RUNTIME_TAG
from selfheal_assets.job_names import TRAINING_JOBS
from tests.selfheal_assets.conftest import Dagster, metadata_of, retraining_config, table_of
from tests.traffic import serve, toy_rows

pytestmark = pytest.mark.integration

DRIFTED_ROWS = 1_000
GROUPS = {"reference", "serving_logs", "monitoring", "retraining", "promotion"}

STORED_ASSETS = {
    "training_data",
    "reference_data",
    "prediction_logs",
    "label_store",
    "proxy_metrics",
    "drift_report",
    "performance_report",
    "monitoring_alerts",
    "monitoring_report",
    "policy_report",
    "retraining_decision",
    "training_set",
    "shadow_model",
    "gate_verdict",
    "production_model",
    "probation_report",
}
STORED_JOBS = {
    f"{name}_job"
    for name in (
        "monitoring",
        "retraining",
        "bootstrap",
        "probation",
        "maintenance",
        "policy_report",
        "promote",
        "rollback",
    )
}
STORED_SENSORS = {
    "monitoring_sensor",
    "drift_sensor",
    "performance_sensor",
    "probation_sensor",
    "retraining_request_sensor",
    "registry_sensor",
    "run_failure_alert",
    "run_success",
}
STORED_SCHEDULES = {"weekly_retraining", "daily_maintenance", "monthly_policy_report"}
STORED_CHECKS = {
    "reference_is_unchanged",
    "journal_is_copied",
    "labels_have_predictions",
    "alias_follows_postgres",
    "feed_is_sound",
    "model_does_no_harm",
}


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
    champion = model_versions.production_version(dagster.platform.store)
    assert champion is not None
    assert champion.trigger_reason == Trigger.BOOTSTRAP
    assert "SYNTHETIC" in metadata_of(result, "training_data")["data"]
    assert metadata_of(result, "training_set")["dropped_copies"] == 0
    assert metadata_of(result, "gate_verdict")["gates_passed"] >= 1
    assert dagster.instance.get_materialized_partitions(dg.AssetKey("production_model")) == {"1"}
    for asset in ("shadow_model", "gate_verdict", "production_model"):
        assert "/#/experiments/" in metadata_of(result, asset)["mlflow_run"], asset
    calibration = {row["rows"]: row for row in table_of(result, "shadow_model", "calibration")}
    assert calibration["out of fold"]["slope"] == pytest.approx(1.0, abs=0.2)
    assert "16 of 16 fits" in [entry.user_message for entry in dagster.instance.all_logs(result.run_id)]
    comparing = {g["gate"]: g["status"] for g in table_of(result, "gate_verdict", "gates")}
    assert comparing["f1_improvement"] == "NOT_APPLICABLE"
    assert comparing["auc_roc"] == "PASS"


def test_drift_is_healed_by_the_jobs_that_the_sensors_launch(dagster: Dagster) -> None:
    live_through_drift(dagster)
    result = dagster.run("retraining_job", retraining_config(RequestTrigger.drift, reason="test", actor="test"))
    assert result.success
    assert metadata_of(result, "production_model")["version"] == 2
    gathered = metadata_of(result, "training_set")
    assert gathered["original_source"].startswith("the training set of version 1")
    assert gathered["original_weight"] < 1.0, "the relation has changed"
    assert len(table_of(result, "training_set", "original_weight_log_losses")) > 1
    assert {evaluation.passed for evaluation in result.get_asset_check_evaluations()} == {True}
    assert dagster.instance.get_materialized_partitions(dg.AssetKey("production_model")) == {"2"}
    probation = dagster.watch_probation(2)
    assert metadata_of(probation, "probation_report")["is_on_probation"] is True


def test_a_rejected_shadow_leaves_production_untouched_and_the_run_green(
    make_dagster: Callable[[Settings], Dagster], make_settings: Callable[..., Settings]
) -> None:
    dagster = make_dagster(make_settings(min_auc=0.99))
    live_through_drift(dagster)
    before = model_versions.list_versions(dagster.platform.store)
    result = dagster.run("retraining_job", retraining_config(RequestTrigger.drift))
    assert result.success
    failed = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
    assert failed == {"auc_roc"}
    assert model_versions.list_versions(dagster.platform.store) == before
    assert decisions.recent(dagster.platform.store, 1)[0].action is Action.REJECT


def test_each_asset_can_be_materialised_alone_and_twice_changes_no_row(dagster: Dagster) -> None:
    live_through_drift(dagster)
    assert dagster.run("retraining_job", retraining_config(RequestTrigger.drift)).success
    assert dagster.materialize("training_data").success
    graph = dagster.definitions.resolve_asset_graph()
    partitions = {
        key.to_user_string(): None if graph.get(key).partitions_def is None else "2"
        for key in sorted(graph.materializable_asset_keys)
    }
    assert len(partitions) == len(graph.get_all_asset_keys()) - 1, "all but production_model, which is reported"
    for asset, partition in partitions.items():
        assert dagster.materialize(asset, partition=partition).success, asset
    before = contents(dagster.platform)
    for asset, partition in partitions.items():
        assert dagster.materialize(asset, partition=partition).success, asset
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
    result = dagster.run("retraining_job", retraining_config(RequestTrigger.schedule))
    assert result.success
    decision = decisions.recent(dagster.platform.store, 1)[0]
    assert decision.action is Action.SKIP
    assert "0 labelled predictions" in decision.reason
    assert {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()} == {"retraining_decision"}


def test_every_asset_tells_people_what_it_is_when_it_runs_and_what_to_do_when_it_is_red() -> None:
    graph = build_definitions().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        what, runs, red = (node.description or "").split("\n\n")
        assert len(what) > 40, key
        assert runs.startswith("**Runs** "), key
        assert red.startswith("**Red?** "), key
        assert node.kinds, key
        assert node.tags.get(RUNS_TAG), key
        assert node.group_name in GROUPS, key


def test_an_asset_is_as_new_as_the_code_of_the_whole_package_and_nobodys_unless_owners_are_set() -> None:
    assert Path(selfheal.__file__).parent == PACKAGE
    graph = build_definitions().resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    assert {node.code_version for node in nodes} == {code_version()}
    assert {tuple(node.owners) for node in nodes} == {()}


@pytest.mark.parametrize("owners", [("team:risk", "ada.lovelace+ml@mail.example.org"), ("x_y%z@a-b.example.museum",)])
def test_owners_that_settings_accept_are_accepted_by_dagster(owners: tuple[str, ...]) -> None:
    graph = build_definitions(asset_owners=",".join(owners)).resolve_asset_graph()
    assert {tuple(graph.get(key).owners) for key in graph.get_all_asset_keys()} == {owners}


def test_assets_jobs_sensors_schedules_and_checks_have_the_names_that_dagster_has_stored() -> None:
    """Materialisations, run keys, ticks and switches that people have set are stored under them."""
    definitions = build_definitions()
    graph = definitions.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} >= STORED_ASSETS
    assert {job.name for job in definitions.jobs or ()} >= STORED_JOBS
    assert {sensor.name for sensor in definitions.sensors or ()} >= STORED_SENSORS
    assert {schedule.name for schedule in definitions.schedules or ()} >= STORED_SCHEDULES
    assert {str(key.name) for key in graph.asset_check_keys} >= STORED_CHECKS


def test_trainings_have_a_time_limit_of_their_own_by_setting() -> None:
    definitions = build_definitions(training_timeout_seconds=40)
    limits = {
        job: definitions.resolve_job_def(job).tags.get(MAX_RUNTIME_TAG) for job in TRAINING_JOBS | {"monitoring_job"}
    }
    assert limits == {"retraining_job": "40", "bootstrap_job": "40", "monitoring_job": None}


@pytest.mark.parametrize("trigger", list(Trigger))
def test_a_run_that_was_configured_by_an_earlier_release_is_still_understood(trigger: Trigger) -> None:
    """Queued, or repeated after a kill, across an upgrade: Dagster has stored its run configuration."""
    job = build_definitions().resolve_job_def("retraining_job")
    stored = {"ops": {"retraining_decision": {"config": {"trigger": trigger.value, "reason": "as ever"}}}}
    assert dg.validate_run_config(job, stored)
    assert RequestTrigger[trigger.value] == trigger
    assert RetrainingRequest(trigger=RequestTrigger(trigger)).run_config().to_config_dict()["ops"] == {
        "retraining_decision": {"config": {"trigger": trigger.value, "reason": "asked for by hand", "actor": "dagster"}}
    }


def test_from_every_asset_one_click_leads_to_the_dashboard() -> None:
    graph = build_definitions(api_host="0.0.0.0", api_port=8123).resolve_asset_graph()
    links = {graph.get(key).metadata["dashboard"].value for key in graph.get_all_asset_keys()}
    assert links == {"http://127.0.0.1:8123/"}


def test_checks_jobs_sensors_and_schedules_say_in_a_sentence_what_they_are_for() -> None:
    definitions = build_definitions()
    graph = definitions.resolve_asset_graph()
    told = {str(key): graph.get_check_spec(key).description for key in graph.asset_check_keys}
    told |= {sensor.name: sensor.description for sensor in definitions.sensors or ()}
    told |= {schedule.name: schedule.description for schedule in definitions.schedules or ()}
    told |= {job.name: job.description for job in definitions.jobs or ()}
    assert len(told) > 20
    for name, description in told.items():
        assert description is not None, name
        assert len(description) > 20, name
        assert description.endswith("."), name


def test_the_code_location_loads_fast_enough_for_dagster_to_start_it_often() -> None:
    """Heavy libraries are imported inside the functions that use them."""
    script = "import sys, selfheal_assets.definitions; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"evidently", "mlflow", "sklearn", "pandas"} & set(done.stdout.split())


def test_the_verdict_of_a_tick_is_shown_as_checks_with_sentences(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(30))
    few = {e.check_name: e for e in dagster.run("monitoring_job").get_asset_check_evaluations()}
    assert few["feed_is_sound"].passed
    assert not few["model_does_no_harm"].passed, "unknown is not healthy"
    assert few["model_does_no_harm"].severity is dg.AssetCheckSeverity.WARN
    assert "insufficient: only 30 predictions" in (few["model_does_no_harm"].description or "")


def test_a_change_of_state_writes_a_report_and_so_does_a_person(dagster: Dagster) -> None:
    live_through_drift(dagster)
    folder = reports_folder(dagster.platform.settings.data_dir)
    (written,) = list_reports(folder)
    assert written.overview is not None
    assert written.evidently is not None
    tick = ticks.latest_tick(dagster.platform.store)
    assert tick is not None
    assert Path(tick.report_ref).name == written.evidently.name
    (event,) = dagster.instance.fetch_materializations(dg.AssetKey("drift_report"), limit=1).records
    assert event.asset_materialization is not None
    link = event.asset_materialization.metadata["report"].value
    assert link == f"http://127.0.0.1:8000/monitoring/reports/{written.evidently.name}", "a page cannot open files"
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
        start=model_versions.production_version(dagster.platform.store).promoted_at.replace(hour=15),
    )  # type: ignore[union-attr]
    assert dagster.materialize("proxy_metrics").success
    result = dagster.materialize("monitoring_alerts")
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert "different windows" in failure.step_failure_data.user_failure_data.description


def test_the_definitions_are_valid_for_dagster(dagster: Dagster) -> None:
    dg.Definitions.validate_loadable(dagster.definitions)
