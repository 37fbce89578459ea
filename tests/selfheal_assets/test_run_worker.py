"""The process of a run, before Dagster has it: the rest is in `test_run_launcher`."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_worker_whose_launcher_has_died_executes_nothing() -> None:
    command = [sys.executable, "-m", "selfheal_assets.run_worker", str(os.getpid() + 1), "0", "no arguments"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -15, done.stderr
