"""Many independent tries in processes of their own, with a progress bar.

Belongs here: how tries are run, counted and shown. Does not belong here: what is tried.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.measured import exactly

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Found = TypeVar("Found")
Run = Callable[[Callable[[int], Found], range], list[Found]]


@contextmanager
def in_processes(console: Console, n_tries_in_all: int) -> Iterator[Run[Found]]:
    """Yield a function that runs one try for each number, in order, on all cores; the bar counts those of all calls.

    What is tried is sent to forked processes, so that it may be of the module that was started.
    """
    with Progress(console=console) as progress, ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as workers:
        bar = progress.add_task("tries", total=n_tries_in_all)

        def run(try_once: Callable[[int], Found], numbers: range) -> list[Found]:
            tried = []
            for one in workers.map(try_once, numbers):
                tried.append(one)
                progress.advance(bar)
            exactly("tries", len(tried), len(numbers))
            return tried

        yield run


def show(console: Console, table: Table, outcomes: Sequence[DataclassInstance], json_file: Path | None) -> None:
    """Print the table of the outcomes, and write them to the file if there is one."""
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
