"""Which other processes have a file open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from selfheal.kit.open_files import others_with

HOLDER = "import sys; held = open(sys.argv[1]); print('has it', flush=True); sys.stdin.read()"


def test_those_that_have_it_open_are_found_and_this_process_is_not_among_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with (
        path.open(),
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder,
    ):
        assert holder.stdout is not None
        holder.stdout.readline()
        assert others_with(path) == [holder.pid]
        holder.kill()
    assert others_with(path) == []
