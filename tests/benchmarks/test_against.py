"""`--against PATH`: which checkouts are refused and how, and what a comparison prints and returns."""

from __future__ import annotations

import importlib
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.against import N_TURNS_QUICK, conclude_comparison, n_turns_of
from benchmarks.builds import NEEDED, Build, checked_checkout, labelled_rows, python_of
from benchmarks.ratio import MIN_TURNS, Comparison, Measure
from tests.processes import REPOSITORY


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Something that passes for another checkout with an environment: its interpreter finds the code beside it."""
    folder = tmp_path / "other"
    for name in (*NEEDED, "serving/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    python_of(folder).parent.mkdir(parents=True)
    python_of(folder).symlink_to(sys.executable)
    return folder


def test_a_checkout_with_an_environment_of_its_own_is_taken(checkout: Path) -> None:
    assert checked_checkout(checkout) == checkout
    assert checked_checkout(None) is None


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"not a folder.*git worktree add"):
        checked_checkout(tmp_path / "absent")


@pytest.mark.parametrize("name", NEEDED)
def test_a_folder_that_is_no_checkout_is_refused_by_what_it_lacks(checkout: Path, name: str) -> None:
    (checkout / name).unlink()
    with pytest.raises(typer.BadParameter, match=name):
        checked_checkout(checkout)


def test_a_checkout_without_an_environment_is_refused_with_the_command_that_makes_one(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    with pytest.raises(typer.BadParameter, match=r"no environment of its own.*make \.venv/\.run"):
        checked_checkout(checkout)


def test_this_checkout_is_not_compared_with_itself() -> None:
    with pytest.raises(typer.BadParameter, match="this checkout itself"):
        checked_checkout(REPOSITORY)


def test_an_environment_that_runs_other_code_is_refused(checkout: Path, tmp_path: Path) -> None:
    python_of(checkout).unlink()
    python_of(checkout).write_text(f"#!/bin/sh\necho {tmp_path}/elsewhere/selfheal/__init__.py\n")
    python_of(checkout).chmod(0o755)
    with pytest.raises(typer.BadParameter, match=r"runs the code in .*elsewhere"):
        checked_checkout(checkout)


def test_an_environment_that_does_not_run_is_refused(checkout: Path) -> None:
    python_of(checkout).unlink()
    python_of(checkout).write_text("#!/bin/sh\nexit 1\n")
    python_of(checkout).chmod(0o755)
    with pytest.raises(typer.BadParameter, match="make it anew"):
        checked_checkout(checkout)


@pytest.mark.parametrize("module", ["serving", "monitoring_scale"])
def test_a_benchmark_refuses_a_wrong_checkout_before_it_does_anything(module: str, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(importlib.import_module(f"benchmarks.{module}").main)
    result = CliRunner().invoke(app, ["--against", str(tmp_path / "absent")])
    assert result.exit_code == 2
    assert "git worktree add" in " ".join(result.output.replace("│", " ").split())


def test_data_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"absent\.csv"):
        labelled_rows(tmp_path / "absent.csv", tmp_path)


def test_a_build_gets_no_setting_of_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://production/selfheal")
    build = Build("new", REPOSITORY, Path(sys.executable), tmp_path)
    code = (
        "from selfheal.settings import load_settings; s = load_settings(API_PORT=1); "
        "print(s.has_external_database, s.data_dir, s.journal_fsync)"
    )
    assert build.run(["-c", code], JOURNAL_FSYNC="off").split() == ["False", str(tmp_path / "data"), "off"]


def test_a_build_that_fails_is_named_with_what_it_printed(tmp_path: Path) -> None:
    build = Build("old", REPOSITORY, Path(sys.executable), tmp_path)
    with pytest.raises(RuntimeError, match=r"the old build failed.*out of luck"):
        build.run(["-c", "raise SystemExit('out of luck')"])


def test_what_later_builds_call_in_this_one_is_there() -> None:
    """A build is compared with later ones by these names; renaming one leaves it without comparison."""
    assert callable(importlib.import_module("benchmarks.monitoring_scale").tick_here)


@pytest.mark.parametrize(
    ("turns", "is_quick", "expected"),
    [(None, False, MIN_TURNS), (None, True, N_TURNS_QUICK), (7, False, 7), (7, True, 7)],
)
def test_each_build_takes_20_turns_unless_asked_otherwise(turns: int | None, is_quick: bool, expected: int) -> None:
    assert n_turns_of(turns, is_quick=is_quick, is_comparison=True) == expected


def test_turns_without_a_build_to_compare_with_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="--against"):
        n_turns_of(20, is_quick=False, is_comparison=False)


@pytest.mark.parametrize(("n_turns", "new", "code"), [(20, 0.9, 1), (20, 1.0, 0), (2, 0.9, 0)])
def test_only_a_comparison_that_decides_and_misses_ends_with_1(
    n_turns: int, new: float, code: int, tmp_path: Path
) -> None:
    measure = Measure("rate", "requests/s", True, (1.0,) * n_turns, (new,) * n_turns)
    compared = Comparison("title", {"old": "a", "new": "b"}, (measure,))
    output, written = io.StringIO(), tmp_path / "outcome.json"
    try:
        conclude_comparison(compared, Console(file=output, width=200), written)
        exit_code = 0
    except typer.Exit as ended:
        exit_code = ended.exit_code
    assert exit_code == code
    assert json.loads(written.read_text()) == json.loads(json.dumps(compared.to_dict()))
    assert f"{new:.3f}" in output.getvalue()
    assert ("decides nothing" in output.getvalue()) == (n_turns < MIN_TURNS)


def test_failed_requests_are_named_and_miss(tmp_path: Path) -> None:
    measure = Measure("rate", "requests/s", True, (1.0,) * 20, (2.0,) * 20)
    output = io.StringIO()
    with pytest.raises(typer.Exit):
        conclude_comparison(
            Comparison("title", {"old": "a", "new": "b"}, (measure,), {"old": 0, "new": 3}), Console(file=output), None
        )
    assert "3 requests to the new build failed" in output.getvalue()
