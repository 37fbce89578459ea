"""Starting the platform's real processes for a test, and proving that nothing of them is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
STOP_TIMEOUT_SECONDS = 40.0


def start(
    command: list[str], environment: Mapping[str, str], log: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own, its output in `log`; the repository is importable (USE_CASE)."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env={**environment, "PYTHONPATH": str(REPOSITORY)},
            cwd=cwd or log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def selfheal(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "selfheal", *arguments]


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The process and everything below it."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def stop(process: subprocess.Popen[bytes], signum: signal.Signals = signal.SIGINT) -> list[psutil.Process]:
    """Asks it to stop and waits; returns those of its family that are still alive (there should be none)."""
    members = family(process) if process.poll() is None else []
    if process.poll() is None:
        process.send_signal(signum)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            for member in members:
                if member.is_running():
                    member.kill()
            raise
    _, alive = psutil.wait_procs(members, timeout=5)
    return [member for member in alive if member.status() != psutil.STATUS_ZOMBIE]


def running_with(folder: Path) -> list[str]:
    """Command lines of live processes that name the folder: servers and workers that should be gone."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found
