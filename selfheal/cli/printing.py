"""Tables, JSON and progress bars, the same in all commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from pydantic import SecretStr
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from selfheal.cli.app import console, progress_console
from selfheal.kit.postgres_url import without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.progress import Progress

    from selfheal.cli.supervisor import JobEvent


STEP_ENDS = {"STEP_SUCCESS", "STEP_SKIPPED"}
MAX_MESSAGE_CHARACTERS = 60

MAX_TABLE_CHARACTERS = 10_000
"""A width in which any table fits."""


@contextmanager
def step_progress(title: str) -> Iterator[Callable[[JobEvent], None]]:
    """Show a bar over the steps of a job, with the progress within a step."""
    with _progress_bar() as progress:
        task = progress.add_task(title, total=None)

        def follow(event: JobEvent) -> None:
            step = (event.step or "").replace("_", " ")
            if event.steps:
                progress.update(task, total=len(event.steps))
            elif event.type in STEP_ENDS:
                progress.update(task, advance=1, description=f"{title}: {step}")
            elif event.type == "LOG" and event.level == "INFO" and step:
                message = printable(event.message[:MAX_MESSAGE_CHARACTERS])
                progress.update(task, description=f"{title}: {step}: {escape(message)}")

        yield follow


@contextmanager
def fit_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar over the fits of a training."""
    with _progress_bar(is_transient=True) as progress:
        task = progress.add_task(f"{title}: fits", total=None)
        yield lambda n_done, n_fits: progress.update(task, completed=n_done, total=n_fits)


@contextmanager
def count_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar over things that are counted."""
    with _progress_bar() as progress:
        task = progress.add_task(title, total=None)
        yield lambda n_done, n_all: progress.update(task, completed=n_done, total=n_all)


@contextmanager
def phase_progress(title: str, n_phases: int) -> Iterator[Callable[[str], None]]:
    """Show a bar over phases, with the name of each as it begins."""
    with _progress_bar(is_transient=True) as progress:
        task = progress.add_task(title, total=n_phases, completed=-1)
        yield lambda phase: progress.update(task, advance=1, description=f"{title}: {phase}")


def _progress_bar(*, is_transient: bool = False) -> Progress:
    """Return a progress bar on stderr, so that stdout contains only JSON."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=progress_console, transient=is_transient)


def shown(value: object) -> str:
    """Return a record as JSON-ready values."""
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    return "" if value is None else without_password(str(value))


def print_json(value: object) -> None:
    """Print values as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_rows(title: str, values: Mapping[str, Any] | None) -> None:
    """Print rows as a table."""
    table = Table("", "", title=title, title_justify="left", show_header=False)
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"
    for name, value in (values or {"": "nothing yet"}).items():
        table.add_row(name.replace("_", " "), cell(value))
    console.print(table)


def print_table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print a table; row by row where it does not fit the terminal without breaking words, such as names of features."""
    if not rows:
        console.print(f"{title}: none")
        return
    headings = [column.replace("_", " ") for column in columns]
    lines = [[cell(row[column]) for column in columns] for row in rows]
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        is_prose = any(" " in line[place] for line in lines)
        table.add_column(heading, overflow="fold", no_wrap=not is_prose)
    for line in lines:
        table.add_row(*line)
    if _smallest_width(table) <= console.width:
        console.print(table)
    else:
        _print_one_by_one(title, headings, lines)


def _smallest_width(table: Table) -> int:
    """Return the narrowest width at which a table breaks lines only between words."""
    options = console.options.update(width=MAX_TABLE_CHARACTERS)
    return Measurement.get(console, options, table).minimum


def _print_one_by_one(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print each row as its first value, and the others below it with their headings."""
    console.print(title, style="italic", markup=False, highlight=False)
    for first, *others in lines:
        console.print(Text(first, style="bold", overflow="fold"))
        values = ", ".join(f"{heading} {value}" for heading, value in zip(headings[1:], others, strict=True))
        console.print(Padding(Text(values, overflow="fold"), (0, 0, 0, 2), expand=False))


def printable(text: str) -> str:
    r"""Return external text made safe for a terminal: control characters and escape sequences become `?`.

    >>> printable("as it is\x1b[2Jor not")
    'as it is?[2Jor not'
    """
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def cell(value: object) -> str:
    """Format a value for a table: times to the second, numbers to four digits, unknown values as `-`."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
