"""dagster-mlflow's tracking resource for the runs that train, opened when a training begins.

A Dagster run and its MLflow run are linked both ways: the MLflow run is tagged with the Dagster run (`dagster_run_id`, and a
link in its description), the Dagster run with the MLflow run (`mlflow/run_id`, `mlflow/run_url`). dagster-mlflow's hook ends
the MLflow run, as FAILED if a step failed.

Importing dagster-mlflow imports MLflow, and creating its resource opens a run. So this module does both only in the process of
one run, at the first training: the code location loads without MLflow, a skipped retraining leaves no empty run, and
monitoring runs do not need MLflow.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg
from dagster import DagsterEventType

from selfheal_assets.resources import links
from selfheal_assets.resources.platform import PlatformResource

RESOURCE_KEY = "mlflow"
"""The resource key that dagster-mlflow's hook requires."""

MLFLOW_RUN_TAG, MLFLOW_URL_TAG = "mlflow/run_id", "mlflow/run_url"
FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"
INTERRUPTED = {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}


class TrainingRun:
    """The MLflow run of one Dagster run. Nothing is imported or opened before `open`."""

    def __init__(self, platform: PlatformResource, instance: dg.DagsterInstance, run: dg.DagsterRun, log: Any) -> None:
        self._platform, self._instance, self._run, self._log = platform, instance, run, log
        self._resources = ExitStack()
        self._tracking: Any = None

    @property
    def is_open(self) -> bool:
        """Return whether a run is open that must be ended."""
        return self._tracking is not None

    def open(self, earlier_run_id: str | None = None) -> str:
        """Open this Dagster run's MLflow run and link the two; return the id of the MLflow run.

        Args:
            earlier_run_id: the MLflow run of the same training, which is not repeated. It is linked, and resumed if its own
                Dagster run did not succeed.
        """
        platform = self._platform.open()
        if earlier_run_id is None or not platform.registry.is_finished(earlier_run_id):
            self._tracking = self._open(earlier_run_id)
        run_id: str = earlier_run_id or self._tracking.mlflow_run_id or self._tracking.active_run().info.run_id
        url = links.mlflow_run(platform, run_id).value
        self._instance.add_run_tags(self._run.run_id, {MLFLOW_RUN_TAG: run_id, MLFLOW_URL_TAG: str(url)})
        return run_id

    def end_run(self, status: str = FINISHED) -> None:
        """End the MLflow run, if one is open. dagster-mlflow's hook calls this."""
        if self._tracking is None:
            return
        self._tracking.end_run(status)
        self._tracking = None
        self._resources.close()

    def close(self) -> None:
        """End a run that no hook has ended: the last step was skipped, the run was interrupted, or a step ran without a job."""
        if self.is_open:
            self.end_run(self._status())

    def _open(self, earlier_run_id: str | None) -> Any:
        from dagster_mlflow import mlflow_tracking

        from selfheal.adapters.mlflow_environment import unchanged_environment

        platform = self._platform.open()
        page = links.dagster_run(platform.settings, self._run.run_id).value
        tags = {"dagster_run_url": page, "mlflow.note.content": f"[Dagster run {self._run.run_id[:8]}]({page})"}
        config = platform.registry.tracking_config() | {"mlflow_run_id": earlier_run_id, "extra_tags": tags, "env": {}}
        with unchanged_environment():
            made = dg.build_resources(
                {RESOURCE_KEY: mlflow_tracking},
                instance=self._instance,
                resource_config={RESOURCE_KEY: {"config": config}},
                dagster_run=self._run,
                log_manager=self._log,
            )
            return getattr(self._resources.enter_context(made), RESOURCE_KEY)

    def _status(self) -> str:
        run = self._instance.get_run_by_id(self._run.run_id)
        if run is not None and run.status in INTERRUPTED:
            return KILLED
        failures = self._instance.get_records_for_run(
            self._run.run_id, of_type=DagsterEventType.STEP_FAILURE, limit=1
        ).records
        return FAILED if failures else FINISHED


class TrackingResource(dg.ConfigurableResource[TrainingRun]):
    """Provides the `TrainingRun` of a run, without contacting MLflow until it is opened."""

    platform: dg.ResourceDependency[PlatformResource]

    def create_resource(self, context: dg.InitResourceContext) -> TrainingRun:
        """Return the run's `TrainingRun`, not yet open."""
        assert context.run is not None, "only runs train"
        assert context.instance is not None, "a run has an instance"
        return TrainingRun(self.platform, context.instance, context.run, context.log)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[TrainingRun]:
        """Yield the `TrainingRun` and, at the end of the Dagster run, close it."""
        training_run = self.create_resource(context)
        try:
            yield training_run
        finally:
            training_run.close()


def _end_mlflow_run(context: dg.HookContext, events: Sequence[dg.DagsterEvent]) -> dg.HookExecutionResult:
    """Let dagster-mlflow's hook end the MLflow run, if one is open."""
    if not context.resources.mlflow.is_open:
        return dg.HookExecutionResult(hook_name=END_MLFLOW_RUN.name, is_skipped=True)
    from dagster_mlflow import end_mlflow_on_run_finished

    result: dg.HookExecutionResult = end_mlflow_on_run_finished.hook_fn(context, events)
    return result


END_MLFLOW_RUN = dg.HookDefinition(
    name="end_mlflow_on_run_finished", hook_fn=_end_mlflow_run, required_resource_keys={RESOURCE_KEY}
)
"""`dagster_mlflow.end_mlflow_on_run_finished`, imported only if a run is open."""
