"""Heartbeats: a file in which a process says again and again that it works, for health checks that must be fast.

A file outlives its process, a container and a clock that is set. So it names its writer by boot, process number and start, and
times are seconds since the boot (CLOCK_BOOTTIME), which containers of one machine share. Linux only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from selfheal.kit.atomic_file import write_atomic

BOOT_ID = "/proc/sys/kernel/random/boot_id"
START_FIELD = 19
"""Of /proc/PID/stat, counted after the program's name: the start of the process, in ticks since the boot."""


def is_available() -> bool:
    """Return whether this system has what a heartbeat needs."""
    return sys.platform == "linux"


def seconds_since_boot() -> float:
    """Return the time by which heartbeats are compared."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def write_heartbeat(path: Path, parts: Mapping[str, float | None]) -> None:
    """Write that this process works now.

    Args:
        parts: when each part of it last worked, by `seconds_since_boot`; None if it never did.
    """
    beat = {"writer": _identity(os.getpid()), "pid": os.getpid(), "at": seconds_since_boot(), "parts": dict(parts)}
    write_atomic(path, json.dumps(beat).encode())


def heartbeat_problem(path: Path, *, max_age_seconds: float, max_part_age_seconds: float) -> str | None:
    """Return what is wrong with the process that writes this file; None only if it is known to work."""
    try:
        beat = json.loads(path.read_bytes())
        writer, pid, at = str(beat["writer"]), int(beat["pid"]), float(beat["at"])
        parts = {name: None if worked_at is None else float(worked_at) for name, worked_at in beat["parts"].items()}
    except FileNotFoundError:
        return f"has written no heartbeat yet ({path})"
    except OSError as error:
        return f"its heartbeat {path} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"its heartbeat {path} is not one"
    if writer != _identity(pid):
        return f"its process {pid} has ended"
    age = seconds_since_boot() - at
    if not 0 <= age <= max_age_seconds:
        return f"its last heartbeat was {age:.0f} s ago; allowed are {max_age_seconds:.0f} s"
    return _part_problem(parts, max_part_age_seconds)


def _part_problem(parts: Mapping[str, float | None], max_age_seconds: float) -> str | None:
    """Return which part does not work."""
    if not parts:
        return "its heartbeat names no part that works"
    waiting = [name for name, worked_at in parts.items() if worked_at is None]
    if waiting:
        return f"{', '.join(waiting)} has not worked yet"
    ages = {name: seconds_since_boot() - worked_at for name, worked_at in parts.items() if worked_at is not None}
    name, oldest = max(ages.items(), key=lambda item: item[1])
    if not oldest <= max_age_seconds:
        return f"{name} has not worked for {oldest:.0f} s; allowed are {max_age_seconds:.0f} s"
    return None


def _identity(pid: int) -> str | None:
    """Return boot and start of a process, which no other process shares; None if it has ended."""
    try:
        boot = Path(BOOT_ID).read_text().strip()
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[START_FIELD]
    except (OSError, IndexError):
        return None
    return f"{boot} {start}"
