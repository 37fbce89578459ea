"""Rules of the running containers: who they run as, what they may do, where secrets are, and that each comes back.

They need an engine and the image: `make image containers`. What is read without one is in `test_compose.py`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_compose import ADDED_CAPABILITIES
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
OF_PROFILES = ("pgadmin", "prometheus", "grafana")
OF_S3 = ("s3", "s3-volume", "s3-bucket")
"""Started too where the images of others are, or can be pulled; where SELFHEAL_REQUIRE_CONTAINERS is set they have to be."""

ONE_SHOTS = ("migrate", "bootstrap", "s3-volume", "s3-bucket")
THAT_STAY = (*SERVICES, *OF_PROFILES, "s3")
each_that_stays = pytest.mark.parametrize("service", THAT_STAY)
each_one_shot = pytest.mark.parametrize("service", ONE_SHOTS)
each_container = pytest.mark.parametrize("service", [*THAT_STAY, *ONE_SHOTS])
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

    missing: dict[str, str]
    """Why a service of a profile was not started."""

    def container(self, service: str) -> dict[str, Any]:
        if service in self.missing:
            assert "SELFHEAL_REQUIRE_CONTAINERS" not in os.environ, self.missing[service]
            pytest.skip(self.missing[service])
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
    files = [word for name in ("compose.yaml", "compose.demo.yaml") for word in ("--file", str(folder / name))]
    compose = ("compose", "--project-name", PROJECT, *files)
    with_s3 = (*compose, "--file", str(folder / "compose.s3.yaml"))
    missing = without_image(with_s3)
    profiles = [name for name in OF_PROFILES if name not in missing]
    try:
        docker(*compose, "up", "--detach", *SERVICES, *profiles, timeout_seconds=500)
        if "s3" not in missing:  # beside the platform, which stores nothing there
            docker(*with_s3, "up", "--detach", "s3-bucket", timeout_seconds=200)
        subprocess.run([folder / "wait_until_healthy.sh", *DOCKER, *with_s3], check=True, timeout=500)
        yield Platform(folder / "secrets", with_s3, missing)
    finally:
        docker(*with_s3, "--profile", "*", "down", "--volumes", "--remove-orphans")


def without_image(compose: tuple[str, ...]) -> dict[str, str]:
    """The services of profiles whose image is neither here nor to be pulled, and why."""
    described = json.loads(docker(*compose, "--profile", "*", "config", "--format", "json"))["services"]
    missing = {}
    for name in (*OF_PROFILES, "s3"):
        image = described[name]["image"]
        here = subprocess.run([*DOCKER, "image", "inspect", image], capture_output=True, check=False)
        if here.returncode != 0:
            pulled = subprocess.run(
                [*DOCKER, "pull", "--quiet", image], capture_output=True, text=True, check=False, timeout=300
            )
            if pulled.returncode != 0:
                missing[name] = f"{image} is not here, and cannot be pulled: {pulled.stderr.strip()}"
    return missing | (dict.fromkeys(OF_S3, missing["s3"]) if "s3" in missing else {})


def in_image(*command: str, entrypoint: str = "sh", options: tuple[str, ...] = ()) -> str:
    confined = ("--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--entrypoint", entrypoint)
    return docker("run", *confined, *options, IMAGE, *command)


def files_in_image(*conditions: str) -> list[str]:
    """What `find` finds, as root: the image's own user does not see into every folder."""
    reader = ("--user", "0:0", "--cap-add", "DAC_READ_SEARCH", "--workdir", "/")
    return in_image("/", "-xdev", *conditions, entrypoint="find", options=reader).split()


def test_the_image_has_no_set_uid_file_no_compiler_no_pip_and_no_cache() -> None:
    assert files_in_image("-type", "f", "-perm", "/6000") == []
    assert files_in_image("-path", "/opt/selfheal/bin/pip*", "-o", "-path", "*cache/pip*", "-o", "-name", "*.deb") == []
    assert in_image("-c", f"for name in {' '.join(COMPILERS)}; do command -v $name; done; true") == ""


COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "tcc", "as", "ld", "make", "rustc", "cargo", "go")


def test_the_image_lists_exactly_what_is_in_it() -> None:
    bill = json.loads(in_image("/usr/share/selfheal/sbom.cdx.json", entrypoint="cat"))
    assert bill["bomFormat"] == "CycloneDX"
    assert "cyclonedx-py" in {tool["name"] for tool in bill["metadata"]["tools"]["components"]}
    listed = {(normal(one["name"]), one["version"]) for one in bill["components"]}
    code = "from importlib.metadata import distributions as d; [print(one.name, one.version) for one in d()]"
    installed = {tuple(line.split()) for line in in_image("-c", code, entrypoint="python").splitlines()}
    assert listed == {(normal(name), version) for name, version in installed}
    assert {"selfheal", "dagster", "dagster-k8s", "fastapi", "mlflow"} <= {name for name, _ in listed}


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_image_runs_as_a_user_of_its_own_and_says_what_it_is() -> None:
    (image,) = json.loads(docker("image", "inspect", IMAGE))
    assert image["Config"]["User"] == "10001:10001"
    labels = {
        name.removeprefix("org.opencontainers.image."): value for name, value in image["Config"]["Labels"].items()
    }
    assert (labels["title"], labels["version"], labels["licenses"]) == ("selfheal", version("selfheal"), "MIT")
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"]), "from which commit"
    assert in_image("-u", entrypoint="id").strip() == "10001"


def test_nothing_secret_is_sent_to_the_engine_that_builds(tmp_path: Path) -> None:
    """What is never sent is in no layer. A copy of the repository's list, and files as a user of the clone has them."""
    shutil.copy(REPOSITORY / ".dockerignore", tmp_path)
    for name in (
        "selfheal/code.py",
        ".env",
        "selfheal/.env",
        "deploy/secrets/api_key",
        "deploy/settings.env",
        "data/a",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("canary")
    dockerfile = tmp_path.with_suffix(".Dockerfile")
    dockerfile.write_text(f"FROM {IMAGE}\nCOPY . /sent/\n")
    number = docker("build", "--quiet", "--file", str(dockerfile), str(tmp_path)).strip()
    try:
        sent = docker("run", "--rm", "--network", "none", "--entrypoint", "find", number, "/sent", "-type", "f")
    finally:
        docker("image", "rm", number)
    assert sent.split() == ["/sent/selfheal/code.py"]


@each_container
def test_a_container_is_confined_and_limited(service: str, platform: Platform) -> None:
    container = platform.container(service)
    host = container["HostConfig"]
    assert container["Config"]["User"].split(":")[0] not in {"", "0", "root"}
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert [name.removeprefix("CAP_") for name in host["CapAdd"] or []] == ADDED_CAPABILITIES.get(service, [])
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Type"] == "json-file"
    assert host["LogConfig"]["Config"].keys() == {"max-size", "max-file"}
    assert host["RestartPolicy"]["Name"] == ("no" if service in ONE_SHOTS else "unless-stopped")


@each_container
def test_a_container_is_reached_from_this_machine_alone(service: str, platform: Platform) -> None:
    container = platform.container(service)
    published = [one for bound in (container["NetworkSettings"]["Ports"] or {}).values() for one in bound or []]
    assert {one["HostIp"] for one in published} <= {"127.0.0.1"}
    assert bool(published) == (service in {"api", "mlflow", "webserver", *OF_PROFILES})


@each_that_stays
def test_a_container_that_stays_is_healthy_and_none_of_its_processes_is_of_root(
    service: str, platform: Platform
) -> None:
    container = platform.container(service)
    assert container["State"]["Health"]["Status"] == "healthy"
    users = docker("top", container["Id"], "-eo", "pid,uid").split()[2:][1::2]
    assert "0" not in users


@each_that_stays
def test_the_root_file_system_of_a_container_cannot_be_written(service: str, platform: Platform) -> None:
    number = platform.container(service)["Id"]
    words = [*DOCKER, "exec", number, "touch", "/etc/canary"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert "Read-only file system" in done.stderr


@each_one_shot
def test_a_one_shot_has_ended_well(service: str, platform: Platform) -> None:
    state = platform.container(service)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)


@each_container
def test_no_secret_is_seen_from_outside(service: str, platform: Platform) -> None:
    container = platform.container(service)
    seen = json.dumps(container) + docker("logs", container["Id"])
    assert [value for value in platform.values() if value in seen] == []


def test_no_file_of_secrets_is_in_the_image() -> None:
    assert in_image("-A", "/run/secrets", entrypoint="ls") == ""
    assert files_in_image("-name", "*.env", "-o", "-name", ".netrc", "-o", "-name", "pip.conf") == []
    seen = docker("image", "inspect", IMAGE) + docker("history", "--no-trunc", IMAGE)
    assert not re.search(r"://[^/\s:@\"]+:[^/\s@\"]+@", seen), "an address with a password, as an index of packages has"


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "postgres"])
def test_a_health_check_answers_in_time(service: str, platform: Platform) -> None:
    log = platform.container(service)["State"]["Health"]["Log"]
    assert log[-1]["Output"] == f"{service}: works\n"
    number = platform.container(service)["Id"]
    assert docker("exec", number, "selfheal-probe", service, timeout_seconds=LONGEST_PROBE_SECONDS)


def test_what_needs_no_way_out_has_none(platform: Platform) -> None:
    reach = "import socket; socket.create_connection(('1.1.1.1', 443), timeout=3)"
    (network,) = json.loads(docker("network", "inspect", f"{PROJECT}_inside"))
    assert network["Internal"] is True
    for service in ("trainer", "postgres", "migrate", "bootstrap"):
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
