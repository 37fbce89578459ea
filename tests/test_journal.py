"""Rules of the journal: what was acknowledged can be read, whatever happens to process, disk or file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.errors import InvalidDataError
from selfheal.journal import (
    CHECKSUM_COLUMN,
    LABEL_COLUMNS,
    LABEL_JOURNAL,
    Journal,
    JournalKind,
    format_number,
    format_time,
    prediction_journal,
    read_chunk,
)
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


def test_records_come_back_in_order(tmp_path: Path) -> None:
    chunk = read_chunk(written(tmp_path, ("a", "1"), ("b", ""), ("ü", "3")), 0)
    assert chunk.columns == KIND.columns
    assert chunk.lines == (b"a,1", b"b,", "ü,3".encode())
    assert chunk.corrupt == ()


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
from selfheal.journal import Journal, JournalKind
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
from selfheal.journal import Journal, JournalKind
journal = Journal(JournalKind("things", ("key", "value")), Path(sys.argv[1]), 1_000_000)
unlimited = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (120, unlimited))  # no file grows beyond this: the disk is full
for i in range(20):
    try:
        journal.append([(str(i), "x" * 20)])
        print("acknowledged", i)
    except OSError:
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


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_the_journal_to_the_last_bit(value: float) -> None:
    assert float(format_number(value, "float")).hex() == value.hex()


@given(st.integers(-(2**53), 2**53))
def test_a_count_is_written_without_a_fraction(value: int) -> None:
    assert format_number(float(value), "int") == str(value)


def test_a_missing_value_is_written_as_nothing() -> None:
    assert format_number(float("nan"), "float") == format_number(float("nan"), "int") == ""


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
