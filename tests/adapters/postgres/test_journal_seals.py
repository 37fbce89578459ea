"""A finished journal file is sealed once, in the chain of decisions; digests of rows depend on the rows alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, text

from selfheal.adapters.journal import LABEL_JOURNAL, Journal, compress, finished_text, prediction_journal
from selfheal.adapters.postgres import chain, decisions
from selfheal.adapters.postgres.ingest import copied_positions, ingest
from selfheal.adapters.postgres.journal_seals import list_seals, row_groups, seal_finished
from selfheal.adapters.postgres.retention import delete_unlabelled_predictions
from selfheal.adapters.postgres.store import Store
from tests import builders
from tests.at_once import at_once
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import MAX_BYTES, journal_labels, journal_predictions, toy_rows

PREDICTIONS = prediction_journal(contract)
N_ROWS = 50


def copied(store: Store, data_dir: Path, seed: int = 1) -> Path:
    """A finished and copied journal file of predictions."""
    rows = toy_rows(N_ROWS, seed)
    before = set(PREDICTIONS.files(data_dir))
    journal_predictions(data_dir, contract, rows, np.random.default_rng(seed).random(N_ROWS))
    ingest(store, PREDICTIONS, data_dir)
    (path,) = set(PREDICTIONS.files(data_dir)) - before
    return path


def groups(store: Store, journal: str = "predictions") -> list[tuple[int, str]]:
    with store.engine.begin() as connection:
        return [(group.n_rows, group.sha256) for group in row_groups(connection, journal)]


def execute(store: Store, statement: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(statement))


def test_only_what_is_finished_and_wholly_copied_is_sealed_and_only_once(store: Store, data_dir: Path) -> None:
    path = copied(store, data_dir)
    execute(store, "UPDATE journal_positions SET byte_offset = byte_offset - 1")
    assert seal_finished(store, PREDICTIONS, data_dir) == []
    execute(store, "UPDATE journal_positions SET byte_offset = byte_offset + 1")
    writer = Journal(PREDICTIONS, data_dir, MAX_BYTES)
    writer.probe()
    ingest(store, PREDICTIONS, data_dir)
    assert writer.path is not None
    assert writer.path.name in copied_positions(store, PREDICTIONS)
    assert seal_finished(store, PREDICTIONS, data_dir) == [path.name]
    assert seal_finished(store, PREDICTIONS, data_dir) == []
    writer.close()
    assert seal_finished(store, PREDICTIONS, data_dir) == [writer.path.name]


def test_a_pass_seals_a_bounded_number_of_files_and_the_next_goes_on(store: Store, data_dir: Path) -> None:
    paths = [copied(store, data_dir, seed) for seed in range(3)]
    assert len(seal_finished(store, PREDICTIONS, data_dir, limit=2)) == 2
    assert len(seal_finished(store, PREDICTIONS, data_dir, limit=2)) == 1
    with store.engine.connect() as connection:
        assert {seal.file for seal in list_seals(store, connection)} == {path.name for path in paths}


def test_two_that_seal_at_the_same_time_seal_each_file_once(open_again: Callable[[], Store], data_dir: Path) -> None:
    stores = [open_again(), open_again()]
    for seed in range(4):
        copied(stores[0], data_dir, seed)
    at_once([partial(seal_finished, store, PREDICTIONS, data_dir) for store in stores])
    with stores[0].engine.connect() as connection:
        assert len(list_seals(stores[0], connection)) == 4
    assert decisions.chain_problems(stores[0]) == []


def test_a_seal_has_the_digest_of_the_text_whether_it_is_compressed_or_not(store: Store, data_dir: Path) -> None:
    path = copied(store, data_dir)
    plain = finished_text(path)
    packed = finished_text(compress(path))
    assert plain == packed
    assert plain is not None
    seal_finished(store, PREDICTIONS, data_dir)
    with store.engine.connect() as connection:
        (seal,) = list_seals(store, connection)
    assert (seal.content["n_bytes"], seal.content["text_sha256"]) == (plain.n_bytes, plain.sha256)
    assert sum(group.n_rows for group in seal.groups("rows")) == N_ROWS


def test_rows_that_retention_deletes_while_a_file_is_sealed_are_no_part_of_its_seal(
    open_again: Callable[[], Store], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_again(), open_again()
    copied(store, data_dir)
    real = chain.lock
    deleted: list[int] = []

    def after_a_deletion(connection: Connection) -> None:
        monkeypatch.setattr(chain, "lock", real)
        deleted.append(delete_unlabelled_predictions(other, T0 + timedelta(hours=2)))
        real(connection)

    monkeypatch.setattr(chain, "lock", after_a_deletion)
    seal_finished(store, PREDICTIONS, data_dir)
    assert deleted == [N_ROWS]
    with store.engine.connect() as connection:
        (sealed,) = (seal for seal in list_seals(store, connection) if seal.file is not None)
    assert sealed.groups("rows") == []


# The chain


def test_decisions_and_seals_are_one_chain_whose_order_is_that_of_their_positions(store: Store, data_dir: Path) -> None:
    decisions.append(store, builders.decision(decision_id="before"))
    copied(store, data_dir)
    seal_finished(store, PREDICTIONS, data_dir)
    sealed_head = decisions.chain_head(store)
    decisions.append(store, builders.decision(decision_id="after"))
    assert decisions.chain_problems(store) == []
    assert decisions.is_in_chain(store, sealed_head)
    after = decisions.find_chained(store, "after")
    assert after is not None
    assert after.prev_hash == sealed_head


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE journal_seals SET content = content || '{\"n_bytes\": 1}'", "its content does not match its hash"),
        ("UPDATE journal_seals SET file = 'other.csv'", "its content does not match its hash"),
        ("DELETE FROM journal_seals", "the record before it in the chain is missing or was changed"),
    ],
)
def test_an_edited_or_deleted_seal_is_found(store: Store, data_dir: Path, statement: str, problem: str) -> None:
    copied(store, data_dir)
    seal_finished(store, PREDICTIONS, data_dir)
    decisions.append(store, builders.decision(decision_id="after"))
    with pytest.raises(Exception, match="written once and never changed"):
        execute(store, statement)
    execute(store, "ALTER TABLE journal_seals DISABLE TRIGGER journal_seals_are_immutable")
    execute(store, statement)
    assert any(problem in one for one in decisions.chain_problems(store))


def test_the_first_link_of_an_empty_chain_follows_the_genesis(store: Store, data_dir: Path) -> None:
    assert decisions.chain_head(store) == chain.GENESIS
    copied(store, data_dir)
    seal_finished(store, PREDICTIONS, data_dir)
    assert decisions.chain_problems(store) == []


# Digests of rows


def test_a_digest_depends_on_the_rows_alone(store: Store, data_dir: Path, open_again: Callable[[], Store]) -> None:
    copied(store, data_dir)
    before = groups(store)
    assert sum(n_rows for n_rows, _ in before) == N_ROWS
    execute(store, "ALTER TABLE prediction_logs ADD COLUMN added_later double precision")
    execute(store, "CREATE TABLE shuffled AS SELECT * FROM prediction_logs ORDER BY probability")
    execute(store, "TRUNCATE prediction_logs")
    execute(store, "INSERT INTO prediction_logs SELECT * FROM shuffled")
    name = store.engine.url.database
    execute(store, f'ALTER DATABASE "{name}" SET extra_float_digits = 0')
    execute(store, f"ALTER DATABASE \"{name}\" SET bytea_output = 'escape'")
    other = open_again()
    assert groups(other) == before
    execute(store, "UPDATE prediction_logs SET probability = probability + 1e-15 WHERE probability BETWEEN 0.4 AND 0.6")
    assert groups(store) != before


def test_a_label_that_was_overruled_stays_with_the_file_that_it_came_from(store: Store, data_dir: Path) -> None:
    path = copied(store, data_dir)
    with store.engine.connect() as connection:
        ids = list(connection.execute(text("SELECT prediction_id FROM prediction_logs")).scalars())
    journal_labels(data_dir, ids, [0] * len(ids))
    ingest(store, LABEL_JOURNAL, data_dir)
    (first,) = groups(store, "labels")
    for label in (1, 0):
        journal_labels(data_dir, ids[:5], [label] * 5, is_correction=True)
        ingest(store, LABEL_JOURNAL, data_dir)
    assert first in groups(store, "labels")
    assert path.exists()
