"""Rules of the running containers: who they run as, what they may do, where secrets are, and that each comes back.

They need an engine and the image: `make image containers`. What is read without one is in `test_compose.py`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import REPOSITORY
from tests.waiting import eventually

pytestmark = [
    pytest.mark.containers,
    pytest.mark.timeout(900),
    pytest.mark.skipif("SELFHEAL_IMAGE" not in os.environ, reason="needs an engine and the image: make containers"),
]

DOCKER = shlex.split(os.environ.get("DOCKER", "docker"))
IMAGE = os.environ.get("SELFHEAL_IMAGE", "")
PROJECT = "selfheal-test"
SERVICES = ("postgres", "mlflow", "code-server", "webserver", "daemon", "api", "trainer")
LONGEST_PROBE_SECONDS = 5.0
"""The time limit of the health checks in compose.yaml, on a machine that is busy with the tests."""


def docker(*arguments: str, timeout_seconds: float = 120) -> str:
    done = subprocess.run(
        [*DOCKER, *arguments], capture_output=True, text=True, check=False, timeout=timeout_seconds, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + (done.stderr if arguments[0] == "logs" else "")


@dataclass(frozen=True)
class Platform:
    """The containers of a compose project, and the folder of its secrets."""

    secrets: Path
    compose: tuple[str, ...]

    def container(self, service: str) -> dict[str, Any]:
        (number,) = docker(*self.compose, "ps", "--all", "--quiet", service).split()
        (found,) = json.loads(docker("inspect", number))
        return dict(found)

    def is_healthy(self, service: str) -> bool:
        state = self.container(service)["State"]
        return bool(state["Running"] and state["Health"]["Status"] == "healthy")

    def values(self) -> list[str]:
        """The secrets themselves."""
        return sorted({value for path in self.secrets.iterdir() if (value := path.read_text())})


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copytree(REPOSITORY / "deploy", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([folder / "make_secrets.sh"], check=True)
    files = ("--file", str(folder / "compose.yaml"), "--file", str(folder / "compose.demo.yaml"))
    compose = ("compose", *files, "--project-name", PROJECT)
    try:
        docker(*compose, "up", "--detach", timeout_seconds=500)
        subprocess.run([folder / "wait_until_healthy.sh", *DOCKER, *compose], check=True, timeout=500)
        yield Platform(folder / "secrets", compose)
    finally:
        docker(*compose, "--profile", "*", "down", "--volumes", "--remove-orphans")


def in_image(*command: str, entrypoint: str = "sh") -> str:
    confined = ("--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--entrypoint", entrypoint)
    return docker("run", *confined, IMAGE, *command)


def test_the_image_has_no_set_uid_file_no_compiler_no_pip_and_no_cache() -> None:
    found = in_image(
        "-c", "find / -xdev -type f -perm /6000; ls -d /opt/selfheal/bin/pip* /root/.cache 2>/dev/null; true"
    )
    assert found == ""
    assert in_image("-c", "command -v gcc cc make || true") == ""


def test_the_image_lists_what_is_in_it() -> None:
    bill = json.loads(in_image("/usr/share/selfheal/sbom.cdx.json", entrypoint="cat"))
    names = {component["name"] for component in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert {"selfheal", "dagster", "fastapi", "mlflow", "scikit-learn"} <= names


def test_the_image_runs_as_a_user_of_its_own_and_says_what_it_is() -> None:
    (image,) = json.loads(docker("image", "inspect", IMAGE))
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == "selfheal"
    assert in_image("-u", entrypoint="id").strip() == "10001"


@pytest.mark.parametrize("service", SERVICES)
def test_a_running_container_is_confined(service: str, platform: Platform) -> None:
    container = platform.container(service)
    host = container["HostConfig"]
    assert container["Config"]["User"] not in {"", "0", "root"}
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert container["State"]["Health"]["Status"] == "healthy"
    assert docker("exec", container["Id"], "id", "-u").strip() != "0"


@pytest.mark.parametrize("service", [*SERVICES, "bootstrap"])
def test_no_secret_is_seen_from_outside(service: str, platform: Platform) -> None:
    container = platform.container(service)
    seen = json.dumps(container) + docker("logs", container["Id"])
    assert [value for value in platform.values() if value in seen] == []


def test_no_secret_is_in_the_image(platform: Platform) -> None:
    seen = docker("image", "inspect", IMAGE) + docker("history", "--no-trunc", IMAGE)
    seen += in_image("-c", "ls -A /run/secrets; find / -xdev -name '*.env' -o -xdev -name '.env'; true")
    assert [value for value in platform.values() if value in seen] == []
    assert in_image("-A", "/run/secrets", entrypoint="ls") == ""


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "postgres"])
def test_a_health_check_answers_in_time(service: str, platform: Platform) -> None:
    log = platform.container(service)["State"]["Health"]["Log"]
    assert log[-1]["Output"] == f"{service}: works\n"
    number = platform.container(service)["Id"]
    assert docker("exec", number, "selfheal-probe", service, timeout_seconds=LONGEST_PROBE_SECONDS)


def test_what_needs_no_way_out_has_none(platform: Platform) -> None:
    reach = "import socket; socket.create_connection(('1.1.1.1', 443), timeout=3)"
    for service in ("trainer", "postgres"):
        networks = platform.container(service)["NetworkSettings"]["Networks"]
        assert list(networks) == [f"{PROJECT}_inside"]
    number = platform.container("trainer")["Id"]
    done = subprocess.run(
        [*DOCKER, "exec", number, "python", "-c", reach], capture_output=True, check=False, timeout=30
    )
    assert done.returncode != 0


@pytest.mark.parametrize("service", ["trainer", "api", "daemon", "postgres"])
def test_a_container_whose_main_process_is_killed_comes_back(service: str, platform: Platform) -> None:
    """By its number on the host: the engine starts again what died, not what it was told to kill."""
    before = platform.container(service)
    os.kill(main_process(before), signal.SIGKILL)
    eventually(lambda: platform.container(service)["RestartCount"] > before["RestartCount"], "it is started again", 60)
    eventually(lambda: platform.is_healthy(service), "it is healthy again", 240)


def main_process(container: dict[str, Any]) -> int:
    """The process that `init` has started."""
    init = int(container["State"]["Pid"])
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    return int(children[0])
