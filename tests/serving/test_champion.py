"""Following promotions: the new version answers soon, no request fails, and what cannot be served is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from selfheal.platform import Platform, open_platform
from selfheal.promotion import force_promote, rollback
from selfheal.settings import Settings
from selfheal.store.models import move_to_production
from tests.serving.running import Api, api_in_thread, bodies, eventually, expected_probabilities, load_on, query
from tests.times import T0

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
        assert [answer["probability"] for _, answer in named] == pytest.approx(expected, abs=1e-12)
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
        move_to_production(platform_of_two.store, 2, 1, LATER, None)
        eventually(lambda: api.health()["status"] == "degraded", "health tells of the refusal")
        (problem,) = api.health()["problems"]
        assert problem.startswith("version 2 is in production but was refused: ")
        assert reason in problem
        assert "/" + str(two_versions.data_dir).split("/")[1] not in problem
        load.wait_for(20)
        assert serves(api, 1)
        assert api.client.get("/health").status_code == 200

        move_to_production(platform_of_two.store, 1, 2, LATER, None)
        eventually(lambda: api.health()["status"] == "ok", "back in order after the rollback")
    assert load.failures == []
    assert {answer["model_version"] for _, answer in load.answers} == {1}


def test_a_refused_version_is_served_once_it_can_be(two_versions: Settings, platform_of_two: Platform) -> None:
    ((digest,),) = query(two_versions, "SELECT artifact_sha256 FROM model_metadata WHERE version = 2")
    query(two_versions, "UPDATE model_metadata SET artifact_sha256 = %s WHERE version = 2", "0" * 64)
    with api_in_thread(two_versions) as api:
        move_to_production(platform_of_two.store, 2, 1, LATER, None)
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
