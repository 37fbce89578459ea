"""Verification of journals against Postgres and training sets, in one pass, chunk by chunk, for journals of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.adapters.journal import (
    LABEL_JOURNAL,
    Chunk,
    JournalKind,
    file_key,
    has_writer,
    prediction_journal,
    read_chunk,
    text_size,
)
from selfheal.adapters.postgres.ingest import copied_positions, under_either_name
from selfheal.adapters.postgres.journal_audit import JournalCheck, journal_check
from selfheal.adapters.postgres.journal_seals import RETENTION, list_seals
from selfheal.domain.retraining.dataset import LOGGED, ORIGIN
from selfheal.kit.errors import InvalidDataError, PermanentError
from selfheal.services.verification.findings import Check, CheckResult
from selfheal.services.verification.segments import deleted_until

if TYPE_CHECKING:
    from selfheal.domain.retraining.dataset import TrainingSet
    from selfheal.services.platform import Platform

OnBytes = Callable[[int], None]

PREDICTION_COLUMN = "prediction_id"


@dataclass
class _Pass:
    """Results of the pass over the predictions so far."""

    platform: Platform
    retained_since: datetime | None
    missing: Check = field(default_factory=lambda: Check("predictions in the journal"))
    served: Check = field(default_factory=lambda: Check("versions in the journal"))
    first_at: datetime | None = None
    n_unknown: int = 0


def journal_bytes(platform: Platform) -> int:
    """Return the number of bytes of text in both journals, for a progress bar."""
    data_dir = platform.settings.data_dir
    kinds = (prediction_journal(platform.contract), LABEL_JOURNAL)
    return sum(under_either_name(text_size, path) or 0 for kind in kinds for path in kind.files(data_dir))


def check_journals(
    platform: Platform, snapshots: Mapping[str, Callable[[], TrainingSet]], on_bytes: OnBytes
) -> list[CheckResult]:
    """Run four checks of the journals.

    Predictions against the table, their versions against the promotions, the rows of training sets against the
    predictions, and labels against the table.

    Args:
        snapshots: loaders of training sets by display name; one set at a time is in memory. A set that does not load is
            omitted: `check_training_sets` reports why.
    """
    with journal_check(platform.store) as checking:
        of_rows = Check("rows of training sets in the journal")
        for number, (name, load) in enumerate(snapshots.items()):
            with of_rows.checking(name, n_things=0), suppress(PermanentError):
                _add_logged_rows(checking, number, load())
        checking.begin()
        seen = _Pass(platform, _kept_since(platform))
        _pass_predictions(checking, seen, on_bytes)
        _tell_snapshots(checking, list(snapshots), seen.first_at, of_rows)
        labels = _pass_labels(checking, platform, on_bytes)
    return [seen.missing.result(), seen.served.result(), of_rows.result(), labels.result()]


def _add_logged_rows(checking: JournalCheck, number: int, training_set: TrainingSet) -> None:
    frame = training_set.frame
    if PREDICTION_COLUMN in frame.columns:
        checking.add_snapshot(number, frame[frame[ORIGIN] == LOGGED])


def _pass_predictions(checking: JournalCheck, seen: _Pass, on_bytes: OnBytes) -> None:
    kind, check = prediction_journal(seen.platform.contract), seen.missing
    for chunk in _copied_chunks(seen.platform, kind, check, on_bytes):
        with check.checking("lines", len(chunk.lines)):
            found = checking.predictions(chunk.columns, chunk.lines, seen.retained_since)
            check.found(f"the line of prediction {one} is refused by Postgres" for one in found.unreadable)
            check.found(f"prediction {one} is in the journal but not in Postgres" for one in found.missing)
            seen.served.n_checked += len(chunk.lines)
            seen.served.found(f"prediction {one} is by a version that was not live then" for one in found.unserved)
            seen.n_unknown += found.n_unknown
            times = [moment for moment in (seen.first_at, found.first_at) if moment is not None]
            seen.first_at = min(times, default=None)
    if seen.n_unknown:
        seen.served.could_not(
            f"{seen.n_unknown:,} predictions are from before what went live when was recorded, by a version that may "
            "have been live then"
        )
    if checking.differing():
        for chunk in _copied_chunks(seen.platform, kind, Check("again"), lambda _: None):
            with check.checking("lines", n_things=0):
                checking.forgive_repeated(chunk.columns, chunk.lines)
    check.found(f"prediction {one} in Postgres differs from the journal" for one in checking.differing())


def _tell_snapshots(checking: JournalCheck, names: list[str], first_at: datetime | None, check: Check) -> None:
    for result in checking.snapshot_results():
        name = names[result.snapshot]
        check.n_checked += result.n_rows
        if result.n_differing:
            check.found([f"{result.n_differing:,} rows of {name} differ from the journal"])
        if result.n_missing == 0:
            continue
        if first_at is None or result.newest_missing_at < first_at:
            check.could_not(f"{result.n_missing:,} rows of {name} are older than the journal that is here")
        else:
            check.found([f"{result.n_missing:,} rows of {name} are not in the journal"])


def _pass_labels(checking: JournalCheck, platform: Platform, on_bytes: OnBytes) -> Check:
    check = Check("labels in the journal")
    for chunk in _copied_chunks(platform, LABEL_JOURNAL, check, on_bytes):
        with check.checking("lines", len(chunk.lines)):
            found = checking.labels(chunk.columns, chunk.lines)
            check.found(f"the line of the label of {one} is refused by Postgres" for one in found.unreadable)
            check.found(f"the label of {one} in Postgres is not what the journal makes it" for one in found.differing)
    return check


def _copied_chunks(platform: Platform, kind: JournalKind, check: Check, on_bytes: OnBytes) -> Iterator[Chunk]:
    """Yield the lines that were copied to Postgres; damaged ones, and files that cannot be read, are findings."""
    done = copied_positions(platform.store, kind)
    for path in kind.files(platform.settings.data_dir):
        offset, end = 0, done.get(file_key(path), 0)
        while offset < end:
            try:
                chunk = under_either_name(lambda path, offset=offset: read_chunk(path, offset), path)  # type: ignore[misc]
            except (InvalidDataError, OSError) as error:
                check.found([str(error)])
                break
            if chunk is None or chunk.end_offset <= offset:
                _tell_torn_end(check, path, offset, end)
                break
            check.found(f"damaged line in the journal: {place}" for place in chunk.corrupt)
            on_bytes(chunk.end_offset - offset)
            offset = chunk.end_offset
            copied = _up_to(chunk, end)
            if copied.lines:
                yield copied


def _tell_torn_end(check: Check, path: Path, offset: int, end: int) -> None:
    """Judge an incomplete last line: a crash tore it before it was acknowledged, or the file was cut after it was copied."""
    size = under_either_name(text_size, path)
    if size is None:
        check.found([f"{path} is not there any more"])
    elif size < end:
        check.found([f"{path} ends at byte {size:,}, but {end:,} were copied from it"])
    elif has_writer(path):
        check.could_not(f"{path} is being written at byte {offset:,}")


def _up_to(chunk: Chunk, end: int) -> Chunk:
    n_copied = sum(start < end for start in chunk.starts)
    return Chunk(chunk.columns, chunk.lines[:n_copied], chunk.starts[:n_copied], chunk.end_offset, ())


def _kept_since(platform: Platform) -> datetime | None:
    """Return the time from which every prediction must be in Postgres, labelled or not; None if all must."""
    days = platform.settings.predictions_retention_days
    by_setting = None if days is None else datetime.now(UTC) - timedelta(days=days)
    with platform.store.engine.connect() as connection:
        by_record = deleted_until(list_seals(platform.store, connection, RETENTION))
    return max((moment for moment in (by_setting, by_record) if moment is not None), default=None)
