"""No more fits at once than were asked for, also on a backend that hands everything to its workers, as Dask's does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.parallel import ParallelBackendBase
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from selfheal.domain.retraining import fitting
from selfheal.domain.retraining.dataset import TrainingSet
from selfheal.domain.retraining.fitting import Parallelism
from selfheal.domain.retraining.limited_backend import limited
from selfheal.domain.retraining.training import FOLDS, train
from tests.domain.retraining.rows import labelled, split
from tests.toy_use_case import contract

N_WORKERS = 8


class Cluster(ParallelBackendBase):  # type: ignore[misc]
    """Behaves as joblib's backend for Dask: `n_jobs` is ignored, all tasks are started at once, and tasks nest on all of it."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(N_WORKERS)
        self._count = threading.Lock()
        self.n_now = self.most = 0

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return N_WORKERS

    def get_nested_backend(self) -> tuple[Any, int]:
        return self, -1

    def submit(self, func: Callable[[], Any], callback: Callable[..., Any] | None = None) -> Future[Any]:
        future = self._pool.submit(self._counted, func)
        if callback is not None:
            future.add_done_callback(callback)
        future.get = future.result  # type: ignore[attr-defined]
        return future

    def _counted(self, batch: Any) -> Any:
        with self._count:
            self.n_now += 1
            self.most = max(self.most, self.n_now)
        try:
            with parallel_config(backend=self, n_jobs=-1):
                return [function(*args, **kwargs) for function, args, kwargs in batch.items]
        finally:
            with self._count:
                self.n_now -= 1

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Leave what runs to its end, as a cluster does."""


def work(number: int) -> int:
    time.sleep(0.02)
    return number


def test_the_backend_that_the_limit_is_for_has_none() -> None:
    cluster = Cluster()
    with parallel_config(backend=cluster, n_jobs=1):
        assert Parallel()(delayed(work)(number) for number in range(16)) == list(range(16))
    assert cluster.most > 1, "n_jobs=1, and yet"


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_more_tasks_run_at_once_than_the_limit(limit: int) -> None:
    cluster = limited(Cluster)(limit=limit)
    with parallel_config(backend=cluster, n_jobs=-1):
        assert Parallel()(delayed(work)(number) for number in range(16)) == list(range(16))
        assert Parallel(n_jobs=4)(delayed(work)(number) for number in range(16)) == list(range(16))
    assert cluster.most == limit, "on the workers, also where it is a single one"


def test_without_a_limit_all_workers_are_used() -> None:
    cluster = limited(Cluster)(limit=None)
    with parallel_config(backend=cluster, n_jobs=-1):
        Parallel()(delayed(work)(number) for number in range(32))
        assert effective_n_jobs(None) == N_WORKERS
    assert cluster.most == N_WORKERS


def test_a_task_uses_its_own_worker_only() -> None:
    cluster = limited(Cluster)(limit=2)
    with parallel_config(backend=cluster, n_jobs=-1):
        assert Parallel()(delayed(effective_n_jobs)(None) for _ in range(4)) == [1] * 4
    assert cluster.most <= 2


def test_after_a_task_that_failed_the_next_call_has_all_its_places() -> None:
    def fail(number: int) -> int:
        if number == 1:
            raise ValueError("this one")
        return work(number)

    cluster = limited(Cluster)(limit=2)
    with parallel_config(backend=cluster, n_jobs=-1):
        for _ in range(3):
            with pytest.raises(ValueError, match="this one"):
                Parallel()(delayed(fail)(number) for number in range(16))
        assert Parallel()(delayed(work)(number) for number in range(8)) == list(range(8))


@pytest.fixture(scope="module")
def rows() -> TrainingSet:
    return split(labelled(600))


def forest(seed: int) -> Pipeline:
    trees = RandomForestClassifier(4, random_state=seed)
    return Pipeline([("impute", SimpleImputer(strategy="median")), ("classify", trees)])


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_training_jobs_is_the_number_of_fits_at_once_on_a_cluster_and_the_model_the_same_to_the_bit(
    rows: TrainingSet, monkeypatch: pytest.MonkeyPatch, n_jobs: int
) -> None:
    """Also of an estimator that would fit its trees in parallel, and add up their votes in the order in which they come."""
    clusters: list[Any] = []

    @contextmanager
    def on_cluster(address: str | None, limit: int | None) -> Iterator[Any]:
        clusters.append(limited(Cluster)(limit=limit))
        yield clusters[-1]

    monkeypatch.setattr(fitting, "_dask_backend", on_cluster)
    use_case = replace(contract, build_estimator=forest, param_grid={"classify__max_depth": [2, 3]})
    model = train(rows, use_case, seed=3, parallelism=Parallelism(n_jobs, "dask", "tcp://cluster:8786"))
    assert clusters[0].most == n_jobs
    alone = train(rows, use_case, seed=3)
    assert (model.params, model.metrics) == (alone.params, alone.metrics)


@pytest.mark.parametrize(("n_jobs", "n_first"), [(1, 1), (10, FOLDS)])
def test_as_many_folds_are_searched_at_once_as_keep_the_jobs_busy(rows: TrainingSet, n_jobs: int, n_first: int) -> None:
    """By the number that was asked for, not by that of the cores."""
    told: list[int] = []
    train(rows, contract, seed=3, parallelism=Parallelism(n_jobs, "threading"), on_fits=lambda n, _: told.append(n))
    assert told[0] == n_first * len(contract.param_grid["classify__C"])
