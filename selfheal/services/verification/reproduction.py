"""Reproduction: train a version again from its record and compare, to the bit wherever the same bits can be expected.

The same rows, seed, code, libraries, processor and BLAS give the same bits. Where one of them is another one, sums are
rounded otherwise, and the model is the same if its numbers are, to `TOLERANCE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal.adapters.postgres import model_versions
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.levels import matrix
from selfheal.domain.model.content import canonical_content, differences
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.records import Repair, Reproduction, TrainingRecord
from selfheal.domain.retraining.cross_fitting import SERVED
from selfheal.domain.retraining.dataset import rows_digest
from selfheal.domain.retraining.training import grid_as_text, library_versions, train
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import PermanentError
from selfheal.kit.same_numbers import is_same
from selfheal.kit.serialization import to_dict
from selfheal.services.repairs import ladder_of_record
from selfheal.services.retraining import parallelism

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import ModelContract
    from selfheal.domain.records import ShadowModel
    from selfheal.domain.retraining.cross_fitting import CrossFitted
    from selfheal.domain.retraining.training import Progress, TrainedModel
    from selfheal.services.platform import Platform

TOLERANCE = 1e-9
"""How far a number may lie from the recorded one, relatively and absolutely, where the arithmetic is another one. Coefficients
fitted by four families of BLAS kernels lay 2e-14 apart at most; what is fitted in more steps may lie further apart."""


def reproduce(platform: Platform, version: int, on_fits: Progress | None = None) -> Reproduction:
    """Train a registered version again from its training set, with the recorded seed, and compare what comes of it.

    To the bit where nothing that the bits depend on has changed since, else to `TOLERANCE`.

    Raises:
        PermanentError: if there is no such version, or its training was not recorded.
        MissingArtifactError: if the training set is missing.
        IntegrityError: if training set or model file do not match their recorded digests.
    """
    registered = model_versions.model_version(platform.store, version)
    if registered is None:
        raise PermanentError(f"version {version} is not registered; `selfheal status` names the one in production")
    shadow = platform.registry.shadow_of_run(registered.mlflow_run_id)
    if shadow.record is None:
        raise PermanentError(
            f"version {version} was trained before trainings were recorded; it cannot be trained again"
        )
    recorded = platform.registry.model_bytes(registered)
    rows = platform.registry.training_set(shadow)
    trained = train(
        rows,
        platform.contract,
        shadow.record.seed,
        parallelism(platform.settings),
        on_fits,
        None,
        ladder_of_record(platform, shadow.record.repair) if _needs_ladder(shadow) else None,
    )
    changes = changed_since(shadow.record, platform.contract)

    def differing(tolerance: float) -> tuple[str, ...]:
        of_model = _model_differences(recorded, trained, tolerance)
        return (*of_model, *_other_differences(platform, shadow, trained, tolerance))

    found = differing(0.0)
    beyond = differing(TOLERANCE) if changes else found
    return Reproduction(
        model_name=registered.model_name,
        version=version,
        mlflow_run_id=registered.mlflow_run_id,
        data_sha256=shadow.training_set.sha256,
        differences=beyond,
        changed_since=changes,
        tolerance=TOLERANCE if changes and found else 0.0,
        n_rounded=len(found) - len(beyond),
    )


def _needs_ladder(shadow: ShadowModel) -> bool:
    """Return whether what it was compared with has left a trace: a new fit that later rows have judged is made without."""
    choice = None if shadow.record is None else shadow.record.repair
    is_new_fit = choice is None or choice.repair is Repair.RETRAINING
    return not is_new_fit or shadow.cross_fitted_sha256 is not None


def changed_since(record: TrainingRecord, contract: ModelContract) -> tuple[str, ...]:
    """Return one sentence for each other change since the training that may affect its result."""
    now = {"code": code_version(), **library_versions(), **_as_settings(grid_as_text(contract.param_grid))}
    then = {"code": record.code_version, **record.libraries, **_as_settings(record.param_grid)}
    return tuple(
        f"{name} was {then.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    )


def _as_settings(grid: dict[str, list[str]]) -> dict[str, str]:
    return {f"candidates of {name}": ", ".join(values) for name, values in grid.items()}


def _model_differences(recorded: bytes, trained: TrainedModel, tolerance: float) -> list[str]:
    import skops.io

    again = canonical_content(skops.io.dumps(trained.pipeline))
    return [f"model {difference}" for difference in differences(canonical_content(recorded), again, tolerance)]


def _other_differences(
    platform: Platform, shadow: ShadowModel, trained: TrainedModel, tolerance: float
) -> Iterator[str]:
    recorded = to_dict(shadow)
    again = to_dict(replace(shadow, threshold=trained.threshold, params=trained.params, metrics=trained.metrics))
    for name in ("threshold", "params", "metrics"):
        if not is_same(recorded[name], again[name], tolerance):
            yield f"{name}: {recorded[name]} and {again[name]}"
    if not _is_judged_alike(platform.registry.cross_fitted(shadow), trained.cross_fitted, tolerance):
        yield "cross-fitted scores: what it was judged by differs"
    recorded_reference = platform.registry.reference(shadow)
    reference = _drawn_again(recorded_reference, trained, platform.contract)
    if not _is_same_reference(recorded_reference, reference, tolerance):
        yield "reference: its rows or their probabilities differ"


def _is_judged_alike(recorded: CrossFitted | None, again: CrossFitted | None, tolerance: float) -> bool:
    if recorded is None or again is None:
        return recorded is again
    one, other = recorded.to_frame().to_numpy(), again.to_frame().to_numpy()
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=tolerance, atol=tolerance))


def _drawn_again(recorded: pd.DataFrame, trained: TrainedModel, contract: ModelContract) -> pd.DataFrame:
    """Return the reference of a repeated training. Rows without a label are as recorded, but scored again."""
    is_labelled = recorded[TRUE_LABEL].notna().to_numpy()
    if is_labelled.all():
        return trained.reference
    again = recorded.copy()
    labelled = trained.reference.iloc[len(trained.reference) - int(is_labelled.sum()) :]
    served = [SERVED] if SERVED in recorded.columns else []
    columns = [*contract.feature_names, TRUE_LABEL, "probability", *served]
    for name in columns:
        again.loc[is_labelled, name] = labelled[name].to_numpy(dtype=contract.dtypes.get(name, "float64"))
    rows = contract.matrix_of(recorded.loc[~is_labelled])
    for name in ("probability", *served):
        again.loc[~is_labelled, name] = served_scoring(trained.pipeline, contract)(rows)
    return again


def _is_same_reference(recorded: pd.DataFrame, again: pd.DataFrame, tolerance: float) -> bool:
    if rows_digest(recorded) == rows_digest(again):
        return True
    if list(recorded.columns) != list(again.columns) or len(recorded) != len(again):
        return False
    one, other = (matrix(frame, list(frame.columns)) for frame in (recorded, again))
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))
