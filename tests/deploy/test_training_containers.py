"""A run that trains is a container of the image, confined as the chart says, with the settings and secrets that the chart gives it.

They need an engine, the image and what `make manifests` installs: `make containers`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.launcher.base import WorkerStatus

from selfheal.simulate.compose import ComposeProject, docker
from selfheal_assets.job_names import RETRAINING_TAG
from tests.deploy.chart import manifests
from tests.deploy.docker_node import Contained, DockerNode
from tests.deploy.fake_kubernetes import Cluster, cluster_in
from tests.deploy.test_training_pods import NAMESPACE, launcher
from tests.deploy.tools import HELM, KUBERNETES_PACKAGES
from tests.processes import REPOSITORY
from tests.selfheal_assets.launching import launch, run_of, until_status
from tests.waiting import eventually

IMAGE = os.environ.get("SELFHEAL_IMAGE", "")
CODE = "/run/code"
STORAGE = {"custom": {"module": "selfheal_assets.storage", "class": "SelfhealPostgresStorage", "config": {}}}
GIB = 2**30

pytestmark = [
    pytest.mark.containers,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not IMAGE, reason="needs an engine and the image: make containers"),
    HELM.needed,
    KUBERNETES_PACKAGES.needed,
]


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[ComposeProject]:
    """The container of Postgres alone, with a password."""
    folder = tmp_path / "deploy"
    shutil.copytree(REPOSITORY / "deploy", folder, ignore=shutil.ignore_patterns("secrets", "helm"))
    project = ComposeProject("selfheal-test-pods", folder)
    project.make_secrets()
    project.remove()
    try:
        project.up("postgres")
        project.wait_until_healthy(120)
        yield project
    finally:
        project.remove()


@pytest.fixture
def cluster(postgres: ComposeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The chart's, for this image. The Secret is a folder with a file for each key."""
    repository, _, tag = IMAGE.partition(":")
    values = tmp_path / "values.yaml"
    training = {"resources": {"limits": {"memory": "2Gi"}}}
    image = {"repository": repository, "tag": tag or "latest"}
    values.write_text(yaml.safe_dump({"image": image, "training": training}))
    rendered = manifests(values)
    volumes = {name: tmp_path / name for name in ("demo-data", "demo-training", "selfheal")}
    for folder in volumes.values():
        folder.mkdir()
        folder.chmod(0o777)
    for folder in (tmp_path, volumes["demo-training"]):
        (folder / "training-pod.yaml").write_text(rendered["ConfigMap", "demo-training"]["data"]["training-pod.yaml"])
    shutil.copy(postgres.folder / "secrets/postgres_password", volumes["selfheal"])

    (container,) = postgres.of_service("postgres")
    each_address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    monkeypatch.setenv("POSTGRES_HOST", docker("inspect", "--format", each_address, container.id).strip())
    monkeypatch.setenv("POSTGRES_USER", "selfheal")
    monkeypatch.setenv("POSTGRES_PASSWORD", postgres.secret("postgres_password"))

    node = DockerNode(volumes, {REPOSITORY / "tests": f"{CODE}/tests"}, f"{postgres.name}_inside")
    roles = {name: one["rules"] for (kind, name), one in rendered.items() if kind == "Role"}
    variables = {"demo-settings": rendered["ConfigMap", "demo-settings"]["data"] | {"PYTHONPATH": CODE}}
    with cluster_in(tmp_path, NAMESPACE, roles, variables, node) as found:
        yield found


def test_a_training_is_a_confined_container_whose_death_fails_the_run(
    cluster: Cluster, postgres: ComposeProject, tmp_path: Path
) -> None:
    """It starts only if it has read the settings of the chart's ConfigMap and the password in the Secret's file."""
    elsewhere = launcher(tmp_path, cluster, "daemon") | {
        "storage": STORAGE,
        "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"},
    }
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides=elsewhere) as instance:
        run_id = launch(instance, **RETRAINING_TAG)
        process = cluster.jobs[f"dagster-run-{run_id}"].process
        assert isinstance(process, Contained)
        try:
            until_status(instance, run_id, dg.DagsterRunStatus.STARTED)
        except AssertionError as error:
            pytest.fail(f"{error}\n{cluster.refused}\n{cluster.log.read_text()}")

        (container,) = json.loads(docker("inspect", process.name))
        host = container["HostConfig"]
        assert container["Config"]["User"] == "10001:10001"
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert host["Memory"] == 2 * GIB
        assert postgres.secret("postgres_password") not in json.dumps(container)

        process.kill()
        process.wait(timeout=60)
        eventually(
            lambda: (
                instance.run_launcher.check_run_worker_health(run_of(instance, run_id)).status is WorkerStatus.FAILED
            ),
            "the cluster says that the pod has failed",
        )
