"""What went live when, and what may be gone back to."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from selfheal.adapters.postgres import model_versions, promotions
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Action, Stage
from tests import builders
from tests.times import T0

HOUR = timedelta(hours=1)

HISTORY = (
    (1, Action.PROMOTE),
    (2, Action.PROMOTE),
    (3, Action.PROMOTE),
    (2, Action.ROLLBACK),
    (4, Action.FORCE_PROMOTE),
)
"""What went live, an hour each, and by what."""


@pytest.fixture
def lived(store: Store) -> Store:
    for number in (1, 2, 3, 4, 5):
        version = builders.model_version(
            version=number, stage=Stage.STAGING, promoted_at=None, mlflow_run_id=f"{number}"
        )
        model_versions.register_staging(store, version)
    before: int | None = None
    for hour, (version_number, action) in enumerate(HISTORY):
        decision = builders.decision(decision_id=f"d{hour}", action=action)
        model_versions.go_live(
            store, version_number, replaces=before, decision=decision, now=T0 + hour * HOUR, probation_until=None
        )
        before = version_number
    return store


@pytest.mark.parametrize(
    ("moment", "version"),
    [
        (T0 - HOUR, None),
        (T0, 1),
        (T0 + HOUR, 2),
        (T0 + 2.5 * HOUR, 3),
        (T0 + 3.5 * HOUR, 2),
        (T0 + 90 * HOUR, 4),
    ],
)
def test_what_served_at_a_time_is_what_went_live_last(lived: Store, moment: datetime, version: int | None) -> None:
    found = promotions.production_at(lived, moment)
    assert (None if found is None else found.version) == version


def test_promotions_are_listed_the_newest_first(lived: Store) -> None:
    listed = promotions.list_promotions(lived)
    assert [(one.version, one.replaced_version) for one in listed] == [(4, 2), (2, 3), (3, 2), (2, 1), (1, None)]
    assert promotions.list_promotions(lived, 2) == listed[:2]


def test_a_version_that_came_back_has_the_predecessor_of_its_promotion(lived: Store) -> None:
    found = {number: promotions.predecessor(lived, number) for number in range(1, 6)}
    assert found == {1: None, 2: 1, 3: 2, 4: 2, 5: None}


def test_a_version_was_rolled_back_if_a_rollback_ended_its_last_time(lived: Store) -> None:
    assert [number for number in range(1, 6) if promotions.rollback_of(lived, number) is not None] == [3]
    found = promotions.rollback_of(lived, 3)
    assert found is not None
    assert (found.version, found.promoted_at) == (2, T0 + 3 * HOUR)


def test_of_two_clocks_the_order_of_events_counts(store: Store) -> None:
    for number, clock in ((1, T0 + HOUR), (2, T0)):
        version = builders.model_version(
            version=number, stage=Stage.STAGING, promoted_at=None, mlflow_run_id=f"{number}"
        )
        model_versions.register_staging(store, version)
        decision = builders.decision(decision_id=f"d{number}", action=Action.PROMOTE)
        model_versions.go_live(
            store, number, replaces=number - 1 or None, decision=decision, now=clock, probation_until=None
        )
    found = promotions.production_at(store, T0 + 2 * HOUR)
    assert found is not None
    assert found.version == 2


@pytest.mark.parametrize(
    "change", ["UPDATE promotions SET version = 9", "DELETE FROM promotions", "TRUNCATE promotions"]
)
def test_what_went_live_is_never_changed(lived: Store, change: str) -> None:
    with pytest.raises(DatabaseError), lived.engine.begin() as connection:
        connection.execute(text(change))
    assert len(promotions.list_promotions(lived)) == len(HISTORY)
