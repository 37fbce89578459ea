"""`selfheal replay`: a table, figures, a page; a cut run continues; what is wrong with a stream is said in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from selfheal.cli import app
from selfheal.cli.errors import one_line
from selfheal.services.platform import open_platform
from selfheal.settings import Settings
from selfheal.simulate.demo import settings_environment
from selfheal.simulate.replay.catalogue import WORLDS
from selfheal.simulate.replay.policies import POLICIES
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import serve, toy_rows

CALM = ("--world", "calm_50_a_day", "--days", "1", "--processes", "0")
NEVER = ("--policy", "never")
HOURS = ("--time", "when", "--label", "fails")


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("USE_CASE", "tests.toy_use_case:contract")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["replay", *arguments])


def complaint(result: Result) -> str:
    """What the command says, in one line."""
    assert result.exit_code != 0, result.output
    told = one_line(result.exception) if result.exception else None
    assert told is not None, result.exception
    assert "\n" not in told
    return told


def stream(n_rows: int = 2_000, **columns: Any) -> Path:
    rows = contract.synthesize(n_rows, 6).rename(columns={"true_label": "fails"})
    path = Path("mine.csv")
    rows.assign(when=1_770_000_000 + 3_600 * rows.index).assign(**columns).to_csv(path, index=False)
    return path


def test_worlds_and_policies_are_listed_with_a_line_each(replay: Callable[..., Result]) -> None:
    told = replay("--list").output
    assert all(name in told for name in (*WORLDS, "rainfall", *POLICIES))
    assert "keep the first champion for ever" in told


def test_a_world_gives_a_table_figures_and_a_page_and_is_not_replayed_twice(replay: Callable[..., Result]) -> None:
    asked = (*CALM, *NEVER, "--policy", "oracle", "--json", "out.json", "--report", "out.html")
    done = replay(*asked)
    assert done.exit_code == 0, done.output
    assert "calm_50_a_day: nothing changes, 50 predictions a day" in done.output
    found = json.loads(Path("out.json").read_text())
    assert set(found["worlds"]["calm_50_a_day"]) == {"never", "oracle"}
    assert found["data"] == "the contract's synthetic stand-in"
    assert "calm_50_a_day" in Path("out.html").read_text()
    results = Path("out.cells.jsonl")
    before = results.read_bytes()
    assert before.count(b"\n") == 2
    assert replay(*asked, "--policy", "weekly").exit_code == 0
    assert results.read_bytes().startswith(before), "what was finished stays"
    assert results.read_bytes().count(b"\n") == 3


def test_a_stream_of_a_user_is_replayed_on_its_own_labels(replay: Callable[..., Result]) -> None:
    done = replay("--stream", str(stream()), *HOURS, *NEVER, "--processes", "0", "--json", "out.json")
    assert done.exit_code == 0, done.output
    figures = json.loads(Path("out.json").read_text())["streams"]["mine"]["never"]
    assert 0 < figures["brier"][1] < 0.25


def test_rows_without_times_are_as_far_apart_as_said(replay: Callable[..., Result]) -> None:
    path = stream()
    asked = ("--stream", str(path), "--label", "fails", "--exclude", "when", *NEVER, "--processes", "0")
    assert "name its column of times with --time, or" in complaint(replay(*asked))
    assert replay(*asked, "--every", "60").exit_code == 0


def test_unknown_labels_are_predicted_and_count_in_no_measure(replay: Callable[..., Result]) -> None:
    rows = contract.synthesize(2_000, 6)
    labels = rows["true_label"].where(rows.index % 2 == 0)
    done = replay("--stream", str(stream(fails=labels)), *HOURS, *NEVER, "--processes", "0")
    assert done.exit_code == 0, done.output
    (line,) = (json.loads(text) for text in Path("replay.cells.jsonl").read_text().splitlines())
    assert line["n_rows_after"] == 1_500 // 2


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"when": lambda rows: 1_770_000_000 - 3_600 * rows.index},
            "line 3, column 'when'.*earlier than the line before",
        ),
        ({"when": "soon"}, "line 2, column 'when': 'soon' is not a time"),
        ({"when": 7}, "line 2, column 'when': 7 is not a time"),
        (
            {"fails": "maybe"},
            "line 2, column 'fails': 'maybe' is not a label; use 0 or 1, and leave an unknown one blank",
        ),
        ({"fails": None}, "only 0 rows have the true label 0; a replay needs 10 of each"),
        ({"fails": 1}, "only 0 rows have the true label 0; a replay needs 10 of each"),
        ({"load_ratio": "much"}, "line 2, column 'load_ratio': 'much' is not a number.*--exclude load_ratio"),
    ],
)
def test_what_is_wrong_with_a_stream_is_said_with_line_column_and_remedy(
    replay: Callable[..., Result], columns: dict[str, Any], words: str
) -> None:
    said = complaint(replay("--stream", str(stream(**columns)), *HOURS, *NEVER, "--processes", "0"))
    assert re.search(words, said), said


def test_a_stream_that_is_too_short_for_a_champion_is_a_clear_word(replay: Callable[..., Result]) -> None:
    said = complaint(replay("--stream", str(stream(600)), *HOURS, *NEVER, "--processes", "0"))
    assert "stream 'mine': the champion learns from its first 150 rows, which are too few" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot be read as CSV"),
        ("when,x,fails\n", "a header but no rows; a replay needs rows"),
        ("when,x,fails\n1770000000,1,0\n", "only 1 rows have the true label 0"),
        ("when,fails\n1770000000,1\n", "no column is left as an input"),
    ],
)
def test_an_empty_stream_is_a_clear_word(replay: Callable[..., Result], content: str, words: str) -> None:
    Path("mine.csv").write_text(content)
    said = complaint(replay("--stream", "mine.csv", *HOURS, *NEVER, "--processes", "0"))
    assert words in said, said


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((), "nothing to replay: name a --world (see --list), a --stream, or --logs"),
        (("--world", "paradise"), "there is no world 'paradise'; choose among calm"),
        ((*CALM, "--policy", "hope"), "there is no policy 'hope'"),
        ((*CALM, "--data", "none.csv"), "--data none.csv: no such file"),
        ((*CALM, "--report", "page.txt"), "name a file that ends in .html"),
        ((*CALM, "--since", "2026-03-02"), "add --logs"),
        ((*CALM, "--logs"), "leave out --world, --stream and --data"),
        ((*CALM, "--time", "when"), "add --label COLUMN"),
        ((*CALM, "--sweep", "PROMOTION_COOLDOWN_DAYS=-1"), "PROMOTION_COOLDOWN_DAYS=-1"),
        ((*CALM, "--sweep", "MIN_F1_GAIN=2"), "there is no setting MIN_F1_GAIN"),
        (("--stream", "none.csv", "--label", "y", "--every", "1"), "none.csv: no such file"),
    ],
)
def test_a_wrong_choice_is_refused_in_one_line_before_anything_runs(
    replay: Callable[..., Result], asked: tuple[str, ...], words: str
) -> None:
    assert words in complaint(replay(*asked))
    assert not Path("replay.cells.jsonl").exists()


@pytest.mark.integration
def test_the_platforms_own_logs_are_replayed_from_a_time_on(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, replay: Callable[..., Result]
) -> None:
    settings = make_settings()
    platform = open_platform(settings)
    serve(platform, toy_rows(900), step=timedelta(minutes=10))
    platform.close()
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    asked = (
        "--logs",
        "--since",
        f"{T0:%Y-%m-%dT%H:%M}",
        *NEVER,
        "--sweep",
        "PROMOTION_COOLDOWN_DAYS=1,30",
        "--report",
        "mine.html",
    )
    done = replay(*asked)
    assert done.exit_code == 0, done.output
    assert "logs: 900 predictions" in done.output
    for days in (1, 30):
        assert f"ours PROMOTION_COOLDOWN_DAYS={days}" in done.output
    assert "from Postgres" in Path("mine.html").read_text()
    before = Path("replay.cells.jsonl").read_bytes()
    assert replay(*asked).exit_code == 0
    assert Path("replay.cells.jsonl").read_bytes() == before, "the same logs are not replayed twice"
