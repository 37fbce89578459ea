"""A run that trains becomes a Job of the chart's description, which a cluster admits, and its pod executes the run."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.launcher.base import WorkerStatus
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from selfheal.settings import Settings
from selfheal_assets.interruptions import is_interrupted
from selfheal_assets.job_names import RETRAINING_TAG
from selfheal_assets.run_owners import RunOwners
from tests.deploy.chart import manifests
from tests.deploy.fake_kubernetes import Cluster, Job, cluster_in
from tests.deploy.tools import HELM, KUBERNETES_PACKAGES
from tests.processes import REPOSITORY
from tests.selfheal_assets.launching import launch, run_of, until_status

pytestmark = [pytest.mark.kubernetes, pytest.mark.integration, HELM.needed, KUBERNETES_PACKAGES.needed]

STARTED, FAILURE, CANCELED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
NAMESPACE = "default"
"""Helm renders for it unless told otherwise."""

TRAINING = ("killed", "terminated")


@dataclass(frozen=True)
class Platform:
    """A cluster with the accounts of the chart, Dagster as the daemon and the webserver have it, and runs under way."""

    cluster: Cluster
    instance: dg.DagsterInstance
    runs: dict[str, str]
    folder: Path

    def job(self, name: str) -> Job:
        return self.cluster.jobs[f"dagster-run-{self.runs[name]}"]

    def as_webserver(self) -> dg.DagsterInstance:
        """The same instance, with the account of the webserver."""
        return dg.DagsterInstance.local_temp(
            str(self.folder), overrides=launcher(self.folder, self.cluster, "webserver")
        )


def launcher(folder: Path, cluster: Cluster, account: str) -> dict[str, object]:
    config = {
        "pod_file": str(folder / "training-pod.yaml"),
        "kubeconfig_file": str(cluster.kubeconfig(f"demo-{account}")),
    }
    return {
        "run_launcher": {"module": "selfheal_assets.pod_launcher", "class": "TrainingPodRunLauncher", "config": config}
    }


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    rendered = manifests("values.yaml")
    (folder / "training-pod.yaml").write_text(rendered["ConfigMap", "demo-training"]["data"]["training-pod.yaml"])
    roles = {name: one["rules"] for (kind, name), one in rendered.items() if kind == "Role"}
    variables = {  # of this machine where the chart names what is in a cluster
        "demo-settings": rendered["ConfigMap", "demo-settings"]["data"]
        | {
            "PYTHONPATH": str(REPOSITORY),
            "DATA_DIR": str(folder / "data"),
            "TRAINING_POD_FILE": str(folder / "training-pod.yaml"),
        }
    }
    with (
        pytest.MonkeyPatch.context() as environment,
        cluster_in(folder, NAMESPACE, roles, variables) as cluster,
        dg.DagsterInstance.local_temp(str(folder), overrides=launcher(folder, cluster, "daemon")) as instance,
    ):
        environment.setenv("PYTHONPATH", str(REPOSITORY))
        runs = {name: launch(instance, **RETRAINING_TAG) for name in TRAINING} | {"tick": launch(instance)}
        try:
            for run_id in runs.values():
                until_status(instance, run_id, STARTED)
        except AssertionError as error:
            pytest.fail(f"{error}\n{cluster.refused}\n{cluster.log.read_text()}")
        yield Platform(cluster, instance, runs, folder)
        tick = RunOwners.of(instance).pid(runs["tick"])
        if tick is not None:
            psutil.Process(tick).kill()


def test_a_run_that_trains_is_executed_by_its_pod_and_a_tick_by_a_process(platform: Platform) -> None:
    assert platform.cluster.refused == []
    assert platform.cluster.jobs.keys() == {f"dagster-run-{platform.runs[name]}" for name in TRAINING}
    for name in TRAINING:
        assert platform.job(name).status == {"active": 1}
        assert not RunOwners.of(platform.instance).is_known(platform.runs[name])
    assert RunOwners.of(platform.instance).has_owner(platform.runs["tick"])


def test_the_pod_is_the_one_that_the_chart_describes(platform: Platform) -> None:
    template = yaml.safe_load((platform.folder / "training-pod.yaml").read_text())["template"]
    pod = copy.deepcopy(platform.job("killed").body["spec"]["template"])
    (given,), (described,) = pod["spec"].pop("containers"), template["spec"].pop("containers")
    assert template["metadata"]["labels"].items() <= pod["metadata"]["labels"].items()
    assert template["spec"].items() <= pod["spec"].items()
    assert described.items() <= given.items()
    assert pod["spec"]["restartPolicy"] == "Never", "a run is repeated by Dagster, with what it has recorded"
    assert platform.job("killed").body["spec"]["backoffLimit"] == 0


def test_a_run_whose_pod_is_killed_fails_and_is_to_be_repeated(platform: Platform) -> None:
    """As Dagster's monitor in the daemon sees it. While the cluster does not say, the run is left alone."""
    run_id, process = platform.runs["killed"], platform.job("killed").process
    platform.cluster.is_overloaded = True
    monitor(platform.instance, run_id)
    platform.cluster.is_overloaded = False
    monitor(platform.instance, run_id)
    assert run_of(platform.instance, run_id).status is STARTED
    process.kill()
    process.wait()
    health = platform.instance.run_launcher.check_run_worker_health(run_of(platform.instance, run_id))
    assert health.status is WorkerStatus.FAILED
    monitor(platform.instance, run_id)
    run = run_of(platform.instance, run_id)
    assert run.status is FAILURE
    assert is_interrupted(run)


def monitor(instance: dg.DagsterInstance, run_id: str) -> None:
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    monitor_started_run(instance, None, record, logging.getLogger("monitor"))  # type: ignore[arg-type]


def test_a_person_ends_a_training_from_the_webserver_with_its_own_account(platform: Platform) -> None:
    run_id = platform.runs["terminated"]
    with platform.as_webserver() as webserver:
        assert webserver.run_launcher.terminate(run_id)
    until_status(platform.instance, run_id, CANCELED)
    platform.job("terminated").process.wait(timeout=30)
    assert not is_interrupted(run_of(platform.instance, run_id))


def test_the_webserver_may_not_start_a_pod(platform: Platform) -> None:
    from dagster_k8s.client import DagsterK8sUnrecoverableAPIError

    with platform.as_webserver() as webserver, pytest.raises(DagsterK8sUnrecoverableAPIError):
        launch(webserver, **RETRAINING_TAG)
    assert platform.cluster.refused.pop() == "'demo-webserver' may not create jobs"


def test_a_tag_of_a_run_does_not_change_its_pod(platform: Platform) -> None:
    n_jobs = len(platform.cluster.jobs)
    hostile = '{"container_config": {"image": "another"}, "pod_spec_config": {"host_network": true}}'
    with pytest.raises(Exception, match=r"pod_spec_config|container_config"):
        launch(platform.instance, **RETRAINING_TAG, **{"dagster-k8s/config": hostile})
    assert len(platform.cluster.jobs) == n_jobs


def test_a_cluster_refuses_a_pod_that_is_not_confined(platform: Platform) -> None:
    """So that the tests above mean something."""
    body = copy.deepcopy(platform.job("killed").body)
    body["spec"]["template"]["spec"]["hostNetwork"] = True
    with pytest.raises(ValueError, match="hostNetwork is set"):
        platform.cluster.admit(body)
    body["spec"]["template"]["spec"]["containrs"] = []
    with pytest.raises(ValueError, match="invalid"):
        platform.cluster.admit(body)


def test_every_setting_of_the_chart_reaches_the_process_of_a_pod(platform: Platform) -> None:
    """The variables of its ConfigMap are settings: what is not one would be ignored without a word."""
    names = {name.lower() for name in platform.cluster.config_maps["demo-settings"]} - {"pythonpath"}
    assert names <= Settings.model_fields.keys()
