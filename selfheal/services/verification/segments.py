"""Verification of journal files (segments): are they here and whole, and do their rows agree with their digests.

Belongs here: what is due, by positions and seals, against what is found. The lines themselves are compared with the
tables by `journaled`; how digests are computed and stored is `selfheal.adapters.postgres.journal_seals`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.adapters.journal import (
    LABEL_JOURNAL,
    file_key,
    finished_text,
    folder_id,
    prediction_journal,
    text_size,
)
from selfheal.adapters.postgres.ingest import Position, journal_positions, under_either_name
from selfheal.adapters.postgres.journal_seals import (
    SEGMENT,
    RowGroup,
    Seal,
    list_seals,
    row_groups,
    text_digests,
)
from selfheal.kit.errors import IntegrityError, InvalidDataError
from selfheal.services.verification.findings import Check, CheckResult

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

Key = tuple[str, str, datetime, int | None]
"""Journal, file, hour and version of a group of rows."""

State = tuple[int, str]
"""Number and digest of a group's rows."""

GONE: State = (0, "")


@dataclass(frozen=True)
class SealedRows:
    """What the seals say about rows.

    `states` has each state that a group was left in on purpose, the newest last: a replay brings deleted rows back.
    `problems` are deletions of rows that were not in such a state.
    """

    files: frozenset[tuple[str, str]]
    states: dict[Key, list[State]]
    problems: tuple[str, ...]


def check_segments(platform: Platform) -> CheckResult:
    """Each journal file that was copied: is it here, as long as it was, readable, and as it was sealed?"""
    check = Check("journal files")
    data_dir = platform.settings.data_dir
    elsewhere = 0
    for kind in (prediction_journal(platform.contract), LABEL_JOURNAL):
        sealed = text_digests(platform.store, kind)
        here = {file_key(path): path for path in kind.files(data_dir)}
        for file, position in sorted(journal_positions(platform.store, kind).items()):
            path = here.get(file)
            if path is None and _may_be_elsewhere(platform, position):
                elsewhere += 1
                continue
            with check.checking(f"{kind.name}/{file}"):
                _check_segment(path, position, sealed.get(file))
    if elsewhere:
        check.could_not(
            f"{elsewhere:,} journal files that were copied to this database are not in {data_dir / 'audit'}, but may be "
            "in the data folder of another host; run `selfheal verify` there"
        )
    return check.result()


def check_rows(platform: Platform) -> CheckResult:
    """Rows of sealed journal files against their digests, whether the files are here or not."""
    check = Check("rows of sealed journal files")
    store = platform.store
    with (
        check.checking("digests of rows", n_things=0),
        store.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
    ):
        sealed = sealed_rows(list_seals(store, connection))
        found: dict[Key, State] = {}
        for kind in (prediction_journal(platform.contract), LABEL_JOURNAL):
            for group in row_groups(connection, kind.name):
                found[_key(kind.name, group)] = (group.n_rows, group.sha256)
        check.found(sealed.problems)
        check.found(row_problems(sealed, found))
        check.n_checked = sum(state[0] for key, state in found.items() if key[:2] in sealed.files)
    return check.result()


def sealed_rows(seals: Iterable[Seal]) -> SealedRows:
    """Return what the seals, the oldest first, say about rows."""
    files: set[tuple[str, str]] = set()
    states: dict[Key, list[State]] = {}
    problems: list[str] = []
    for seal in seals:
        if seal.kind == SEGMENT:
            assert seal.file is not None
            files.add((seal.journal, seal.file))
            states |= {_key(seal.journal, group): [_state(group)] for group in seal.groups("rows")}
            continue
        after = {_key(seal.journal, group): _state(group) for group in seal.groups("after")}
        for group in seal.groups("before"):
            key = _key(seal.journal, group)
            if key[:2] not in files:
                continue  # not sealed yet then: its seal has what was left of it
            if _state(group) not in states.get(key, []):
                problems.append(f"{_named(key)} had been changed before retention deleted a part of them")
            states.setdefault(key, []).append(after.get(key, GONE))
    return SealedRows(frozenset(files), states, tuple(problems))


def row_problems(sealed: SealedRows, found: Mapping[Key, State]) -> Iterator[str]:
    """Yield each group of rows of a sealed file that is in no state that it was left in on purpose."""
    of_sealed_files = {key for key in found if key[:2] in sealed.files}
    for key in sorted(of_sealed_files | sealed.states.keys(), key=_named):
        now, known = found.get(key, GONE), sealed.states.get(key, [GONE])
        if now not in known:
            yield f"{_named(key)} do not agree with their digest: {now[0]:,} rows, sealed were {known[-1][0]:,}"


def _check_segment(path: Path | None, position: Position, sealed_sha256: str | None) -> None:
    """Check one file; the digest is that of its seal, None if it has none.

    Raises:
        IntegrityError: naming what is wrong with it.
    """
    rest = (
        "its rows in Postgres are checked against its digest"
        if sealed_sha256
        else "its rows cannot be checked without it"
    )
    try:
        text = None if path is None else under_either_name(finished_text, path)
        size = None if path is None else under_either_name(text_size, path)
    except (InvalidDataError, OSError) as error:
        raise IntegrityError(f"cannot be read: {error}; restore it from a backup ({rest})") from error
    if size is None:
        raise IntegrityError(f"is not there any more; put it back from a backup or an archive ({rest})")
    n_bytes = size if text is None else text.n_bytes  # a compressed file only says how long it is
    if n_bytes < position.byte_offset:
        raise IntegrityError(
            f"ends at byte {n_bytes:,}, but {position.byte_offset:,} were copied from it; "
            f"restore it from a backup ({rest})"
        )
    if sealed_sha256 is not None and (text is None or text.sha256 != sealed_sha256):
        raise IntegrityError("has changed since it was sealed; restore it from a backup")


def deleted_until(seals: Iterable[Seal]) -> datetime | None:
    """Return until when retention has deleted predictions, by its seals; None if it never has."""
    hours = [group.hour for seal in seals for group in seal.groups("before")]
    return max(hours) + timedelta(hours=1) if hours else None


def _may_be_elsewhere(platform: Platform, position: Position) -> bool:
    """Return whether another host may have the file: an embedded server has one data folder, its own."""
    if not platform.settings.has_external_database:
        return False
    return position.folder != folder_id(platform.settings.data_dir)


def _key(journal: str, group: RowGroup) -> Key:
    return (journal, group.file, group.hour, group.model_version)


def _state(group: RowGroup) -> State:
    return (group.n_rows, group.sha256)


def _named(key: Key) -> str:
    journal, file, hour, version = key
    of_version = "" if version is None else f", version {version}"
    return f"rows of {journal}/{file} (hour {hour:%Y-%m-%d %H:%M} UTC{of_version})"
