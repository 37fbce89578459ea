"""What belongs to a start of the platform is found and ended, whoever its parent is, and even if `up` is dead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from selfheal.adapters.marked_processes import end_all, mark, marked_by

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
FIRST, SECOND = "first", "second"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test starts; none survives it."""
    found: list[subprocess.Popen[str]] = []
    yield found
    for process in found:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def start(started: list[subprocess.Popen[str]], folder: Path, number: str, code: str = STUBBORN) -> psutil.Process:
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | mark(folder, number), stdout=subprocess.PIPE, text=True
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return psutil.Process(process.pid)


def test_those_of_another_start_or_folder_are_left_alone(started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    ours = start(started, tmp_path, FIRST)
    start(started, tmp_path, SECOND)
    start(started, tmp_path / "other", FIRST)
    assert marked_by(tmp_path, lambda number: number == FIRST) == [ours]


def test_a_process_that_ignores_the_request_is_killed(started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    stubborn = start(started, tmp_path, FIRST)
    assert end_all(lambda: marked_by(tmp_path, lambda _: True), grace_seconds=0.2) == [stubborn.pid]
    assert marked_by(tmp_path, lambda _: True) == []


def test_the_embedded_server_is_left_to_its_users(
    started: list[subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(started, tmp_path, FIRST)
    monkeypatch.setattr(psutil.Process, "name", lambda _: "postgres")
    assert marked_by(tmp_path, lambda _: True) == []


UP = """
import os, subprocess, sys
from pathlib import Path
from selfheal.adapters.marked_processes import mark
folder = Path(sys.argv[1])
command = [sys.executable, "-m", "selfheal.adapters.marked_processes", str(folder), "first"]
reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
left = subprocess.Popen(["sleep", "60"], env=os.environ | mark(folder, "first"), start_new_session=True)
print(reaper.pid, left.pid, flush=True)
left.wait()
"""


def test_a_reaper_ends_what_a_killed_up_left_running(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", UP, str(tmp_path)], stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        reaper, left = (psutil.Process(int(number)) for number in up.stdout.readline().split())
        assert left.is_running()
        up.kill()
        up.stdout.close()
    assert psutil.wait_procs([left, reaper], timeout=15)[1] == []
