"""Rules of the journal: what was acknowledged can be read, whatever happens to process, disk or file."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfheal.adapters.journal import (
    CHECKSUM_COLUMN,
    LABEL_COLUMNS,
    LABEL_JOURNAL,
    FsyncMode,
    Journal,
    JournalKind,
    column_values,
    compress,
    encode_lines,
    file_key,
    folder_id,
    format_time,
    has_writer,
    last_lines,
    prediction_journal,
    read_chunk,
    text_size,
)
from selfheal.kit.errors import InvalidDataError, JournalUnavailableError
from tests.disk import Disk
from tests.times import T0
from tests.toy_use_case import contract

KIND = JournalKind("things", ("key", "value"))
NO_ROTATION = 1_000_000_000


def written(folder: Path, *records: tuple[str, str]) -> Path:
    """A closed journal file of `KIND`."""
    journal = Journal(KIND, folder, NO_ROTATION)
    journal.append(records)
    journal.close()
    assert journal.path is not None
    return journal.path


def lines_of(folder: Path) -> list[bytes]:
    """Every sound line of every file, oldest file first."""
    return [line for path in KIND.files(folder) for line in read_chunk(path, 0).lines]


def test_a_file_is_closed_after_a_day_however_little_is_written_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then no digest covers its rows."""
    now = 1_000.0
    monkeypatch.setattr("selfheal.adapters.journal.time.monotonic", lambda: now)
    journal = Journal(KIND, tmp_path, NO_ROTATION)
    for seconds, n_files in ((0, 1), (24 * 3600 - 1, 1), (24 * 3600, 2)):
        now = 1_000.0 + seconds
        journal.append([("a", "1")])
        assert len(KIND.files(tmp_path)) == n_files
    journal.sync()
    assert has_writer(KIND.files(tmp_path)[-1])
    now += 24 * 3600
    journal.sync()
    assert not has_writer(KIND.files(tmp_path)[-1]), "although nothing more is written"
    journal.close()


def test_a_data_folder_keeps_its_identity(tmp_path: Path) -> None:
    first = folder_id(tmp_path / "data")
    assert folder_id(tmp_path / "data") == first
    assert folder_id(tmp_path / "other") != first
    (tmp_path / "data").rename(tmp_path / "moved")
    assert folder_id(tmp_path / "moved") == first


def test_records_come_back_in_order(tmp_path: Path) -> None:
    chunk = read_chunk(written(tmp_path, ("a", "1"), ("b", ""), ("ü", "3")), 0)
    assert chunk.columns == KIND.columns
    assert chunk.lines == (b"a,1", b"b,", "ü,3".encode())
    assert chunk.corrupt == ()


def test_a_file_is_its_writers_before_anybody_can_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen without its writer's lock it would pass for finished: it would be compressed and removed while it is written."""
    taking_the_lock = fcntl.flock
    seen: list[list[Path]] = []

    def look_and_lock(descriptor: int, how: int) -> None:
        seen.append(KIND.files(tmp_path))
        taking_the_lock(descriptor, how)

    monkeypatch.setattr("selfheal.adapters.journal.fcntl.flock", look_and_lock)
    journal = Journal(KIND, tmp_path, NO_ROTATION)
    journal.append([("a", "1")])
    assert seen == [[]]
    assert journal.path is not None
    assert KIND.files(tmp_path) == [journal.path]
    monkeypatch.undo()
    assert has_writer(journal.path)
    journal.close()


def test_a_busy_compressor_takes_nothing_from_writers(tmp_path: Path) -> None:
    """Two threads write 200 files of a record each while two others compress whatever has no writer."""
    folder = KIND.folder(tmp_path)
    folder.mkdir(parents=True)
    is_over = threading.Event()

    def compress_all() -> None:
        while not is_over.is_set():
            for path in folder.glob("*.csv"):
                with suppress(FileNotFoundError):
                    if not has_writer(path):
                        compress(path)

    def write_many(name: str) -> None:
        journal = Journal(KIND, tmp_path, max_bytes=1)
        for i in range(200):
            journal.append([(name, str(i))])
        journal.close()

    compressors = [threading.Thread(target=compress_all) for _ in range(2)]
    writers = [threading.Thread(target=write_many, args=(name,)) for name in "ab"]
    for thread in (*compressors, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    is_over.set()
    for thread in compressors:
        thread.join()
    assert sorted(lines_of(tmp_path)) == sorted(b"%b,%d" % (name, i) for name in (b"a", b"b") for i in range(200))


def test_the_file_is_a_plain_csv_with_a_header(tmp_path: Path) -> None:
    first, second = written(tmp_path, ("a", "1")).read_text().splitlines()
    assert first == f"key,value,{CHECKSUM_COLUMN}"
    assert second.rpartition(",")[0] == "a,1"


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = Journal(KIND, tmp_path, NO_ROTATION)
    journal.append([("a", "1")])
    assert journal.path is not None
    first = read_chunk(journal.path, 0)
    assert read_chunk(journal.path, first.end_offset).lines == ()
    journal.append([("b", "2"), ("c", "3")])
    second = read_chunk(journal.path, first.end_offset)
    journal.close()
    assert second.lines == (b"b,2", b"c,3")
    assert second.end_offset == journal.path.stat().st_size


def test_a_file_longer_than_one_chunk_is_read_in_pieces(tmp_path: Path) -> None:
    records = [(str(i), "x" * (i % 7)) for i in range(200)]
    path = written(tmp_path, *records)
    found: list[bytes] = []
    offset, n_chunks = 0, 0
    while (chunk := read_chunk(path, offset, max_bytes=64)).lines:
        found += chunk.lines
        offset, n_chunks = chunk.end_offset, n_chunks + 1
    assert found == [",".join(record).encode() for record in records]
    assert n_chunks > 10


def test_a_torn_last_line_is_left_for_the_next_call(tmp_path: Path) -> None:
    path = written(tmp_path, ("a", "1"), ("b", "2"))
    whole = path.read_bytes()
    second_line = whole.rindex(b"b,2")
    for end in range(second_line, len(whole)):
        path.write_bytes(whole[:end])
        chunk = read_chunk(path, 0)
        assert (chunk.lines, chunk.end_offset, chunk.corrupt) == ((b"a,1",), second_line, ())
    path.write_bytes(whole)
    assert read_chunk(path, second_line).lines == (b"b,2",)


def test_a_header_that_is_still_being_written_is_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "half.csv"
    for header in (b"", b"key,va", b"key,value,crc32"):
        path.write_bytes(header)
        assert read_chunk(path, 0).lines == ()
        assert read_chunk(path, 0).end_offset == 0


def test_a_file_that_is_no_journal_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("key,value\na,1\n")
    with pytest.raises(InvalidDataError, match=r"other\.csv is not a journal file: its header is b'key,value"):
        read_chunk(path, 0)


def test_a_damaged_line_is_reported_with_its_place_and_those_after_it_survive(tmp_path: Path) -> None:
    path = written(tmp_path, ("a", "1"), ("b", "2"), ("c", "3"))
    content = path.read_bytes()
    place = content.index(b"b,2")
    path.write_bytes(content.replace(b"b,2", b"b,9"))
    chunk = read_chunk(path, 0)
    assert chunk.lines == (b"a,1", b"c,3")
    assert chunk.corrupt == (f"{path}: byte {place}",)
    assert chunk.end_offset == len(content)


@example(11, ord("\n") ^ ord("\r"))  # a line feed that became another line break
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_whichever_byte_is_damaged_no_false_record_comes_out(position: int, flip: int) -> None:
    import tempfile

    records = [(str(i), "x" * i) for i in range(8)]
    sound = [",".join(record).encode() for record in records]
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), *records)
        content = bytearray(path.read_bytes())
        body = content.index(b"\n") + 1
        at = body + position % (len(content) - body - 1)  # the last line break stays: else it is a torn line
        content[at] ^= flip
        path.write_bytes(bytes(content))
        chunk = read_chunk(path, 0)
        assert set(chunk.lines) < set(sound)
        assert len(sound) - len(chunk.lines) <= 2  # two where the line break between them was hit
        assert 1 <= len(chunk.corrupt) <= 2


def test_a_full_file_is_closed_and_another_one_opened(tmp_path: Path) -> None:
    journal = Journal(KIND, tmp_path, max_bytes=200)
    records = [(str(i), "x" * 20) for i in range(40)]
    for record in records:
        journal.append([record])
    journal.close()
    files = KIND.files(tmp_path)
    assert len(files) > 3
    assert all(path.stat().st_size < 200 + 60 for path in files)
    assert lines_of(tmp_path) == [",".join(record).encode() for record in records]


def test_a_new_start_never_touches_an_old_file(tmp_path: Path) -> None:
    path = written(tmp_path, ("a", "1"))
    torn = path.read_bytes()[:-3]
    path.write_bytes(torn)
    other = written(tmp_path, ("b", "2"))
    assert other != path
    assert path.read_bytes() == torn
    assert lines_of(tmp_path) == [b"b,2"]


def test_a_file_has_a_writer_until_it_is_closed_or_its_process_is_gone(tmp_path: Path) -> None:
    journal = Journal(KIND, tmp_path, NO_ROTATION)
    journal.append([("a", "1")])
    assert journal.path is not None
    assert has_writer(journal.path)
    journal.close()
    assert not has_writer(journal.path)


def test_a_compressed_file_is_read_as_before_under_the_same_key(tmp_path: Path) -> None:
    path = written(tmp_path, *((str(i), "x" * i) for i in range(50)))
    size, before = path.stat().st_size, read_chunk(path, 0)
    packed = compress(path)
    assert KIND.files(tmp_path) == [packed]
    assert file_key(packed) == file_key(path)
    assert text_size(packed) == size > packed.stat().st_size
    assert read_chunk(packed, 0) == before
    middle = read_chunk(packed, 0, max_bytes=400)
    assert (*middle.lines, *read_chunk(packed, middle.end_offset).lines) == before.lines


def test_a_compressed_file_that_is_damaged_is_refused_by_name(tmp_path: Path) -> None:
    packed = compress(written(tmp_path, *((str(i), os.urandom(20).hex()) for i in range(50))))
    whole = packed.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for damaged in (whole[: len(whole) // 2], bytes(flipped), b"no gzip at all"):
        packed.write_bytes(damaged)
        with pytest.raises(InvalidDataError, match=rf"{packed.name} is damaged"):
            read_chunk(packed, 0)


def test_a_file_that_two_compress_at_once_is_there_once_and_whole(tmp_path: Path) -> None:
    path = written(tmp_path, *((str(i), "x" * i) for i in range(50)))
    before = read_chunk(path, 0)
    packed = compress(path)
    path.write_bytes(gzip.decompress(packed.read_bytes()))  # the other one began before the first had finished
    unlink, compressed_by_other = Path.unlink, []

    class Raced(type(path)):  # type: ignore[misc]
        def unlink(self, missing_ok: bool = False) -> None:
            compressed_by_other.append(self)
            unlink(self, missing_ok)
            unlink(self, missing_ok)

    compress(Raced(path))
    assert compressed_by_other
    assert KIND.files(tmp_path) == [packed]
    assert read_chunk(packed, 0) == before


def test_the_last_lines_are_those_of_all_files_that_may_not_be_copied_yet(tmp_path: Path) -> None:
    first = written(tmp_path, ("a", "1"), ("b", "2"))
    compress(written(tmp_path, ("in", "Postgres")))
    written(tmp_path, ("c", "3"))
    assert not has_writer(first)
    values = [[record["value"] for record in last_lines(KIND, tmp_path, n)] for n in (1, 2, 10)]
    assert values == [["3"], ["2", "3"], ["1", "2", "3"]]


def test_a_compression_that_was_killed_half_way_leaves_each_record_once(tmp_path: Path) -> None:
    path = written(tmp_path, ("a", "1"))
    content = path.read_bytes()
    compress(path)
    path.write_bytes(content)  # it was killed before it removed the original
    assert lines_of(tmp_path) == [b"a,1"]


def test_without_a_record_no_file_is_made(tmp_path: Path) -> None:
    journal = Journal(KIND, tmp_path, NO_ROTATION)
    journal.append([])
    journal.close()
    assert KIND.files(tmp_path) == []


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    journal = Journal(KIND, tmp_path, max_bytes=5_000)

    def write(name: str) -> None:
        for i in range(50):
            journal.append([(name, str(i)), (name, str(i + 1_000))])

    threads = [threading.Thread(target=write, args=(f"thread{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    lines = lines_of(tmp_path)
    assert len(lines) == len(set(lines)) == 400
    for n in range(4):
        own = [line for line in lines if line.startswith(b"thread%d," % n)]
        assert own == [b"thread%d,%d" % (n, i + k) for i in range(50) for k in (0, 1_000)]


WRITE_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
from selfheal.adapters.journal import Journal, JournalKind
journal = Journal(JournalKind("things", ("key", "value")), Path(sys.argv[1]), 4_000)
for i in count():
    journal.append([(str(i), "x" * 50), (str(i), "y")])
    print(i, flush=True)
"""


def test_every_acknowledged_record_is_readable_after_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(300)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
    chunks = [read_chunk(path, 0) for path in KIND.files(tmp_path)]
    readable = {line for chunk in chunks for line in chunk.lines}
    assert len(chunks) > 1
    assert not any(chunk.corrupt for chunk in chunks)
    for i in acknowledged:
        assert {b"%d,%s" % (i, b"x" * 50), b"%d,y" % i} <= readable


WRITE_TO_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from selfheal.kit.errors import JournalUnavailableError
from selfheal.adapters.journal import Journal, JournalKind
journal = Journal(JournalKind("things", ("key", "value")), Path(sys.argv[1]), 1_000_000)
unlimited = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (120, unlimited))  # no file grows beyond this: the disk is full
for i in range(20):
    try:
        journal.append([(str(i), "x" * 20)])
        print("acknowledged", i)
    except JournalUnavailableError:
        print("refused", i)
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))  # somebody made room
"""


def test_a_record_that_could_not_be_written_is_refused_and_harms_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_TO_A_FULL_DISK, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    acknowledged = [int(line.split()[1]) for line in told if line.startswith("acknowledged")]
    (refused,) = (int(line.split()[1]) for line in told if line.startswith("refused"))
    assert 0 < refused < 19
    assert acknowledged == [i for i in range(20) if i != refused]
    assert lines_of(tmp_path) == [b"%d,%s" % (i, b"x" * 20) for i in acknowledged]
    assert not any(read_chunk(path, 0).corrupt for path in KIND.files(tmp_path))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    return Disk(monkeypatch, tmp_path)


@pytest.mark.parametrize(("mode", "by_appends", "by_sync"), [("always", 3, 3), ("interval", 0, 1), ("off", 0, 0)])
def test_the_mode_decides_when_records_are_forced_to_disk(
    tmp_path: Path, disk: Disk, mode: FsyncMode, by_appends: int, by_sync: int
) -> None:
    journal = Journal(KIND, tmp_path, NO_ROTATION, mode)
    for i in range(3):
        journal.append([(str(i), "x")])
    assert len(disk.synced) == by_appends
    journal.sync()
    journal.sync()
    assert len(disk.synced) == by_sync, "what is on disk already is not synced again"
    assert lines_of(tmp_path) == [b"0,x", b"1,x", b"2,x"], "whatever the mode, the operating system has them"
    journal.close()


def test_a_rotated_file_is_on_disk_before_the_next_one_is_opened(tmp_path: Path, disk: Disk) -> None:
    journal = Journal(KIND, tmp_path, max_bytes=100, fsync="interval")
    journal.append([("a", "x" * 100)])
    assert disk.synced == []
    journal.append([("b", "1")])
    assert len(disk.synced) == 1
    journal.close()
    assert len(disk.synced) == 2
    assert len(KIND.files(tmp_path)) == 2


def fail_the_append(journal: Journal) -> None:
    journal.append([("lost", "2")])


def fail_the_sync(journal: Journal) -> None:
    journal.append([("with the system", "2")])
    journal.sync()


def fail_the_rotation(journal: Journal) -> None:
    journal.append([("with the system", "x" * 300)])
    journal.append([("lost", "3")])


@pytest.mark.parametrize(
    ("mode", "fail"),
    [
        ("always", fail_the_append),
        ("interval", fail_the_sync),
        ("interval", fail_the_rotation),
        ("off", fail_the_rotation),
    ],
)
def test_a_failed_sync_ends_the_journal_and_is_never_tried_again(
    tmp_path: Path, disk: Disk, mode: FsyncMode, fail: Callable[[Journal], None]
) -> None:
    journal = Journal(KIND, tmp_path, max_bytes=200, fsync=mode)
    journal.append([("before", "1")])
    disk.sync_fails_with = errno.EIO
    with pytest.raises(JournalUnavailableError, match=r"the disk failed .* service restarted"):
        fail(journal)
    disk.sync_fails_with = None
    n_synced = len(disk.synced)
    for use in (journal.probe, lambda: journal.append([("after", "4")])):
        with pytest.raises(JournalUnavailableError, match="the disk failed"):
            use()
    journal.sync()
    journal.close()
    assert journal.failure is not None
    assert len(disk.synced) == n_synced
    assert len(KIND.files(tmp_path)) == 1
    assert lines_of(tmp_path)[0] == b"before,1"


def test_a_write_error_that_is_no_full_disk_ends_the_journal(tmp_path: Path, disk: Disk) -> None:
    journal = Journal(KIND, tmp_path, NO_ROTATION)
    journal.append([("before", "1")])
    disk.write_fails_with = errno.EIO
    with pytest.raises(JournalUnavailableError, match="the disk failed"):
        journal.append([("lost", "2")])
    assert journal.failure is not None


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_nothing(tmp_path: Path, disk: Disk, error: int) -> None:
    journal = Journal(KIND, tmp_path, NO_ROTATION)
    journal.append([("before", "1")])
    disk.write_fails_with = error
    for _ in range(3):
        with pytest.raises(JournalUnavailableError, match=os.strerror(error)):
            journal.append([("lost", "2")])
        with pytest.raises(JournalUnavailableError):
            journal.probe()
    assert journal.failure is None
    disk.write_fails_with = None
    journal.probe()
    journal.append([("after", "3")])
    journal.close()
    assert lines_of(tmp_path) == [b"before,1", b"after,3"]


def test_what_lies_with_the_system_is_brought_to_disk_when_the_disk_is_full(tmp_path: Path, disk: Disk) -> None:
    journal = Journal(KIND, tmp_path, NO_ROTATION, "interval")
    journal.append([("before", "1")])
    disk.room_bytes = 0
    with pytest.raises(JournalUnavailableError):
        journal.append([("lost", "2")])
    assert len(disk.synced) == 1


@settings(max_examples=30)
@given(room_bytes=st.integers(0, 120))
def test_however_little_room_there_is_no_half_line_and_no_litter_stays(room_bytes: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, Path(folder))
        journal = Journal(KIND, Path(folder), NO_ROTATION)
        acknowledged = []
        for i in range(20):
            disk.room_bytes = room_bytes if 5 <= i < 15 else None
            try:
                journal.append([(str(i), "x" * 30)])
                acknowledged.append(b"%d,%s" % (i, b"x" * 30))
            except JournalUnavailableError:
                assert disk.room_bytes is not None
        journal.close()
        chunks = [read_chunk(path, 0) for path in KIND.files(Path(folder))]
        assert [line for chunk in chunks for line in chunk.lines] == acknowledged
        assert len(acknowledged) >= 10
        assert all(chunk.lines for chunk in chunks), "a file without a record"
        assert not any(chunk.corrupt for chunk in chunks)


def fields(value: float, kind: str) -> bytes:
    """The value as the second field of a journal line."""
    (field,) = column_values(np.array([value]), kind)
    return encode_lines([("key", field)]).split(b",")[1]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_the_journal_to_the_last_bit(value: float) -> None:
    assert float(fields(value, "float")).hex() == value.hex()


@given(st.integers(-(2**53), 2**53))
def test_a_count_is_written_without_a_fraction(value: int) -> None:
    assert fields(float(value), "int") == str(value).encode()


def test_a_missing_value_is_written_as_nothing() -> None:
    assert fields(float("nan"), "float") == fields(float("nan"), "int") == b""
    assert column_values(np.array([1.0, float("nan")]), "int") == [1, None]


def test_a_text_that_looks_like_a_missing_value_stays_what_it_is() -> None:
    (line,) = encode_lines([("key", None, "null", "null-1")]).splitlines()
    assert line.startswith(b"key,,null,null-1,")


@pytest.mark.parametrize("text", ['say "x"', "a,b", "a\nb", "],[", "back\\slash"])
def test_a_text_that_would_break_a_line_is_a_programmers_error(text: str) -> None:
    with pytest.raises(AssertionError):
        encode_lines([("key", text)])


def test_times_are_written_in_utc_with_all_their_digits() -> None:
    local = datetime(2026, 3, 2, 14, 0, 0, 1, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(local) == "2026-03-02T12:00:00.000001+00:00"
    assert datetime.fromisoformat(format_time(T0)) == T0


def test_the_columns_of_both_journals_follow_from_the_contract() -> None:
    kind = prediction_journal(contract)
    assert kind.columns[0] == "prediction_id"
    assert kind.columns[-4:] == contract.feature_names
    assert LABEL_JOURNAL.columns == LABEL_COLUMNS
    assert kind.folder(Path("data")) == Path("data/audit/predictions")
