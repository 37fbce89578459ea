"""Rules of deploy/compose.yaml, read without an engine: who may do what, what is asked, and that no secret is written down."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfheal.cli.single_process import PROGRAMS
from selfheal.kit import health_probe
from selfheal.settings import Settings, secret_names
from tests.docs.pages import codes, table
from tests.processes import REPOSITORY

FOLDER = REPOSITORY / "deploy"


class Loader(yaml.SafeLoader):
    """Reads Compose's own tags (`!override`) as the values they are before."""


Loader.add_multi_constructor(
    "!",
    lambda loader, _, node: (
        loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.MappingNode)
        else loader.construct_sequence(node, deep=True)
    ),
)


def loaded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.load((FOLDER / name).read_text(), Loader)
    return content


COMPOSE, S3 = loaded("compose.yaml"), loaded("compose.s3.yaml")
ADDED = {name: service for name, service in S3["services"].items() if "image" in service}
"""Services that only compose.s3.yaml has; its others change those of compose.yaml."""

SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"] | ADDED
ONE_SHOTS = {"migrate", "bootstrap", "s3-volume", "s3-bucket"}
OURS = {name: service for name, service in COMPOSE["services"].items() if "SELFHEAL_IMAGE" in service["image"]}
WITHOUT_A_WAY_OUT = {"postgres", "migrate", "bootstrap", "trainer", *ADDED}
SECRETS = COMPOSE["secrets"] | S3["secrets"]
EMPTY = {
    "entity_secret",
    "notify_urls",
    "notify_urls_critical",
    "notify_urls_info",
    "notify_urls_warning",
}
"""Files for secrets that a platform may have and need not."""

ADDED_CAPABILITIES = {"pgadmin": ["NET_BIND_SERVICE"]}
"""A file capability of an interpreter that is not ours: without it in the bounding set the kernel refuses to execute the file."""

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_every_process_of_the_platform_has_a_service() -> None:
    assert OURS.keys() == PROGRAMS.keys() | {"migrate", "bootstrap"}
    for name in PROGRAMS:
        assert OURS[name]["command"][:2] == ["start", name]


@each_service
def test_a_container_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add") == ADDED_CAPABILITIES.get(name)
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "pid", "ipc", "network_mode"} & service.keys()
    assert "SELFHEAL_IMAGE" in service["image"] or service["user"].split(":")[0] not in {"0", "root"}, (
        "our image has a user of its own"
    )


@each_service
def test_a_container_is_limited_and_its_log_is_rotated(name: str) -> None:
    service = SERVICES[name]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@each_service
def test_a_container_is_checked_and_started_again_unless_it_is_a_one_shot(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOTS:
        assert (service["restart"], service["healthcheck"]) == ("no", {"disable": True})
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"].keys() == {"test", "interval", "timeout", "retries", "start_period"}
    if name in OURS:
        assert service["healthcheck"]["test"] == ["CMD", "selfheal-probe", name]
        assert name in health_probe.NAMES


@each_service
def test_ports_are_on_loopback_and_what_needs_no_way_out_has_none(name: str) -> None:
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert (service["networks"] == ["inside"]) == (name in WITHOUT_A_WAY_OUT)
    assert COMPOSE["networks"]["inside"] == {"internal": True}


@each_service
def test_what_a_container_waits_for_can_come_true(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in ONE_SHOTS else "service_healthy"
        assert wanted == {"condition": expected}


@each_service
def test_secrets_are_files_and_no_variable_holds_one(name: str) -> None:
    service = SERVICES[name]
    for variable, value in service.get("environment", {}).items():
        assert not re.search(r"password|secret|key|token", variable, re.IGNORECASE) or str(value).startswith(
            "/run/secrets/"
        )
    assert set(service.get("secrets", [])) <= SECRETS.keys()
    if name in OURS:
        assert {*service["secrets"], "database_url"} == set(secret_names(Settings)), "none has to be a variable"


def test_the_schemas_are_upgraded_before_any_process_of_the_platform_starts() -> None:
    assert OURS["migrate"]["command"] == ["migrate"]
    for added in ({}, S3["services"]):
        for name in OURS.keys() - {"migrate"}:
            assert "migrate" in started_before(name, added), name


def started_before(name: str, added: dict[str, Any]) -> set[str]:
    """The services that are waited for, directly or not, with what a second file says."""
    direct = set(SERVICES[name].get("depends_on", {}))
    other = added.get(name, {}).get("depends_on", {})
    direct = set(other) if name == "mlflow" and other else direct | set(other)  # `!override` in compose.s3.yaml
    return direct.union(*(started_before(one, added) for one in direct))


def test_only_settings_that_exist_are_set() -> None:
    for service in OURS.values():
        assert {variable.lower() for variable in service["environment"]} <= Settings.model_fields.keys()


@each_service
def test_an_image_that_is_not_ours_has_a_version(name: str) -> None:
    if "SELFHEAL_IMAGE" not in SERVICES[name]["image"]:
        assert re.fullmatch(r"\$\{\w+_IMAGE:-[\w./-]+:[\w.-]*\d[\w.-]*\}", SERVICES[name]["image"])


# With PROFILES=s3


def test_with_s3_every_process_of_the_platform_uses_the_bucket() -> None:
    for name in OURS.keys() - {"mlflow", "migrate"}:
        environment = S3["services"][name]["environment"]
        assert environment["ASSETS_URL"].startswith("s3://")
        assert environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert {one for one in environment if one.lower() not in Settings.model_fields} == AWS
        targets = {one if isinstance(one, str) else one["target"] for one in S3["services"][name]["secrets"]}
        assert targets == {"s3_credentials", "/tmp/.mlflow/credentials"}, "HOME is /tmp in the image"
    assert "HOME=/tmp" in (FOLDER / "Dockerfile").read_text()
    mlflow = S3["services"]["mlflow"]
    assert mlflow["environment"]["MLFLOW_ARTIFACTS_DESTINATION"].startswith("s3://")
    assert "MLFLOW_TRACKING_URI" not in mlflow["environment"], "it is the server"
    assert "migrate" not in S3["services"], "the server's tables are in our Postgres as before"


AWS = {"AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"}


def test_with_s3_nothing_waits_for_what_waits_for_it() -> None:
    waits = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    for name, service in S3["services"].items():
        if "image" not in service:
            waits[name] = set(service.get("depends_on", {})) | (set() if name == "mlflow" else waits[name])
    started: set[str] = set()
    while ready := {name for name, others in waits.items() if others <= started} - started:
        started |= ready
    assert started == waits.keys()


def test_with_s3_the_server_and_its_clients_have_one_key(tmp_path: Path) -> None:
    subprocess.run([str(FOLDER / "make_secrets.sh"), str(tmp_path)], check=True)
    clients, mlflow = ConfigParser(), ConfigParser()
    clients.read(tmp_path / "s3_credentials")
    mlflow.read(tmp_path / "mlflow_credentials")
    ((identity,),) = json.loads((tmp_path / "s3_identities").read_text()).values()
    assert identity["credentials"] == [
        {
            "accessKey": clients["default"]["aws_access_key_id"],
            "secretKey": clients["default"]["aws_secret_access_key"],
        }
    ]
    assert mlflow["mlflow"]["mlflow_tracking_password"] == (tmp_path / "api_key").read_text()


@pytest.mark.parametrize("added", [[], ["compose.s3.yaml"], ["compose.demo.yaml"]], ids=lambda added: str(*added))
def test_compose_reads_the_files(added: list[str]) -> None:
    """As its client does, without an engine."""
    docker = shlex.split(os.environ.get("DOCKER") or "docker")
    version = [*docker, "compose", "version"]
    if shutil.which(docker[0]) is None or subprocess.run(version, capture_output=True, check=False).returncode != 0:
        pytest.skip("docker compose is not there; DOCKER may name it")
    files = [word for name in ["compose.yaml", *added] for word in ("--file", str(FOLDER / name))]
    done = subprocess.run(
        [*docker, "compose", *files, "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_make_adds_the_files_of_s3_only_where_they_are_asked_for() -> None:
    def command(*arguments: str) -> str:
        words = ["make", "-n", *arguments]
        return subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout

    assert "compose.s3.yaml" in command("compose-up", "PROFILES=s3 admin")
    assert "compose.s3.yaml" not in command("compose-up", "PROFILES=admin")
    assert "compose.s3.yaml" in command("compose-down"), "whose volume may have been made"


def test_what_is_stored_is_deleted_only_on_request() -> None:
    def words(*arguments: str) -> list[str]:
        command = ["make", "-n", "compose-down", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split()

    assert "--volumes" not in words()
    assert "--volumes" in words("ARGS=--volumes")


def test_the_page_on_deployment_says_how_each_secret_is_replaced() -> None:
    explained = {name for row in table("docs/deployment.md", "secret") for name in codes(row[0])}
    assert explained == SECRETS.keys() | set(secret_names(Settings))


def test_the_image_names_its_base_by_an_argument_and_leaves_root() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert "ARG BASE=python:3.11-slim-bookworm" in lines
    assert {line.split()[1] for line in lines if line.startswith("FROM")} == {"${BASE}", "tools", "packages"}
    last_stage = lines[max(place for place, line in enumerate(lines) if line.startswith("FROM")) :]
    assert "USER 10001:10001" in last_stage
    assert not any(word in " ".join(last_stage) for word in ("pip ", "apt-get", "requirements"))


def test_each_installation_in_the_image_is_hashed() -> None:
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
    from_registry = [line for line in text.splitlines() if re.search(r"\bpip\b.* install ", line)]
    installs = [part for line in from_registry for part in line.split("&&") if " install " in part and "pip" in part]
    assert len(installs) == 4
    assert all("--require-hashes" in part or "--no-index" in part for part in installs)


def test_only_what_goes_into_the_image_is_sent_to_the_engine() -> None:
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert all((REPOSITORY / name).exists() for name in sent)
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE))
    assert {name.split("/")[0] for line in copied for name in line.split()} == sent


def test_secrets_are_made_once_for_their_owner_and_the_containers(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = [str(FOLDER / "make_secrets.sh"), str(folder)]
    subprocess.run(script, check=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert made.keys() == SECRETS.keys()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    (folder / "notify_urls").chmod(0o600)
    (folder / "notify_urls").write_text("json://host")
    subprocess.run(script, check=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made | {"notify_urls": "json://host"}
    assert {name for name, value in made.items() if not value} == EMPTY
    values = [value for name, value in made.items() if name not in {"api_keys", *EMPTY, *S3["secrets"]}]
    assert len(set(values)) == len(values)
    assert all(len(value) == 64 for value in values)
    assert {line.split("/", 1)[1] for line in (REPOSITORY / ".gitignore").read_text().split() if "deploy" in line} == {
        "deploy/secrets/",
        "deploy/settings.env",
    }
