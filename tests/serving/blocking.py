"""Holding a running API at the moment between scoring and its commit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from selfheal.adapters.journal import Journal
from serving.scoring.micro_batcher import MicroBatcher
from tests.serving.running import Api
from tests.waiting import TIMEOUT_SECONDS, eventually


class SlowDisk:
    """Lets a write of a journal through only once it is told to."""

    def __init__(self) -> None:
        self.is_writing = threading.Event()
        self._may_go_on = threading.Event()

    def wait_for_write(self) -> None:
        assert self.is_writing.wait(TIMEOUT_SECONDS), "nothing is written"

    def release(self) -> None:
        self._may_go_on.set()

    def hold(self) -> None:
        self.is_writing.set()
        assert self._may_go_on.wait(TIMEOUT_SECONDS), "the disk was never released"


@contextmanager
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    """While the context is open, every journal of this process writes to a slow disk; released at the end."""
    disk = SlowDisk()
    write = Journal.write

    def write_when_told(journal: Journal, lines: Any) -> None:
        disk.hold()
        write(journal, lines)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "write", write_when_told)
        try:
            yield disk
        finally:
            disk.release()


def scorer_of(api: Api) -> MicroBatcher:
    assert api.app is not None
    scorer: MicroBatcher = api.app.state.service.batcher
    return scorer


def wait_for_rows(api: Api, n_rows: int) -> None:
    """Until so many rows wait for their answers, those on their way to disk included."""
    eventually(lambda: scorer_of(api).n_waiting_rows == n_rows, f"{n_rows} rows wait")
