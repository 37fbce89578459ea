"""Many independent tries in processes of their own, with a progress bar.

Belongs here: how tries are run and counted. Does not belong here: what is tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

from benchmarks.measured import exactly

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
