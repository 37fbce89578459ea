"""Which trainings were attempts."""

from __future__ import annotations

from datetime import timedelta

from selfheal.adapters.postgres.store import Store
from selfheal.adapters.postgres.training_failures import failed_trainings, record_training_failure
from tests.times import T0


def test_a_failure_is_recorded_once_and_found_by_its_decision(store: Store) -> None:
    for minute in (0, 1):
        record_training_failure(store, "d1", "does not converge", T0 + timedelta(minutes=minute))
    assert failed_trainings(store, ["d1", "d2"]) == {"d1"}
    assert failed_trainings(store, []) == set()
