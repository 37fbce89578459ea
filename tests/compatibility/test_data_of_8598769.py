"""What a platform of commit 8598769 left behind still starts, scores, verifies, reads as it did, and heals: elsewhere.

`make_fixture.py` says what that platform has lived through. The tests share one copy, restored in another folder and
without its cache; those that change it come last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import dagster as dg
import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from selfheal.adapters.postgres import alerts, model_versions, probations
from selfheal.adapters.postgres.migrate import head_revision
from selfheal.adapters.postgres.store import server_url
from selfheal.adapters.postgres.tables import build_tables
from selfheal.cli import app
from selfheal.domain.contract import TRUE_LABEL, FloatArray, ModelContract
from selfheal.domain.records import Action, Trigger, Verdict
from selfheal.services.platform import Platform, open_platform
from selfheal.services.probation import watch_probation
from selfheal.services.promotion.going_live import promote
from selfheal.services.promotion.registry_sync import watch_registry
from selfheal.services.verification.run import verify_everything
from selfheal.simulate.traffic import request_bodies
from selfheal_assets.definitions import build_definitions
from selfheal_assets.resources.platform import PlatformResource, close_all
from tests.compatibility.restoring import OlderPlatform, restored
from tests.docs.pages import codes, table
from tests.services.steps import decide, retrain, whole_tick
from tests.serving.running import Api, api_in_thread, journal_rows
from tests.traffic import serve
from tests.waiting import eventually

if TYPE_CHECKING:
    import pandas as pd

pytestmark = pytest.mark.integration

ARCHIVE = Path(__file__).parent / "data_of_8598769.tar.xz"
TOLERANCE = 1e-12
"""How far a probability may lie from that of then: another processor may round the last bits otherwise."""

N_ROWS = 1_500
"""Of a new world. Fewer leave the gates inconclusive."""

N_API_ROWS = 100
"""Few, since they stay unlabelled: with more of them a retraining would wait for their labels."""

CHOSEN_ID = "0198f0f0-5c1e-7000-8000-000000000001"
"""Of the prediction whose id a client chose (`make_fixture.label_by_hand`); its last label was 1."""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OlderPlatform]:
    with restored(ARCHIVE, tmp_path_factory.mktemp("moved")) as platform:
        assert not platform.made_in.exists(), "nothing can be read from where it was made"
        yield platform
        assert not platform.made_in.exists(), "nothing is written to where it was made"


@pytest.fixture(scope="module")
def rows_before(older: OlderPlatform) -> dict[str, int]:
    """How many rows each table of the platform had before the code of today has touched it."""
    with psycopg.connect(server_url(older.settings, older.settings.mlops_db_name)) as connection:
        return count_rows(connection)


@pytest.fixture(scope="module")
def platform(older: OlderPlatform, rows_before: dict[str, int]) -> Iterator[Platform]:
    """The older platform, opened by the code of today, as every process of it does at its start."""
    opened = open_platform(older.settings)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def api(platform: Platform) -> Iterator[Api]:
    with api_in_thread(platform.settings) as running:
        yield running


def count_rows(connection: psycopg.Connection[Any]) -> dict[str, int]:
    tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    counted = {}
    for (name,) in tables:
        row = connection.execute(
            psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(name))
        ).fetchone()
        assert row is not None
        counted[name] = row[0]
    return counted


MAY_BE_KNOWN_NOW = frozenset({"challenger_version"})
"""Null in the answers of then: for a verdict, the version that its model became."""


def assert_says_all_of(now: Any, then: Any, place: str) -> None:
    """Everything that was said then is said now; fields may have been added."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name, value in then.items():
            assert name in now, f"{place} has lost {name!r}"
            if value is None and name in MAY_BE_KNOWN_NOW:
                continue
            assert_says_all_of(now[name], value, f"{place}, {name}")
    elif isinstance(then, list) and isinstance(now, list):
        assert len(now) == len(then), place
        for number, (one, other) in enumerate(zip(now, then, strict=True)):
            assert_says_all_of(one, other, f"{place}, {number}")
    else:
        assert now == then, place


# Starts, verifies, reads


def test_a_start_brings_the_schema_up_to_date_and_loses_no_row(
    older: OlderPlatform, rows_before: dict[str, int], platform: Platform
) -> None:
    with psycopg.connect(server_url(older.settings, older.settings.mlops_db_name)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(head_revision(),)]
        rows = count_rows(connection)
    assert {name: n_rows for name, n_rows in rows.items() if name in rows_before} == rows_before
    assert set(rows) >= {table.name for table in build_tables(platform.contract).metadata.sorted_tables}
    assert all(rows_before[name] for name in ("prediction_logs", "label_store", "promotions", "monitoring_alerts"))


def test_verify_finds_nothing_in_the_whole_past(older: OlderPlatform, platform: Platform) -> None:
    head = older.verification["chain_head"]
    found = verify_everything(platform, n_verdicts=100, expected_head=head)
    assert [result for result in found.results if result.n_findings or result.n_unchecked] == []
    assert found.chain_head == head
    then = {result["name"]: result["n_checked"] for result in older.verification["results"]}
    now = {result.name: result.n_checked for result in found.results if result.name in then}
    assert now == then, "as much is looked at as then"
    assert then["verdicts, computed again"] >= 3


def test_versions_promotions_and_decisions_read_as_they_did(older: OlderPlatform, api: Api) -> None:
    paths = [path for path in older.answers if not path.startswith("/monitoring/")]
    assert len(paths) > 10
    for path in paths:
        assert_says_all_of(api.client.get(path).raise_for_status().json(), older.answers[path], path)


def test_history_reads_as_it_did(older: OlderPlatform, platform: Platform) -> None:
    assert [entry["action"] for entry in older.history] == ["force_promote", "rollback", "promote", "promote"]
    data_dir = str(platform.settings.data_dir)
    done = CliRunner().invoke(app, ["history", "--json"], env={"DATA_DIR": data_dir})
    assert_says_all_of(json.loads(done.stdout), older.history, "selfheal history")


def test_the_monitor_s_latest_tick_reads_as_it_did(older: OlderPlatform, api: Api) -> None:
    path = "/monitoring/stats"
    then = older.answers[path]
    now = api.client.get(path).raise_for_status().json()
    assert_says_all_of(now["tick"], then["tick"], path)
    assert now["unseen_since"] == then["unseen_since"]


def test_alerts_read_as_they_did_under_kinds_that_the_runbook_has(older: OlderPlatform, api: Api) -> None:
    path = "/monitoring/alerts?limit=500"
    then = {alert["alert_id"]: alert for alert in older.answers[path]["alerts"]}
    now = {alert["alert_id"]: alert for alert in api.client.get(path).raise_for_status().json()["alerts"]}
    assert len({alert["kind"] for alert in then.values()}) >= 9
    assert {alert["kind"] for alert in now.values()} <= {codes(row[0])[0] for row in table("docs/runbook.md", "kind")}
    for alert_id, alert in then.items():
        del alert["kind"]  # may be renamed: see test_open_alerts_of_then_end_with_their_cause
        assert_says_all_of(now[alert_id], alert, f"{path}, {alert_id}")


# Dagster


@dataclass(frozen=True)
class OlderDagster:
    """The code location of today on the instance of then."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    resource: PlatformResource


@pytest.fixture(scope="module")
def dagster(platform: Platform) -> Iterator[OlderDagster]:
    data_dir = str(platform.settings.data_dir)
    with patch.dict(os.environ, DATA_DIR=data_dir):  # the storage of the instance asks the environment
        home = CliRunner().invoke(app, ["dagster-home"]).stdout.strip()
        with dg.DagsterInstance.from_config(home) as instance:
            yield OlderDagster(
                build_definitions(data_dir=data_dir), instance, PlatformResource(overrides={"data_dir": data_dir})
            )
    close_all()


def test_the_monitoring_sensor_goes_on_from_the_cursor_of_then(dagster: OlderDagster) -> None:
    """Else the traffic of then would be looked at as if it were new."""
    (state,) = [s for s in dagster.instance.all_instigator_state() if s.instigator_name == "monitoring_sensor"]
    cursor = getattr(state.instigator_data, "cursor", None)
    assert cursor, "it has fired"
    sensor = dagster.definitions.resolve_sensor_def(state.instigator_name)
    with dg.build_sensor_context(
        instance=dagster.instance,
        cursor=cursor,
        sensor_name=state.instigator_name,
        resources={"platform": dagster.resource},
    ) as context:
        answer: Any = sensor(context)
    assert isinstance(answer, dg.SkipReason), answer


def test_runs_and_materialisations_of_then_are_there(dagster: OlderDagster) -> None:
    for job in ("bootstrap_job", "monitoring_job", "retraining_job", "probation_job"):
        runs = dagster.instance.get_runs(dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS]))
        assert runs, job
    event = dagster.instance.get_latest_materialization_event(dg.AssetKey("production_model"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["version"].value == 2


def test_an_asset_reads_what_the_assets_before_it_handed_on_then(older: OlderPlatform, dagster: OlderDagster) -> None:
    everything = dagster.definitions.resolve_implicit_global_asset_job_def()
    run = everything.execute_in_process(
        instance=dagster.instance, asset_selection=[dg.AssetKey("monitoring_alerts")], raise_on_error=False
    )
    assert run.success
    tick = older.answers["/monitoring/stats"]["tick"]
    triage = run.output_for_node("monitoring_alerts")
    assert (triage.window.tick_id, triage.verdict.value) == (tick["tick_id"], tick["verdict"])


# Scores


@pytest.fixture(scope="module")
def journal_before(older: OlderPlatform) -> list[dict[str, str]]:
    """What the older API wrote into its journal, line by line."""
    return journal_rows(older.settings)


def of_version(journal: list[dict[str, str]], version: int, contract: ModelContract) -> tuple[pd.DataFrame, FloatArray]:
    """The inputs that a version was asked about, and the probabilities that it answered."""
    import pandas as pd

    lines = [line for line in journal if line["model_version"] == str(version)]
    inputs = pd.DataFrame(lines)[list(contract.input_names)].replace("", None).astype("float64")
    return inputs, np.array([float(line["probability"]) for line in lines])


@pytest.mark.parametrize("number", [1, 2])
def test_a_version_scores_as_it_did(journal_before: list[dict[str, str]], platform: Platform, number: int) -> None:
    version = model_versions.model_version(platform.store, number)
    assert version is not None
    inputs, then = of_version(journal_before, number, platform.contract)
    assert len(then) > 1_000
    features = platform.contract.feature_frame(inputs).to_numpy(dtype=np.float64)
    now = platform.registry.load(version).predict_proba(features)[:, 1]
    assert np.abs(now - then).max() <= TOLERANCE


def test_the_api_answers_the_same_rows_with_the_same_probabilities(
    journal_before: list[dict[str, str]], platform: Platform, api: Api
) -> None:
    assert api.health()["model_version"] == 2
    inputs, then = of_version(journal_before, 2, platform.contract)
    chosen = np.linspace(0, len(then) - 1, N_API_ROWS).astype(int)
    rows = inputs.iloc[chosen].assign(**{TRUE_LABEL: 0})
    bodies = [body for body, _ in request_bodies(rows, platform.contract)]
    singly = [api.post("/predict", body).raise_for_status().json() for body in bodies[: N_API_ROWS // 2]]
    answer = api.post("/predict/batch", {"instances": bodies[N_API_ROWS // 2 :]}).raise_for_status().json()
    assert answer["errors"] == []
    now = np.array([prediction["probability"] for prediction in [*singly, *answer["predictions"]]])
    assert np.abs(now - then[chosen]).max() <= TOLERANCE


def test_a_request_that_was_answered_then_is_answered_the_same_and_logged_once(
    journal_before: list[dict[str, str]], older: OlderPlatform, platform: Platform, api: Api
) -> None:
    (line,) = [line for line in journal_before if line["prediction_id"] == CHOSEN_ID]
    inputs, (probability,) = of_version([line], 1, platform.contract)
    ((body, _),) = request_bodies(inputs.assign(**{TRUE_LABEL: 0}), platform.contract)
    same = body | {"prediction_id": CHOSEN_ID, "request_source": line["request_source"]}
    again = api.post("/predict", same).raise_for_status().json()
    assert (again["model_version"], again["probability"]) == (1, probability), "not scored anew by version 2"
    assert len([line for line in journal_rows(older.settings) if line["prediction_id"] == CHOSEN_ID]) == 1


def test_a_label_of_then_still_counts_as_it_was_last_corrected(api: Api) -> None:
    label = {"prediction_id": CHOSEN_ID, "true_label": 1}
    assert api.post("/labels", label).raise_for_status().json() == {"accepted": 0, "duplicates": 1, "replaced": 0}
    assert api.post("/labels", label | {"true_label": 0}).status_code == 409


# Heals


def test_open_alerts_of_then_end_with_their_cause(platform: Platform, later: datetime) -> None:
    """By their kind, which may have another name today."""
    open_before = {row.source for row in alerts.list_alerts(platform.store, only_open=True)}
    assert open_before >= {alerts.REGISTRY, probations.ALERT_SOURCE}
    assert watch_registry(platform, later) == []
    report = watch_probation(platform, later)
    assert not report.is_harmful, report.reason
    still_open = {row.source for row in alerts.list_alerts(platform.store, only_open=True)}
    assert still_open.isdisjoint({alerts.REGISTRY, probations.ALERT_SOURCE})


def test_harm_is_seen_against_the_reference_of_then_and_healed_by_a_version_judged_against_the_champion_of_then(
    platform: Platform, api: Api, later: datetime
) -> None:
    sent = serve(platform, new_world(platform.contract, N_ROWS), start=later)
    now = sent.last_at + timedelta(hours=1)
    seen = whole_tick(platform, now)
    assert (seen.verdict, seen.window.model_version) == (Verdict.HARMFUL_SHIFT, 2)
    decision = decide(platform, Trigger.DRIFT, now, seen.episode_id)
    assert decision.action is Action.TRAIN, decision.reason
    verdict = retrain(platform, decision, now)
    assert (verdict.decision.action, verdict.decision.champion_version) == (Action.PROMOTE, 2), verdict.decision.reason
    promoted = promote(platform, verdict, now)
    assert (promoted.version, promoted.previous_version) == (3, 2)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 3
    eventually(lambda: api.health()["model_version"] == 3, "the API serves version 3")
    found = verify_everything(platform, n_verdicts=1)
    assert [result for result in found.results if result.n_findings] == []
    assert model_versions.champion(platform.store).version == 3


@pytest.fixture(scope="module")
def later(older: OlderPlatform) -> datetime:
    """After all that the archive tells of, whatever this machine's clock says: probation and cooldown are over."""
    newest = datetime.fromisoformat(older.answers["/monitoring/stats"]["tick"]["window_end"])
    return max(newest, datetime.now(UTC)) + timedelta(days=8)


def new_world(contract: ModelContract, n_rows: int) -> pd.DataFrame:
    """Labelled rows of a world where incomes are halved, and it is the old who default."""
    assert contract.synthesize is not None
    rows = contract.synthesize(n_rows, 7)
    log_odds = 0.12 * rows["age"].to_numpy() - 8.0
    is_default = np.random.default_rng(7).random(n_rows) < 1.0 / (1.0 + np.exp(-log_odds))
    return rows.assign(
        monthly_income=(rows["monthly_income"] * 0.5).round(), **{TRUE_LABEL: is_default.astype(np.int64)}
    )
