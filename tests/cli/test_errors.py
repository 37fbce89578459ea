"""What goes wrong at the command line is one line on stderr with a remedy, and exit code 2; nothing is on stdout."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from selfheal.cli import main
from selfheal.cli.errors import MAX_CHARACTERS, one_line
from selfheal.kit.errors import PermanentError, UnfitFileError
from tests.environment import forget_settings

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `selfheal ARGUMENTS` in an empty folder with these settings; returns exit code, stdout and stderr."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **settings: str) -> tuple[int, str, str]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["selfheal", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        told = capsys.readouterr()
        return int(stopped.value.code or 0), told.out, told.err

    return run


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        (("check-data", "none.csv"), {}, ("none.csv: no such file", "unset DATA")),
        (("history", "--at", "yesterday"), {}, ("'yesterday' is not a time", "write it as")),
        (("demo", "--scenario", "nix"), {}, ("no scenario 'nix'", "rate_shock")),
        (("status", "--watch", "--json"), {}, ("choose one", "`selfheal status --help`")),
        (("promote", "2", "--reason", "x"), {}, ("needs --force", "`selfheal promote --help`")),
        (("promote", "two", "--force", "--reason", "x"), {}, ("version", "`selfheal promote --help`")),
        (("alerts", "acknowledge", "12"), {}, ("valid UUID", "`selfheal alerts acknowledge --help`")),
        (("rollback",), {}, ("Missing option '--reason'", "`selfheal rollback --help`")),
        (("nix",), {}, ("No such command 'nix'", "`selfheal --help`")),
        (("status", "--nix"), {}, ("No such option: --nix", "`selfheal status --help`")),
        (("status",), {"DATABASE_URL": "nonsense"}, ("DATABASE_URL=***", "postgresql://")),
        (("status",), {"DATA_DIR": "/proc/nix"}, ("DATA_DIR=/proc/nix", "writable folder")),
        (("status",), {"USE_CASE": "nix.nix:contract"}, ("USE_CASE='nix.nix:contract'", "nix")),
        (("status",), {"MIN_AUC": "7"}, ("MIN_AUC=7", "less than or equal to 1")),
    ],
)
def test_a_wrong_input_is_one_line_with_what_would_be_right(
    command: Command, arguments: tuple[str, ...], settings: dict[str, str], told: tuple[str, ...]
) -> None:
    code, out, err = command(*arguments, **settings)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("selfheal: ")
    for part in told:
        assert part in line, line


def test_a_postgres_that_is_away_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfheal.adapters.postgres import migrate

    monkeypatch.setattr(migrate, "_create_if_missing", migrate._create_if_missing_at_once)  # no 10 s of patience
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = f"postgresql://u:hunter2@127.0.0.1:{taken.getsockname()[1]}/x"
        code, out, err = command("status", DATABASE_URL=url)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert "does not answer" in line
    assert "check DATABASE_URL" in line
    assert "hunter2" not in line


def test_a_port_that_is_taken_is_named_with_its_setting(command: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        code, _, err = command("up", API_PORT=port, DATA_DIR=str(tmp_path / "data"))
    (line,) = err.strip().splitlines()
    assert code == 2
    assert f"127.0.0.1:{port}" in line
    assert "API_PORT" in line


def test_without_a_command_the_help_is_shown(command: Command) -> None:
    code, out, err = command()
    assert code == 2
    assert "Usage: selfheal" in out + err
    assert "selfheal: " not in err


def test_errors_of_the_libraries_that_a_person_can_cure_are_told_and_defects_are_not() -> None:
    away = OperationalError("SELECT secret", {}, Exception("connection\n  refused"))
    assert one_line(away) == (
        "Postgres does not answer: connection refused; check DATABASE_URL or POSTGRES_*, and try again"
    )
    assert "selfheal up" in (one_line(httpx.ConnectError("refused")) or "")
    assert "disk has room" in (one_line(OSError(28, "No space left on device")) or "")
    assert one_line(PermanentError("two\nlines")) == "two lines"
    assert one_line(UnfitFileError("a file:  2 problems\n- one\n- two")) == "a file: 2 problems\n- one\n- two"
    assert len(one_line(OSError("x" * 5_000)) or "") < MAX_CHARACTERS + 100
    for defect in (KeyError("x"), AssertionError("x"), ValueError("x")):
        assert one_line(defect) is None
