"""The bar over the steps of a job, from the events of its run."""

from __future__ import annotations

import io

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
