"""The bar over the steps of a job, from the events of its run; tables in terminals of any width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from selfheal.cli import printing
from selfheal.cli.supervisor import JobEvent

PLAN = JobEvent("PLAN", steps=("training_set", "shadow_model", "promotion"))
TRAINED = (JobEvent("STEP_SUCCESS", "training_set"), JobEvent("STEP_SUCCESS", "shadow_model"))
SAID = JobEvent("LOG", "shadow_model", "INFO", "3 of 16 [bold]fits\x1b[2J")


def shown(monkeypatch: pytest.MonkeyPatch, *events: JobEvent) -> str:
    """The bar as it stands at the end."""
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    monkeypatch.setattr(printing, "progress_console", console)
    with printing.step_progress("Retraining") as follow:
        for event in events:
            follow(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_step_that_ended_or_was_skipped_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = shown(monkeypatch, PLAN, *TRAINED, JobEvent("STEP_SKIPPED", "promotion"))
    assert "Retraining: promotion" in bar
    assert "3/3" in bar


def test_within_a_step_it_shows_what_the_step_says_as_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = shown(monkeypatch, PLAN, TRAINED[0], SAID)
    assert "Retraining: shadow model: 3 of 16 [bold]fits?[2J" in bar
    assert "1/3" in bar


def test_what_dagster_says_for_itself_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    own = (JobEvent("ENGINE_EVENT", message="Executing steps"), JobEvent("LOG", "shadow_model", "DEBUG", "Loading"))
    bar = shown(monkeypatch, PLAN, TRAINED[0], *own)
    assert "Retraining: training set" in bar
    assert "1/3" in bar


# Tables

LONG = "share_of_late_payments_in_the_last_two_years_by_number"
ROWS = [
    {"input": LONG, "limits": "0 to 1,000", "unit": "count per day of the year", "min": 0.125},
    {"input": "age", "limits": "18 to 120", "unit": "years", "min": 18.0},
]


def table(monkeypatch: pytest.MonkeyPatch, width: int, rows: list[dict[str, Any]] = ROWS) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    monkeypatch.setattr(printing, "console", console)
    printing.print_table("Inputs", rows, tuple(rows[0]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_name_is_broken_in_a_terminal_that_is_wide_enough_for_it(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    shown = table(monkeypatch, width)
    for name in (LONG, "age", "0.125", "18"):
        assert name in shown
    assert max(map(len, shown.splitlines())) <= width


def test_a_table_that_fits_is_a_table_and_one_that_does_not_is_shown_row_by_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "┃ input" in table(monkeypatch, 120)
    narrow = table(monkeypatch, 70).splitlines()
    assert narrow[:2] == ["Inputs", LONG]
    assert narrow[2].strip() == "limits 0 to 1,000, unit count per day of the year, min 0.125"


def test_text_wraps_between_words_and_only_what_fits_nowhere_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    prose = {"name": "DATA", "meaning": "a labelled file that follows the contract, or nothing at all " * 2}
    shown = table(monkeypatch, 60, [prose])
    assert "┃ name" in shown, "prose leaves a table a table"
    assert all(word in shown for word in prose["meaning"].split())
    assert LONG not in table(monkeypatch, 30)
