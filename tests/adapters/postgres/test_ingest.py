"""Journal to Postgres: exactly once, whatever is repeated, killed, damaged or late."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from selfheal.adapters import journal
from selfheal.adapters.journal import (
    COMPRESSED_SUFFIX,
    LABEL_COLUMNS,
    LABEL_JOURNAL,
    Journal,
    JournalKind,
    Record,
    compress,
    encode_lines,
    format_time,
    prediction_journal,
)
from selfheal.adapters.postgres import predictions
from selfheal.adapters.postgres.ingest import compress_copied, ingest, lag_bytes
from selfheal.adapters.postgres.predictions import FIRST_LABEL
from selfheal.adapters.postgres.store import Store
from selfheal.kit.ids import new_id
from tests.at_once import at_once
from tests.processes import REPOSITORY
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import MAX_BYTES, Sent, journal_labels, journal_predictions, toy_rows

PREDICTIONS = prediction_journal(contract)
MINUTE = timedelta(minutes=1)


def journaled(data_dir: Path, n_rows: int, seed: int = 1) -> Sent:
    rows = toy_rows(n_rows, seed)
    return journal_predictions(data_dir, contract, rows, np.random.default_rng(seed).random(n_rows))


def stored_ids(store: Store, table: str = "prediction_logs") -> list[UUID]:
    with store.engine.connect() as connection:
        return list(connection.execute(text(f"SELECT prediction_id FROM {table} ORDER BY prediction_id")).scalars())


def all_rows(store: Store, table: str) -> list[tuple[Any, ...]]:
    """Every column but the number of the file, which another copy numbers otherwise."""
    with store.engine.connect() as connection:
        rows = connection.execute(text(f"SELECT * FROM {table} ORDER BY prediction_id")).mappings()
        return [tuple(value for name, value in row.items() if name != "journal_segment") for row in rows]


def labels_of(store: Store) -> dict[UUID, int]:
    return {row[0]: row[1] for row in all_rows(store, "label_store")}


def empty(store: Store, *tables: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(tables)}"))


def test_every_journaled_prediction_is_copied_once_and_a_second_pass_reads_nothing(
    store: Store, data_dir: Path
) -> None:
    sent = journaled(data_dir, 300)
    assert lag_bytes(store, PREDICTIONS, data_dir) > 0
    first = ingest(store, PREDICTIONS, data_dir)
    second = ingest(store, PREDICTIONS, data_dir)
    assert (first.n_read, first.n_new) == (300, 300)
    assert (second.n_read, second.n_new) == (0, 0)
    assert stored_ids(store) == sorted(sent.prediction_ids)
    assert lag_bytes(store, PREDICTIONS, data_dir) == 0


def test_a_row_arrives_with_the_values_that_were_journaled(store: Store, data_dir: Path) -> None:
    sent = journaled(data_dir, 50)
    ingest(store, PREDICTIONS, data_dir)
    stored = {row[0]: row[1:] for row in all_rows(store, "prediction_logs")}
    for i, prediction_id in enumerate(sent.prediction_ids):
        meta, entity, features = stored[prediction_id][:7], stored[prediction_id][7], stored[prediction_id][8:]
        assert meta == (sent.created_at[i], 1, sent.predictions[i], sent.probabilities[i], 0.5, "test", 1.5)
        expected = [None if np.isnan(value) else value for value in sent.features.iloc[i]]
        assert list(features) == expected
        assert entity is None, "this contract has no key"


def test_lines_that_come_later_are_copied_from_where_the_last_pass_ended(store: Store, data_dir: Path) -> None:
    whole = journaled(data_dir, 20)
    path = PREDICTIONS.files(data_dir)[0]
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # it is in the middle of the last line
        assert ingest(store, PREDICTIONS, data_dir).n_new == 19
    path.write_bytes(data)
    assert ingest(store, PREDICTIONS, data_dir).n_read == 1
    assert stored_ids(store) == sorted(whole.prediction_ids)


def test_replaying_from_the_start_changes_nothing(store: Store, data_dir: Path) -> None:
    sent = journaled(data_dir, 100)
    journal_labels(data_dir, sent.prediction_ids, [0] * 100)
    journal_labels(data_dir, sent.prediction_ids[:10], [1] * 10, received_at=T0 + 90 * MINUTE, is_correction=True)
    for kind in (PREDICTIONS, LABEL_JOURNAL):
        ingest(store, kind, data_dir)
    before = all_rows(store, "prediction_logs"), all_rows(store, "label_store")
    replays = [ingest(store, kind, data_dir, from_start=True) for kind in (PREDICTIONS, LABEL_JOURNAL)]
    assert [replay.n_read for replay in replays] == [100, 110]
    assert [replay.n_new for replay in replays] == [0, 0]
    assert (all_rows(store, "prediction_logs"), all_rows(store, "label_store")) == before


def test_emptied_tables_are_refilled_from_the_journal(store: Store, data_dir: Path) -> None:
    sent = journaled(data_dir, 100)
    journal_labels(data_dir, sent.prediction_ids[:40], [0] * 40)
    journal_labels(data_dir, sent.prediction_ids[:10], [1] * 10, received_at=T0 + 90 * MINUTE, is_correction=True)
    for kind in (PREDICTIONS, LABEL_JOURNAL):
        ingest(store, kind, data_dir)
    before = all_rows(store, "prediction_logs"), all_rows(store, "label_store")
    empty(store, "prediction_logs", "label_store", "journal_positions")
    for kind in (PREDICTIONS, LABEL_JOURNAL):
        ingest(store, kind, data_dir)
    assert (all_rows(store, "prediction_logs"), all_rows(store, "label_store")) == before


def test_two_ingests_at_the_same_time_copy_each_row_once(open_again: Callable[[], Store], data_dir: Path) -> None:
    sent = [journaled(data_dir, 400, seed) for seed in range(4)]
    stores = [open_again(), open_again()]
    results = at_once([partial(ingest, store, PREDICTIONS, data_dir) for store in stores])
    assert sum(result.n_new for result in results) == 1_600
    assert stored_ids(stores[0]) == sorted(prediction_id for part in sent for prediction_id in part.prediction_ids)


def test_a_corrupt_line_is_left_out_and_reported_and_the_lines_after_it_are_copied(
    store: Store, data_dir: Path
) -> None:
    sent = journaled(data_dir, 10)
    path = PREDICTIONS.files(data_dir)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b",test,", b",tent,")  # line 0 is the header: this is the fourth prediction
    path.write_bytes(b"".join(lines))
    result = ingest(store, PREDICTIONS, data_dir)
    assert result.corrupt == [f"{path}: byte {sum(map(len, lines[:4]))}"]
    assert stored_ids(store) == sorted(set(sent.prediction_ids) - {sent.prediction_ids[3]})
    assert ingest(store, PREDICTIONS, data_dir).corrupt == []


def test_a_file_that_is_no_journal_is_reported_and_does_not_hold_up_the_others(store: Store, data_dir: Path) -> None:
    sent = journaled(data_dir, 10)
    (PREDICTIONS.folder(data_dir) / "0-notes.csv").write_text("remember,the,milk\n1,2,3\n")
    result = ingest(store, PREDICTIONS, data_dir)
    assert "0-notes.csv is not a journal file" in result.corrupt[0]
    assert stored_ids(store) == sorted(sent.prediction_ids)


def test_a_file_of_another_contract_is_reported_and_does_not_hold_up_the_others(store: Store, data_dir: Path) -> None:
    other = JournalKind("predictions", (*PREDICTIONS.columns, "horn_colour"))
    writer = Journal(other, data_dir, MAX_BYTES)
    writer.append([(str(new_id()), *(1 for _ in other.columns[1:]))])
    writer.close()
    sent = journaled(data_dir, 10)
    result = ingest(store, PREDICTIONS, data_dir)
    (reported,) = result.corrupt
    assert str(writer.path) in reported
    assert "horn_colour" in reported
    assert stored_ids(store) == sorted(sent.prediction_ids)
    assert lag_bytes(store, PREDICTIONS, data_dir) > 0, "what was not copied is not told to be"


def test_a_file_of_an_older_contract_is_copied_with_nothing_in_the_new_columns(store: Store, data_dir: Path) -> None:
    older = JournalKind("predictions", PREDICTIONS.columns[:-1])
    prediction_id = new_id()
    writer = Journal(older, data_dir, MAX_BYTES)
    writer.append([(str(prediction_id), format_time(T0), 1, 0, 0.25, 0.5, "test", 1.5, 60.0, 0.5, 1)])
    writer.close()
    assert ingest(store, PREDICTIONS, data_dir).n_new == 1
    (row,) = all_rows(store, "prediction_logs")
    assert row[0] == prediction_id
    assert row[-1] is None


def a_prediction(**changes: str | float) -> Record:
    values: dict[str, Any] = {
        "prediction_id": str(new_id()),
        "created_at": format_time(T0),
        "model_version": 1,
        "prediction": 0,
        "probability": 0.25,
        "threshold": 0.5,
        "request_source": "test",
        "latency_ms": 1.5,
    }
    values |= dict.fromkeys(contract.feature_names, 1)
    return tuple((values | changes).values())


def a_label(**changes: str | float) -> Record:
    now = format_time(T0)
    return tuple(
        (dict(zip(LABEL_COLUMNS, (str(new_id()), 1, now, now, "test", False, now), strict=True)) | changes).values()
    )


@pytest.mark.parametrize(
    ("kind", "make", "impossible"),
    [
        (
            PREDICTIONS,
            a_prediction,
            [
                {"probability": "NaN"},
                {"probability": 1.5},
                {"probability": ""},
                {"prediction_id": "not-an-id"},
                {"load_ratio": "plenty"},
                {"restarts": 3_000_000_000},
                {"created_at": "yesterday evening"},
            ],
        ),
        (LABEL_JOURNAL, a_label, [{"true_label": 7}, {"received_at": ""}, {"is_correction": "maybe"}]),
    ],
)
def test_a_sound_line_with_an_impossible_value_is_left_out_with_its_place_and_the_others_are_copied(
    store: Store,
    data_dir: Path,
    kind: JournalKind,
    make: Callable[..., Record],
    impossible: list[dict[str, str | float]],
) -> None:
    refused = [make(**changes) for changes in impossible]
    sound = [make() for _ in refused]
    writer = Journal(kind, data_dir, MAX_BYTES)
    writer.append([record for pair in zip(sound, refused, strict=True) for record in pair])
    writer.close()
    result = ingest(store, kind, data_dir)
    assert writer.path is not None
    starts = [writer.path.read_bytes().index(encode_lines([record])) for record in refused]
    assert [place.partition(" (")[0] for place in result.corrupt] == [f"{writer.path}: byte {at}" for at in starts]
    assert (result.n_read, result.n_new) == (2 * len(sound), len(sound))
    table = "prediction_logs" if kind is PREDICTIONS else "label_store"
    assert stored_ids(store, table) == sorted(UUID(str(record[0])) for record in sound)
    again = ingest(store, kind, data_dir)
    assert (again.n_read, again.corrupt) == (0, []), "it is told once"
    assert lag_bytes(store, kind, data_dir) == 0


def test_of_an_id_that_is_logged_twice_the_first_line_stays_even_beside_a_line_that_is_refused(
    store: Store, data_dir: Path
) -> None:
    """Two processes may log the same client's id; which answer is kept must not depend on the company it is in."""
    twice = str(new_id())
    writer = Journal(PREDICTIONS, data_dir, MAX_BYTES)
    first = a_prediction(prediction_id=twice, probability=0.25)
    second = a_prediction(prediction_id=twice, probability=0.75)
    writer.append([first, a_prediction(), second, a_prediction(probability="NaN")])
    writer.close()
    assert ingest(store, PREDICTIONS, data_dir).n_new == 2
    assert {row[0]: row[4] for row in all_rows(store, "prediction_logs")}[UUID(twice)] == 0.25


@pytest.mark.parametrize("torn_in", ["header", "first line", "last line"])
def test_a_file_torn_by_a_crash_is_counted_once_and_leaves_no_lag(store: Store, data_dir: Path, torn_in: str) -> None:
    sent = journaled(data_dir, 5)
    (path,) = PREDICTIONS.files(data_dir)
    whole = path.read_bytes()
    starts = [0, *(at + 1 for at, byte in enumerate(whole) if byte == ord("\n"))]
    line, n_kept = {"header": (0, 0), "first line": (1, 0), "last line": (5, 4)}[torn_in]
    path.write_bytes(whole[: starts[line] + 20])
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # alive: it may still finish the line
        assert ingest(store, PREDICTIONS, data_dir).n_torn == 0
        assert lag_bytes(store, PREDICTIONS, data_dir) == 20
        assert compress_copied(store, PREDICTIONS, data_dir) == []
    results = [ingest(store, PREDICTIONS, data_dir) for _ in range(3)]
    assert [result.n_torn for result in results] == [1, 0, 0]
    assert not any(result.corrupt for result in results)
    assert stored_ids(store) == sorted(sent.prediction_ids[:n_kept])
    assert lag_bytes(store, PREDICTIONS, data_dir) == 0
    (packed,) = compress_copied(store, PREDICTIONS, data_dir)
    replay = ingest(store, PREDICTIONS, data_dir, from_start=True)
    assert (replay.n_read, replay.n_torn, replay.corrupt) == (n_kept, 1, [])
    assert packed.suffix == COMPRESSED_SUFFIX
    assert lag_bytes(store, PREDICTIONS, data_dir) == 0


def test_only_what_is_finished_and_copied_is_compressed_and_a_replay_reads_it(store: Store, data_dir: Path) -> None:
    sent = journaled(data_dir, 200)
    assert compress_copied(store, PREDICTIONS, data_dir) == [], "nothing is copied yet"
    ingest(store, PREDICTIONS, data_dir)
    with PREDICTIONS.files(data_dir)[0].open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert compress_copied(store, PREDICTIONS, data_dir) == [], "somebody may still write it"
    assert len(compress_copied(store, PREDICTIONS, data_dir)) == 1
    assert compress_copied(store, PREDICTIONS, data_dir) == []
    assert [path.suffix for path in PREDICTIONS.files(data_dir)] == [COMPRESSED_SUFFIX]
    assert (lag_bytes(store, PREDICTIONS, data_dir), ingest(store, PREDICTIONS, data_dir).n_read) == (0, 0)
    before = all_rows(store, "prediction_logs")
    empty(store, "prediction_logs")
    assert ingest(store, PREDICTIONS, data_dir, from_start=True).n_new == 200
    assert all_rows(store, "prediction_logs") == before
    assert stored_ids(store) == sorted(sent.prediction_ids)


def test_a_compressed_file_that_is_damaged_is_reported_and_does_not_hold_up_the_others(
    store: Store, data_dir: Path
) -> None:
    damaged = journaled(data_dir, 10, seed=1)
    packed = compress(PREDICTIONS.files(data_dir)[0])
    packed.write_bytes(packed.read_bytes()[:100] + b"\xff\xff\xff\x00")
    sent = journaled(data_dir, 10, seed=2)
    (reported,) = ingest(store, PREDICTIONS, data_dir, from_start=True).corrupt
    assert f"{packed} is damaged" in reported
    assert stored_ids(store) == sorted(sent.prediction_ids)
    assert not set(damaged.prediction_ids) & set(stored_ids(store))


def compress_once(path: Path) -> None:
    if path.exists() and path.suffix != COMPRESSED_SUFFIX:
        compress(path)


@pytest.mark.parametrize("moment", ["text_size", "has_writer", "read_chunk"])
def test_a_replay_reads_a_file_that_another_process_compresses_under_it(
    store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from selfheal.adapters.postgres import ingest as module

    sent = [*journaled(data_dir, 50, 1).prediction_ids, *journaled(data_dir, 50, 2).prediction_ids]
    step = getattr(module, moment)

    def compressed_just_before(path: Path, *arguments: Any) -> Any:
        compress_once(path)
        return step(path, *arguments)

    monkeypatch.setattr(module, moment, compressed_just_before)
    assert ingest(store, PREDICTIONS, data_dir, from_start=True).n_new == 100
    assert stored_ids(store) == sorted(sent)


def test_the_lag_is_known_while_another_process_compresses(
    store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfheal.adapters.postgres import ingest as module

    journaled(data_dir, 50, 1)
    ingest(store, PREDICTIONS, data_dir)
    journaled(data_dir, 50, 2)
    expected = PREDICTIONS.files(data_dir)[1].stat().st_size

    def compressed_just_before(path: Path) -> int:
        compress_once(path)
        return journal.text_size(path)

    monkeypatch.setattr(module, "text_size", compressed_just_before)
    assert lag_bytes(store, PREDICTIONS, data_dir) == expected


def test_a_full_disk_puts_compression_off_and_harms_nothing(
    store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfheal.adapters.postgres import ingest as module

    def fails(path: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    journaled(data_dir, 5, 1)
    ingest(store, PREDICTIONS, data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(module, "compress", fails)
        assert compress_copied(store, PREDICTIONS, data_dir) == []
    assert len(compress_copied(store, PREDICTIONS, data_dir)) == 1


def test_a_crash_between_the_steps_of_a_compression_leaves_nothing_behind_for_long(
    store: Store, data_dir: Path
) -> None:
    journaled(data_dir, 20)
    ingest(store, PREDICTIONS, data_dir)
    (plain,) = PREDICTIONS.files(data_dir)
    text = plain.read_bytes()
    (packed,) = compress_copied(store, PREDICTIONS, data_dir)
    plain.write_bytes(text)
    assert PREDICTIONS.files(data_dir) == [packed], "read once"
    assert compress_copied(store, PREDICTIONS, data_dir) == []
    assert list(PREDICTIONS.folder(data_dir).iterdir()) == [packed]


def test_two_processes_may_compress_at_once(open_again: Callable[[], Store], data_dir: Path) -> None:
    for seed in range(6):
        journaled(data_dir, 20, seed)
    stores = [open_again(), open_again()]
    ingest(stores[0], PREDICTIONS, data_dir)
    at_once([partial(compress_copied, store, PREDICTIONS, data_dir) for store in stores])
    assert [path.suffix for path in PREDICTIONS.files(data_dir)] == [COMPRESSED_SUFFIX] * 6
    assert ingest(stores[0], PREDICTIONS, data_dir, from_start=True).n_read == 120
    assert not [path for path in PREDICTIONS.folder(data_dir).iterdir() if path.suffix != COMPRESSED_SUFFIX]


KILLED_IN_A_TRANSACTION = """
import sys
from pathlib import Path
from selfheal.domain.contract import load_contract
from selfheal.adapters.journal import prediction_journal
from selfheal.settings import load_settings
from selfheal.adapters.postgres import ingest
from selfheal.adapters.postgres.open import open_store

url, database, data_dir, root = sys.argv[1:]
sys.path.insert(0, root)
contract = load_contract("tests.toy_use_case:contract")
store = open_store(load_settings(database_url=url, mlops_db_name=database, data_dir=Path(data_dir)), contract)
save_position, files = ingest._save_position, []

def save_position_until_the_second_file(store, connection, kind, file, offset):
    files.append(file)
    if len(files) == 2:
        print("rows are in, the transaction is open", flush=True)
        sys.stdin.readline()
    save_position(store, connection, kind, file, offset)

ingest._save_position = save_position_until_the_second_file
ingest.ingest(store, prediction_journal(contract), Path(data_dir))
"""


def test_an_ingest_killed_half_way_loses_and_doubles_nothing(store: Store, data_dir: Path) -> None:
    sent = [journaled(data_dir, 100, seed) for seed in range(3)]
    arguments = [
        store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False),
        str(store.engine.url.database),
        str(data_dir),
        str(REPOSITORY),
    ]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_IN_A_TRANSACTION, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it ended before it was killed"
        process.kill()
    assert stored_ids(store) == sorted(sent[0].prediction_ids), "the second file's rows were not committed"
    again = ingest(store, PREDICTIONS, data_dir)
    assert (again.n_read, again.n_new) == (200, 200)
    assert stored_ids(store) == sorted(prediction_id for part in sent for prediction_id in part.prediction_ids)


def test_a_label_may_come_before_its_prediction(store: Store, data_dir: Path) -> None:
    early, late = new_id(), new_id()
    journal_labels(data_dir, [early], [1])
    ingest(store, LABEL_JOURNAL, data_dir)
    assert predictions.count_orphan_labels(store) == 1
    journal_predictions(data_dir, contract, toy_rows(2), np.array([0.2, 0.8]), prediction_ids=[early, late])
    ingest(store, PREDICTIONS, data_dir)
    assert predictions.count_orphan_labels(store) == 0
    assert predictions.count_labels(store) == (2, 1)


def test_a_label_of_an_id_nobody_issued_stays_an_orphan(store: Store, data_dir: Path) -> None:
    sent = journaled(data_dir, 3)
    journal_labels(data_dir, [*sent.prediction_ids, new_id()], [0, 1, 0, 1])
    for kind in (PREDICTIONS, LABEL_JOURNAL):
        ingest(store, kind, data_dir)
    assert predictions.count_orphan_labels(store) == 1
    assert predictions.count_labels(store) == (3, 3)


def test_a_second_label_changes_nothing_unless_it_is_a_correction(store: Store, data_dir: Path) -> None:
    prediction_id = new_id()
    for minute, label, is_correction, expected in (
        (0, 0, False, 0),
        (1, 1, False, 0),
        (2, 1, True, 1),
        (3, 0, False, 1),
        (4, 0, True, 0),
    ):
        received_at = T0 + minute * MINUTE
        journal_labels(data_dir, [prediction_id], [label], received_at=received_at, is_correction=is_correction)
        ingest(store, LABEL_JOURNAL, data_dir)
        assert labels_of(store) == {prediction_id: expected}, f"after minute {minute}"


def test_an_older_correction_that_is_copied_later_does_not_undo_a_newer_one(store: Store, data_dir: Path) -> None:
    prediction_id = new_id()
    for minute, label in ((9, 1), (5, 0)):
        journal_labels(data_dir, [prediction_id], [label], received_at=T0 + minute * MINUTE, is_correction=True)
        ingest(store, LABEL_JOURNAL, data_dir)
    assert labels_of(store) == {prediction_id: 1}


@pytest.mark.parametrize("copied_first", [0, 1])
def test_of_corrections_the_last_in_order_counts_whatever_the_wall_clock_said(
    store: Store, data_dir: Path, copied_first: int
) -> None:
    prediction_id = new_id()
    ahead, right = T0 + timedelta(days=2), T0 + MINUTE
    lines = [
        (str(prediction_id), label, format_time(at), format_time(at), "test", True, format_time(T0 + order * MINUTE))
        for label, at, order in ((1, ahead, 1), (0, right, 2))
    ]
    for line in (lines[copied_first], lines[1 - copied_first]):
        journal = Journal(LABEL_JOURNAL, data_dir, MAX_BYTES)
        journal.append([line])
        journal.close()
        ingest(store, LABEL_JOURNAL, data_dir)
    assert labels_of(store) == {prediction_id: 0}


def test_a_label_file_of_an_earlier_release_is_copied_as_ever(store: Store, data_dir: Path) -> None:
    prediction_id = new_id()
    earlier = JournalKind("labels", LABEL_COLUMNS[:-1])
    for minute, label in ((2, 1), (1, 0)):
        journal = Journal(earlier, data_dir, MAX_BYTES)
        at = format_time(T0 + minute * MINUTE)
        journal.append([(str(prediction_id), label, at, at, "test", True)])
        journal.close()
    assert ingest(store, LABEL_JOURNAL, data_dir).corrupt == []
    assert labels_of(store) == {prediction_id: 1}


@pytest.mark.parametrize("is_one_pass", [True, False])
@pytest.mark.parametrize("read_first", ["earlier", "later"])
def test_of_two_contradicting_labels_the_earlier_counts_whichever_is_read_first(
    store: Store, data_dir: Path, read_first: str, is_one_pass: bool
) -> None:
    prediction_id, agreeing = new_id(), new_id()
    story = [(0, 1), (1, 0)]  # minute received, label
    n_conflicts = 0
    for minute, label in story if read_first == "earlier" else reversed(story):
        at = T0 + minute * MINUTE
        journal_labels(data_dir, [prediction_id, agreeing], [label, 1], received_at=at)
        if not is_one_pass:
            n_conflicts += ingest(store, LABEL_JOURNAL, data_dir).n_conflicts
    n_conflicts += ingest(store, LABEL_JOURNAL, data_dir).n_conflicts
    assert labels_of(store) == {prediction_id: 1, agreeing: 1}
    assert n_conflicts == 1


def test_a_correction_settles_a_contradiction(store: Store, data_dir: Path) -> None:
    prediction_id = new_id()
    journal_labels(data_dir, [prediction_id], [1])
    journal_labels(data_dir, [prediction_id], [0], received_at=T0 + 90 * MINUTE, is_correction=True)
    result = ingest(store, LABEL_JOURNAL, data_dir)
    assert (labels_of(store), result.n_conflicts) == ({prediction_id: 0}, 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.booleans()), min_size=1, max_size=10),
    cuts=st.sets(st.integers(1, 9), max_size=3),
)
def test_labels_end_as_their_story_says_however_the_passes_cut_it(
    store: Store, tmp_path_factory: pytest.TempPathFactory, story: list[tuple[int, int, bool]], cuts: set[int]
) -> None:
    """The first label counts until the latest correction; in one file or several, in one pass or several, or replayed.

    So is what the first one was, and when it came, whatever their senders called them.
    """
    empty(store, "label_store", "journal_positions")
    folder = tmp_path_factory.mktemp("story")
    ids = [new_id() for _ in range(2)]
    expected: dict[UUID, int] = {}
    first: dict[UUID, tuple[datetime, int]] = {}
    journal = Journal(LABEL_JOURNAL, folder, MAX_BYTES)
    for minute, (which, label, is_correction) in enumerate(story):
        if minute in cuts:
            journal.close()
            ingest(store, LABEL_JOURNAL, folder)
        if is_correction or ids[which] not in expected:
            expected[ids[which]] = label
        when = format_time(T0 + minute * MINUTE)
        journal.append([(str(ids[which]), label, when, when, "test", is_correction, None)])
        first.setdefault(ids[which], (T0 + minute * MINUTE, label))
    journal.close()
    ingest(store, LABEL_JOURNAL, folder)
    assert (labels_of(store), first_labels_of(store)) == (expected, first)
    empty(store, "label_store", "journal_positions")
    for path in reversed(LABEL_JOURNAL.files(folder)):  # one file at a time, the newest first
        alone = tmp_path_factory.mktemp("alone") / path.relative_to(folder)
        alone.parent.mkdir(parents=True)
        shutil.copy(path, alone)
        ingest(store, LABEL_JOURNAL, alone.parents[2])
    assert (labels_of(store), first_labels_of(store)) == (expected, first)


def first_labels_of(store: Store) -> dict[UUID, tuple[datetime, int]]:
    query = f"SELECT prediction_id, to_jsonb({FIRST_LABEL.format(row='l')}) FROM label_store l"
    with store.engine.connect() as connection:
        found = connection.execute(text(query)).all()
    return {key: (datetime.fromisoformat(first["f1"]), first["f2"]) for key, first in found}
