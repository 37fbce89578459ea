"""The run launcher: each run in a process of its own, started by Dagster's daemon and owned by nobody else.

Dagster's own starts them in the code server, which takes them along when it ends, and cannot say afterwards which still live.
Here a run needs no code server once it is in the queue, the daemon sees at once that its process has died, and after a crash of
the daemon, or of the machine, `selfheal_assets.run_owners` says which runs nobody executes any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
import psutil
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value

from selfheal.adapters.marked_processes import END_GRACE_SECONDS
from selfheal_assets.interruptions import MAX_RUNTIME_TAG, OUT_OF_TIME_TAG
from selfheal_assets.run_owners import RunOwners, write_owner

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

TERMINATION_TIMEOUT_SECONDS = END_GRACE_SECONDS
"""How long a run may take to end by itself, with its MLflow run, once it was told to; then its process is killed."""

KILL_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.1
END_REQUEST_POLL_SECONDS = 2.0
"""How soon a run is ended at the request of another container."""

END_REQUESTED_TAG = "selfheal/end_requested"
STOPPED_RUNS_TIMEOUT_SECONDS = 10.0
"""How long runs may take to record that they were stopped, when the process that started them stops."""


class ProcessRunLauncher(RunLauncher[Any], ConfigurableClass):
    """Executes each run in a process of its own on this machine (`run_launcher` in dagster.yaml)."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What Dagster made this launcher from."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of `run_launcher.config` in dagster.yaml: there is nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ProcessRunLauncher:
        """Return the launcher."""
        return cls(inst_data=inst_data)

    def starts_process_of(self, run: dg.DagsterRun) -> bool:
        """Return whether the run is executed by a process of this machine, which holds a lock: here each is."""
        return True

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's process, which holds the run's lock from its first moment on.

        Raises:
            OSError: if it cannot be started; Dagster then marks the run as failed.
        """
        run, instance = context.dagster_run, self._instance
        assert run.job_code_origin is not None, "a run from the queue names its code"
        arguments = serialize_value(ExecuteRunArgs(run.job_code_origin, run.run_id, instance.get_ref()))
        with RunOwners.of(instance).claim(run.run_id) as lock:
            worker = subprocess.Popen(  # noqa: S603  (our own command, no shell)
                [
                    sys.executable,
                    "-m",
                    "selfheal_assets.run_worker",
                    str(os.getpid()),
                    str(lock.fileno()),
                    arguments,
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # a signal to the daemon's group would reach the processes of a training first
            )
            write_owner(lock, worker.pid)
        waiting = threading.Thread(target=_report_end, args=(instance, run.run_id, worker), daemon=True)
        waiting.start()

    def terminate(self, run_id: str) -> bool:
        """End a run on a person's word, or because its time is up; return False if it had ended.

        A run whose process is gone is marked as canceled at once.
        """
        instance = self._instance
        record = instance.get_run_record_by_id(run_id)
        if record is None or record.dagster_run.is_finished:
            return False
        if has_run_out_of_time(instance, record, time.time()):
            instance.add_run_tags(run_id, {OUT_OF_TIME_TAG: "true"})
        instance.report_run_canceling(record.dagster_run)
        owners = RunOwners.of(instance)
        if owners.has_owner(run_id) and owners.pid(run_id) is None:
            instance.add_run_tags(run_id, {END_REQUESTED_TAG: "true"})  # its container has a launcher of its own
            limit = END_REQUEST_POLL_SECONDS + TERMINATION_TIMEOUT_SECONDS + KILL_TIMEOUT_SECONDS
            if not _is_free_within(limit, owners, run_id):
                return True  # `interrupted_run_sensor` reports its end
        _end_owner(owners, run_id)
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_canceled(run, "The process of the run has ended.")
        return True


def wait_for_stopped_runs() -> None:
    """Wait until the runs of this process have recorded that they were stopped: with a container's last process all end."""
    psutil.wait_procs(psutil.Process().children(), timeout=STOPPED_RUNS_TIMEOUT_SECONDS)


def _report_end(instance: dg.DagsterInstance, run_id: str, worker: subprocess.Popen[bytes]) -> None:
    """Wait for the process of a run; if it ended before the run did, the run has failed."""
    code = _exit_code(instance, run_id, worker)
    try:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED}:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            instance.report_run_failed(run, f"The process of the run (number {worker.pid}) {how}.")
        RunOwners.of(instance).forget(run_id)
    except Exception:  # Postgres may be away; `interrupted_run_sensor` finds the run later
        logger.exception("the end of run %s could not be recorded", run_id)


def _exit_code(instance: dg.DagsterInstance, run_id: str, worker: subprocess.Popen[bytes]) -> int:
    """Wait for the process of a run, and end it if another container asks for that."""
    while True:
        try:
            return worker.wait(END_REQUEST_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if _is_end_requested(instance, run_id):
                _end_owner(RunOwners.of(instance), run_id)
                return worker.wait()


def _is_end_requested(instance: dg.DagsterInstance, run_id: str) -> bool:
    try:
        run = instance.get_run_by_id(run_id)
    except Exception:  # Postgres may be away: asked again in a moment
        return False
    return run is not None and END_REQUESTED_TAG in run.tags


def has_run_out_of_time(instance: dg.DagsterInstance, record: dg.RunRecord, now: float) -> bool:
    """Return whether a run under way is older than it may become; `now` in seconds of the epoch."""
    limit = float(record.dagster_run.tags.get(MAX_RUNTIME_TAG) or instance.run_monitoring_max_runtime_seconds)
    return record.start_time is not None and 0 < limit < now - record.start_time


def _end_owner(owners: RunOwners, run_id: str) -> None:
    """End the process that executes a run; return once it has ended, or cannot be ended."""
    pid = owners.pid(run_id)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        if _is_free_within(TERMINATION_TIMEOUT_SECONDS, owners, run_id):
            return
        if os.getpgid(pid) == pid:  # a worker, with the processes of its training
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
        _is_free_within(KILL_TIMEOUT_SECONDS, owners, run_id)


def _is_free_within(seconds: float, owners: RunOwners, run_id: str) -> bool:
    end = time.monotonic() + seconds
    while owners.has_owner(run_id):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True
