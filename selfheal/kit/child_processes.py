"""What every child process of ours needs: our environment's programs on its PATH, and a log whose end can be shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

LOG_END_BYTES, LOG_END_LINES = 8_192, 20
"""What is shown of the log of a process that failed: enough for a traceback's message, and no more."""


def with_our_programs(environment: Mapping[str, str], python: Path | str = sys.executable) -> dict[str, str]:
    """Return the environment with the folder of a Python interpreter first on PATH.

    Libraries start programs of their own by name (MLflow's servers start uvicorn). Where a virtual environment is not
    activated these are not found, or are another environment's.

    Args:
        environment: what the child would be started with.
        python: the interpreter that the child runs; its programs are beside it.
    """
    folders = [str(Path(python).parent), *environment.get("PATH", os.defpath).split(os.pathsep)]
    return {**environment, "PATH": os.pathsep.join(dict.fromkeys(folders))}


def log_end(log: Path, max_lines: int = LOG_END_LINES) -> str:
    """Return the last lines of a log, without empty ones; `no output` if there is none. Reads only the log's end."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_END_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return "no output"
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-max_lines:]) if lines else "no output"
