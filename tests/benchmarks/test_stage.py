"""What a benchmark starts finds our environment's programs, and says why it did not start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.stage import free_port, server, start


def test_a_server_finds_our_programs_where_the_environment_is_not_activated(tmp_path: Path) -> None:
    """MLflow's scoring server starts uvicorn by its name."""
    code = "import shutil; print(shutil.which('uvicorn'))"
    process = start([sys.executable, "-c", code], tmp_path / "log", {"PATH": "/usr/bin:/bin"})
    assert process.wait(60) == 0
    assert (tmp_path / "log").read_text().strip() == str(Path(sys.executable).parent / "uvicorn")


def test_a_server_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    """The log lies in a folder that is deleted once the error leaves it."""
    code = "import sys; print('line ' * 3); sys.exit('no such file: uvicorn')"
    url = f"http://127.0.0.1:{free_port()}/ping"
    with (
        pytest.raises(RuntimeError, match=r"/ping did not start; the end of .*log:\n(.*\n)*no such file: uvicorn"),
        server([sys.executable, "-c", code], url, tmp_path / "log"),
    ):
        pass
