"""Whether the platform kept its word: Postgres and journals against what the clients were told.

Belongs here: comparing and counting; nothing is done to the platform but copying what is left.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from sqlalchemy import text

from benchmarks.crash.ordeal import ApiOutcome, Ordeal
from benchmarks.witness import SCORE_TOLERANCE, Acknowledged, Ledger, number_of
from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal, read_chunk
from selfheal.adapters.postgres.ingest import ingest, lag_bytes

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.services.platform import Platform


def verified(platform: Platform, ledger: Ledger, ordeal: Ordeal, data_dirs: Sequence[Path], began: float) -> ApiOutcome:
    """Copy what is left in the journals, and compare Postgres with what was acknowledged to clients.

    Then empty the table, replay the journals from their start, and compare again.
    """
    kind = prediction_journal(platform.contract)
    platform.prepare()
    for data_dir in data_dirs:
        for journal in (kind, LABEL_JOURNAL):
            ingest(platform.store, journal, data_dir)
    logged = logged_rows(platform)
    labels = logged_labels(platform)
    with platform.store.engine.begin() as connection:
        connection.execute(text("TRUNCATE prediction_logs"))
    replays = [ingest(platform.store, kind, data_dir, from_start=True) for data_dir in data_dirs]
    replayed = logged_rows(platform)
    twice = logged_twice(platform, data_dirs)
    on_full_disk = [ack for ack in ledger.acknowledged if ack.number in ordeal.disk_full_numbers]
    return ApiOutcome(
        kills=ordeal.kills,
        acknowledged=len(ledger.acknowledged),
        lost=n_lost(ledger.acknowledged, logged),
        duplicated=n_duplicated(logged) + n_duplicated(replayed),
        recovery_s_max=max(ordeal.cold_recovery_seconds),
        recovery_s_median=float(np.median(ordeal.cold_recovery_seconds)),
        recovery_warm_s_max=max(ordeal.warm_recovery_seconds),
        wrong_values=n_wrong(platform, ledger, logged, twice),
        labels_acknowledged=len(ledger.labels),
        labels_lost=sum(labels.get(prediction_id) != label for prediction_id, label in ledger.labels.items()),
        broken_requests=ledger.n_broken,
        retried=ledger.n_retried,
        asked_again=ledger.n_asked_again,
        retries_answered_differently=ledger.n_answered_differently,
        retried_twice_logged=len(twice),
        other_answers=ledger.n_other_answers,
        torn_files=ordeal.torn_files,
        torn_files_found=sum(replay.n_torn for replay in replays),
        damaged_lines=sum(len(replay.corrupt) for replay in replays),
        postgres_kills=ordeal.postgres_kills,
        postgres_away_s_max=ordeal.postgres_away_s_max,
        disk_full_by=ordeal.disk_full_by,
        disk_full_acknowledged=len(on_full_disk),
        disk_full_acknowledged_lost=n_lost(on_full_disk, logged),
        disk_full_refused=ordeal.disk_full_refused,
        disk_full_acknowledged_meanwhile=ordeal.disk_full_acknowledged_meanwhile,
        disk_full_files_added=ordeal.disk_full_files_added,
        disk_full_recovery_s=ordeal.disk_full_recovery_s,
        eio_refused=ordeal.eio_refused,
        eio_acknowledged_after=ordeal.eio_acknowledged_after,
        eio_said_ready=ordeal.eio_said_ready,
        eio_synced_again=ordeal.eio_synced_again,
        replay_lost=n_lost(ledger.acknowledged, replayed),
        replay_differences=n_different(logged, replayed, twice),
        journal_files=sum(len(kind.files(data_dir)) for data_dir in data_dirs),
        lag_bytes_at_end=sum(lag_bytes(platform.store, kind, data_dir) for data_dir in data_dirs),
        minutes=(time.monotonic() - began) / 60,
    )


def logged_rows(platform: Platform) -> pd.DataFrame:
    """`prediction_logs` by prediction id, every column as Postgres has it, numbers to their last bit."""
    import pandas as pd

    with platform.store.engine.connect() as connection:
        cursor = connection.connection.cursor()
        with cursor.copy("COPY prediction_logs TO STDOUT (FORMAT csv, HEADER)") as copy:
            data = b"".join(copy)
    return pd.read_csv(io.BytesIO(data), float_precision="round_trip").set_index("prediction_id").sort_index()


def logged_labels(platform: Platform) -> dict[str, int]:
    """Return the logged labels by prediction id."""
    with platform.store.engine.connect() as connection:
        rows = connection.execute(text("SELECT prediction_id, true_label FROM label_store"))
        return {str(row.prediction_id): row.true_label for row in rows}


def n_lost(acknowledged: Sequence[Acknowledged], logged: pd.DataFrame) -> int:
    """Return how many acknowledged predictions are not logged."""
    known = set(logged.index)
    return sum(ack.prediction_id not in known for ack in acknowledged)


def n_duplicated(logged: pd.DataFrame) -> int:
    """Rows beyond the first of what was asked once."""
    return len(logged) - logged["request_source"].nunique() + int(logged.index.duplicated().sum())


def n_wrong(platform: Platform, ledger: Ledger, logged: pd.DataFrame, twice: set[str]) -> int:
    """Acknowledged rows that are logged under another question or with other values than were answered and asked.

    All to the last bit, but for the probability of an id that two processes scored: whom a row is scored with may change it
    by rounding, and of two lines the log keeps the first.
    """
    import pandas as pd

    told = pd.DataFrame([asdict(ack) for ack in ledger.acknowledged]).set_index("prediction_id")
    found = logged.loc[logged.index.intersection(told.index)]
    told = told.loc[found.index]
    is_wrong = found["request_source"].map(number_of).to_numpy() != told["number"].to_numpy()
    for name in ("prediction", "threshold", "model_version"):
        is_wrong |= found[name].to_numpy() != told[name].to_numpy()
    allowed = np.where(found.index.isin(sorted(twice)), SCORE_TOLERANCE, 0.0)
    is_wrong |= ~(np.abs(found["probability"].to_numpy() - told["probability"].to_numpy()) <= allowed)
    contract = platform.contract
    inputs = np.array([[row[name] for name in contract.input_names] for row in ledger.rows], dtype=np.float64)
    matrix = contract.matrix(dict(zip(contract.input_names, inputs.T, strict=True)))
    expected = matrix[told["number"].to_numpy() % len(ledger.rows)]
    features = found[list(contract.feature_names)].to_numpy(dtype=np.float64)
    is_wrong |= ~((features == expected) | (np.isnan(features) & np.isnan(expected))).all(axis=1)
    return int(is_wrong.sum())


def n_different(logged: pd.DataFrame, replayed: pd.DataFrame, twice: set[str]) -> int:
    """Rows that a replay makes otherwise. Of an id that two processes logged either line may stay: they differ in when."""
    once = logged.index.difference(sorted(twice))
    when = ["created_at", "latency_ms", "journal_segment"]
    if not logged.index.equals(replayed.index):
        return len(logged.index.symmetric_difference(replayed.index))
    differs = logged.drop(columns=when).compare(replayed.drop(columns=when))
    differs_in_time = logged.loc[once, when].compare(replayed.loc[once, when])
    return len(differs.index.union(differs_in_time.index))


def logged_twice(platform: Platform, data_dirs: Sequence[Path]) -> set[str]:
    """Ids that are in more than one line of the journals."""
    return {prediction_id for prediction_id, n in journal_lines(platform, data_dirs).items() if n > 1}


def journal_lines(platform: Platform, data_dirs: Sequence[Path]) -> Counter[str]:
    """Return in how many lines of the prediction journals each id is."""
    kind = prediction_journal(platform.contract)
    n_lines: Counter[bytes] = Counter()
    for data_dir in data_dirs:
        for path in kind.files(data_dir):
            offset = -1
            while (chunk := read_chunk(path, max(0, offset))).end_offset > offset:
                n_lines.update(line.partition(b",")[0] for line in chunk.lines)
                offset = chunk.end_offset
    return Counter({str(UUID(prediction_id.decode())): n for prediction_id, n in n_lines.items()})
