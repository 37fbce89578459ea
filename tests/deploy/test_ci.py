"""Rules of the pipeline: stages in their order, what a push to main and what a tag may do, and that `.ci/run` leaves nothing out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.tools import Tool
from tests.processes import REPOSITORY

PATH = REPOSITORY / ".github/workflows/ci.yml"
WORKFLOW: dict[Any, Any] = yaml.safe_load(PATH.read_text())
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
CI = (REPOSITORY / ".ci/run").read_text()
TRIGGERS = WORKFLOW[True]
"""YAML 1.1 reads `on` as true."""

MAY_WRITE = {"publish-image", "publish-wheel"}
ON_MAIN, ON_A_TAG = "github.ref == 'refs/heads/main'", "startsWith(github.ref, 'refs/tags/v')"
TRY_CONTAINERS = REPOSITORY / "deploy/try_containers.sh"
CHECKER = Tool("check-jsonschema", "`make manifests`", "SELFHEAL_REQUIRE_KUBERNETES")

each_job = pytest.mark.parametrize("name", JOBS)


def needed_by(name: str) -> set[str]:
    """The jobs that must have succeeded before, directly or not."""
    needs = JOBS[name].get("needs", [])
    direct = {needs} if isinstance(needs, str) else set(needs)
    return direct.union(*map(needed_by, direct))


def runs(name: str) -> Iterator[str]:
    return (step["run"] for step in JOBS[name]["steps"] if "run" in step)


def uses(name: str) -> dict[str, dict[str, Any]]:
    return {step["uses"].split("@")[0]: step.get("with", {}) for step in JOBS[name]["steps"] if "uses" in step}


def make_targets(text: str) -> set[str]:
    return set(re.findall(r"^\s*make ([\w./-]+)", text, re.MULTILINE))


@pytest.mark.kubernetes
@CHECKER.needed
@pytest.mark.parametrize(
    ("schema", "path"), [("vendor.github-workflows", PATH), ("vendor.compose-spec", REPOSITORY / "deploy/compose.yaml")]
)
def test_a_file_of_others_programs_keeps_their_published_schema(schema: str, path: Path) -> None:
    subprocess.run([CHECKER.found(), "--builtin-schema", schema, path], check=True)


def test_the_stages_are_numbered_in_the_order_in_which_they_need_each_other() -> None:
    stage = {name: int(job["name"].split()[0]) for name, job in JOBS.items()}
    assert sorted(set(stage.values())) == list(range(1, 10))
    for name in JOBS:
        assert all(stage[before] <= stage[name] for before in needed_by(name))
    for name in ("publish-image", "publish-wheel", "deploy"):
        assert {one for one, number in stage.items() if number <= 8} <= needed_by(name), "all checks come first"


@each_job
def test_a_job_ends_in_time_and_names_the_release_of_each_action(name: str) -> None:
    assert JOBS[name]["timeout-minutes"] <= 60
    for step in JOBS[name]["steps"]:
        assert re.search(r"@(release/)?v\d+(\.\d+)*$", step.get("uses", "@v1")), step


@each_job
def test_a_job_may_write_only_if_it_publishes(name: str) -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    granted = JOBS[name].get("permissions", {})
    assert bool(granted) == (name in MAY_WRITE)
    assert granted.get("contents", "read") == "read"


@each_job
def test_a_command_of_a_job_exists_and_takes_nothing_of_an_event_as_code(name: str) -> None:
    """What a branch or a title says is passed by the environment, where it is only text."""
    for text in runs(name):
        assert "${{" not in text
        for target in make_targets(text):
            subprocess.run(
                ["make", "-n", f"PYTHON={sys.executable}", target], cwd=REPOSITORY, check=True, capture_output=True
            )


def test_a_deployment_is_approved_atomic_and_only_of_main() -> None:
    deploy = JOBS["deploy"]
    assert deploy["environment"] == "production"
    assert ON_MAIN in deploy["if"]
    (upgrade,) = (text for text in runs("deploy") if "helm upgrade" in text)
    assert {"--install", "--atomic", "--timeout"} <= set(upgrade.split())
    (chart,) = re.findall(r"helm upgrade selfheal (\S+)", upgrade)
    assert (REPOSITORY / chart / "Chart.yaml").exists()
    assert deploy["concurrency"]["cancel-in-progress"] is False
    assert WORKFLOW["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_a_tag_publishes_wheel_and_image_with_provenance() -> None:
    assert TRIGGERS["push"]["tags"] == ["v*"]
    assert JOBS["publish-wheel"]["if"] == ON_A_TAG
    assert JOBS["publish-wheel"]["environment"] == "release"
    pushed = uses("publish-image")["docker/build-push-action"]
    assert (pushed["provenance"], pushed["sbom"], pushed["push"]) == ("mode=max", True, True)
    for name in ("publish-image", "publish-wheel"):
        assert "actions/attest-build-provenance" in uses(name)
        assert JOBS[name]["permissions"]["id-token"] == "write"
    assert JOBS["publish-image"]["if"] == "github.event_name == 'push'", "never of a pull request"


def test_what_is_published_has_in_it_what_was_tried_before_anything_attests_or_deploys_it() -> None:
    steps = JOBS["publish-image"]["steps"]
    (compared,) = [place for place, step in enumerate(steps) if "diff sbom.cdx.json" in step.get("run", "")]
    assert "steps.push.outputs.digest" in steps[compared]["env"]["PUBLISHED"], "not whatever a tag means by then"
    before = [step.get("uses", "").split("@")[0] for step in steps[:compared]]
    after = [step.get("uses", "").split("@")[0] for step in steps[compared:]]
    assert "docker/build-push-action" in before
    assert "actions/attest-build-provenance" in after
    assert "publish-image" in needed_by("deploy")
    (uploaded,) = (step["with"]["name"] for step in JOBS["image"]["steps"] if "upload-artifact" in step.get("uses", ""))
    assert uploaded == uses("publish-image")["actions/download-artifact"]["name"]


def test_the_image_is_checked_scanned_and_tried_before_it_is_published() -> None:
    commands = list(runs("image"))
    assert [text.split("#")[0].strip() for text in commands[:3]] == [
        "make image",
        "make containers",
        "make containers-try",
    ]
    assert uses("image")["anchore/scan-action"]["image"] == "selfheal:latest"
    assert JOBS["image"]["env"]["SELFHEAL_REQUIRE_CONTAINERS"], (
        "on GitHub's machines there is an engine: nothing is skipped"
    )


def test_ci_here_runs_what_the_pipeline_checks() -> None:
    assert {"lint", "test", "test-long", "test-clients", "manifests", "containers-try"} <= make_targets(CI)
    assert "SELFHEAL_REQUIRE_PROMETHEUS" in JOBS["integration"]["steps"][3]["env"]


# Trying the containers


def tried(folder: Path, docker: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script with a `docker` of ours before all others on the PATH."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{docker}\n")
    program.chmod(0o755)
    make = folder / "make"
    make.write_text('#!/bin/sh\necho "make $*"\n')
    make.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in {"DOCKER", "POSTGRES_IMAGE"}}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [TRY_CONTAINERS],
        env=environment | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


NO_ENGINE = 'echo "Cannot connect to the Docker daemon" >&2; exit 1'
NO_IMAGE = 'case "$1" in image|pull) echo "no such host" >&2; exit 1;; esac'


@pytest.mark.parametrize(("docker", "why"), [(NO_ENGINE, "Cannot connect"), (NO_IMAGE, "no such host")])
def test_where_containers_cannot_be_tried_it_says_so_and_where_they_must_be_it_fails(
    docker: str, why: str, tmp_path: Path
) -> None:
    skipped = tried(tmp_path, docker)
    assert skipped.returncode == 0
    assert "THE CONTAINERS WERE NOT TRIED" in skipped.stderr
    assert why in skipped.stderr
    assert "make" not in skipped.stdout
    assert tried(tmp_path, docker, SELFHEAL_REQUIRE_CONTAINERS="1").returncode == 1


def test_where_there_is_an_engine_the_image_is_built_and_the_demo_lived_through(tmp_path: Path) -> None:
    done = tried(tmp_path, "exit 0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["make image", "make compose-demo"]
    late = tried(tmp_path, "exit 0", LIMIT_SECONDS="0")
    assert late.returncode != 0
    assert "no time is left for: make image" in late.stderr


def test_the_whole_try_takes_less_than_a_quarter_of_an_hour() -> None:
    (limit,) = re.findall(r"LIMIT_SECONDS:-(\d+)", TRY_CONTAINERS.read_text())
    assert int(limit) <= 15 * 60
    assert shutil.which("timeout"), "of coreutils"
