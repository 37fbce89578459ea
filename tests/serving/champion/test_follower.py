"""Following promotions through everything that Postgres does: notifying, cutting the line, being away, coming back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from selfheal.adapters.model_cache import SERVED_FILE
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.refusals import UNAVAILABLE
from selfheal.kit.errors import ConfigurationError
from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings
from serving.champion.follower import DATABASE_NOT_OURS, NOT_FOLLOWED, Follower
from tests.candidates import put_live
from tests.forwarder import Forwarder, forwarded
from tests.serving.followed import following, holder_of, served
from tests.serving.running import api_in_thread, bodies, logged_probabilities, query
from tests.times import T0
from tests.waiting import eventually

POSTGRES_AWAY = f"{UNAVAILABLE}, {NOT_FOLLOWED}"

LATER = T0 + timedelta(hours=1)
RARELY = {"champion_poll_seconds": 300.0}
"""What happens within a test under this setting did not wait for a poll."""

LISTENERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'selfheal_promotion listener' AND datname = %s"
LISTENING = LISTENERS + " AND query LIKE 'LISTEN%%' AND state = 'idle'"
CUT = f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listening"


@pytest.fixture
def operator(two_versions: Settings) -> Iterator[Platform]:
    """Somebody else's platform on the same database: promotes."""
    opened = open_platform(two_versions)
    yield opened
    opened.close()


@pytest.fixture
def network(two_versions: Settings, server: EmbeddedServer) -> Iterator[tuple[Settings, Forwarder]]:
    with forwarded(two_versions, server.socket_dir) as given:
        yield given


def rarely(settings: Settings) -> Settings:
    return settings.model_copy(update=RARELY)


def is_listening(settings: Settings) -> bool:
    return bool(query(settings, LISTENING, settings.mlops_db_name))


def test_a_promotion_is_heard_of_and_not_waited_for(two_versions: Settings, operator: Platform) -> None:
    with following(rarely(two_versions)) as holder:
        eventually(lambda: is_listening(two_versions), "it listens")
        for version, predecessor in ((2, 1), (1, 2), (2, 1)):
            put_live(operator.store, version, predecessor, LATER)
            eventually(lambda version=version: served(holder) == version, f"version {version} is served")
        assert holder.problem is None
    assert not is_listening(two_versions), "stopped within the 300 s, and the connection with it"


def test_promotions_are_followed_after_postgres_has_ended_the_listening_connection(
    two_versions: Settings, operator: Platform
) -> None:
    """One promotion comes while nobody listens, the next after the line is back."""
    with following(rarely(two_versions)) as holder:
        eventually(lambda: is_listening(two_versions), "it listens")
        query(two_versions, CUT, two_versions.mlops_db_name)
        put_live(operator.store, 2, 1, LATER)
        eventually(lambda: served(holder) == 2, "version 2 is served")
        assert holder.problem is None, "a lost line costs latency only"
        eventually(lambda: is_listening(two_versions), "it listens again")
        put_live(operator.store, 1, 2, LATER)
        eventually(lambda: served(holder) == 1, "version 1 is served")


def test_promotions_are_followed_by_looking_where_nobody_notifies(two_versions: Settings, operator: Platform) -> None:
    """As behind a pooler that keeps no session, or if a row is changed by hand."""
    with following(two_versions) as holder:
        assert served(holder) == 1
        for statement in (
            "UPDATE model_metadata SET stage = 'Archived' WHERE version = 1",
            "UPDATE model_metadata SET stage = 'Production' WHERE version = 2",
        ):
            query(two_versions, statement)
        eventually(lambda: served(holder) == 2, "version 2 is served")


def test_a_rollback_loads_nothing(two_versions: Settings, operator: Platform) -> None:
    """Neither MLflow nor the cache is needed for the version that was served before."""
    with following(rarely(two_versions)) as holder:
        first = holder.current
        assert first is not None
        put_live(operator.store, 2, 1, LATER)
        eventually(lambda: served(holder) == 2, "version 2 is served")
        for path in (two_versions.data_dir / "cache").glob("*.skops"):
            path.unlink()
        put_live(operator.store, 1, 2, LATER)
        eventually(lambda: served(holder) == 1, "version 1 is served again")
        assert holder.current is not None
        assert holder.current.pipeline is first.pipeline
        assert holder.current.version.promoted_at == LATER


def test_with_postgres_and_mlflow_down_the_api_starts_and_serves_what_was_served_last(
    two_versions: Settings, operator: Platform, network: tuple[Settings, Forwarder]
) -> None:
    """And follows promotions, and copies its journal, once Postgres comes back, without a restart."""
    put_live(operator.store, 2, 1, LATER)
    with following(two_versions) as holder:
        eventually(lambda: served(holder) == 2, "version 2 was served once on this machine")
    settings, forwarder = network
    with api_in_thread(settings) as api:
        answer = api.post("/predict", bodies(1)[0])
        assert (answer.status_code, answer.json()["model_version"]) == (200, 2)
        health = api.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        (problem,) = [one for one in health.json()["problems"] if one.startswith(POSTGRES_AWAY)]
        assert "; version 2, served here since 20" in problem
        assert str(forwarder.port) not in problem

        put_live(operator.store, 1, 2, LATER)
        forwarder.mend()
        eventually(lambda: api.health()["status"] == "ok", "nothing is wrong any more")
        assert api.health()["model_version"] == 1
        eventually(
            lambda: answer.json()["prediction_id"] in logged_probabilities(two_versions), "the journal is copied"
        )
        put_live(operator.store, 2, 1, LATER)
        eventually(lambda: api.health()["model_version"] == 2, "promotions are followed")


def test_with_neither_cache_nor_postgres_the_api_starts_waits_and_becomes_ready_by_itself(
    two_versions: Settings, network: tuple[Settings, Forwarder]
) -> None:
    settings, forwarder = network
    with api_in_thread(settings) as api:
        health = api.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "not_ready")
        assert f"{POSTGRES_AWAY}; nothing can be scored" in health.json()["problems"]
        answer = api.post("/predict", bodies(1)[0])
        assert (answer.status_code, answer.json()["type"]) == (503, "not_ready")
        forwarder.mend()
        eventually(lambda: api.client.get("/health").status_code == 200, "ready")
        assert api.post("/predict", bodies(1)[0]).json()["model_version"] == 1


def test_an_outage_is_told_and_over_when_it_is_over(
    two_versions: Settings, operator: Platform, network: tuple[Settings, Forwarder]
) -> None:
    settings, forwarder = network
    forwarder.mend()
    with following(rarely(settings)) as holder:
        eventually(lambda: is_listening(two_versions), "it listens")
        for version, predecessor in ((2, 1), (1, 2)):
            forwarder.cut()
            eventually(lambda: holder.problem is not None, "the outage is told")
            assert (holder.problem or "").startswith(f"{POSTGRES_AWAY}; version {predecessor}, served here since")
            put_live(operator.store, version, predecessor, LATER)
            two_versions_cache(settings, operator)
            forwarder.mend()
            eventually(lambda version=version: served(holder) == version, f"version {version} is served")
            assert holder.problem is None


def two_versions_cache(settings: Settings, operator: Platform) -> None:
    """Brings both files to this machine's cache: MLflow is out of reach of the follower under test."""
    from selfheal.adapters.postgres.model_versions import list_versions

    for version in list_versions(operator.store):
        operator.registry.load(version)


def test_of_two_remembered_versions_the_second_serves_if_the_first_is_damaged(
    two_versions: Settings, operator: Platform, network: tuple[Settings, Forwarder]
) -> None:
    with following(two_versions) as holder:
        put_live(operator.store, 2, 1, LATER)
        eventually(lambda: served(holder) == 2, "version 2 is served")
        assert holder.current is not None
        latest = holder.current.version
    cache = two_versions.data_dir / "cache"
    (cache / f"{latest.artifact_sha256}.skops").write_bytes(b"rust")
    with following(network[0]) as holder:
        assert served(holder) == 1
        assert "version 1, served here since" in (holder.problem or "")
    (cache / SERVED_FILE).write_bytes(b"rust")
    with following(network[0]) as holder:
        assert served(holder) is None
        assert holder.problem == f"{POSTGRES_AWAY}; nothing can be scored"


def test_a_database_of_another_contract_stops_the_start_and_is_a_problem_later(
    two_versions: Settings, network: tuple[Settings, Forwarder]
) -> None:
    with following(two_versions):
        pass
    settings, forwarder = network
    query(two_versions, "ALTER TABLE prediction_logs ALTER COLUMN restarts TYPE double precision")
    with pytest.raises(ConfigurationError, match=r"prediction_logs\.restarts is"), following(two_versions):
        pass
    platform = open_platform(settings, wait_for_database=False)
    holder = holder_of(platform)
    follower = Follower(platform, holder)
    follower.start()
    try:
        assert (holder.problem or "").startswith(POSTGRES_AWAY)
        forwarder.mend()
        eventually(lambda: (holder.problem or "").startswith(DATABASE_NOT_OURS), "it is told")
        assert served(holder) == 1
        with pytest.raises(Exception, match="its database is not ours"), platform.store.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        query(two_versions, "ALTER TABLE prediction_logs ALTER COLUMN restarts TYPE integer")
        eventually(lambda: holder.problem is None, "repaired")
    finally:
        follower.stop()
        platform.close()


def test_an_empty_database_that_comes_up_later_is_migrated(
    two_versions: Settings, network: tuple[Settings, Forwarder]
) -> None:
    settings, forwarder = network
    empty = settings.model_copy(update={"mlops_db_name": f"{settings.mlops_db_name}_lost"})
    with following(empty) as holder:
        assert (holder.problem or "").startswith(POSTGRES_AWAY)
        forwarder.mend()
        eventually(lambda: holder.problem == "no version is in production yet", "the schema is there")
