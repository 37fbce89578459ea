"""`python -m selfheal_assets.daemon`: Dagster's daemon, which also writes a heartbeat file.

`dagster-daemon liveness-check` imports all of Dagster and asks Postgres: on a busy machine two minutes for one answer. Here the
daemon itself writes when each of its threads last reported, and `selfheal-probe daemon` reads that.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.controller import create_daemons_from_instance, daemon_controller_from_instance
from dagster._utils.interrupts import capture_interrupts, setup_interrupt_handlers

from selfheal.kit.errors import SelfhealError
from selfheal.kit.health_probe import heartbeat_path
from selfheal.kit.heartbeat import is_available, seconds_since_boot, write_heartbeat
from selfheal.kit.periodic_thread import PeriodicThread
from selfheal.settings import load_settings
from selfheal_assets.run_launcher import wait_for_stopped_runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from dagster._daemon.daemon import DagsterDaemon

BEAT_SECONDS = 5.0
LOG_LEVEL = "warning"


def main(arguments: list[str] | None = None) -> int:
    """Run Dagster's daemon for a workspace until stopped."""
    parser = argparse.ArgumentParser(prog="python -m selfheal_assets.daemon", description=__doc__)
    parser.add_argument("-w", "--workspace", required=True, help="workspace.yaml")
    workspace: str = parser.parse_args(arguments).workspace
    try:
        path = heartbeat_path(load_settings().data_dir, "daemon")
        path.unlink(missing_ok=True)
        run(workspace, path)
    except SelfhealError as error:
        print(f"selfheal: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        return 2
    except KeyboardInterrupt:  # what Dagster makes of SIGINT and SIGTERM
        return 0
    return 0


def run(workspace: str, heartbeat: Path) -> None:
    """Run the daemon's threads, and one that writes the heartbeat, until interrupted."""
    setup_interrupt_handlers()
    daemons: list[DagsterDaemon] = []  # type: ignore[type-arg]

    def gen_daemons(instance: dg.DagsterInstance) -> Sequence[DagsterDaemon]:  # type: ignore[type-arg]
        daemons.extend(create_daemons_from_instance(instance))
        return daemons

    beats = Beats()
    writer = PeriodicThread("heartbeat", lambda: beats.write(heartbeat, daemons), lambda: BEAT_SECONDS)
    with capture_interrupts(), dg.DagsterInstance.get() as instance:
        controlled = daemon_controller_from_instance(
            instance,
            WorkspaceFileTarget([workspace]),
            gen_daemons=gen_daemons,
            log_level=LOG_LEVEL,
            code_server_log_level=LOG_LEVEL,
        )
        try:
            with controlled as controller:
                if is_available():
                    writer.start()
                controller.check_daemon_loop()  # ends the process if a thread has ended
        finally:
            writer.request_stop()
            wait_for_stopped_runs()


class Beats:
    """When each thread of the daemon was last seen to have reported."""

    def __init__(self) -> None:
        self._reported: dict[str, datetime | None] = {}
        self._seen: dict[str, float | None] = {}

    def write(self, path: Path, daemons: Sequence[DagsterDaemon]) -> None:  # type: ignore[type-arg]
        """Write the heartbeat. Dagster's times are of a clock that may be set; here counts when one was seen to change."""
        now = seconds_since_boot()
        for daemon in daemons:
            name, reported = daemon.daemon_type(), daemon._last_heartbeat_time
            if reported != self._reported.get(name):
                self._seen[name] = now
            self._reported[name] = reported
            self._seen.setdefault(name, None)
        write_heartbeat(path, self._seen)


if __name__ == "__main__":
    sys.exit(main())
