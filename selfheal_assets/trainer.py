"""`python -m selfheal_assets.trainer`: takes runs that train from Dagster's queue, so that they have a container of their own.

With TRAINING_RUNS_IN=trainer the daemon leaves these runs in the queue. Here they are launched as the daemon would: one at a time,
each a process with a lock. While there is no trainer they wait; if it dies, they are repeated like any other.
"""

from __future__ import annotations

import fcntl
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import psutil

from selfheal.kit.backoff import Backoff
from selfheal.kit.errors import ConfigurationError, SelfhealError
from selfheal.kit.health_probe import heartbeat_path
from selfheal.kit.heartbeat import is_available, seconds_since_boot, write_heartbeat
from selfheal.settings import load_settings
from selfheal_assets.job_names import RETRAINING_TAG
from selfheal_assets.run_launcher import wait_for_stopped_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

from contextlib import contextmanager

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
BACKOFF = Backoff(initial_seconds=2.0, max_seconds=10.0)
"""While Postgres is away; shorter than a heartbeat may be old."""

QUEUED = dg.DagsterRunStatus.QUEUED
UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
LOCK_NAME = "trainer.lock"


def main() -> int:
    """Take runs from the queue until stopped; then stop those under way, which are taken up again by the next trainer."""
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    try:
        heartbeat = heartbeat_path(load_settings().data_dir, "trainer")
        with dg.DagsterInstance.get() as instance, only_one(Path(instance.root_directory) / LOCK_NAME):
            heartbeat.unlink(missing_ok=True)
            try:
                take_runs(instance, heartbeat, stopping)
            finally:
                stop_runs()
    except SelfhealError as error:
        print(f"selfheal: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        return 2
    return 0


def take_runs(instance: dg.DagsterInstance, heartbeat: Path, stopping: threading.Event) -> None:
    """Launch one run after the other, and write when the queue was last read."""
    n_failures, read_at = 0, None
    while not stopping.is_set():
        try:
            take_next(instance)
            n_failures, read_at = 0, seconds_since_boot() if is_available() else None
        except Exception:
            n_failures += 1
            logger.warning("the queue of runs could not be read, or a run not be launched", exc_info=True)
        if is_available():
            write_heartbeat(heartbeat, {"queue": read_at})
        stopping.wait(BACKOFF.seconds(n_failures) if n_failures else POLL_SECONDS)


def take_next(instance: dg.DagsterInstance) -> str | None:
    """Launch the run that has waited longest, unless one is under way; return its number."""
    if instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY, tags=RETRAINING_TAG), limit=1):
        return None
    waiting = instance.get_run_records(dg.RunsFilter(statuses=[QUEUED], tags=RETRAINING_TAG), limit=1, ascending=True)
    for record in waiting:
        run_id = record.dagster_run.run_id
        instance.launch_run(run_id, cast("Any", None))  # our launcher needs no workspace: the run names its code
        return run_id
    return None


def stop_runs() -> None:
    """Tell the runs of this process to stop, and wait until they have recorded it."""
    for process in psutil.Process().children():
        process.terminate()
    wait_for_stopped_runs()


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Lock the queue: two trainers could launch the same run.

    Raises:
        ConfigurationError: if another trainer has it.
    """
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another trainer takes the runs of {path.parent}; stop it first") from None
        yield


if __name__ == "__main__":
    sys.exit(main())
