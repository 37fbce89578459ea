"""Repairs in MLflow: what a person can delete or rename on its pages is put back, as far as MLflow keeps a way back.

Each function returns what it found, one sentence each; nothing found, nothing changed. The client is MLflow's, given by
`selfheal.adapters.mlflow_registry`, which prepares it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from selfheal.domain.records import Stage
from selfheal.kit.errors import IntegrityError, MissingArtifactError, ModelRefusedError

if TYPE_CHECKING:
    from selfheal.domain.records import ModelVersion

logger = logging.getLogger(__name__)

STAGE_TAG = "stage"
RESTORING_TAG = "selfheal.restoring"
"""Of a registered model whose versions are being registered again."""

MODEL_FILE = "model.skops"
"""The file of a model's folder that is served; the others are for MLflow's own loaders."""

DELETED = "deleted"
DELETED_ONLY = 2
"""MLflow's `ViewType` of what is in its trash."""


class Source(NamedTuple):
    """A logged model, and the run that it is of."""

    artifact_uri: str
    run_id: str


def is_missing(error: Exception) -> bool:
    """Return whether MLflow says that there is no such thing (any more)."""
    return getattr(error, "error_code", None) in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}


def active_experiment(client: Any, name: str) -> Any | None:
    """Return the experiment of this name, restored if it is in MLflow's trash; None if there is none."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != DELETED:
        return experiment
    try:
        client.restore_experiment(experiment.experiment_id)
    except Exception:
        if client.get_experiment_by_name(name).lifecycle_stage == DELETED:
            raise
        # Another process has restored it first.
    logger.warning("experiment %s had been deleted in MLflow and was restored", name)
    return client.get_experiment_by_name(name)


def repair_experiment(client: Any, name: str, version: ModelVersion) -> list[str]:
    """Restore and rename the experiment that a version's run is in."""
    try:
        experiment = client.get_experiment(client.get_run(version.mlflow_run_id).info.experiment_id)
    except Exception as error:
        if not is_missing(error):
            raise
        return [
            f"the run of version {version.version} is not in MLflow any more, which keeps no way back; it continues to serve"
        ]
    found = []
    if experiment.lifecycle_stage == DELETED:
        client.restore_experiment(experiment.experiment_id)
        found.append(f"experiment {experiment.name} had been deleted and was restored")
    if experiment.name != name and client.get_experiment_by_name(name) is None:
        client.rename_experiment(experiment.experiment_id, name)
        found.append(f"experiment {name} had been renamed to {experiment.name!r} and has its name again")
    return found


def restore_runs(client: Any, name: str, versions: Collection[ModelVersion]) -> list[str]:
    """Restore the runs of these versions from MLflow's trash: training sets and references are in them."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None or not versions:
        return []
    number_of = {version.mlflow_run_id: version.version for version in versions}
    ids = ", ".join(f"'{run_id}'" for run_id in number_of)
    query = f"attributes.run_id IN ({ids})"
    deleted = client.search_runs([experiment.experiment_id], query, DELETED_ONLY, max_results=len(number_of))
    for run in deleted:
        client.restore_run(run.info.run_id)
    numbers = sorted(number_of[run.info.run_id] for run in deleted)
    return [f"the run of version {number} had been deleted and was restored" for number in numbers]


def has_model(client: Any, name: str) -> bool:
    """Return whether there is a registered model of this name, with all its versions."""
    try:
        return RESTORING_TAG not in client.get_registered_model(name).tags
    except Exception as error:
        if not is_missing(error):
            raise
        return False


def has_version(client: Any, name: str, version: int) -> bool:
    """Return whether a registered version is in MLflow."""
    return _exists(lambda: client.get_model_version(name, str(version)))


def has_logged_model(client: Any, model_id: str) -> bool:
    """Return whether a logged model is there."""
    return _exists(lambda: client.get_logged_model(model_id))


def repair_files(
    client: Any, name: str, version: ModelVersion, open_store: Callable[[str], Any], save: Callable[[Path], None]
) -> list[str]:
    """Put the files of a registered version back into the artifact store, if they are gone.

    `mlflow gc` removes the files of a logged model that was deleted, also those of the version in production. The registry
    goes on to call that version READY.

    Args:
        open_store: returns MLflow's access to the files below a URI.
        save: writes the model's folder, or raises `ModelRefusedError` or `IntegrityError` if there is no sound copy of it.
    """
    if not has_version(client, name, version.version):
        return []
    store = open_store(client.get_model_version_download_uri(name, str(version.version)))
    if any(file.path == MODEL_FILE for file in store.list_artifacts()):
        return []
    gone = f"the files of version {version.version} were removed from MLflow's artifact store (as by `mlflow gc`)"
    with TemporaryDirectory() as folder:
        try:
            save(Path(folder) / "model")
        except (ModelRefusedError, IntegrityError) as error:
            return [
                f"{gone} and cannot be put back by this host: {error}; restore them from a backup, or copy "
                f"{version.artifact_sha256}.skops from the cache of a host that serves the version into DATA_DIR/cache"
            ]
        store.log_artifacts(str(Path(folder) / "model"))
    return [f"{gone} and were put back from this host's copy"]


def repair_model(
    client: Any, name: str, description: str, versions: Sequence[ModelVersion], spare: Source | None = None
) -> list[str]:
    """Give the registered model its name back, or register it and its versions again under their numbers.

    MLflow counts versions from 1 anew after a model was deleted: the next training would get the number of another. A
    restoration that was interrupted is begun anew.

    Args:
        versions: all that Postgres knows.
        spare: another logged model, by which the numbers are used up where none of the versions' models is left.

    Raises:
        MissingArtifactError: if none of their models is left, nor a spare one; nothing is changed then.
    """
    if not versions or has_model(client, name):
        return []
    by_number = {version.version: version for version in versions}
    other = _name_elsewhere(client, name, by_number[max(by_number)])
    if other is not None:
        client.rename_registered_model(other, name)
        return [f"registered model {name} had been renamed to {other!r} and has its name again"]
    alive = {number: version for number, version in by_number.items() if _has_model_of(client, version)}
    filler = next((_source_of(version) for version in alive.values()), spare)
    if filler is None:
        raise MissingArtifactError(
            f"no version of {name} can be registered in MLflow again: their models were deleted, too"
        )
    if _exists(lambda: client.get_registered_model(name)):
        client.delete_registered_model(name)
    client.create_registered_model(name, tags={RESTORING_TAG: "true"}, description=description)
    n_again = sum(_register_again(client, name, number, alive, filler) for number in range(1, max(by_number) + 1))
    client.delete_registered_model_tag(name, RESTORING_TAG)
    return [f"registered model {name} had been deleted; {n_again} of its {len(versions)} versions are registered again"]


def model_id_of(artifact_uri: str) -> str | None:
    """Return the id of a logged model (`models:/m-...`); None for another URI."""
    model_id = artifact_uri.removeprefix("models:/")
    return model_id if model_id != artifact_uri and not {"/", "@"} & set(model_id) else None


def create_version(client: Any, name: str, artifact_uri: str, run_id: str, stage: Stage) -> int:
    """Register a logged model as the next version; return its number."""
    created = client.create_model_version(
        name,
        source=artifact_uri,
        run_id=run_id,
        tags={STAGE_TAG: stage.value},
        model_id=model_id_of(artifact_uri),  # without it a tracking server refuses the source
    )
    return int(created.version)


def _exists(read: Callable[[], object]) -> bool:
    try:
        read()
    except Exception as error:
        if not is_missing(error):
            raise
        return False
    return True


def _name_elsewhere(client: Any, name: str, version: ModelVersion) -> str | None:
    """Return the name of the registered model that has this version's run now."""
    found = client.search_model_versions(f"run_id = '{version.mlflow_run_id}'")
    return next((str(one.name) for one in found if one.name != name and int(one.version) == version.version), None)


def _source_of(version: ModelVersion) -> Source:
    return Source(version.artifact_uri, version.mlflow_run_id)


def _register_again(client: Any, name: str, number: int, alive: Mapping[int, ModelVersion], filler: Source) -> bool:
    """Register the version of this number, or use the number up; return whether the version is there again."""
    version = alive.get(number)
    if version is not None:
        create_version(client, name, version.artifact_uri, version.mlflow_run_id, version.stage)
        return True
    # No version, or one whose logged model was deleted, too: the next one must not get its number.
    used_up = create_version(client, name, filler.artifact_uri, filler.run_id, Stage.ARCHIVED)
    client.delete_model_version(name, str(used_up))
    return False


def _has_model_of(client: Any, version: ModelVersion) -> bool:
    model_id = model_id_of(version.artifact_uri)
    return model_id is None or has_logged_model(client, model_id)
