"""Fitting an estimator reproducibly: with row weights, in one thread, with a report on convergence.

Belongs here: settings of scikit-learn and joblib with which the same rows and seed give the same bits on every backend.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from selfheal.domain.retraining.limited_backend import limited
from selfheal.kit.errors import ConfigurationError, TrainingFailedError
from selfheal.kit.one_thread import one_thread

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray, ModelContract

IntArray = npt.NDArray[np.int64]

Folds = Sequence[tuple[IntArray, IntArray]]
"""For each fold the positions of the rows that are learned from, and of those that are predicted."""

MAX_ITER = "max_iter"


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How many fits run at once, and where: `loky` processes, `threading`, or the `dask` cluster at an address.

    `n_jobs` means the same everywhere. -1: one per core, on Dask per thread of the cluster. None: 1, on Dask -1.
    """

    n_jobs: int | None = None
    backend: Literal["loky", "threading", "dask"] = "loky"
    dask_scheduler: str | None = None

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Make joblib use this backend within the block.

        Raises:
            ConfigurationError: if the backend is Dask and it is not installed, or its scheduler does not answer.
        """
        from joblib import parallel_config

        if self.backend != "dask":
            with parallel_config(backend=self.backend, n_jobs=self.n_jobs or 1):
                yield
            return
        limit = None if self.n_jobs in {None, -1} else self.n_jobs
        with _dask_backend(self.dask_scheduler, limit) as backend, parallel_config(backend=backend, n_jobs=-1):
            yield


def fit(pipeline: Pipeline, x: FloatArray, y: IntArray, weights: FloatArray) -> None:
    """Fit in place. Weights other than 1 are passed to the last step; rows of weight 0 are omitted.

    The arithmetic runs in one thread, because the number of threads that share a sum affects its last bits.
    """
    counts = weights > 0
    with one_thread():
        pipeline.fit(x[counts], y[counts], **weight_argument(pipeline, weights[counts]))


def converges(pipeline: Pipeline, x: FloatArray, y: IntArray, weights: FloatArray) -> bool:
    """Fit in place (`fit`) and return whether it converged. Not thread-safe: threads share one list of warnings."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(pipeline, x, y, weights)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def fold_probabilities(
    pipeline: Pipeline, x: FloatArray, y: IntArray, weights: FloatArray, learn: IntArray, predict: IntArray
) -> FloatArray:
    """Return the probabilities for the rows at `predict` from a fresh copy fitted to those at `learn`."""
    from sklearn.base import clone

    copy = clone(pipeline)
    fit(copy, x[learn], y[learn], weights[learn])
    with one_thread():
        return np.asarray(copy.predict_proba(x[predict])[:, 1], dtype=np.float64)


def build_pipeline(contract: ModelContract, seed: int) -> Pipeline:
    """Build the contract's pipeline, not fitted.

    Raises:
        TrainingFailedError: if it is not a pipeline. A bare estimator would fail only when rows are first weighted, months after
            the bootstrap.
    """
    from sklearn.pipeline import Pipeline

    estimator = contract.estimator(seed)
    if not isinstance(estimator, Pipeline):
        name = type(estimator).__name__
        raise TrainingFailedError(f"build_estimator returns a {name}; wrap it: Pipeline([('classify', {name}(...))])")
    return estimator


def weight_argument(pipeline: Pipeline, weights: FloatArray) -> dict[str, FloatArray]:
    """Return the argument of `fit` with the weights for the last step; empty if all are 1 or it accepts none."""
    if (weights == 1.0).all() or not can_weigh(pipeline):
        return {}
    return {f"{pipeline.steps[-1][0]}__sample_weight": weights}


def can_weigh(pipeline: Pipeline) -> bool:
    """Return whether the pipeline supports row weights."""
    from sklearn.utils.validation import has_fit_parameter

    return bool(has_fit_parameter(pipeline.steps[-1][1], "sample_weight"))


def iteration_limits(pipeline: Pipeline, factor: int) -> dict[str, Any]:
    """Return the pipeline's settings for `factor` times as many iterations; empty if it has no such setting."""
    return {
        name: value * factor
        for name, value in pipeline.get_params().items()
        if name.endswith(f"__{MAX_ITER}") and isinstance(value, int) and value > 0
    }


@contextmanager
def _dask_backend(address: str | None, limit: int | None) -> Iterator[Any]:
    """Yield joblib's backend for the cluster at this address, limited to so many tasks at once."""
    try:
        from distributed import Client
        from joblib._dask import DaskDistributedBackend  # joblib knows it by a name only, without a limit
    except ImportError as error:
        raise ConfigurationError(
            "TRAINING_BACKEND=dask, but Dask is not installed; install it with `pip install 'selfheal[dask]'`, or set "
            "TRAINING_BACKEND=loky"
        ) from error
    try:
        client = Client(address)
    except OSError as error:
        raise ConfigurationError(
            f"DASK_SCHEDULER={address} does not answer ({error}); start it, or set TRAINING_BACKEND=loky"
        ) from error
    with client:
        yield limited(DaskDistributedBackend)(client=client, limit=limit)
