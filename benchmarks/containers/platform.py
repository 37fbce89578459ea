"""A platform in containers as its operator has it: started, looked at from outside, robbed of a process.

Belongs here: containers, ports, and what API and Dagster answer. Does not belong here: what is done when
(`benchmarks.containers.scenarios`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from benchmarks.running_platform import PlatformIsStuckError, has_ticked_since, runs_of
from benchmarks.stage import free_port
from selfheal.kit.errors import ServiceUnavailableError
from selfheal.simulate.compose import (
    PROJECT_LABEL,
    ComposeProject,
    Container,
    deploy_folder,
    docker,
)

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PROJECT = "selfheal-benchmark"
SERVICES = ("postgres", "mlflow", "code-server", "webserver", "daemon", "trainer", "api")
OURS = tuple(name for name in SERVICES if name != "postgres")
MIGRATION = "migrate"
ONE_SHOTS = (MIGRATION, "bootstrap")
VOLUMES = ("data", "postgres")
TICK_SECONDS = 10
TICKS_TO_GO_ON = 3
SECONDS_OF_A_TICK = 600.0
"""Launching a run and running it, in containers with limits, on cores that others may use as well. How long it took is reported;
this only says when nobody waits any longer."""

READY_TIMEOUT_SECONDS = 420.0
RESTART_TIMEOUT_SECONDS = 90.0
"""For the engine to start a container again; it waits longer from one time to the next."""

POLL_SECONDS = 1.0
CODE = "/run/code"
RECORDED = "/run/recorded"


@dataclass(frozen=True)
class ContainerPlatform:
    """A Compose project, and the ports of this machine behind which its API and Dagster's pages are."""

    project: ComposeProject
    api_ports: tuple[int, int]
    dagster_port: int

    @property
    def api_key(self) -> str:
        """Return the key that clients send."""
        return self.project.secret("api_key")

    def with_variables(self, project: str | None = None, **variables: str) -> ContainerPlatform:
        """Return the same files and ports with other variables, or as another project."""
        changed = replace(
            self.project, name=project or self.project.name, variables={**self.project.variables, **variables}
        )
        return replace(self, project=changed)

    def start(self) -> float:
        """Start all containers; return the seconds until they were healthy."""
        began = time.monotonic()
        self.project.up()
        self.project.wait_until_healthy(READY_TIMEOUT_SECONDS)
        return time.monotonic() - began

    def wait_until(self, holds: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait; return how many seconds it took.

        Raises:
            PlatformIsStuckError: if it does not hold in time.
        """
        began = time.monotonic()
        while True:
            try:
                if holds():
                    return time.monotonic() - began
            except ServiceUnavailableError:  # a container has gone between its listing and the look at it
                pass
            if time.monotonic() - began > seconds:
                raise PlatformIsStuckError(f"not within {seconds:.0f} s: {what}; {self.unwell()}")
            time.sleep(POLL_SECONDS)

    def is_well(self) -> bool:
        """Return whether all containers are healthy."""
        found = [one for one in self.project.containers() if one.service in SERVICES]
        return {one.service for one in found} == set(SERVICES) and all(one.is_healthy for one in found)

    def wait_until_well(self) -> float:
        """Wait until all containers are healthy; return how many seconds it took."""
        return self.wait_until(self.is_well, READY_TIMEOUT_SECONDS, "all containers are healthy")

    def unwell(self) -> str:
        """Return the containers that are not healthy, for a message."""
        try:
            found = [
                f"{one.service} is {one.state} {one.health}" for one in self.project.containers() if not one.is_well
            ]
        except ServiceUnavailableError as error:
            return str(error)
        return ", ".join(found) or "all containers are healthy"

    def wait_for_tick(self, since: float) -> float:
        """Wait until a monitoring run has succeeded that ended after that moment (Unix seconds)."""
        seconds = TICKS_TO_GO_ON * TICK_SECONDS + SECONDS_OF_A_TICK
        return self.wait_until(lambda: has_ticked_since(since, self.runs), seconds, "a tick")

    def runs(self) -> list[dict[str, Any]]:
        """Return Dagster's newest runs."""
        return runs_of(self.dagster_port, self.api_key)

    def alerts(self) -> list[dict[str, Any]]:
        """Return the newest alerts, by whichever container of the API answers; none if no one does."""
        for port in self.api_ports:
            try:
                url = f"http://127.0.0.1:{port}/monitoring/alerts"
                answer = httpx.get(url, params={"limit": 200}, headers={"X-API-Key": self.api_key}, timeout=10)
                found: list[dict[str, Any]] = answer.raise_for_status().json()["alerts"]
            except (httpx.HTTPError, KeyError, ValueError):
                continue
            return found
        return []

    def recorded_by_platform(self, folder: Path) -> dict[str, Any]:
        """Return what `benchmarks.containers.verified` finds, in a container beside the platform's.

        Args:
            folder: has what the clients recorded.
        """
        mounts = (f"{REPOSITORY / 'benchmarks'}:{CODE}/benchmarks:ro", f"{folder}:{RECORDED}:ro")
        words = ("run", "--rm", "--no-deps", "-T", "--env", f"PYTHONPATH={CODE}", "--entrypoint", "python")
        volumes = [word for mount in mounts for word in ("--volume", mount)]
        command = ("-m", "benchmarks.containers.verified", RECORDED)
        said = self.project.compose(*words, *volumes, "demo", *command, timeout_seconds=600)
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found


def new_platform(folder: Path) -> ContainerPlatform:
    """Return a platform with secrets of its own in `folder`; nothing is started, and what an earlier one left is removed."""
    shutil.copytree(
        deploy_folder(REPOSITORY),
        folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("secrets", "settings.env", "helm"),
    )
    first, dagster_port = free_pair(), free_port()
    variables = {
        "BENCHMARK_API_PORTS": f"{first}-{first + 1}",
        "BENCHMARK_DAGSTER_PORT": str(dagster_port),
        "DEMO_INTERVAL": str(TICK_SECONDS),
    }
    files = ("compose.yaml", "compose.demo.yaml", HERE / "compose.yaml")
    project = ComposeProject(PROJECT, folder, files, variables)
    project.make_secrets()
    project.remove()
    return ContainerPlatform(project, (first, first + 1), dagster_port)


def free_pair() -> int:
    """Return the first of two ports in a row on which nothing listens."""
    import socket

    for _ in range(100):
        first = free_port()
        try:
            with socket.create_server(("127.0.0.1", first)), socket.create_server(("127.0.0.1", first + 1)):
                return first
        except (OSError, OverflowError):
            continue
    raise PlatformIsStuckError("there are no two free ports in a row on this machine")


def main_process(container: Container) -> int:
    """Return the number on this machine of the process that the container's `init` has started.

    Raises:
        PlatformIsStuckError: if it is none of this machine's: the engine runs elsewhere.
    """
    try:
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
        return int(children[0])
    except (OSError, IndexError):
        raise PlatformIsStuckError(
            f"the main process of {container.service} is not seen here; run this on the engine's machine, as root"
        ) from None


def kill_main_process(container: Container) -> None:
    """SIGKILL to the main process of a container."""
    os.kill(main_process(container), signal.SIGKILL)


def copy_volume(image: str, source: str, target: str, project: str, name: str) -> None:
    """Copy a volume to a new one that belongs to another project, owners included."""
    labels = (f"{PROJECT_LABEL}={project}", f"com.docker.compose.volume={name}")
    docker("volume", "create", *(word for label in labels for word in ("--label", label)), target)
    mounts = ("--volume", f"{source}:/from:ro", "--volume", f"{target}:/to")
    as_root = ("--user", "0:0", "--network", "none", "--entrypoint", "cp")
    docker("run", "--rm", *as_root, *mounts, image, "-a", "/from/.", "/to/", timeout_seconds=600)


def replaced(containers: Sequence[Container], image_id: str) -> bool:
    """Return whether all of the platform's own containers have this image."""
    ours = [one for one in containers if one.service in OURS]
    return {one.service for one in ours} == set(OURS) and all(one.image_id == image_id for one in ours)
