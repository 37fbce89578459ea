"""Journals of releases that did not check derived values: one line costs its own value, and nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from selfheal.adapters.journal import LABEL_JOURNAL, Journal, format_time, prediction_journal, read_chunk
from selfheal.adapters.postgres import predictions
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.journal_audit import LinesAgainstTable, journal_check
from selfheal.adapters.postgres.journal_seals import list_seals, row_groups, seal_finished
from selfheal.adapters.postgres.open import open_store
from selfheal.adapters.postgres.store import Store
from selfheal.kit.ids import new_id
from selfheal.services.verification.segments import row_problems, sealed_rows
from tests.adapters.postgres.test_ingest import MAX_BYTES, all_rows
from tests.conftest import settings_for
from tests.times import T0
from tests.touchy_use_case import whole
from tests.traffic import SECOND, journal_labels

PREDICTIONS = prediction_journal(whole)
TOO_LARGE = 2_700_000_000


@pytest.fixture
def store(server: EmbeddedServer, database: str, data_dir: Path) -> Iterator[Store]:
    opened = open_store(settings_for(server, data_dir, database), whole)
    yield opened
    opened.close()


def journaled(data_dir: Path, *wear: Any, **changes: Any) -> list[UUID]:
    """One line for each value of `wear`, as a release without the check would have written it."""
    ids = [new_id() for _ in wear]
    values = {"restarts": 1, "strain": 0.3} | changes
    writer = Journal(PREDICTIONS, data_dir, MAX_BYTES)
    writer.append(
        [
            (
                str(one),
                format_time(T0),
                1,
                0,
                0.25,
                0.5,
                "test",
                1.5,
                60.0,
                0.5,
                values["restarts"],
                values["strain"],
                each,
            )
            for one, each in zip(ids, wear, strict=True)
        ]
    )
    writer.close()
    return ids


def wear_of(store: Store) -> dict[UUID, Any]:
    return {row[0]: row[-1] for row in all_rows(store, "prediction_logs")}


def checked(store: Store, data_dir: Path) -> LinesAgainstTable:
    """What the lines of the one file are, against the table."""
    (path,) = PREDICTIONS.files(data_dir)
    chunk = read_chunk(path, 0)
    with journal_check(store) as check:
        check.begin()
        found = check.predictions(chunk.columns, chunk.lines, None)
        assert check.differing() == ()
        return found


@pytest.mark.parametrize("value", [TOO_LARGE, -TOO_LARGE, 10**19])
def test_a_whole_number_beyond_its_column_costs_that_value_only(store: Store, data_dir: Path, value: int) -> None:
    ids = journaled(data_dir, 7, value, 9_000_000, None)
    result = ingest(store, PREDICTIONS, data_dir)
    (path,) = PREDICTIONS.files(data_dir)
    assert (result.n_read, result.n_new, result.corrupt) == (4, 4, []), "the disk is sound"
    assert wear_of(store) == dict(zip(ids, [7, None, 9_000_000, None], strict=True))
    assert result.unusable == [f"{path}: byte {read_chunk(path, 0).starts[1]} (wear = {value:,})"]
    assert ingest(store, PREDICTIONS, data_dir).unusable == [], "it is told once"


def test_many_such_lines_are_copied_without_a_search_for_each(
    store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = journaled(data_dir, *(TOO_LARGE + i if i % 3 == 0 else i for i in range(300)))
    result = ingest(store, PREDICTIONS, data_dir)
    assert (result.n_new, len(result.unusable)) == (300, 100)
    assert wear_of(store) == {one: None if i % 3 == 0 else i for i, one in enumerate(ids)}


def test_its_label_is_no_orphan_and_no_training_uses_the_row(store: Store, data_dir: Path) -> None:
    ids = journaled(data_dir, 7, TOO_LARGE)
    journal_labels(data_dir, ids, [0, 1])
    for kind in (PREDICTIONS, LABEL_JOURNAL):
        ingest(store, kind, data_dir)
    assert predictions.count_orphan_labels(store) == 0
    usable = predictions.labelled_rows(store, max_rows=10)
    assert usable["prediction_id"].tolist() == [str(ids[0])]
    assert len(predictions.labelled_rows(store, max_rows=10, usable_only=False)) == 2


@pytest.mark.parametrize(
    "read",
    [
        lambda store, window: predictions.window_rows(store, window, 10),
        lambda store, window: predictions.newest_rows(store, window, 10),
        lambda store, _: predictions.newest_of_version(store, 1, 10),
    ],
    ids=["window", "newest", "version"],
)
def test_no_query_for_a_model_returns_a_row_with_an_infinite_value(
    store: Store, data_dir: Path, read: Callable[..., Any]
) -> None:
    journaled(data_dir, 7, strain="inf")
    journaled(data_dir, 8, 9)
    assert ingest(store, PREDICTIONS, data_dir).n_new == 3, "it is in Postgres, as it was acknowledged"
    window = predictions.window_of(store, 1, T0 - SECOND)
    assert window is not None
    assert sorted(read(store, window)["wear"]) == [8, 9]


def test_verification_looks_at_every_line_beside_it(store: Store, data_dir: Path) -> None:
    ids = journaled(data_dir, *range(50), TOO_LARGE, *range(50))
    ingest(store, PREDICTIONS, data_dir)
    found = checked(store, data_dir)
    assert (found.missing, found.unreadable, found.first_at) == ((), (), T0)
    assert sorted(found.unserved) == sorted(map(str, ids)), "nothing was in production: every line was looked at"
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM prediction_logs WHERE prediction_id = :one"), {"one": ids[70]})
    assert checked(store, data_dir).missing == (str(ids[70]),)


def test_a_line_that_an_earlier_release_left_out_is_missing_until_a_replay_brings_it(
    store: Store, data_dir: Path
) -> None:
    """The file is sealed without it: what the replay brings is under no digest, and none disagrees."""
    ids = journaled(data_dir, 7, TOO_LARGE)
    ingest(store, PREDICTIONS, data_dir)
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM prediction_logs WHERE prediction_id = :one"), {"one": ids[1]})
    assert len(seal_finished(store, PREDICTIONS, data_dir)) == 1
    assert checked(store, data_dir).missing == (str(ids[1]),)
    assert ingest(store, PREDICTIONS, data_dir, from_start=True).n_new == 1
    assert checked(store, data_dir).missing == ()
    with store.engine.begin() as connection:
        sealed = sealed_rows(list_seals(store, connection))
        found = {
            (PREDICTIONS.name, group.file, group.hour, group.model_version): (group.n_rows, group.sha256)
            for group in row_groups(connection, PREDICTIONS.name)
        }
    assert list(row_problems(sealed, found)) == []


def test_a_line_that_postgres_refuses_for_another_reason_is_named_and_the_others_are_compared(
    store: Store, data_dir: Path
) -> None:
    ids = journaled(data_dir, 1, 2, 3)
    (path,) = PREDICTIONS.files(data_dir)
    chunk = read_chunk(path, 0)
    ingest(store, PREDICTIONS, data_dir)
    refused = chunk.lines[1].replace(b",60.0,0.5,1,", b",60.0,0.5,3000000000,")
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM prediction_logs WHERE prediction_id = :one"), {"one": ids[2]})
    with journal_check(store) as check:
        check.begin()
        found = check.predictions(chunk.columns, (chunk.lines[0], refused, chunk.lines[2]), None)
    assert found.missing == (str(ids[2]),)
    (unreadable,) = found.unreadable
    assert unreadable.startswith(f"{ids[1]} (value ")
    assert "out of range" in unreadable
