"""A file of results survives the processes that write to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfheal.kit.errors import InvalidDataError
from selfheal.kit.json_lines import append_line, count_lines, read_lines


def lines_of(path: Path) -> list[int]:
    return [line["key"] for line in read_lines(path, "key", "result")]


def test_without_a_file_there_are_no_lines(tmp_path: Path) -> None:
    assert lines_of(tmp_path / "none.jsonl") == []
    assert count_lines(tmp_path / "none.jsonl") == 0


@pytest.mark.parametrize("torn", [b"", b'{"k', b'{"key"', b'{"key":2,"val'])
def test_a_torn_last_line_is_dropped_and_never_joined_with_the_next(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "results" / "found.jsonl"
    append_line(path, {"key": 1})
    path.write_bytes(path.read_bytes() + torn)
    assert lines_of(path) == [1]
    append_line(path, {"key": 3})
    assert lines_of(path) == [1, 3]


@pytest.mark.parametrize("other", ["my notes\n", "[1]\n", '{"name": 1}\n'])
def test_a_file_of_something_else_is_refused_with_its_line(tmp_path: Path, other: str) -> None:
    path = tmp_path / "found.jsonl"
    append_line(path, {"key": 1})
    path.write_text(path.read_text() + other)
    with pytest.raises(InvalidDataError, match=r"found\.jsonl, line 2: no result .* name another file"):
        lines_of(path)
