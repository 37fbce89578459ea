"""Which live processes have a file open."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil


def others_with(path: Path) -> list[int]:
    """Return the numbers of the other processes that have a file open.

    Processes of other users are left out unless this one is root, and so are those that were killed and still die.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(file.path == str(path) for file in process.open_files()):
                found.append(process.pid)
    return found
