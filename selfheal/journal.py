"""The append-only CSV audit trail, which is also the write-ahead log of predictions and labels.

A record is acknowledged once `Journal.append` has returned; Postgres is filled behind it by `selfheal.store.ingest`.
Each writer has a file of its own, opened anew at every start and never reopened, so a line torn by a crash can only be
the last of its file. The last column, `crc32`, is the checksum of the text before it.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from selfheal.contract import ModelContract
from selfheal.errors import InvalidDataError

CHECKSUM_COLUMN = "crc32"

PREDICTION_META_COLUMNS = (
    "prediction_id",
    "created_at",
    "model_version",
    "prediction",
    "probability",
    "threshold",
    "request_source",
    "latency_ms",
)
LABEL_COLUMNS = ("prediction_id", "true_label", "labelled_at", "received_at", "label_source", "is_correction")


@dataclass(frozen=True)
class JournalKind:
    """One of the two journals: its folder below DATA_DIR/audit and its columns, the checksum left out."""

    name: str
    columns: tuple[str, ...]

    def folder(self, data_dir: Path) -> Path:
        return data_dir / "audit" / self.name

    def files(self, data_dir: Path) -> list[Path]:
        """All files, the oldest first (names begin with the time they were opened)."""
        return sorted(self.folder(data_dir).glob("*.csv"))


def prediction_journal(contract: ModelContract) -> JournalKind:
    return JournalKind("predictions", (*PREDICTION_META_COLUMNS, *contract.feature_names))


LABEL_JOURNAL = JournalKind("labels", LABEL_COLUMNS)


class Journal:
    """One writer's end of a journal. Safe to use from several threads.

    Args:
        kind: which journal.
        data_dir: the platform's data folder.
        max_bytes: the size at which a file is closed and the next one opened.
    """

    def __init__(self, kind: JournalKind, data_dir: Path, max_bytes: int) -> None:
        self.kind = kind
        self._folder = kind.folder(data_dir)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._size = 0
        self.path: Path | None = None

    def append(self, records: Iterable[Sequence[str]]) -> None:
        """Writes the records (fields in the order of the kind's columns); on return they are on disk.

        Fields must not hold commas, quotes or line breaks: the doors see to that.

        Raises:
            OSError: if they could not be written or synced. The file is given up, the next append opens another.
        """
        data = b"".join(_line(record) for record in records)
        if not data:
            return
        with self._lock:
            if self._descriptor is None or self._size >= self._max_bytes:
                self._open_next()
            assert self._descriptor is not None
            try:
                _write_all(self._descriptor, data)
                os.fdatasync(self._descriptor)
            except OSError:
                self._close()
                raise
            self._size += len(data)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_next(self) -> None:
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)
        opened_at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        self.path = self._folder / f"{opened_at}-{os.getpid()}-{token_hex(4)}.csv"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        header = (",".join((*self.kind.columns, CHECKSUM_COLUMN)) + "\n").encode()
        _write_all(descriptor, header)
        os.fsync(descriptor)
        _sync_folder(self._folder)
        self._descriptor, self._size = descriptor, len(header)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole, checked lines of one file: `lines` without checksum and line break, `end_offset` where to read on."""

    columns: tuple[str, ...]
    lines: tuple[bytes, ...]
    end_offset: int
    corrupt: tuple[str, ...]


def read_chunk(path: Path, offset: int, max_bytes: int = 8_000_000) -> Chunk:
    """The next whole lines of a journal file, from `offset` (0: the beginning).

    A last line without its line break is still being written, or torn: it is left for the next call. A line whose
    checksum is wrong is left out and reported as `file: byte offset`; those after it are read all the same.

    Raises:
        InvalidDataError: if the file has no header of a journal.
    """
    with path.open("rb") as file:
        header = file.readline()
        names = header.decode("utf-8", "replace").rstrip("\n").split(",")
        if not header.endswith(b"\n") or names[-1] != CHECKSUM_COLUMN:
            if header.endswith(b"\n") or len(header) > max_bytes:
                raise InvalidDataError(f"{path} is not a journal file: its header is {header[:80]!r}")
            return Chunk((), (), 0, ())  # the writer has not finished the header yet
        position = max(offset, len(header))
        file.seek(position)
        data = file.read(max_bytes)
    whole = data[: data.rfind(b"\n") + 1]
    lines: list[bytes] = []
    corrupt: list[str] = []
    line_start = position
    for line in whole.splitlines(keepends=True):
        text, _, checksum = line[:-1].rpartition(b",")
        if checksum == _checksum(text):
            lines.append(text)
        else:
            corrupt.append(f"{path}: byte {line_start}")
        line_start += len(line)
    return Chunk(tuple(names[:-1]), tuple(lines), position + len(whole), tuple(corrupt))


def format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def format_number(value: float, kind: str) -> str:
    """A feature's value as journal text: exact for floats, no fraction for ints, empty for missing (NaN)."""
    if value != value:  # noqa: PLR0124  (only NaN differs from itself; math.isnan is slower on this path)
        return ""
    return str(int(value)) if kind == "int" else repr(float(value))


def _line(record: Sequence[str]) -> bytes:
    text = ",".join(record).encode()
    return text + b"," + _checksum(text) + b"\n"


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    """Makes a new file's name durable, not only its content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
