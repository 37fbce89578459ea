"""Rules of heartbeats: a file says that its process works only if that process lives and wrote it lately."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfheal.kit import heartbeat
from selfheal.kit.heartbeat import heartbeat_problem, seconds_since_boot, write_heartbeat


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "daemon.heartbeat"


def problem(path: Path) -> str | None:
    return heartbeat_problem(path, max_age_seconds=30, max_part_age_seconds=150)


def changed(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_a_process_that_writes_and_whose_parts_work_has_no_problem(path: Path) -> None:
    write_heartbeat(path, {"SENSOR": seconds_since_boot() - 140, "SCHEDULER": seconds_since_boot()})
    assert problem(path) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"writer": 1, "pid": "x", "at": 1, "parts": {}}', b"\xff"]
)
def test_what_is_no_heartbeat_is_a_problem(path: Path, content: bytes) -> None:
    assert "no heartbeat yet" in str(problem(path))
    path.parent.mkdir()
    path.write_bytes(content)
    assert "is not one" in str(problem(path))
    path.unlink()
    path.mkdir()
    assert "cannot be read" in str(problem(path))


@pytest.mark.parametrize("seconds", [-31, 5, float("nan")])
def test_a_heartbeat_that_is_old_or_of_the_future_is_a_problem(path: Path, seconds: float) -> None:
    write_heartbeat(path, {"SENSOR": seconds_since_boot()})
    changed(path, at=seconds_since_boot() + seconds)
    assert "its last heartbeat was" in str(problem(path))


def test_the_part_that_has_not_worked_for_longest_is_named(path: Path) -> None:
    write_heartbeat(path, {"SENSOR": seconds_since_boot() - 200, "SCHEDULER": seconds_since_boot() - 160})
    assert problem(path) == "SENSOR has not worked for 200 s; allowed are 150 s"


def test_a_part_that_never_worked_and_no_part_at_all_are_problems(path: Path) -> None:
    write_heartbeat(path, {"SENSOR": None, "SCHEDULER": seconds_since_boot()})
    assert problem(path) == "SENSOR has not worked yet"
    write_heartbeat(path, {})
    assert problem(path) == "its heartbeat names no part that works"


def test_the_heartbeat_of_a_process_that_has_ended_is_a_problem_although_it_is_new(path: Path) -> None:
    writing = "import sys, pathlib; from selfheal.kit.heartbeat import *; "
    writing += "write_heartbeat(pathlib.Path(sys.argv[1]), {'SENSOR': seconds_since_boot()})"
    subprocess.run([sys.executable, "-c", writing, str(path)], check=True)
    assert "has ended" in str(problem(path))


def test_the_heartbeat_of_another_process_with_the_same_number_is_a_problem(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As process 1 of a container that has replaced another on the same volume."""
    write_heartbeat(path, {"SENSOR": seconds_since_boot()})
    writer = json.loads(path.read_bytes())["writer"]
    changed(path, writer=f"{writer}1")
    assert "has ended" in str(problem(path))
    changed(path, writer=writer)
    assert problem(path) is None
    monkeypatch.setattr(heartbeat, "BOOT_ID", "/nowhere")
    assert "has ended" in str(problem(path)), "unknown is not healthy"
