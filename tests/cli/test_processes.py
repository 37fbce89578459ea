"""Programs are restarted alone, and stopped together, whatever their own processes do."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from selfheal.cli import processes
from selfheal.cli.processes import Printer, Program, Supervisor, pause_before_restart
from selfheal.kit.backoff import Backoff
from tests.waiting import eventually

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]
WITH_CHILD = [
    sys.executable,
    "-c",
    "import subprocess, sys; print('child', subprocess.Popen(['sleep', '61'], start_new_session={new}).pid, flush=True); "
    "import time; time.sleep(60)",
]


def with_child(*, in_a_session_of_its_own: bool) -> list[str]:
    """A program whose child has inherited its output."""
    return [part.format(new=in_a_session_of_its_own) for part in WITH_CHILD]


class Ran:
    """A supervisor under way: what it printed, and what it returned."""

    def __init__(self, *programs: Program) -> None:
        self.output = io.StringIO()
        self._names = [program.name for program in programs]
        self.supervisor = Supervisor(programs, os.environ, Printer(self._names, self.output))
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Ran:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
        self.wait()

    def wait(self) -> int | None:
        self._thread.join(30)
        return self.code

    def _run(self) -> None:
        self.code = self.supervisor.run()

    def starts(self, name: str) -> list[int]:
        """The process numbers that a program has had so far."""
        lines = [line for line in self.output.getvalue().splitlines() if f"| {name} started" in line]
        return [int(line.rpartition(" ")[2].rstrip(")")) for line in lines]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            eventually(holds, what, 10)
        except AssertionError as error:
            raise AssertionError(f"{error}; printed: {self.output.getvalue()}") from None

    def child_of(self, name: str) -> psutil.Process:
        """The child whose number a program has printed."""
        self.until(lambda: "| child " in self.output.getvalue(), f"{name} has a child")
        return psutil.Process(int(self.output.getvalue().rpartition("| child ")[2].split()[0]))


@contextmanager
def running(*programs: Program) -> Iterator[Ran]:
    with Ran(*programs) as ran:
        for program in programs:
            ran.until(lambda name=program.name: ran.starts(name) != [], f"{program.name} runs")  # type: ignore[misc]
        yield ran


def test_a_killed_program_is_restarted_at_once_and_alone() -> None:
    with running(Program("one", SLEEP), Program("two", SLEEP)) as ran:
        os.kill(ran.starts("one")[0], signal.SIGKILL)
        ran.until(lambda: len(ran.starts("one")) == 2, "one is restarted")
        assert len(ran.starts("two")) == 1
        assert "one has ended (SIGKILL); it is started again in 0 s" in ran.output.getvalue()


def test_a_death_is_noticed_although_a_child_has_inherited_the_output() -> None:
    """A run's process has the pipe of the code server that started it."""
    with running(Program("one", with_child(in_a_session_of_its_own=True))) as ran:
        child = ran.child_of("one")
        os.kill(ran.starts("one")[0], signal.SIGKILL)
        ran.until(lambda: len(ran.starts("one")) == 2, "one is restarted")
        child.kill()


def test_what_a_dead_program_left_of_its_group_is_ended() -> None:
    """It would hold the port that the next start needs."""
    with running(Program("one", with_child(in_a_session_of_its_own=False))) as ran:
        child = ran.child_of("one")
        os.kill(ran.starts("one")[0], signal.SIGKILL)
        assert psutil.wait_procs([child], timeout=10)[1] == []


def test_a_stop_ends_programs_that_do_not_want_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_TIMEOUT_SECONDS", 0.3)
    with running(Program("one", STUBBORN), Program("two", SLEEP)) as ran:
        ran.until(lambda: "| up" in ran.output.getvalue(), "one ignores SIGTERM")
        alive = [psutil.Process(ran.starts(name)[0]) for name in ("one", "two")]
    assert psutil.wait_procs(alive, timeout=5)[1] == []
    assert ran.code == 0


def test_a_program_that_cannot_run_as_configured_stops_everything_at_once() -> None:
    with running(Program("one", SLEEP), Program("wrong", [sys.executable, "-c", "raise SystemExit(2)"])) as ran:
        assert ran.wait() == 2
        assert not psutil.pid_exists(ran.starts("one")[0])
        assert len(ran.starts("wrong")) == 1


def test_a_program_that_keeps_ending_by_itself_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RESTART_BACKOFF", Backoff(0.01, 0.01))
    with running(Program("one", ["false"])) as ran:
        assert ran.wait() == 1
        assert len(ran.starts("one")) == processes.MAX_FAILURES + 1


def test_a_program_starts_once_what_it_needs_is_there() -> None:
    is_there = threading.Event()
    with running(Program("one", SLEEP)) as _, Ran(Program("two", SLEEP, may_start=is_there.is_set)) as ran:
        assert ran.starts("two") == []
        is_there.set()
        ran.until(lambda: ran.starts("two") != [], "two starts")


def test_a_program_that_signals_end_is_never_given_up_and_waits_longer_each_time() -> None:
    pauses = [pause_before_restart(-9, n, is_first_start=False) for n in range(1, 20)]
    assert all(pause is not None for pause in pauses)
    assert pauses[:3] == [0.0, 1.0, 2.0]
    assert pauses[-1] == processes.RESTART_BACKOFF.max_seconds


def test_a_busy_port_after_a_kill_is_no_wrong_setting() -> None:
    assert pause_before_restart(2, 1, is_first_start=True) is None
    assert pause_before_restart(2, 2, is_first_start=False) == 1.0


def test_output_that_nobody_reads_any_more_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        Printer(["one"], closed).write("one", "hello")
        os.dup2(os.open(os.devnull, os.O_WRONLY), closed.fileno())


def test_signals_stop_the_supervisor_and_are_given_back() -> None:
    script = (
        "import os, signal, threading, sys\n"
        "from selfheal.cli.processes import *\n"
        "supervisor = Supervisor([Program('one', ['sleep', '60'])], os.environ, Printer(['one']))\n"
        "before = signal.getsignal(signal.SIGHUP)\n"
        "with stop_on_signals(supervisor):\n"
        "    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGHUP)).start()\n"
        "    code = supervisor.run()\n"
        "sys.exit(code or signal.getsignal(signal.SIGHUP) is not before)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0
