"""What is done to the containers, under traffic, and how the platform goes on.

Belongs here: the scenarios. Does not belong here: what a container is (`benchmarks.containers.platform`), and judging
(`benchmarks.containers.outcome`).
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.containers.outcome import Scenario
from benchmarks.containers.platform import (
    MIGRATION,
    OURS,
    RESTART_TIMEOUT_SECONDS,
    SERVICES,
    VOLUMES,
    ContainerPlatform,
    copy_volume,
    kill_main_process,
    replaced,
)
from benchmarks.containers.verified import write_ledger
from benchmarks.crash.processes import sent_to
from benchmarks.running_platform import PlatformIsStuckError
from benchmarks.witness import Ledger
from selfheal.domain.monitoring.silence import MONITOR_SILENT, SHORTEST_SILENCE
from selfheal.kit.errors import SelfhealError
from selfheal.simulate.compose import Container, docker

N_CLIENTS = 4
LONGEST_FUSE_SECONDS = 12.0
KILLS_IN_A_ROW = len(SERVICES)
"""Before the loop has to tick: each service once."""

RESOLVED_WITHIN_SECONDS = 150.0
"""An alert whose cause is gone: the next tick, or the next look of a sensor, at the latest."""

OPERATIONAL_KINDS = frozenset(
    {"journal_lag", MONITOR_SILENT, "sensor_stopped", "registry_out_of_sync", "model_refused", "traffic_silent"}
)
"""Alerts about the platform itself; others are about the data, and may stay. So are those of failed jobs."""

NEXT_IMAGE = "selfheal:benchmark-next"
NEXT_REVISION = "9999"
RESTORED = "selfheal-benchmark-restored"

NEXT_MIGRATION = '''"""One more migration, of an upgrade that is only tried: a column that nothing reads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("prediction_logs", "label_store"):
        op.add_column(table, sa.Column("benchmark_note", sa.Text(), server_default="none"))


def downgrade() -> None:
    for table in ("prediction_logs", "label_store"):
        op.drop_column(table, "benchmark_note")
'''
WHERE_MIGRATIONS_ARE = (
    "from selfheal.adapters.postgres.migrate import MIGRATIONS, head_revision; print(MIGRATIONS, head_revision())"
)


@dataclass(frozen=True)
class Plan:
    """How often main processes are killed, and for how long the daemon is away."""

    n_kills: int
    away_seconds: float


FULL, QUICK = Plan(20, 600.0), Plan(4, 200.0)

Work = Callable[[ContainerPlatform, Plan, Scenario], ContainerPlatform]
"""What is done; it returns the platform as it is then, and notes in the scenario what is wrong."""


def run_scenario(
    name: str, platform: ContainerPlatform, plan: Plan, ledger: Ledger, say: Callable[[str], None]
) -> tuple[Scenario, ContainerPlatform]:
    """Do it under traffic, wait until alerts have been resolved, and compare what was acknowledged."""
    scenario, began, before = Scenario(name), time.monotonic(), len(ledger.acknowledged)
    start_at = time.time()
    with sent_to(ledger, platform.api_ports, N_CLIENTS), _gaps(ledger, scenario):
        try:
            platform = SCENARIOS[name](platform, plan, scenario)
            _wait_for_resolved(platform, start_at, scenario)
        except (PlatformIsStuckError, SelfhealError) as error:
            scenario.found.append(str(error))
    scenario.acknowledged = len(ledger.acknowledged) - before
    scenario.alerts = dict(Counter(alert["kind"] for alert in _since(platform.alerts(), start_at)))
    scenario.verified = compared(platform, ledger, scenario)
    scenario.seconds = round(time.monotonic() - began, 1)
    say(f"{name}: {'; '.join(scenario.problems) or 'it went on by itself'} ({scenario.seconds:.0f} s)")
    return scenario, platform


def compared(platform: ContainerPlatform, ledger: Ledger, scenario: Scenario) -> dict[str, Any]:
    """Return what became of what was acknowledged; nothing, and a finding, if that cannot be said."""
    with tempfile.TemporaryDirectory(prefix="selfheal-ledger-") as name:
        Path(name).chmod(0o755)  # the containers have a user of their own
        write_ledger(ledger, Path(name))
        try:
            return platform.recorded_by_platform(Path(name))
        except SelfhealError as error:
            scenario.found.append(str(error))
            return {}


def kills(platform: ContainerPlatform, plan: Plan, scenario: Scenario) -> ContainerPlatform:
    """Kill the main process of a container at random, again and again; each service is hit about equally often.

    After each kill all containers have to become healthy; after some kills in a row, and after the last, the loop has to tick.
    """
    for number, service in enumerate(victims(plan.n_kills), 1):
        time.sleep(random.uniform(0, LONGEST_FUSE_SECONDS))
        victim = random.choice(platform.project.of_service(service))
        killed_at = time.time()
        try:
            seconds = kill_and_wait(platform, victim)
            scenario.kills_by[service] = scenario.kills_by.get(service, 0) + 1
            scenario.seconds_until_well.append(round(seconds, 1))
            if number % KILLS_IN_A_ROW == 0 or number == plan.n_kills:
                scenario.seconds_until_tick.append(round(platform.wait_for_tick(killed_at), 1))
        except PlatformIsStuckError as error:
            scenario.found.append(f"after a kill of {service}: {error}")
    return platform


def victims(n_kills: int) -> list[str]:
    """Return the services whose main process is killed, in random order: each before any of them again."""
    found: list[str] = []
    while len(found) < n_kills:
        found += random.sample(SERVICES, len(SERVICES))
    return found[:n_kills]


def kill_and_wait(platform: ContainerPlatform, victim: Container) -> float:
    """Kill the main process of a container; return the seconds until all containers were healthy again.

    Raises:
        PlatformIsStuckError: if the engine does not start it again, or it does not become healthy.
    """

    def is_started_again() -> bool:
        return any(one.id == victim.id and one.n_restarts > victim.n_restarts for one in platform.project.containers())

    began = time.monotonic()
    kill_main_process(victim)
    platform.wait_until(is_started_again, RESTART_TIMEOUT_SECONDS, f"{victim.service} is started again")
    platform.wait_until_well()
    return time.monotonic() - began


def restart_postgres(platform: ContainerPlatform, _: Plan, scenario: Scenario) -> ContainerPlatform:
    """Restart Postgres as an operator does."""
    restarted_at = time.time()
    platform.project.compose("restart", "postgres")
    _note_going_on(platform, scenario, restarted_at)
    return platform


def without_daemon(platform: ContainerPlatform, plan: Plan, scenario: Scenario) -> ContainerPlatform:
    """Stop Dagster's daemon for a while: predictions go on, an alert says that nobody monitors, and is resolved."""
    stopped_at = time.time()
    platform.project.compose("stop", "daemon")
    time.sleep(plan.away_seconds)
    if plan.away_seconds > SHORTEST_SILENCE.total_seconds() + 30:
        is_told = any(alert["kind"] == MONITOR_SILENT for alert in _since(platform.alerts(), stopped_at))
        scenario.found += (
            [] if is_told else [f"no alert {MONITOR_SILENT} in {plan.away_seconds:.0f} s without a daemon"]
        )
    back_at = time.time()
    platform.project.compose("start", "daemon")
    _note_going_on(platform, scenario, back_at)
    return platform


def upgrade(platform: ContainerPlatform, _: Plan, scenario: Scenario) -> ContainerPlatform:
    """Upgrade to an image with one more migration: first the schema, then the API's containers one by one, then the others."""
    image_id = build_next_image(platform.project.image)
    newer = platform.with_variables(SELFHEAL_IMAGE=NEXT_IMAGE)
    old = platform.project.of_service("api")
    newer.project.compose("run", "--rm", "--no-deps", "-T", MIGRATION, timeout_seconds=300)
    kill_and_wait(platform, old[0])  # the older release has to come back on the newer schema, too
    for container in old:
        docker("stop", container.id)
        docker("rm", container.id)
        newer.project.up("--no-deps", "--no-recreate", "api")
        newer.wait_until_well()
    upgraded_at = time.time()
    newer.project.up("--no-deps", *(name for name in OURS if name != "api"))
    _note_going_on(newer, scenario, upgraded_at)
    if not replaced(newer.project.containers(), image_id):
        scenario.found.append(f"not every container has the new image: {newer.unwell()}")
    return newer


def build_next_image(image: str) -> str:
    """Build an image with one more migration than `image`; return its id."""
    in_image = ("run", "--rm", "--network", "none", "--entrypoint", "python", image)
    folder, head = docker(*in_image, "-c", WHERE_MIGRATIONS_ARE).split()
    with tempfile.TemporaryDirectory(prefix="selfheal-next-") as name:
        path = Path(name) / f"{NEXT_REVISION}_next.py"
        path.write_text(NEXT_MIGRATION.format(revision=NEXT_REVISION, head=head))
        path.chmod(0o644)
        (Path(name) / "Dockerfile").write_text(f"FROM {image}\nCOPY {path.name} {folder}/versions/\n")
        docker("build", "--quiet", "--tag", NEXT_IMAGE, name)
    return docker("image", "inspect", "--format", "{{.Id}}", NEXT_IMAGE).strip()


def restore(platform: ContainerPlatform, _: Plan, scenario: Scenario) -> ContainerPlatform:
    """Stop the platform, copy its volumes, and start another project on the copies, under another name of the host."""
    project = platform.project
    project.compose("down")
    for name in VOLUMES:
        copy_volume(project.image, f"{project.name}_{name}", f"{RESTORED}_{name}", RESTORED, name)
    restored = platform.with_variables(RESTORED, BENCHMARK_HOST="restored")
    started_at = time.time()
    scenario.seconds_until_well.append(round(restored.start(), 1))
    scenario.seconds_until_tick.append(round(restored.wait_for_tick(started_at), 1))
    return restored


SCENARIOS: dict[str, Work] = {
    "kills": kills,
    "postgres": restart_postgres,
    "daemon": without_daemon,
    "upgrade": upgrade,
    "restore": restore,
}


def _note_going_on(platform: ContainerPlatform, scenario: Scenario, since: float) -> None:
    scenario.seconds_until_well.append(round(platform.wait_until_well(), 1))
    scenario.seconds_until_tick.append(round(platform.wait_for_tick(since), 1))


def _wait_for_resolved(platform: ContainerPlatform, since: float, scenario: Scenario) -> None:
    """Wait for the end of alerts about the platform itself; what stays open is noted."""
    deadline = time.monotonic() + RESOLVED_WITHIN_SECONDS
    while left := still_open(_since(platform.alerts(), since)):
        if time.monotonic() > deadline:
            scenario.alerts_left_open = left
            return
        time.sleep(2.0)


def still_open(alerts: Sequence[dict[str, Any]]) -> list[str]:
    """Return the kinds of open alerts about the platform itself."""
    return sorted(
        {
            alert["kind"]
            for alert in alerts
            if alert["resolved_at"] is None
            and (alert["kind"] in OPERATIONAL_KINDS or alert["kind"].endswith("_failed"))
        }
    )


def _since(alerts: Sequence[dict[str, Any]], moment: float) -> list[dict[str, Any]]:
    return [alert for alert in alerts if datetime.fromisoformat(alert["created_at"]).timestamp() >= moment]


@contextmanager
def _gaps(ledger: Ledger, scenario: Scenario) -> Iterator[None]:
    """Note the longest time without an acknowledged prediction."""
    stopping = threading.Event()

    def watch() -> None:
        n_seen, seen_at = len(ledger.acknowledged), time.monotonic()
        while not stopping.wait(0.1):
            now, n_now = time.monotonic(), len(ledger.acknowledged)
            scenario.longest_gap_s = round(max(scenario.longest_gap_s, now - seen_at), 1)
            if n_now > n_seen:
                n_seen, seen_at = n_now, now

    thread = threading.Thread(target=watch, name="gaps", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
