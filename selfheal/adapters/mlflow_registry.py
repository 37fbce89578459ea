"""Model registry: the only module that imports MLflow.

It logs trained models, registers versions, moves aliases, and downloads artifacts, which it checks by digest. Postgres
decides which version is in production (`selfheal.services.promotion.going_live`); the alias `production` follows it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfheal.adapters import mlflow_repairs
from selfheal.adapters.mlflow_environment import DEFAULTS, unchanged_environment
from selfheal.adapters.mlflow_repairs import STAGE_TAG
from selfheal.adapters.mlflow_store import EXPERIMENT, artifact_folder, tracking_uri
from selfheal.adapters.model_cache import MODEL_SUFFIX, ModelCache
from selfheal.adapters.postgres.baseline import from_parquet, to_parquet
from selfheal.domain.contract import ModelContract
from selfheal.domain.model.file import TRUSTED_TYPES, check_size, load_trusted
from selfheal.domain.model.requirements import model_requirements
from selfheal.domain.records import ModelVersion, ShadowModel, Stage, TrainingRecord
from selfheal.domain.retraining import snapshot
from selfheal.domain.retraining.cross_fitting import CrossFitted
from selfheal.kit.errors import MissingArtifactError, ModelRefusedError, ServiceUnavailableError
from selfheal.kit.serialization import from_dict, to_dict, to_json

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from selfheal.domain.retraining.dataset import TrainingSet
    from selfheal.domain.retraining.training import TrainedModel
    from selfheal.settings import Settings

logger = logging.getLogger(__name__)

PRODUCTION_ALIAS, STAGING_ALIAS = "production", "staging"
SHADOW_KEY_TAG = "selfheal.shadow_key"
DAGSTER_RUN_TAG = "dagster_run_id"
"""dagster-mlflow's tag of an MLflow run: the Dagster run that it belongs to."""

MODEL_FILE = mlflow_repairs.MODEL_FILE
CROSS_FITTED_FILE = "cross_fitted.parquet"


class Registry:
    """MLflow for one model, with a cache of its files on this machine.

    Args:
        tracking_uri: returns MLflow's tracking URI; called at first use, because the embedded Postgres may have to start.
        artifact_folder: the folder for artifacts if MLflow's store is a database; None: the tracking server decides.
        max_model_bytes: largest size of a model file, packed and unpacked; a larger one is refused.
    """

    def __init__(
        self,
        contract: ModelContract,
        tracking_uri: Callable[[], str],
        cache_folder: Path,
        artifact_folder: Path | None,
        max_model_bytes: int,
    ) -> None:
        self.contract = contract
        self.cache = ModelCache(cache_folder, max_model_bytes)
        self._tracking_uri = tracking_uri
        self._artifact_folder = artifact_folder
        self._max_model_bytes = max_model_bytes

    def find_shadow(self, shadow_key: str) -> ShadowModel | None:
        """Return the model that an earlier run of the same training logged, or None.

        The tag with the key is a run's last entry: a run that has it is complete, however its process ended afterwards.
        One whose files or model were deleted since is as good as none.
        """
        client = self._client()
        experiment = mlflow_repairs.active_experiment(client, EXPERIMENT)
        if experiment is None:
            return None
        filter_string = f"tags.`{SHADOW_KEY_TAG}` = '{shadow_key}'"
        runs = client.search_runs([experiment.experiment_id], filter_string, max_results=1)
        try:
            shadow = self.shadow_of_run(runs[0].info.run_id) if runs else None
        except MissingArtifactError:
            return None
        return shadow if shadow is not None and self._has_model(shadow.artifact_uri) else None

    def log_shadow(
        self,
        trained: TrainedModel,
        training_set: TrainingSet,
        *,
        shadow_key: str,
        decision_id: str,
        trigger_reason: str,
        now: datetime,
        run_id: str | None = None,
    ) -> ShadowModel:
        """Log parameters, metrics, the model (skops) and its files as one run; return what was logged.

        Run artifacts: metrics.json, params.json, metadata.json, requirements.txt, reference.parquet, training_set.parquet
        with the training and evaluation rows, and cross_fitted.parquet with what it is judged by, if these are the same.

        Args:
            run_id: the active run of this process, which its opener ends; None starts and ends a new one.
        """
        mlflow = self._mlflow()
        requirements = list(model_requirements())
        reference = to_parquet(trained.reference)
        cross_fitted = None if trained.cross_fitted is None else to_parquet(trained.cross_fitted.to_frame())
        with self._run(run_id, f"{trigger_reason} {now:%Y-%m-%d %H:%M}") as mlflow_run_id:
            mlflow.log_params(trained.params | {"n_train": training_set.info.n_train, "data": training_set.info.source})
            measured = to_dict(trained.metrics) | _calibration_metrics(trained.record)
            mlflow.log_metrics({name: v for name, v in measured.items() if v is not None})
            model = mlflow.sklearn.log_model(
                trained.pipeline,
                name="model",
                **self._format(),
                pip_requirements=requirements,
            )
            shadow = ShadowModel(
                model_name=self.contract.name,
                mlflow_run_id=mlflow_run_id,
                artifact_uri=model.model_uri,
                artifact_sha256=hashlib.sha256(self._download(f"{model.model_uri}/{MODEL_FILE}")).hexdigest(),
                reference_sha256=hashlib.sha256(reference).hexdigest(),
                contract_hash=self.contract.hash,
                threshold=trained.threshold,
                params=trained.params,
                metrics=trained.metrics,
                training_set=training_set.info,
                trained_at=now,
                trigger_reason=trigger_reason,
                decision_id=decision_id,
                record=trained.record,
                cross_fitted_sha256=None if cross_fitted is None else hashlib.sha256(cross_fitted).hexdigest(),
            )
            files = {
                "metrics.json": to_json(trained.metrics),
                "params.json": json.dumps(trained.params, indent=1).encode(),
                "metadata.json": to_json(shadow),
                "requirements.txt": "\n".join(requirements).encode(),
                "reference.parquet": reference,
                snapshot.FILE_NAME: snapshot.to_parquet(training_set),
            } | ({} if cross_fitted is None else {CROSS_FITTED_FILE: cross_fitted})
            with tempfile.TemporaryDirectory() as folder:
                for name, data in files.items():
                    (Path(folder) / name).write_bytes(data)
                mlflow.log_artifacts(folder)
            mlflow.set_tags({SHADOW_KEY_TAG: shadow_key, "trigger_reason": trigger_reason})
        return shadow

    def tracking_config(self) -> dict[str, str]:
        """Return the configuration of dagster-mlflow's tracking resource; create the experiment if it is missing."""
        self._experiment_id()
        return {"experiment_name": EXPERIMENT, "mlflow_tracking_uri": self._tracking_uri()}

    def is_finished(self, run_id: str) -> bool:
        """Return whether a run has ended successfully."""
        return bool(self._client().get_run(run_id).info.status == "FINISHED")

    def fail_runs_of(self, dagster_run_id: str) -> int:
        """End the runs that a killed Dagster run left running, as FAILED; return their number."""
        client = self._client()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return 0
        running = f"tags.{DAGSTER_RUN_TAG} = '{dagster_run_id}' AND attributes.status = 'RUNNING'"
        runs = client.search_runs([experiment.experiment_id], running)
        for run in runs:
            client.set_terminated(run.info.run_id, "FAILED")
        return len(runs)

    def register(self, shadow: ShadowModel) -> int:
        """Register a run and return its version number. A run is registered once, if callers do not run concurrently."""
        from mlflow.exceptions import MlflowException

        client = self._client()
        try:
            client.create_registered_model(self.contract.name, description=self.contract.description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = client.search_model_versions(f"run_id = '{shadow.mlflow_run_id}'")
        if known:
            return min(int(version.version) for version in known)
        return mlflow_repairs.create_version(
            client, self.contract.name, shadow.artifact_uri, shadow.mlflow_run_id, Stage.STAGING
        )

    def repair_runs(self, production: ModelVersion, versions: Collection[ModelVersion]) -> list[str]:
        """Put back the experiment and the runs of these versions, if they were deleted or renamed; return what was found."""
        client = self._client()
        found = mlflow_repairs.repair_experiment(client, EXPERIMENT, production)
        return found + mlflow_repairs.restore_runs(client, EXPERIMENT, versions)

    def has_registered_model(self) -> bool:
        """Return whether the registered model is there under its name."""
        return mlflow_repairs.has_model(self._client(), self.contract.name)

    def repair_model(self, versions: Sequence[ModelVersion], spare: ShadowModel | None = None) -> list[str]:
        """Put back the registered model, if it was deleted or renamed; return what was found.

        Args:
            versions: all that Postgres knows.
            spare: another logged model: it need not be that any of theirs is left.
        """
        other = None if spare is None else mlflow_repairs.Source(spare.artifact_uri, spare.mlflow_run_id)
        name, description = self.contract.name, self.contract.description
        return mlflow_repairs.repair_model(self._client(), name, description, versions, other)

    def repair_files(self, version: ModelVersion) -> list[str]:
        """Put a version's files back into the artifact store from this machine's cache, if they are gone; return what was found."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        name, save = self.contract.name, partial(self._save_again, version)
        return mlflow_repairs.repair_files(self._client(), name, version, get_artifact_repository, save)

    def has_version(self, version: int) -> bool:
        """Return whether a registered version is there."""
        return mlflow_repairs.has_version(self._client(), self.contract.name, version)

    def alias_version(self, alias: str) -> int | None:
        """Return the version that an alias points at, or None."""
        from mlflow.exceptions import MlflowException

        try:
            return int(self._client().get_model_version_by_alias(self.contract.name, alias).version)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise

    def point_alias(self, alias: str, version: int) -> None:
        """Move an alias. MLflow does not lock: one of two concurrent inserts fails and is tried again."""
        from mlflow.exceptions import MlflowException
        from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

        @retry(
            retry=retry_if_exception_type(MlflowException),
            stop=stop_after_attempt(4),
            wait=wait_random(0, 0.2),
            reraise=True,
        )
        def point() -> None:
            self._client().set_registered_model_alias(self.contract.name, alias, str(version))

        point()

    def drop_alias(self, alias: str) -> None:
        """Remove an alias."""
        self._client().delete_registered_model_alias(self.contract.name, alias)

    def stage_tags(self, limit: int = 100) -> dict[int, str | None]:
        """Return the stage that each of the newest versions is tagged with."""
        found = self._client().search_model_versions(
            f"name = '{self.contract.name}'", max_results=limit, order_by=["version_number DESC"]
        )
        return {int(version.version): version.tags.get(STAGE_TAG) for version in found}

    def tag_stage(self, version: int, stage: Stage) -> None:
        """Tag a version with its stage."""
        self._client().set_model_version_tag(self.contract.name, str(version), STAGE_TAG, stage.value)

    def load(self, model: ModelVersion | ShadowModel, *, may_download: bool = True) -> Pipeline:
        """Load the fitted pipeline, if it may be served.

        Args:
            may_download: False contacts no server: a model that is not in this machine's cache is refused.

        Raises:
            ModelRefusedError: if it has another contract, contains an untrusted type, or does not load.
            IntegrityError: if the file's digest is not the recorded one.
        """
        if model.contract_hash != self.contract.hash:
            raise ModelRefusedError(
                f"the model was trained under contract {model.contract_hash[:12]}, this process has "
                f"{self.contract.hash[:12]} ({self.contract.name}); deploy the code it was trained with, or bootstrap the new "
                "contract in a DATA_DIR of its own"
            )
        if may_download:
            data = self.model_bytes(model)
        else:
            uri = f"{model.artifact_uri}/{MODEL_FILE}"
            data = self.cache.fetch(model.artifact_sha256, MODEL_SUFFIX, origin=uri, download=_refuse_download)
        return load_trusted(data, MODEL_FILE, self._max_model_bytes, self.contract.trusted_types)

    def model_bytes(self, model: ModelVersion | ShadowModel) -> bytes:
        """Return the model's file as it was logged, for comparison only.

        Raises:
            IntegrityError: if its digest is not the recorded one.
        """
        uri = f"{model.artifact_uri}/{MODEL_FILE}"
        return self.cache.fetch(
            model.artifact_sha256, MODEL_SUFFIX, origin=_name_of(uri), download=lambda: self.stored_model(model)
        )

    def has_answered(self, version: ModelVersion) -> bool:
        """Return whether this machine has served the version with the libraries that are installed now."""
        return self.cache.has_answered(version)

    def reference(self, model: ModelVersion | ShadowModel) -> pd.DataFrame:
        """Return the reference window frozen with this model: all features, `probability`, `true_label`.

        Raises:
            IntegrityError: if the file's digest is not the recorded one.
        """
        uri = f"runs:/{model.mlflow_run_id}/reference.parquet"
        return from_parquet(self._fetch(uri, model.reference_sha256, "parquet"))

    def training_set(self, model: ModelVersion | ShadowModel) -> TrainingSet:
        """Return the rows that this model was trained and judged on.

        Raises:
            MissingArtifactError: if its run has no such file.
            IntegrityError: if its rows do not have the recorded digest.
        """
        shadow = model if isinstance(model, ShadowModel) else self.shadow_of_run(model.mlflow_run_id)
        uri = f"runs:/{model.mlflow_run_id}/{snapshot.FILE_NAME}"
        return snapshot.from_parquet(self._run_file(uri), uri, shadow.training_set.sha256)

    def cross_fitted(self, model: ModelVersion | ShadowModel) -> CrossFitted | None:
        """Return what the model was judged by; None if its evaluation rows are no training rows.

        Raises:
            MissingArtifactError: if its run has no such file.
            IntegrityError: if the file's digest is not the recorded one.
        """
        shadow = model if isinstance(model, ShadowModel) else self.shadow_of_run(model.mlflow_run_id)
        if shadow.cross_fitted_sha256 is None:
            return None
        uri = f"runs:/{model.mlflow_run_id}/{CROSS_FITTED_FILE}"
        return CrossFitted.from_frame(from_parquet(self._fetch(uri, shadow.cross_fitted_sha256, "parquet")))

    def stored_model(self, model: ModelVersion | ShadowModel) -> bytes:
        """Download the model's file from the artifact store, bypassing this machine's cache, without a check.

        A registered version knows the place of its files also after the logged model was deleted on MLflow's pages.

        Raises:
            MissingArtifactError: if it is not there.
        """
        try:
            return self._download(f"{model.artifact_uri}/{MODEL_FILE}")
        except MissingArtifactError:
            if not isinstance(model, ModelVersion):
                raise
            return self._download(f"models:/{model.model_name}/{model.version}/{MODEL_FILE}")

    def stored_reference(self, model: ModelVersion | ShadowModel) -> bytes:
        """Download the model's reference from the artifact store, bypassing this machine's cache, without a check.

        Raises:
            MissingArtifactError: if it is not there.
        """
        return self._run_file(f"runs:/{model.mlflow_run_id}/reference.parquet")

    def run_url_path(self, mlflow_run_id: str) -> str:
        """Return the run's page, relative to the MLflow UI."""
        return f"/#/experiments/{self._experiment_id()}/runs/{mlflow_run_id}"

    def shadow_of_run(self, run_id: str) -> ShadowModel:
        """Return the shadow model that `log_shadow` recorded in a run.

        Raises:
            MissingArtifactError: if it is not a finished training run.
        """
        return from_dict(ShadowModel, json.loads(self._run_file(f"runs:/{run_id}/metadata.json")))

    def stored_cross_fitted(self, model: ModelVersion | ShadowModel) -> bytes:
        """Download what a cross-fitted model was judged by from the artifact store, bypassing this machine's cache, without a check.

        Raises:
            MissingArtifactError: if it is not there.
        """
        return self._run_file(f"runs:/{model.mlflow_run_id}/{CROSS_FITTED_FILE}")

    @contextmanager
    def _run(self, run_id: str | None, name: str) -> Iterator[str]:
        """Yield the id of the run to log to: the active run, which gets the name, or a new one, which ends with the block."""
        mlflow = self._mlflow()
        if run_id is None:
            with mlflow.start_run(experiment_id=self._experiment_id(), run_name=name) as run:
                yield run.info.run_id
            return
        active = mlflow.active_run()
        assert active is not None, "who names a run has opened it in this process"
        assert active.info.run_id == run_id
        mlflow.set_tag("mlflow.runName", name)
        yield run_id

    def _run_file(self, uri: str) -> bytes:
        """Return a file of a run.

        Raises:
            MissingArtifactError: if there is no such file in the run.
        """
        run_id, _, name = uri.removeprefix("runs:/").partition("/")
        if name not in {file.path for file in self._client().list_artifacts(run_id)}:
            raise _missing(uri)
        return self._download(uri)

    def _fetch(self, uri: str, sha256: str, suffix: str) -> bytes:
        return self.cache.fetch(sha256, suffix, origin=_name_of(uri), download=lambda: self._download(uri))

    def _download(self, uri: str) -> bytes:
        """Download one file. `models:/` URIs name a folder only, so the folder is fetched for those.

        Raises:
            MissingArtifactError: if MLflow does not have the file.
            ModelRefusedError: if the file is larger than the limit.
            ServiceUnavailableError: if MLflow does not respond correctly.
        """
        from mlflow.exceptions import MlflowException

        is_model = uri.startswith("models:/")
        source = uri.rpartition("/")[0] if is_model else uri
        with tempfile.TemporaryDirectory() as folder:
            try:
                fetched = Path(self._mlflow().artifacts.download_artifacts(source, dst_path=folder))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise _missing(uri) from error
                logger.warning("MLflow did not provide %s: %s", uri, error)
                raise ServiceUnavailableError(
                    f"MLflow did not provide {_name_of(uri)}; check that it is running and healthy (the log has the reason)"
                ) from error
            path = fetched / uri.rpartition("/")[2] if is_model else fetched
            if not path.is_file():
                raise _missing(uri)
            check_size(path.stat().st_size, uri, self._max_model_bytes)
            return path.read_bytes()

    def _experiment_id(self) -> str:
        client = self._client()
        experiment = mlflow_repairs.active_experiment(client, EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None if self._artifact_folder is None else self._artifact_folder.resolve().as_uri()
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))

    def _save_again(self, version: ModelVersion, folder: Path) -> None:
        """Write a model's folder as `log_shadow` logged it, around the very file in the cache.

        Raises:
            ModelRefusedError: if the file is not in the cache, or may not be opened.
        """
        pipeline = self.load(version, may_download=False)
        try:
            requirements = self._run_file(f"runs:/{version.mlflow_run_id}/requirements.txt").decode().splitlines()
        except MissingArtifactError:
            requirements = list(model_requirements())
        self._mlflow().sklearn.save_model(pipeline, str(folder), **self._format(), pip_requirements=requirements)
        (folder / MODEL_FILE).write_bytes(self.model_bytes(version))

    def _format(self) -> dict[str, Any]:
        """Return how models are stored: as skops, with the types that may be in them."""
        trusted = [*TRUSTED_TYPES, *self.contract.trusted_types]
        return {"serialization_format": "skops", "skops_trusted_types": trusted}

    def _has_model(self, artifact_uri: str) -> bool:
        """Return whether a logged model was not deleted."""
        model_id = mlflow_repairs.model_id_of(artifact_uri)
        return model_id is None or mlflow_repairs.has_logged_model(self._client(), model_id)

    def _client(self) -> Any:
        return self._mlflow().MlflowClient()

    def _mlflow(self) -> Any:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        import mlflow  # takes seconds to import, so only where MLflow is really used

        with unchanged_environment():
            mlflow.set_tracking_uri(self._tracking_uri())
        return mlflow


def open_registry(settings: Settings, contract: ModelContract) -> Registry:
    """Return the configured registry: a tracking server, or tables in our Postgres and files in DATA_DIR/mlflow."""
    return Registry(
        contract,
        tracking_uri=tracking_uri(settings),
        cache_folder=settings.data_dir / "cache",
        artifact_folder=artifact_folder(settings),
        max_model_bytes=int(settings.max_model_mb * 1_000_000),
    )


def _calibration_metrics(record: TrainingRecord | None) -> dict[str, float | None]:
    """Return the calibration on the evaluation rows and, before it was corrected, out of fold."""
    if record is None:
        return {}
    checks = {"out_of_fold": record.out_of_fold, "evaluation": record.evaluation}
    names = ("slope", "intercept", "spiegelhalter_z")
    return {f"calibration_{name}_{rows}": getattr(check, name) for rows, check in checks.items() for name in names}


def _missing(uri: str) -> MissingArtifactError:
    return MissingArtifactError(f"{_name_of(uri)} is not there; restore MLflow's artifacts from a backup")


def _name_of(uri: str) -> str:
    """Return the file's name without its location, which API clients must not learn from an error."""
    return uri.rpartition("/")[2]


def _refuse_download() -> bytes:
    raise ModelRefusedError("the file is not in this machine's cache any more")
