"""The run launcher of a Kubernetes cluster: runs that train in pods of their own, all others as processes of the daemon.

With TRAINING_RUNS_IN=kubernetes. A tick takes seconds, which a pod would need to start; a training wants cores and memory that the
daemon's pod need not have. dagster-k8s makes the Job; what its pod is like says a PodTemplate in TRAINING_POD_FILE.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import yaml
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus

from selfheal.kit.errors import ConfigurationError
from selfheal_assets.interruptions import OUT_OF_TIME_TAG
from selfheal_assets.job_names import RETRAINING_TAG
from selfheal_assets.run_launcher import ProcessRunLauncher, has_run_out_of_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagster._serdes import ConfigurableClassData
    from dagster_k8s import K8sRunLauncher

logger = logging.getLogger(__name__)

EXTRA = "dagster-k8s is not installed; `pip install 'selfheal[kubernetes]'`, or set TRAINING_RUNS_IN=trainer"
ENDED_JOB_RETENTION_SECONDS = 86_400
"""How long the log of a training's pod can be read."""

PARTS_OF_A_JOB = (
    "container_config",
    "pod_spec_config",
    "pod_template_spec_metadata",
    "job_metadata",
    "job_spec_config",
)
NOTHING_FROM_TAGS: dict[str, dict[str, bool]] = {part: {} for part in PARTS_OF_A_JOB}
"""Whoever may start a run may tag it; tags of dagster-k8s could give its pod another image, or a folder of the node."""


@dataclass(frozen=True)
class TrainingPod:
    """What the pod of a training is like, from the PodTemplate of TRAINING_POD_FILE."""

    namespace: str
    metadata: Mapping[str, Any]
    container: Mapping[str, Any]
    spec: Mapping[str, Any]
    """All but the container."""


def read_training_pod(path: Path) -> TrainingPod:
    """Return the pod that a file describes.

    Raises:
        ConfigurationError: if the file cannot be read, or has no PodTemplate with a namespace and one container with an image.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"TRAINING_POD_FILE={path} cannot be read ({error}); give the path of a PodTemplate"
        ) from None
    try:
        template, namespace = found["template"], found["metadata"]["namespace"]
        (container,) = template["spec"]["containers"]
        container["image"].strip()
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigurationError(
            f"TRAINING_POD_FILE={path} is no PodTemplate with metadata.namespace and one container with an image, as "
            "deploy/helm/selfheal renders it"
        ) from None
    spec = {name: value for name, value in template["spec"].items() if name != "containers"}
    return TrainingPod(namespace, template.get("metadata", {}), container, spec)


class TrainingPodRunLauncher(ProcessRunLauncher):
    """Executes runs that train as Kubernetes Jobs, and every other run in a process on this machine."""

    def __init__(
        self, pod_file: str, kubeconfig_file: str | None = None, inst_data: ConfigurableClassData | None = None
    ) -> None:
        self._pod_file, self._kubeconfig_file = Path(pod_file), kubeconfig_file
        super().__init__(inst_data)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of `run_launcher.config`; without a kubeconfig the pod's own account is used."""
        return {
            "pod_file": dg.Field(str),
            "kubeconfig_file": dg.Field(dg.Noneable(str), is_required=False, default_value=None),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> TrainingPodRunLauncher:
        """Return the launcher. It asks nothing of the cluster yet: every process of Dagster makes one."""
        return cls(inst_data=inst_data, **config_value)

    @cached_property
    def _pods(self) -> K8sRunLauncher:
        launcher = job_launcher(read_training_pod(self._pod_file), self._kubeconfig_file)
        launcher.register_instance(self._instance)
        return launcher

    def starts_process_of(self, run: dg.DagsterRun) -> bool:
        """Return whether the run is executed here, and has a lock."""
        return not RETRAINING_TAG.items() <= run.tags.items()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's process, or create its Job.

        Raises:
            ConfigurationError: if the pod's description is wrong.
            kubernetes.client.ApiException: if the cluster refuses the Job. Dagster then marks the run as failed.
        """
        if self.starts_process_of(context.dagster_run):
            super().launch_run(context)
        else:
            self._pods.launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """End a run on a person's word, or because its time is up; return False if it had ended."""
        record = self._instance.get_run_record_by_id(run_id)
        if record is None or self.starts_process_of(record.dagster_run):
            return super().terminate(run_id)
        if record.dagster_run.is_finished:
            return False
        if has_run_out_of_time(self._instance, record, time.time()):
            self._instance.add_run_tags(run_id, {OUT_OF_TIME_TAG: "true"})
        return bool(self._pods.terminate(run_id))

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Dagster's monitor asks for each run under way whether its worker lives."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the run's pod lives. That of a process is seen by its lock, not here.

        Dagster fails a run whose worker is unknown. A cluster that does not answer says nothing about the pod, which goes on
        training: the run would be repeated beside it. Its longest time bounds it all the same. A Job that is gone is an answer.
        """
        if self.starts_process_of(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        found: CheckRunHealthResult = self._pods.check_run_worker_health(run)
        if found.status is not WorkerStatus.UNKNOWN:
            return found
        if (found.msg or "").endswith("could not be found"):
            return CheckRunHealthResult(WorkerStatus.FAILED, found.msg)
        logger.warning("the cluster does not say whether the pod of run %s lives: %s", run.run_id, found.msg)
        return CheckRunHealthResult(WorkerStatus.RUNNING, found.msg)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Return what the cluster says about the pod of a run that failed."""
        if self.starts_process_of(run):
            return None
        found: str | None = self._pods.get_run_worker_debug_info(run, include_container_logs)
        return found


def job_launcher(pod: TrainingPod, kubeconfig_file: str | None) -> K8sRunLauncher:
    """Return dagster-k8s' launcher of such pods.

    Raises:
        ConfigurationError: if dagster-k8s is missing, or no cluster is configured.
    """
    try:
        from dagster_k8s import K8sRunLauncher
        from kubernetes.config import ConfigException
    except ImportError:
        raise ConfigurationError(EXTRA) from None

    class PodLauncher(K8sRunLauncher):  # type: ignore[misc]  # it has no types
        """Its pods begin as the image does, with `selfheal`, whatever program serves the code elsewhere."""

        def _launch_k8s_job_with_args(self, job_name: str, args: Sequence[str], run: dg.DagsterRun) -> None:
            super()._launch_k8s_job_with_args(job_name, ["dagster", *args[args.index("api") :]], run)

    spec = dict(pod.spec)
    try:
        return PodLauncher(
            service_account_name=spec.pop("serviceAccountName", "default"),
            instance_config_map="",
            dagster_home="",  # `selfheal dagster` makes it
            job_image=pod.container["image"],
            job_namespace=pod.namespace,
            load_incluster_config=kubeconfig_file is None,
            kubeconfig_file=kubeconfig_file,
            labels=dict(pod.metadata.get("labels", {})),
            run_k8s_config={
                "container_config": dict(pod.container),
                "pod_spec_config": spec,
                "pod_template_spec_metadata": dict(pod.metadata),
                "job_spec_config": {"ttlSecondsAfterFinished": ENDED_JOB_RETENTION_SECONDS},
            },
            only_allow_user_defined_k8s_config_fields=NOTHING_FROM_TAGS,
            only_allow_user_defined_env_vars=[],
        )
    except ConfigException as error:
        raise ConfigurationError(
            f"TRAINING_RUNS_IN=kubernetes needs a pod with an account of the cluster ({error}); or set TRAINING_RUNS_IN=trainer"
        ) from None
