"""Reading a stream from a CSV: a clear word with file, line and column, or the rows as they are."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from selfheal.kit.errors import InvalidDataError
from selfheal.simulate.replay import stream_file
from selfheal.simulate.replay.stream import UNKNOWN
from selfheal.simulate.replay.stream_file import Columns, read_stream

HALF_HOUR = 1_800_000_000
N = 40


def csv(folder: Path, lines: list[str], header: str = "when,Price (x),demand,up") -> Path:
    path = folder / "prices.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def good_lines(n_rows: int = N) -> list[str]:
    return [f"2026-01-{1 + i // 24:02d}T{i % 24:02d}:00:00Z,{i / 10},{100 - i},{i % 2}" for i in range(n_rows)]


TIMED = Columns(label="up", time="when")


def test_a_file_becomes_a_stream_with_a_contract_of_its_columns(tmp_path: Path) -> None:
    found = read_stream(csv(tmp_path, good_lines()), Columns(label="up", time="when", label_delay=HALF_HOUR))
    assert found.contract.input_names == ("price_x", "demand")
    assert found.columns["price_x"].tolist() == [i / 10 for i in range(N)]
    assert found.event_time[25] == np.datetime64("2026-01-02T01:00:00")
    assert found.true_label.tolist() == [i % 2 for i in range(N)]
    assert (found.label_time - found.event_time == np.timedelta64(HALF_HOUR, "us")).all()


def test_unix_seconds_are_times(tmp_path: Path) -> None:
    lines = [f"{1_770_000_000 + 60 * i},{i},{i},{i % 2}" for i in range(N)]
    assert read_stream(csv(tmp_path, lines), TIMED).event_time[1] == np.datetime64("2026-02-02T02:41:00")


def test_a_file_without_times_has_rows_at_equal_distances(tmp_path: Path) -> None:
    found = read_stream(csv(tmp_path, good_lines()), Columns(label="up", every=HALF_HOUR, excluded=("when",)))
    assert set(np.diff(found.event_time).tolist()) == {np.timedelta64(HALF_HOUR, "us").item()}


def test_rows_of_one_entity_share_a_number(tmp_path: Path) -> None:
    lines = [f"{line},c{i % 7}" for i, line in enumerate(good_lines())]
    path = csv(tmp_path, lines, "when,Price (x),demand,up,customer")
    found = read_stream(path, Columns(label="up", time="when", entity="customer"))
    assert found.entity.tolist() == [i % 7 for i in range(N)]


def test_a_blank_label_is_an_unknown_outcome_that_never_arrives(tmp_path: Path) -> None:
    lines = good_lines()
    lines[3] = lines[3][:-1]
    found = read_stream(csv(tmp_path, lines), TIMED)
    assert found.true_label[3] == UNKNOWN
    assert np.isnat(found.label_time[3])
    assert not np.isnat(found.label_time[4])


def changed(row: int, text: str) -> list[str]:
    lines = good_lines()
    lines[row] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "columns", "told"),
    [
        (changed(4, "2025-01-01,1,1,0"), TIMED, r"line 6, column 'when': .* is earlier than the line before"),
        (changed(4, "soon,1,1,0"), TIMED, r"line 6, column 'when': 'soon' is not a time; use ISO 8601"),
        (changed(4, ",1,1,0"), TIMED, r"line 6, column 'when': nan is not a time"),
        (
            changed(4, "2026-01-01T04:00:00Z,1,1,maybe"),
            TIMED,
            r"line 6, column 'up': 'maybe' is not a label; use 0 or 1",
        ),
        (changed(4, "2026-01-01T04:00:00Z,1,1,2"), TIMED, r"line 6, column 'up': .*2.* is not a label"),
        (
            changed(4, "2026-01-01T04:00:00Z,red,1,0"),
            TIMED,
            r"line 6, column 'Price \(x\)': 'red' is not a number; encode",
        ),
        (changed(4, "2026-01-01T04:00:00Z,inf,1,0"), TIMED, r"'Price \(x\)': inf is not a number"),
        (
            good_lines(),
            Columns(label="up"),
            "name its column of times with --time, or, if its rows are at equal distances",
        ),
        (
            good_lines(),
            Columns(label="up", time="Price (x)", excluded=("when",)),
            r"line 2, column 'Price \(x\)': .* is not a time",
        ),
        (good_lines(), Columns(label="down", time="when"), "no column 'down' for --label; the file has: when, Price"),
        ([], TIMED, "a header but no rows"),
    ],
)
def test_a_wrong_file_is_refused_by_line_and_column(
    tmp_path: Path, lines: list[str], columns: Columns, told: str
) -> None:
    with pytest.raises(InvalidDataError, match=told):
        read_stream(csv(tmp_path, lines), columns)


def test_a_file_that_is_empty_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe\x00\x01,\n\x80,\n"):
        path = tmp_path / "odd.csv"
        path.write_bytes(content)
        with pytest.raises(InvalidDataError, match=r"odd\.csv"):
            read_stream(path, TIMED)
    with pytest.raises(InvalidDataError, match="no such file"):
        read_stream(tmp_path / "none.csv", TIMED)


def test_columns_whose_names_agree_once_simplified_stay_apart(tmp_path: Path) -> None:
    path = csv(tmp_path, good_lines(), "when,Price,price!,up")
    assert read_stream(path, TIMED).contract.input_names == ("price", "price_2")


def test_portions_give_what_the_whole_file_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv(tmp_path, good_lines())
    whole = read_stream(path, TIMED)
    monkeypatch.setattr(stream_file, "PORTION_ROWS", 7)
    parts = read_stream(path, TIMED)
    assert parts.event_time.tolist() == whole.event_time.tolist()
    assert parts.columns["demand"].tolist() == whole.columns["demand"].tolist()
    lines = changed(30, "2026-01-02T06:00:00Z,red,1,0")
    with pytest.raises(InvalidDataError, match="line 32"):
        read_stream(csv(tmp_path, lines), TIMED)


def test_memory_holds_numbers_and_a_portion_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_rows = 60_000
    monkeypatch.setattr(stream_file, "PORTION_ROWS", 2_000)
    read_stream(csv(tmp_path, good_lines()), TIMED)  # what is imported is not what is measured
    path = csv(tmp_path, [f"{1_770_000_000 + i},{i / 7},{i},{i % 2}" for i in range(n_rows)])
    tracemalloc.start()
    read_stream(path, TIMED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stored = n_rows * (2 * 8 + 3 * 8 + 2)  # inputs, three times and entity, two labels
    assert peak < 2.5 * stored, f"{peak:,} bytes for {stored:,} of numbers"


def test_a_file_beyond_the_limit_is_refused_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_file, "MAX_ROWS", 30)
    monkeypatch.setattr(stream_file, "PORTION_ROWS", 10)
    with pytest.raises(InvalidDataError, match="more than 30 rows"):
        read_stream(csv(tmp_path, good_lines()), TIMED)
