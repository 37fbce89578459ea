"""Journal: the append-only CSV audit trail, which is also the write-ahead log of predictions and labels.

A record is acknowledged once `Journal.append` has returned; `selfheal.adapters.postgres.ingest` copies it to Postgres
later. Each writer creates its own file at every start and never reopens it, so a line torn by a crash can only be the last
of its file. The last column, `crc32`, is the checksum of the text before it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Literal, TypeAlias, cast

import numpy as np
import orjson

from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import FloatArray, ModelContract
from selfheal.domain.levels import escaped, unescaped
from selfheal.kit.atomic_file import atomic_file, sync_folder, write_once
from selfheal.kit.errors import InvalidDataError, JournalUnavailableError

CHECKSUM_COLUMN = "crc32"
COMPRESSED_SUFFIX = ".gz"

MAX_FILE_SECONDS = 24 * 3600.0
"""Age at which a file is closed and the next one opened, so that it is sealed within a day or so, however little is
written to it."""

TAIL_BYTES = 8_000_000
"""Bytes at the end of a file that `last_lines` reads."""

TAIL_LINES = 20_000
"""Newest records that a process reads when it starts: those that Postgres may not have yet."""

Field: TypeAlias = str | float | int | bool | None
Record: TypeAlias = Sequence[Field]
"""One line's fields. Text has no commas, quotes, backslashes or control characters: requests with such text are refused, and
levels of a category escaped (`level_values`). None and NaN mean missing."""

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
LABEL_COLUMNS = (
    "prediction_id",
    "true_label",
    "labelled_at",
    "received_at",
    "label_source",
    "is_correction",
    "ordered_at",  # files of earlier releases end before it
)


@dataclass(frozen=True)
class JournalKind:
    """One of the two journals: its folder below DATA_DIR/audit and its columns, without the checksum."""

    name: str
    columns: tuple[str, ...]

    def folder(self, data_dir: Path) -> Path:
        """Return the folder of its files."""
        return data_dir / "audit" / self.name

    def files(self, data_dir: Path) -> list[Path]:
        """Return all files, compressed or not, oldest first (names begin with the time of creation)."""
        found = {
            file_key(path): path for pattern in ("*.csv", "*.csv.gz") for path in self.folder(data_dir).glob(pattern)
        }
        return [found[key] for key in sorted(found)]


def prediction_journal(contract: ModelContract) -> JournalKind:
    """Return the journal of predictions under this contract."""
    entity = (ENTITY,) if contract.has_entity_key else ()
    return JournalKind("predictions", (*PREDICTION_META_COLUMNS, *entity, *contract.feature_names))


LABEL_JOURNAL = JournalKind("labels", LABEL_COLUMNS)


def folder_id(data_dir: Path) -> str:
    """Return the identity of a data folder, made at its first use: it tells whose files are missing where.

    The folder keeps it when it is moved or restored. Hosts that share a Postgres have data folders of their own.
    """
    return write_once(data_dir / "audit" / ".folder", token_hex(8).encode()).decode()


FsyncMode: TypeAlias = Literal["always", "interval", "off"]
"""When appended lines are forced to disk: before `append` returns, whenever `sync` is called, or never."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a full disk, which are temporary; any other error while writing or syncing means a faulty disk."""


class Journal:
    """One writer's end of a journal. Safe to use from several threads.

    The writer locks its file while it may append, so that readers can distinguish a line being written from one torn by a
    crash, and so that no process compresses a file in use.

    Args:
        kind: which journal.
        data_dir: the platform's data folder.
        max_bytes: the size at which a file is closed and the next one opened.
        fsync: `always`: on return from `append` the records are on disk. `interval`: they are in the operating system's
            cache (and survive a crash of the process), and `sync` writes them to disk. `off`: the operating system decides.
    """

    def __init__(self, kind: JournalKind, data_dir: Path, max_bytes: int, fsync: FsyncMode = "always") -> None:
        self.kind = kind
        self._header = (",".join((*kind.columns, CHECKSUM_COLUMN)) + "\n").encode()
        self._folder = kind.folder(data_dir)
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._size = 0
        self._opened_at = 0.0
        self._has_unsynced = False
        self.path: Path | None = None
        self.failure: str | None = None
        """Why this journal accepts no more records, after its disk has failed."""

    def append(self, records: Sequence[Record]) -> None:
        """Write the records (fields in the order of the kind's columns) as lines (`encode_lines`).

        Raises: as `write`.
        """
        if records:
            self.write(encode_lines(records))

    def write(self, lines: bytes) -> None:
        """Write encoded lines; on return they are as durable as `fsync` says.

        Raises:
            JournalUnavailableError: if the write failed; then none of the lines counts as written. The file is abandoned
                and never synced again, because after a failed sync its pages may be lost without another error. After a
                full disk the next call tries again with another file; any other failure is final.
        """
        with self._lock:
            if self.failure is not None:
                raise JournalUnavailableError(self.failure)
            if self._descriptor is None or self._is_full():
                self._open_next()
            assert self._descriptor is not None
            with self._giving_up_on_error():
                self._write_whole(self._descriptor, lines)
                if self._fsync == "always":
                    os.fdatasync(self._descriptor)
            self._has_unsynced = self._fsync == "interval"
            self._size += len(lines)

    def sync(self) -> None:
        """Write to disk what `interval` has left in the operating system's cache, and close a file that is old.

        Raises: as `write`.
        """
        with self._lock:
            if self._descriptor is not None and self._has_unsynced:
                with self._giving_up_on_error():
                    os.fdatasync(self._descriptor)
                self._has_unsynced = False
            if self._descriptor is not None and self._is_old():
                self._close()  # where nothing is written any more, too: a file is sealed once it is closed

    def probe(self) -> None:
        """Check that a file can be opened and written, as the next `write` would.

        Raises: as `write`.
        """
        with self._lock:
            if self.failure is not None:
                raise JournalUnavailableError(self.failure)
            if self._descriptor is None:
                self._open_next()

    def close(self) -> None:
        """Sync if necessary, and release the file, so that readers see that it is finished."""
        with contextlib.suppress(JournalUnavailableError):
            self.sync()
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._has_unsynced = False

    def _is_full(self) -> bool:
        return self._size >= self._max_bytes or self._is_old()

    def _is_old(self) -> bool:
        return time.monotonic() - self._opened_at >= MAX_FILE_SECONDS

    def _write_whole(self, descriptor: int, lines: bytes) -> None:
        try:
            _write_all(descriptor, lines)
        except OSError as error:
            if error.errno in NO_ROOM and self._has_unsynced:
                os.fdatasync(descriptor)  # the file is abandoned, but its lines were acknowledged
            raise

    def _open_next(self) -> None:
        """Open the next file; its header and its name are on disk before the first record.

        It gets its name only after its lock and its header, because a visible file without the lock counts as finished
        and would be compressed and removed.
        """
        if self._descriptor is not None and self._has_unsynced:
            with self._giving_up_on_error():
                os.fdatasync(self._descriptor)
        self._close()
        opened_at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        path = self._folder / f"{opened_at}-{os.getpid()}-{token_hex(4)}.csv"
        unnamed = path.with_name(f".{path.name}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            _write_all(self._descriptor, self._header)
            os.fsync(self._descriptor)
            unnamed.rename(path)
            sync_folder(self._folder)
        except OSError as error:
            self._close()
            for empty in (unnamed, path):  # on a full disk every attempt would leave another empty file
                with contextlib.suppress(OSError):
                    empty.unlink(missing_ok=True)
            if error.errno == errno.EIO:
                self.failure = _disk_failure(path, error)
            reason = self.failure or f"no journal file can be opened in {self._folder}: {error.strerror}"
            raise JournalUnavailableError(reason) from error
        self.path, self._size, self._opened_at = path, len(self._header), time.monotonic()

    @contextlib.contextmanager
    def _giving_up_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            assert self._descriptor is not None and self.path is not None
            if error.errno in NO_ROOM:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)  # lines that were not acknowledged must not be read
                    if self._size == len(self._header):
                        self.path.unlink()  # or files without a record would pile up
            else:
                self.failure = _disk_failure(self.path, error)
            self._close()
            raise JournalUnavailableError(self.failure or f"{self.path}: {error.strerror}") from error


def _disk_failure(path: Path, error: OSError) -> str:
    return (
        f"the disk failed while {path} was written ({error.strerror}); nothing is acknowledged until the disk has been "
        "checked and the service restarted"
    )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Complete, checked lines of one file.

    `lines` are without checksum and line break, `starts` are their byte offsets; `end_offset` is where the next read starts.
    """

    columns: tuple[str, ...]
    lines: tuple[bytes, ...]
    starts: tuple[int, ...]
    end_offset: int
    corrupt: tuple[str, ...]


def read_chunk(path: Path, offset: int, max_bytes: int = 8_000_000) -> Chunk:
    """Read the next complete lines of a journal file from byte `offset` on (of the text, if the file is compressed).

    A last line without a line break is still being written, or torn: it is left for the next call. A line with a wrong
    checksum is skipped and reported as `file: byte offset`; the lines after it are read.

    Raises:
        InvalidDataError: if the file has no journal header, or is a damaged compressed file.
    """
    with _text(path) as file:
        header = file.readline(max_bytes)
        names = header.decode("utf-8", "replace").rstrip("\n").split(",")
        if not header.endswith(b"\n") or names[-1] != CHECKSUM_COLUMN:
            if header.endswith(b"\n") or len(header) >= max_bytes:
                raise InvalidDataError(f"{path} is not a journal file: its header is {header[:80]!r}")
            return Chunk((), (), (), 0, ())  # the writer has not finished the header yet
        position = max(offset, len(header))
        file.seek(position)
        data = file.read(max_bytes)
    whole = data[: data.rfind(b"\n") + 1]
    lines: list[bytes] = []
    starts: list[int] = []
    corrupt: list[str] = []
    line_start = position
    for line in whole.split(b"\n")[:-1]:  # at nothing else: a line feed may be what is damaged
        text, _, checksum = line.rpartition(b",")
        if checksum == b"%08x" % zlib.crc32(text):
            lines.append(text)
            starts.append(line_start)
        else:
            corrupt.append(f"{path}: byte {line_start}")
        line_start += len(line) + 1
    return Chunk(tuple(names[:-1]), tuple(lines), tuple(starts), position + len(whole), tuple(corrupt))


def last_lines(kind: JournalKind, data_dir: Path, max_lines: int) -> list[dict[str, str]]:
    """Return the newest undamaged records of the files that are not yet compressed, oldest first.

    Raises:
        InvalidDataError: if a file in the folder is not a journal file.
    """
    found: list[dict[str, str]] = []
    for path in reversed(kind.files(data_dir)):
        if len(found) >= max_lines:
            break
        if path.suffix == COMPRESSED_SUFFIX:
            continue  # a file that was opened before it may still be in use
        try:
            chunk = read_chunk(path, max(0, path.stat().st_size - TAIL_BYTES))
        except FileNotFoundError:  # it has just been compressed, so Postgres has it
            continue
        newest = [
            dict(zip(chunk.columns, map(unescaped, line.decode().split(",")), strict=True))
            for line in chunk.lines[-max_lines:]
        ]
        found = newest + found
    return found[-max_lines:]


def file_key(path: Path) -> str:
    """Return a journal file's name, which is the same before and after it is compressed."""
    return path.name.removesuffix(COMPRESSED_SUFFIX)


def compressed_path(path: Path) -> Path:
    """Return the path of the compressed file."""
    return path.with_name(file_key(path) + COMPRESSED_SUFFIX)


def text_size(path: Path) -> int:
    """Return the bytes of text in a journal file; for a compressed one, from its trailer."""
    size = path.stat().st_size
    if path.suffix != COMPRESSED_SUFFIX or size < 4:
        return size
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        (n_bytes,) = struct.unpack("<I", file.read(4))
        return int(n_bytes)


def has_writer(path: Path) -> bool:
    """Return whether a process may still append to the file."""
    if path.suffix == COMPRESSED_SUFFIX:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@dataclass(frozen=True, slots=True)
class FinishedText:
    """The text of a file that has no writer: its length and its sha256, the same before and after it is compressed."""

    n_bytes: int
    sha256: str


def finished_text(path: Path) -> FinishedText | None:
    """Return what the text of a finished file is; None if some process may still append to it.

    Raises:
        InvalidDataError: if the file is compressed and damaged.
    """
    if has_writer(path):
        return None
    digest, n_bytes = hashlib.sha256(), 0
    with _text(path) as file:
        while piece := file.read(1_000_000):
            digest.update(piece)
            n_bytes += len(piece)
    return FinishedText(n_bytes, digest.hexdigest())


def compress(path: Path) -> Path:
    """Replace a file without a writer by a compressed one; return its path. At every moment one of the two is complete.

    Raises:
        OSError: if there is no space; the file is unchanged.
    """
    target = compressed_path(path)
    with (
        path.open("rb") as source,
        atomic_file(target, is_durable=True) as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, 1_000_000)
    path.unlink(missing_ok=True)  # another process may have compressed it, too
    return target


def encode_lines(records: Sequence[Record]) -> bytes:
    """Return the records as journal lines with checksums. Floats are exact; None and NaN are empty fields.

    One JSON call formats all records: an array of numbers without its brackets is a CSV line. `null` and the end of a record
    cannot be confused with text, which is still quoted at that point.
    """
    text = orjson.dumps(records)[2:-2].replace(b",null", b",").replace(b"],[", b"\n").replace(b'"', b"")
    lines = text.split(b"\n")
    n_commas = len(records) * (len(records[0]) - 1)
    assert b"\\" not in text, "text for the journal holds a quote, a backslash or a control character"
    assert len(lines) == len(records) and text.count(b",") == n_commas, "text for the journal holds a comma"
    crc32 = zlib.crc32
    return b"".join([b"%b,%08x\n" % (line, crc32(line)) for line in lines])


def level_values(levels: Iterable[object]) -> list[Field]:
    """Return levels of a category (None: missing) as journal fields, without the characters that a field cannot hold."""
    return [None if level is None else escaped(str(level)) for level in levels]


def column_values(values: FloatArray, kind: str) -> list[Field]:
    """Return a feature's values (NaN: missing) as journal fields: without a fraction for an `int`, true or false for a `bool`."""
    if kind == "bool":
        return [None if value != value else value == 1.0 for value in values.tolist()]  # noqa: PLR0124
    if kind == "int" and not np.isnan(values).any():
        return list(values.astype(np.int64).tolist())
    floats: list[float] = values.tolist()
    if kind == "int":
        return [int(value) if value == value else None for value in floats]  # noqa: PLR0124  (only NaN differs from itself)
    if np.isinf(values).any():  # JSON has no infinity and would write it as missing
        return [str(value) if np.isinf(value) else value for value in floats]
    return list[Field](floats)


def format_time(moment: datetime) -> str:
    """Return a time in the journal's format: ISO 8601 in UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@contextlib.contextmanager
def _text(path: Path) -> Iterator[BinaryIO]:
    """Open the file's text, decompressed if necessary."""
    with path.open("rb") as raw:
        if path.suffix != COMPRESSED_SUFFIX:
            yield raw
            return
        try:
            with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InvalidDataError(f"{path} is damaged and cannot be unpacked: {error}") from error


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
