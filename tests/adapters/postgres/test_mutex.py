"""One at a time: who holds a lock keeps out whoever wants the same, and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from selfheal.adapters.journal import prediction_journal
from selfheal.adapters.postgres import mutex
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.adapters.postgres.mutex import exclusive
from selfheal.adapters.postgres.store import Store
from selfheal.kit.errors import ServiceUnavailableError
from tests.at_once import at_once
from tests.toy_use_case import contract
from tests.traffic import journal_predictions, toy_rows

MOMENT_SECONDS = 0.2


def test_of_several_that_want_the_same_one_is_in_there_at_a_time(open_again: Callable[[], Store]) -> None:
    stores = [open_again(), open_again()]  # of two processes, as far as Postgres can tell
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> None:
        with exclusive(stores[number % 2], Lock.REGISTRY):
            inside.append(number)
            threading.Event().wait(MOMENT_SECONDS)
            most.append(len(inside))
            inside.remove(number)

    at_once([lambda n=number: enter(n) for number in range(4)])
    assert most == [1, 1, 1, 1]


def test_who_waits_too_long_is_told_for_what(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutex, "TIMEOUT_SECONDS", MOMENT_SECONDS)
    with (
        exclusive(store, Lock.JUDGING),
        pytest.raises(ServiceUnavailableError, match=r"the lock 'judging' has been in use"),
    ):
        at_once([lambda: exclusive(store, Lock.JUDGING).__enter__()])


def test_a_lock_has_a_key_of_its_own_and_the_triggers_have_theirs(store: Store) -> None:
    with store.engine.connect() as connection:
        source = "SELECT prosrc FROM pg_proc WHERE proname = 'take_turns_at_rollups'"
        assert f"pg_advisory_xact_lock({Lock.ROLLUPS:d})" in connection.execute(text(source)).scalar_one()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("lock", [Lock.REGISTRY, Lock.JUDGING])
def test_predictions_are_written_while_somebody_waits_for_a_slow_mlflow(
    store: Store, data_dir: Path, lock: Lock
) -> None:
    journal_predictions(data_dir, contract, toy_rows(3), np.full(3, 0.5))
    with exclusive(store, lock), ThreadPoolExecutor(1) as threads:
        assert threads.submit(ingest, store, prediction_journal(contract), data_dir).result(10).n_new == 3
