"""Where runs train in pods: which run goes where, what of a pod's end is believed, and what a wrong description is answered.

What a cluster makes of it: `tests/deploy/test_training_pods.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus

from selfheal.cli import supervisor
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import load_settings
from selfheal_assets.interruptions import MAX_RUNTIME_TAG, OUT_OF_TIME_TAG
from selfheal_assets.job_names import RETRAINING_TAG
from selfheal_assets.pod_launcher import TrainingPodRunLauncher, read_training_pod
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.run_launcher import ProcessRunLauncher
from selfheal_assets.sensors.interruptions import LAUNCH_GRACE, end_abandoned_runs
from tests.selfheal_assets.launching import run_of, stored_run

STARTING, STARTED = dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED
TEMPLATE: dict[str, Any] = {
    "metadata": {"namespace": "ml"},
    "template": {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "training", "image": "selfheal:1"}]},
    },
}


class Pods:
    """dagster-k8s' launcher, with an answer about each pod."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.health = CheckRunHealthResult(WorkerStatus.RUNNING)

    def launch_run(self, context: LaunchRunContext) -> None:
        self.calls.append(("launch", context.dagster_run.run_id))

    def terminate(self, run_id: str) -> bool:
        self.calls.append(("terminate", run_id))
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        return self.health


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(TEMPLATE))
    launcher = {
        "module": "selfheal_assets.pod_launcher",
        "class": "TrainingPodRunLauncher",
        "config": {"pod_file": str(tmp_path / "pod.yaml")},
    }
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"run_launcher": launcher}) as made:
        yield made


@pytest.fixture
def pods(instance: dg.DagsterInstance) -> Pods:
    launcher = instance.run_launcher
    assert isinstance(launcher, TrainingPodRunLauncher)
    launcher.__dict__["_pods"] = pods = Pods()
    return pods


def test_a_run_that_trains_gets_a_pod_and_any_other_a_process(
    instance: dg.DagsterInstance, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[str] = []
    launched = lambda _, context: processes.append(context.dagster_run.run_id)  # noqa: E731
    monkeypatch.setattr(ProcessRunLauncher, "launch_run", launched)
    training, tick = stored_run(instance, STARTING, **RETRAINING_TAG), stored_run(instance, STARTING)
    for run in (training, tick):
        instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    assert (pods.calls, processes) == ([("launch", training.run_id)], [tick.run_id])


def test_a_run_in_a_pod_is_not_taken_for_abandoned_and_one_without_its_process_is(
    instance: dg.DagsterInstance, pods: Pods
) -> None:
    training, tick = stored_run(instance, STARTED, **RETRAINING_TAG), stored_run(instance, STARTED)
    assert end_abandoned_runs(instance, PlatformResource(), datetime.now(UTC) + 2 * LAUNCH_GRACE) == 1
    assert run_of(instance, training.run_id).status is STARTED
    assert run_of(instance, tick.run_id).status is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize(
    ("answer", "believed"),
    [
        (CheckRunHealthResult(WorkerStatus.RUNNING), WorkerStatus.RUNNING),
        (CheckRunHealthResult(WorkerStatus.SUCCESS), WorkerStatus.SUCCESS),
        (CheckRunHealthResult(WorkerStatus.FAILED, "K8s job failed"), WorkerStatus.FAILED),
        (CheckRunHealthResult(WorkerStatus.UNKNOWN, "Job dagster-run-1 could not be found"), WorkerStatus.FAILED),
        (CheckRunHealthResult(WorkerStatus.UNKNOWN, "connection refused"), WorkerStatus.RUNNING),
    ],
)
def test_a_pod_is_dead_if_the_cluster_says_so_and_not_because_it_does_not_answer(
    answer: CheckRunHealthResult, believed: WorkerStatus, instance: dg.DagsterInstance, pods: Pods
) -> None:
    pods.health = answer
    training = stored_run(instance, STARTED, **RETRAINING_TAG)
    assert instance.run_launcher.check_run_worker_health(training).status is believed


def test_the_process_of_a_tick_is_not_asked_of_the_cluster(instance: dg.DagsterInstance, pods: Pods) -> None:
    pods.health = CheckRunHealthResult(WorkerStatus.FAILED)
    assert instance.run_launcher.check_run_worker_health(stored_run(instance, STARTED)).status is WorkerStatus.RUNNING


def test_a_training_that_ran_out_of_time_says_so_and_one_that_a_person_ends_does_not(
    instance: dg.DagsterInstance, pods: Pods
) -> None:
    late = stored_run(instance, STARTING, **RETRAINING_TAG, **{MAX_RUNTIME_TAG: "0.000001"})
    instance.report_run_canceling(stored_run(instance, STARTED))
    instance.handle_new_event(_started(late))
    wanted = stored_run(instance, STARTED, **RETRAINING_TAG)
    for run in (late, wanted):
        assert instance.run_launcher.terminate(run.run_id)
    assert pods.calls == [("terminate", late.run_id), ("terminate", wanted.run_id)]
    assert OUT_OF_TIME_TAG in run_of(instance, late.run_id).tags
    assert OUT_OF_TIME_TAG not in run_of(instance, wanted.run_id).tags


def _started(run: dg.DagsterRun) -> dg.EventLogEntry:
    from dagster._core.events import DagsterEvent, DagsterEventType

    event = DagsterEvent(DagsterEventType.RUN_START.value, run.job_name)
    return dg.EventLogEntry(
        error_info=None,
        level=20,
        user_message="",
        run_id=run.run_id,
        timestamp=1.0,
        job_name=run.job_name,
        dagster_event=event,
    )


def test_a_described_pod_is_read_with_its_one_container_apart(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(TEMPLATE))
    pod = read_training_pod(path)
    assert pod.namespace == "ml"
    assert pod.container["image"] == "selfheal:1"
    assert pod.metadata == {"labels": {"a": "b"}}
    assert pod.spec == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "template: {}", "metadata: {namespace: ml}\ntemplate: {spec: {containers: []}}", "{: :"]
)
def test_a_description_that_is_none_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"TRAINING_POD_FILE={path}"):
        read_training_pod(path)
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_training_pod(path)


def test_dagster_is_told_to_use_this_launcher_and_to_wait_for_a_node(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").touch()
    settings = load_settings(
        data_dir=tmp_path, training_runs_in="kubernetes", training_pod_file=str(tmp_path / "pod.yaml")
    )
    told = yaml.safe_load((supervisor.dagster_home(settings) / "dagster.yaml").read_text())
    assert told["run_launcher"] == {
        "module": "selfheal_assets.pod_launcher",
        "class": "TrainingPodRunLauncher",
        "config": {"pod_file": str(tmp_path / "pod.yaml")},
    }
    assert told["run_monitoring"]["start_timeout_seconds"] == 900
    others = yaml.safe_load((supervisor.dagster_home(load_settings(data_dir=tmp_path)) / "dagster.yaml").read_text())
    assert others["run_launcher"]["class"] == "ProcessRunLauncher"


def test_pods_need_a_description_that_exists(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs the path of a PodTemplate in TRAINING_POD_FILE"):
        load_settings(training_runs_in="kubernetes")
    with pytest.raises(ConfigurationError, match="TRAINING_POD_FILE"):
        load_settings(training_runs_in="kubernetes", training_pod_file=str(tmp_path / "none.yaml"))
