"""A Compose project of the platform, driven from outside: started, waited for, measured, removed.

Belongs here: commands of the engine, and what they answer. Does not belong here: what happens in the containers.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError

FILE = "compose.yaml"
PROJECT_LABEL, SERVICE_LABEL = "com.docker.compose.project", "com.docker.compose.service"
DEFAULT_IMAGE = "selfheal:latest"
COMMAND_TIMEOUT_SECONDS = 300.0
"""Of one command of the engine, on a machine that is busy with the containers: some get a minute to stop."""

UP_TIMEOUT_SECONDS = 900.0
"""`up` itself waits for the migration and the bootstrap, which trains."""

POLL_SECONDS = 2.0
LAST_LINES = 3
BYTES_PER_MB = 1_000_000
KINDS = {"container": ("ps", "--all"), "volume": ("volume", "ls"), "network": ("network", "ls")}


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a project. `pid` is that of its first process on the engine's machine; 0: none runs."""

    id: str
    service: str
    pid: int
    n_restarts: int
    state: str
    health: str
    exit_code: int
    image_id: str

    @property
    def is_well(self) -> bool:
        """Whether it runs and its health check says so, or it was a one-shot that has done its work."""
        return self.is_healthy or (self.state == "exited" and self.exit_code == 0)

    @property
    def is_healthy(self) -> bool:
        """Whether it runs, and its health check says that it works."""
        return self.state == "running" and self.health == "healthy"

    @property
    def has_failed(self) -> bool:
        """Whether it has ended with an error, and is not started again."""
        return self.state in {"exited", "dead"} and self.exit_code != 0


@dataclass(frozen=True)
class ComposeProject:
    """A project by its name, the folder and names of its files, and the variables in them."""

    name: str
    folder: Path
    files: tuple[str | Path, ...] = (FILE,)
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """Return the image of the platform's containers."""
        return self.variables.get("SELFHEAL_IMAGE") or os.environ.get("SELFHEAL_IMAGE") or DEFAULT_IMAGE

    def command(self, *arguments: str) -> list[str]:
        """Return a command of `docker compose` on this project."""
        files = [word for name in self.files for word in ("--file", str(self.folder / name))]
        return [*docker_command(), "compose", *files, "--project-name", self.name, *arguments]

    def environment(self) -> dict[str, str]:
        """Return the environment in which commands on this project run."""
        return os.environ | self.variables

    def compose(self, *arguments: str, timeout_seconds: float = COMMAND_TIMEOUT_SECONDS) -> str:
        """Run a command of `docker compose` and return its output.

        Raises:
            ServiceUnavailableError: with the end of its error output, if it fails or takes too long.
        """
        return _output(self.command(*arguments), self.environment(), timeout_seconds, f"docker compose {arguments[0]}")

    def make_secrets(self) -> None:
        """Make the secrets that are missing."""
        _output([str(self.folder / "make_secrets.sh")], self.environment(), COMMAND_TIMEOUT_SECONDS, "make_secrets.sh")

    def secret(self, name: str) -> str:
        """Return a secret of the project."""
        return (self.folder / "secrets" / name).read_text().strip()

    def up(self, *arguments: str) -> None:
        """Start services in the background; all of them if none is named."""
        self.compose("up", "--detach", *arguments, timeout_seconds=UP_TIMEOUT_SECONDS)

    def containers(self) -> list[Container]:
        """Return the containers, those that have ended included."""
        ids = self._listed(*KINDS["container"])
        return [_container(one) for one in json.loads(docker("inspect", *ids))] if ids else []

    def of_service(self, service: str) -> list[Container]:
        """Return the containers of a service."""
        return [one for one in self.containers() if one.service == service]

    def wait_until_healthy(self, seconds: float) -> float:
        """Wait until every container is healthy, or a one-shot that has ended well; return the seconds it took.

        Raises:
            ServiceUnavailableError: with the end of the logs, if one ends with an error, or it takes too long.
        """
        began = time.monotonic()
        while True:
            found = self.containers()
            waiting = [one for one in found if not one.is_well]
            if found and not waiting:
                return time.monotonic() - began
            failed = [one for one in waiting if one.has_failed]
            if failed or time.monotonic() - began > seconds:
                raise ServiceUnavailableError(self._why(failed or waiting, seconds))
            time.sleep(POLL_SECONDS)

    def _why(self, containers: Sequence[Container], seconds: float) -> str:
        states = ", ".join(f"{one.service} is {one.state} {one.health}".rstrip() for one in containers)
        logs = self.compose("logs", "--tail", "20", *(one.service for one in containers))
        return (
            f"not healthy within {seconds:.0f} s: {states or 'there is no container'}; the end of their logs:\n{logs}"
        )

    def rss_mb(self) -> float:
        """Return the resident memory of all processes in the project's containers, in MB; shared pages count in each."""
        running = [one.id for one in self.containers() if one.state == "running"]
        return sum(_rss_kib(docker("top", number, "-eo", "pid,rss")) for number in running) * 1024 / BYTES_PER_MB

    def remove(self) -> None:
        """Remove the containers and networks of the project, and its volumes."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans")

    def left_over(self) -> list[str]:
        """Return what there is of the project, by kind and name: containers, volumes, networks."""
        return [f"{kind} {name}" for kind, listing in KINDS.items() for name in self._listed(*listing)]

    def _listed(self, *listing: str) -> list[str]:
        return docker(*listing, "--quiet", "--filter", f"label={PROJECT_LABEL}={self.name}").split()


def docker_command() -> list[str]:
    """Return the words that call the engine: DOCKER, as in the Makefile."""
    return shlex.split(os.environ.get("DOCKER") or "docker")


def docker(*arguments: str, timeout_seconds: float = COMMAND_TIMEOUT_SECONDS) -> str:
    """Run a command of the engine and return its output.

    Raises:
        ServiceUnavailableError: with the end of its error output, if it fails or takes too long.
    """
    return _output([*docker_command(), *arguments], os.environ, timeout_seconds, f"docker {arguments[0]}")


def image_mb(image: str) -> float:
    """Return the size of an image in MB."""
    return float(docker("image", "inspect", "--format", "{{.Size}}", image)) / BYTES_PER_MB


def deploy_folder(start: Path | None = None) -> Path:
    """Return the folder with compose.yaml: `deploy` in the working folder, or beside the installed package's source.

    Raises:
        ConfigurationError: if there is none.
    """
    places = [(start or Path.cwd()) / "deploy", Path(__file__).resolve().parents[2] / "deploy"]
    for folder in places:
        if (folder / FILE).is_file():
            return folder
    raise ConfigurationError(
        f"there is no {FILE} in {places[0]}; run this in a clone of the repository, which has the containers' files"
    )


def _output(command: Sequence[str], environment: Mapping[str, str], timeout_seconds: float, shown: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  (our own command, no shell)
            command, env=dict(environment), capture_output=True, text=True, check=False, timeout=timeout_seconds
        )
    except FileNotFoundError:
        raise ServiceUnavailableError(
            f"there is no {command[0]}; install an engine with compose, or name its client in DOCKER"
        ) from None
    except subprocess.TimeoutExpired:
        raise ServiceUnavailableError(f"`{shown}` took more than {timeout_seconds:.0f} s") from None
    if done.returncode != 0:
        said = "; ".join(line.strip() for line in (done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:])
        raise ServiceUnavailableError(f"`{shown}` failed: {said}")
    return done.stdout


def _container(found: Mapping[str, Any]) -> Container:
    state = found["State"]
    return Container(
        id=found["Id"],
        service=found["Config"]["Labels"][SERVICE_LABEL],
        pid=int(state["Pid"]),
        n_restarts=int(found["RestartCount"]),
        state=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        exit_code=int(state["ExitCode"]),
        image_id=found["Image"],
    )


def _rss_kib(listed: str) -> int:
    """Return the sum of the second column of `ps -eo pid,rss`, in KiB."""
    return sum(int(line.split()[1]) for line in listed.splitlines()[1:] if line.strip())
