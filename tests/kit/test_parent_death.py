"""A process ends with its parent, even if that had no chance to say so."""

from __future__ import annotations

import subprocess
import sys

import psutil

CHILD = "import os; from selfheal.kit.parent_death import end_with_parent; {call}; print(os.getpid(), flush=True); import time; time.sleep(60)"
PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"


def orphan(call: str) -> psutil.Process:
    """The child of a parent that is killed as soon as the child has made the call."""
    command = [sys.executable, "-c", PARENT, CHILD.format(call=call)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.stdout.close()
    return child


def test_a_process_ends_with_its_parent() -> None:
    child = orphan("end_with_parent(os.getppid())")
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_without_the_call_it_would_live_on() -> None:
    child = orphan("pass")
    assert psutil.wait_procs([child], timeout=0.5)[1] == [child]
    child.kill()


def test_a_parent_that_has_died_already_is_noticed() -> None:
    command = [sys.executable, "-c", CHILD.format(call="end_with_parent(os.getppid() + 1)")]
    assert subprocess.run(command, timeout=20, check=False, stdout=subprocess.DEVNULL).returncode == -15
