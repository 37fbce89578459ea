"""What a child process is given, and what is shown of one that failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from selfheal.kit.child_processes import LOG_END_BYTES, log_end, with_our_programs


def test_a_child_finds_the_programs_of_its_interpreter_first_wherever_it_was_started(tmp_path: Path) -> None:
    foreign = tmp_path / "bin"
    foreign.mkdir()
    (foreign / "uvicorn").symlink_to("/bin/false")
    environment = with_our_programs({"PATH": f"{foreign}{os.pathsep}/usr/bin"})
    code = "import shutil; print(shutil.which('uvicorn'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(Path(sys.executable).parent / "uvicorn")


def test_what_the_path_had_stays_behind_and_each_folder_is_there_once() -> None:
    environment = {"PATH": "/usr/bin:/opt/env/bin", "HOME": "/root"}
    expected = {"PATH": "/opt/env/bin:/usr/bin", "HOME": "/root"}
    assert with_our_programs(environment, "/opt/env/bin/python") == expected
    assert with_our_programs(expected, "/opt/env/bin/python") == expected
    assert with_our_programs({}, "/opt/env/bin/python")["PATH"] == f"/opt/env/bin:{os.defpath}"
    assert environment["PATH"] == "/usr/bin:/opt/env/bin", "it was changed"


def test_the_end_of_a_log_is_its_last_lines_however_long_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_end(log) == "no output"
    log.write_text("\n\n")
    assert log_end(log) == "no output"
    log.write_text("\n".join(f"line {number}" for number in range(100_000)) + "\n\n")
    assert log_end(log, max_lines=2) == "line 99998\nline 99999"
    assert len(log_end(log).splitlines()) == 20
    log.write_bytes(b"\xff" * 2 * LOG_END_BYTES)
    assert len(log_end(log)) == LOG_END_BYTES, "one endless line is cut"
