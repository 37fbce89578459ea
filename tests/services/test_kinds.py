"""A platform whose contract has inputs that are no numbers: from the door to the next version, and back out into a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from selfheal.adapters.datasets import load_csv, load_dataset
from selfheal.adapters.journal_rows import journal_rows as rows_of_journal
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.logged_rows import logged_rows
from selfheal.adapters.postgres.migrate import ensure_database
from selfheal.adapters.postgres.model_versions import production_version
from selfheal.cli import app
from selfheal.domain.contract import CALM, TRUE_LABEL
from selfheal.domain.levels import unescaped
from selfheal.domain.monitoring.histogram import bars_of
from selfheal.domain.records import Action, Trigger, Verdict
from selfheal.domain.scenarios import scenario_rows
from selfheal.kit.errors import InvalidDataError
from selfheal.services.contract_rehearsal import check_contract
from selfheal.services.platform import Platform, open_platform
from selfheal.services.reports.figures import distribution_figure
from selfheal.services.verification.journaled import check_journals
from selfheal.settings import Settings
from selfheal.simulate.demo import settings_environment
from selfheal.simulate.replay.logs import deployment_of_logs
from selfheal.simulate.traffic import request_bodies
from serving.scoring import idempotency
from tests.conftest import drop_databases, settings_for
from tests.docs.conftest import bootstrap
from tests.kinds_use_case import PLANS, contract
from tests.services.steps import decide, retrain, whole_tick
from tests.serving.running import Api, api_in_thread, journal_rows, query
from tests.traffic import ingest_all
from tests.waiting import eventually

NAME = "kinds"
N_ROWS = 800


@pytest.fixture(scope="module")
def kinds_settings(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a platform with version 1 in production."""
    settings = settings_for(
        server,
        tmp_path_factory.mktemp(NAME) / "data",
        NAME,
        use_case="tests.kinds_use_case:contract",
        ingest_interval_seconds=0.05,
        min_auc=0.6,
    )
    ensure_database(server.url(f"{NAME}_mlflow"))
    platform = open_platform(settings)
    bootstrap(platform, datetime.now(UTC))
    platform.close()
    yield settings
    drop_databases(server, NAME)


@pytest.fixture(scope="module")
def api(kinds_settings: Settings) -> Iterator[Api]:
    with api_in_thread(kinds_settings) as running:
        yield running


@pytest.fixture(scope="module")
def platform(kinds_settings: Settings) -> Iterator[Platform]:
    opened = open_platform(kinds_settings)
    yield opened
    opened.close()


def some_bodies(n_rows: int, seed: int = 5) -> list[tuple[dict[str, Any], int]]:
    return request_bodies(contract.synthesize(n_rows, seed), contract)  # type: ignore[misc]


def wait_until_copied(platform: Platform) -> None:
    def is_copied() -> bool:
        copied = query(platform.settings, "SELECT count(*) FROM prediction_logs")
        return copied == [(len(journal_rows(platform.settings)),)]

    eventually(is_copied, "all predictions are in Postgres")


def test_a_bool_is_true_or_false_in_request_journal_and_postgres(api: Api, platform: Platform) -> None:
    (body, _), *_ = some_bodies(1)
    body |= {"is_paperless": True, "has_partner": None, "tenure_months": 3}
    answer = api.post("/predict", body)
    assert answer.status_code == 200, answer.text
    prediction_id = answer.json()["prediction_id"]
    (line,) = [row for row in journal_rows(api.settings) if row["prediction_id"] == prediction_id]
    assert (line["is_paperless"], line["has_partner"], line["is_new"]) == ("true", "", "true")
    wait_until_copied(platform)
    stored = "SELECT is_paperless, has_partner, is_new FROM prediction_logs WHERE prediction_id = %s"
    assert query(api.settings, stored, prediction_id) == [(True, None, True)]


ODD = 'Fibre, "50%" \\ %2C [1], Caf\u00e9'
"""A level with all that a line of the journal cannot hold as it is."""


def test_a_level_is_stored_as_it_came_however_odd(api: Api, platform: Platform) -> None:
    (body, _), *_ = some_bodies(1)
    for level in (ODD, "3", "Cafe\u0301", "null", "\\."):
        answer = api.post("/predict", body | {"plan": level, "region": None})
        assert answer.status_code == 200, answer.text
        prediction_id = answer.json()["prediction_id"]
        (line,) = [row for row in journal_rows(api.settings) if row["prediction_id"] == prediction_id]
        assert (unescaped(line["plan"]), line["region"]) == (level, "")
        wait_until_copied(platform)
        stored = "SELECT plan, region, term FROM prediction_logs WHERE prediction_id = %s"
        assert query(api.settings, stored, prediction_id) == [(level, None, "other")]


def test_hostile_levels_come_back_from_journal_postgres_and_file(api: Api, platform: Platform, tmp_path: Path) -> None:
    regions = [" Nord", "NA", "[y", "\u2028\u202e%0a", "\U0001f600" * 128]
    send(api, platform, rows_of(CALM, len(regions), 9).assign(plan="x]", region=regions))
    stored = "SELECT region FROM prediction_logs WHERE plan = 'x]' ORDER BY created_at"
    assert sorted(query(api.settings, stored)) == sorted((region,) for region in regions)
    csv = tmp_path / "labelled.csv"
    result = CliRunner().invoke(app, ["export-data", str(csv)], env=settings_environment(platform.settings))
    assert "region: the level 'NA' means a missing value in a file; write it in another way" in result.output
    exported = load_csv(csv, contract)
    assert set(exported["region"].dropna()) == set(regions) - {"NA"}


def test_one_level_typed_in_two_ways_scores_alike_and_an_unseen_one_scores(api: Api) -> None:
    (body, _), *_ = some_bodies(1)
    composed, decomposed, unseen, other = (
        api.post("/predict", body | {"region": region}).json()["probability"]
        for region in ("R\u00e9gion 1", "Re\u0301gion 1", "Atlantis", "El Dorado")
    )
    assert composed == decomposed
    assert unseen == other != composed


def test_an_explanation_adds_up_over_categories(api: Api) -> None:
    (body, _), *_ = some_bodies(1)
    answer = api.post("/predict?explain=true", body).json()
    explained = answer["explanation"]
    total = explained["baseline_log_odds"] + sum(explained["contributions"].values())
    assert total == pytest.approx(np.log(answer["probability"] / (1 - answer["probability"])), abs=1e-9)
    assert explained["contributions"].keys() == set(contract.feature_names)


def test_a_repeated_id_is_known_from_memory_journal_and_postgres(
    api: Api, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    (body, _), *_ = some_bodies(1)
    body |= {"prediction_id": "0198f0f0-5c1e-7000-8000-000000000001", "plan": ODD}
    first = api.post("/predict", body).json()
    assert api.post("/predict", body).json() == first
    assert api.post("/predict", body | {"is_paperless": not body["is_paperless"]}).status_code == 409
    wait_until_copied(platform)
    for max_remembered in (50_000, 0):  # from the end of the journal; with no memory, from Postgres
        monkeypatch.setattr(idempotency, "MAX_REMEMBERED", max_remembered)
        with api_in_thread(api.settings) as another:
            assert another.post("/predict", body).json() == first
            for other in ({"is_paperless": not body["is_paperless"]}, {"plan": ODD.replace("%2C", ",")}):
                assert another.post("/predict", body | other).status_code == 409


def send(api: Api, platform: Platform, rows: pd.DataFrame) -> None:
    """Sends rows with their labels, and waits until all of it is in Postgres."""
    sent = request_bodies(rows, contract)
    labels = []
    for start in range(0, len(sent), 100):  # rows of one moment are never on both sides of a split in time
        part = sent[start : start + 100]
        answers = api.post("/predict/batch", {"instances": [body for body, _ in part]}).json()
        assert answers["n_refused"] == 0
        pairs = zip(answers["predictions"], part, strict=True)
        labels += [{"prediction_id": one["prediction_id"], "true_label": label} for one, (_, label) in pairs]
    assert api.post("/labels", {"labels": labels}).status_code == 200
    wait_until_copied(platform)
    ingest_all(platform, seals=False)


def rows_of(scenario: str, n_rows: int, seed: int) -> pd.DataFrame:
    return scenario_rows(contract.synthesize(n_rows, seed), contract, scenario, seed)  # type: ignore[misc]


def test_from_the_door_to_the_next_version_and_out_into_a_file(api: Api, platform: Platform, tmp_path: Path) -> None:
    send(api, platform, rows_of(CALM, N_ROWS, 5))
    assert_journal_and_postgres_agree(platform)

    now = datetime.now(UTC)
    outcome = whole_tick(platform, now)
    assert outcome.verdict is Verdict.STABLE, outcome.reasons
    decision = decide(platform, Trigger.MANUAL, now)
    assert decision.action is Action.TRAIN, decision.reason
    assert retrain(platform, decision, now).challenger_metrics is not None
    assert [one.findings for one in check_journals(platform, {}, lambda _: None) if one.n_findings] == []
    assert_exported_rows_are_read_again(platform, tmp_path)


def test_a_new_level_is_drift_that_names_it_and_a_renamed_one_is_a_broken_feed(api: Api, platform: Platform) -> None:
    send(api, platform, rows_of("cheap_offer", 1_200, 6))
    now = datetime.now(UTC)
    outcome = whole_tick(platform, now)
    assert outcome.verdict in {Verdict.HARMFUL_SHIFT, Verdict.BENIGN_SHIFT}, outcome.reasons
    (said,) = [reason for reason in outcome.reasons if reason.startswith("plan drifted")]
    assert "'flat rate' is new" in said
    plan = api.client.get("/monitoring/drift/plan").json()
    assert "flat rate" in plan["bars"]["labels"]

    renamed = rows_of(CALM, 500, 7)
    send(api, platform, renamed.assign(plan=renamed["plan"].str.upper()))
    outcome = whole_tick(platform, datetime.now(UTC))
    assert outcome.verdict is Verdict.BROKEN_FEED, outcome.reasons
    assert any("plan: levels are spelled otherwise than in the reference" in reason for reason in outcome.reasons)


def test_the_reports_page_shows_levels_and_executes_none(platform: Platform) -> None:
    champion = production_version(platform.store)
    assert champion is not None
    reference = platform.registry.reference(champion)
    assert set(reference["plan"]) == set(PLANS)
    assert reference["region"].isna().any()
    bars = bars_of(reference["plan"].replace({PLANS[0]: "<b>x</b>"}), reference["plan"], "category")
    assert bars is not None
    figure = distribution_figure(0, bars)
    assert "<b>" not in json.dumps(figure)


def test_a_replay_of_categories_is_refused_with_a_sentence(platform: Platform) -> None:
    with pytest.raises(
        InvalidDataError, match=r"has categories \(plan, region, term\), and a replay reads numbers only"
    ):
        deployment_of_logs(platform, since=datetime(2026, 1, 1, tzinfo=UTC), until=datetime.now(UTC))


def assert_journal_and_postgres_agree(platform: Platform) -> None:
    until = datetime.now(UTC)
    of_postgres = logged_rows(platform.store, since=None, until=until, max_rows=10_000)
    of_journal = rows_of_journal(contract, platform.settings.data_dir, since=None, until=until, max_rows=10_000)
    names = list(contract.feature_names)
    pd.testing.assert_frame_equal(of_postgres[names], of_journal[names])
    assert ODD in of_journal["plan"].tolist()


def assert_exported_rows_are_read_again(platform: Platform, folder: Path) -> None:
    csv = folder / "labelled.csv"
    result = CliRunner().invoke(app, ["export-data", str(csv)], env=settings_environment(platform.settings))
    assert result.exit_code == 0, result.output
    frame = load_csv(csv, contract)
    frame = frame[frame["plan"] != "x]"]
    assert len(frame) == N_ROWS
    assert "True" in csv.read_text()
    assert set(frame["is_paperless"]) == {0.0, 1.0}
    assert set(frame["plan"]) == set(PLANS)


def test_the_dashboard_names_the_bars_of_a_bool(api: Api, platform: Platform) -> None:
    found = api.client.get("/monitoring/drift/is_paperless").json()
    assert found["bars"]["labels"] == ["false", "true"], json.dumps(found)


def test_a_rehearsal_finds_no_problem(kinds_settings: Settings) -> None:
    dataset = load_dataset(kinds_settings, contract)
    assert set(dataset.frame["is_paperless"]) == {0.0, 1.0}
    assert dataset.frame[TRUE_LABEL].isin([0, 1]).all()
    findings = check_contract(contract, kinds_settings, dataset)
    assert [one for one in findings if one.level == "problem"] == []
