"""The swap: no request fails, what cannot be served is refused and told, and nothing in a hostile model file ever runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from selfheal.adapters.postgres.alerts import open_or_update_alert
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.model_versions import production_version, register_staging
from selfheal.domain.records import Alert, Severity, Stage
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import force_promote, rollback
from selfheal.settings import Settings
from serving.champion.holder import MODEL_REFUSED, ChampionHolder
from tests.adapters.alerting.test_delivery import Webhook
from tests.candidates import put_live
from tests.conftest import TEMPLATE
from tests.hostile_models import HOSTILE_FILES, HostileFile
from tests.serving.conftest import clone
from tests.serving.followed import following, served
from tests.serving.running import Api, api_in_thread, bodies, expected_probabilities, load_on, query
from tests.times import T0
from tests.waiting import eventually

LATER = T0 + timedelta(hours=1)


@pytest.fixture
def platform_of_two(two_versions: Settings) -> Iterator[Platform]:
    opened = open_platform(two_versions)
    yield opened
    opened.close()


def serves(api: Api, version: int) -> bool:
    return bool(api.info()["model_version"] == version)


def test_under_load_a_promotion_and_a_rollback_fail_no_request_and_mix_no_versions(
    two_versions: Settings, platform_of_two: Platform
) -> None:
    """Each answer is checked against the version that it names, loaded here."""
    with api_in_thread(two_versions) as api, load_on(api) as load:
        load.wait_for(50)
        force_promote(platform_of_two, 2, reason="better", actor="test", now=LATER)
        eventually(lambda: serves(api, 2), "version 2 serves")
        first_of_two = len(load.answers)
        load.wait_for(50)
        answers_of_two = load.answers[first_of_two + 8 :]  # what was under way at the swap may name version 1
        rollback(platform_of_two, to_version=None, reason="worse", actor="test", now=LATER + timedelta(hours=1))
        eventually(lambda: serves(api, 1), "version 1 serves again")
        load.wait_for(50)
    assert load.failures == []
    assert {answer["model_version"] for _, answer in answers_of_two} == {2}
    thresholds = dict(query(two_versions, "SELECT version, threshold FROM model_metadata"))
    for version in (1, 2):
        named = [(row, answer) for row, answer in load.answers if answer["model_version"] == version]
        expected = expected_probabilities(platform_of_two, version, [row for row, _ in named])
        assert [answer["probability"] for _, answer in named] == expected
        assert {answer["threshold"] for _, answer in named} == {thresholds[version]}
    one, two = (expected_probabilities(platform_of_two, version, bodies(50)) for version in (1, 2))
    assert one != pytest.approx(two, abs=1e-3), "the two versions must differ for the test to mean anything"


def test_each_logged_prediction_names_the_version_that_made_it(
    two_versions: Settings, platform_of_two: Platform
) -> None:
    with api_in_thread(two_versions) as api:
        before = api.post("/predict", bodies(1)[0]).json()
        force_promote(platform_of_two, 2, reason="better", actor="test", now=LATER)
        eventually(lambda: serves(api, 2), "version 2 serves")
        after = api.post("/predict", bodies(1)[0]).json()
        info = api.info()
    assert (before["model_version"], after["model_version"]) == (1, 2)
    assert before["probability"] != after["probability"]
    assert dict(query(two_versions, "SELECT prediction_id::text, model_version FROM prediction_logs")) == {
        before["prediction_id"]: 1,
        after["prediction_id"]: 2,
    }
    assert (info["previous_version"], info["stage"]) == (1, "Production")


@pytest.mark.parametrize(
    ("column", "reason"), [("artifact_sha256", "has changed: expected sha256"), ("contract_hash", "under contract")]
)
def test_a_version_that_is_not_what_was_registered_is_refused_and_the_old_one_serves_on(
    two_versions: Settings, platform_of_two: Platform, column: str, reason: str
) -> None:
    query(two_versions, f"UPDATE model_metadata SET {column} = %s WHERE version = 2", "0" * 64)
    with api_in_thread(two_versions) as api, load_on(api, 1) as load:
        put_live(platform_of_two.store, 2, 1, LATER)
        eventually(lambda: api.health()["status"] == "degraded", "health tells of the refusal")
        (problem,) = api.health()["problems"]
        assert problem.startswith("version 2 is in production but was refused: ")
        assert reason in problem
        assert "/" + str(two_versions.data_dir).split("/")[1] not in problem
        load.wait_for(20)
        assert serves(api, 1)
        assert api.client.get("/health").status_code == 200

        put_live(platform_of_two.store, 1, 2, LATER)
        eventually(lambda: api.health()["status"] == "ok", "back in order after the rollback")
    assert load.failures == []
    assert {answer["model_version"] for _, answer in load.answers} == {1}


def test_a_refused_version_is_served_once_it_can_be(two_versions: Settings, platform_of_two: Platform) -> None:
    ((digest,),) = query(two_versions, "SELECT artifact_sha256 FROM model_metadata WHERE version = 2")
    query(two_versions, "UPDATE model_metadata SET artifact_sha256 = %s WHERE version = 2", "0" * 64)
    with api_in_thread(two_versions) as api:
        put_live(platform_of_two.store, 2, 1, LATER)
        eventually(lambda: api.health()["status"] == "degraded", "refused")
        query(two_versions, "UPDATE model_metadata SET artifact_sha256 = %s WHERE version = 2", digest)
        eventually(lambda: serves(api, 2), "version 2 serves")
        eventually(lambda: api.health()["status"] == "ok", "nothing is wrong any more")


def test_a_start_with_nothing_but_a_refused_version_waits_and_says_why(api_settings: Settings) -> None:
    query(api_settings, "UPDATE model_metadata SET contract_hash = %s", "0" * 64)
    with api_in_thread(api_settings) as api:
        health = api.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "not_ready")
        assert "was refused" in health.json()["problems"][0]
        assert api.post("/predict", bodies(1)[0]).status_code == 503


def test_a_registry_that_cannot_deliver_is_a_refusal_and_not_a_crash(two_versions: Settings) -> None:
    """MLflow's own errors are no errors of ours: an artifact that is gone, with nothing cached."""
    query(
        two_versions,
        "UPDATE model_metadata SET artifact_uri = 'models:/m-gone', artifact_sha256 = %s WHERE version = 1",
        "0" * 64,
    )
    with api_in_thread(two_versions) as api:
        health = api.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "not_ready")
        (problem,) = health.json()["problems"]
        assert problem.startswith("version 1 is in production but was refused: ")
        assert "m-gone" not in problem


# Refusals are told


def alerts(settings: Settings) -> list[tuple[Any, ...]]:
    """Version, severity and whether it is over, of each alert on a refusal, in order."""
    return query(
        settings,
        "SELECT model_version, severity, resolved_at IS NOT NULL FROM monitoring_alerts "
        "WHERE kind = 'model_refused' AND source = 'serving' ORDER BY created_at",
    )


def test_a_refusal_is_an_alert_sent_once_and_over_when_another_version_serves(
    two_versions: Settings, platform_of_two: Platform, webhook: Webhook
) -> None:
    """However many workers refuse it, and however often they try."""
    query(two_versions, "UPDATE model_metadata SET artifact_sha256 = %s WHERE version = 2", "0" * 64)
    settings = two_versions.model_copy(update={"notify_urls": SecretStr(webhook.url)})
    with following(settings) as first, following(settings) as second:
        put_live(platform_of_two.store, 2, 1, LATER)
        for holder in (first, second):
            eventually(lambda holder=holder: "was refused" in (holder.problem or ""), "it is refused")
        eventually(lambda: webhook.received, "somebody is told")
        for _ in range(3):
            for holder in (first, second):
                try_again(holder)
        assert alerts(two_versions) == [(2, "critical", False)]
        (message,) = webhook.received
        assert (message["title"], message["type"]) == ("selfheal: model refused", "failure")
        assert "has changed: expected sha256" in message["message"]
        assert "version 1 still serves" in message["message"]

        put_live(platform_of_two.store, 1, 2, LATER)
        eventually(lambda: alerts(two_versions) == [(2, "critical", True)], "the alert is over")
        eventually(lambda: len(webhook.received) == 2, "its resolution is sent")
        assert [message["type"] for message in webhook.received] == ["failure", "success"]


def try_again(holder: ChampionHolder) -> None:
    """Makes the refused version due at the next look, and waits until it was refused anew."""
    refusal = holder._refusal
    assert refusal is not None
    holder._refusal = replace(refusal, retry_at=0.0)
    eventually(lambda: holder._refusal is not None and holder._refusal.n_tries > refusal.n_tries, "another try")


def test_an_alert_left_by_a_process_that_is_gone_is_over_once_a_version_serves(
    two_versions: Settings, platform_of_two: Platform
) -> None:
    alert = Alert(MODEL_REFUSED, Severity.CRITICAL, "version 2 was refused")
    open_or_update_alert(platform_of_two.store, "serving", 2, alert, LATER)
    with following(two_versions):
        assert alerts(two_versions) == [(2, "critical", True)]


def test_a_restart_while_production_is_refused_serves_what_was_served_before(
    two_versions: Settings, platform_of_two: Platform
) -> None:
    with following(two_versions) as holder:
        assert served(holder) == 1
    query(two_versions, "UPDATE model_metadata SET artifact_sha256 = %s WHERE version = 2", "0" * 64)
    put_live(platform_of_two.store, 2, 1, LATER)
    with following(two_versions) as holder:
        assert served(holder) == 1
        assert "version 2 is in production but was refused" in (holder.problem or "")
        assert "; version 1, served here since" in (holder.problem or "")
        assert alerts(two_versions) == [(2, "critical", False)]


# Hostile model files, with a digest that matches: only the loader stands between


@pytest.fixture(scope="module")
def target(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Api, Platform]]:
    """An API that serves version 1, and the platform of who brings hostile versions into production."""
    data_dir = tmp_path_factory.mktemp("hostile") / "data"
    settings = clone(server, TEMPLATE, bootstrapped_template, "hostile", data_dir).model_copy(
        update={"max_model_mb": 40.0}
    )
    platform = open_platform(settings)
    with api_in_thread(settings) as api:
        yield api, platform
    platform.close()


@pytest.mark.parametrize(("make", "reason"), HOSTILE_FILES.items(), ids=lambda case: getattr(case, "__name__", ""))
def test_a_hostile_model_file_is_refused_runs_nothing_and_the_old_version_serves_on(
    target: tuple[Api, Platform], tmp_path: Path, make: HostileFile, reason: str
) -> None:
    api, platform = target
    canary = tmp_path / "canary"
    version = put_in_production(platform, make(canary))
    refused = f"version {version} is in production but was refused: "
    problem = eventually(
        lambda: next((one for one in api.health()["problems"] if one.startswith(refused)), None), "it is refused"
    )
    assert re.search(reason, problem), problem
    assert not canary.exists()
    assert api.post("/predict", bodies(1)[0]).json()["model_version"] == 1


def put_in_production(platform: Platform, data: bytes) -> int:
    """Makes a file the one of a new version in production, digest and all; returns its number."""
    live = production_version(platform.store)
    assert live is not None
    digest = hashlib.sha256(data).hexdigest()
    (platform.settings.data_dir / "cache" / f"{digest}.skops").write_bytes(data)
    number = live.version + 1
    hostile = replace(live, version=number, stage=Stage.STAGING, mlflow_run_id=f"run {number}", artifact_sha256=digest)
    register_staging(platform.store, hostile)
    put_live(platform.store, number, live.version, LATER)
    return number
