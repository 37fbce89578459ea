"""Rules of the report files: which page when, and what is pruned."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from selfheal.domain.records import ProxyMetrics, SeasonMemory, TickRecord, Triage, Verdict
from selfheal.services.reports.files import prune, read_tick, save_tick, should_render
from tests.builders import drift_report, performance, window
from tests.times import T0


@pytest.mark.parametrize(
    ("is_drifted", "was_drifted", "minutes_ago", "expected"),
    [
        (False, None, None, False),
        (False, False, None, False),
        (False, False, 600, False),
        (True, None, None, True),
        (True, False, 1, True),
        (False, True, 1, True),
        (True, True, 59, False),
        (True, True, 60, True),
        (True, True, None, True),
    ],
)
def test_a_page_is_rendered_on_a_change_and_hourly_while_drifted(
    is_drifted: bool, was_drifted: bool | None, minutes_ago: int | None, expected: bool
) -> None:
    last = None if minutes_ago is None else T0 - timedelta(minutes=minutes_ago)
    assert should_render(is_drifted=is_drifted, was_drifted=was_drifted, last_rendered_at=last, now=T0) == expected


def tick(**changes: Any) -> TickRecord:
    seen = window()
    concluded = Triage(seen, Verdict.STABLE, ("all is well",), (), None)
    return TickRecord(concluded, ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9), drift_report(**changes), performance())


def test_saving_a_tick_twice_leaves_the_newer_content_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    save_tick(tick(), folder)
    newer = tick(n_current=7)
    path = save_tick(newer, folder)
    assert read_tick(folder, window().end, window().tick_id) == newer
    assert list(folder.iterdir()) == [path]


def test_a_tick_s_file_says_what_was_explained_and_not_all_that_is_remembered(tmp_path: Path) -> None:
    seen = tick(explained=("age has moved",), seasons=SeasonMemory(window().start))
    save_tick(seen, tmp_path)
    assert read_tick(tmp_path, window().end, window().tick_id) == tick(explained=("age has moved",))


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"verdict": "stable"}', b"\xff"])
def test_a_tick_whose_file_is_missing_or_not_whole_is_unknown(tmp_path: Path, content: bytes | None) -> None:
    path = save_tick(tick(), tmp_path)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert read_tick(tmp_path, window().end, window().tick_id) is None


def test_pruning_keeps_the_newest_and_touches_no_other_kind(tmp_path: Path) -> None:
    for age, name in enumerate(("newest.html", "newer.html", "old.html", "older.html")):
        path = tmp_path / name
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    other = tmp_path / "tick.json"
    other.touch()
    os.utime(other, (1, 1))
    assert prune(tmp_path, "*.html", max_files=2) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"newest.html", "newer.html", "tick.json"}
    assert prune(tmp_path, "*.html", max_files=2) == 0
