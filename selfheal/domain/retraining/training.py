"""Training of a shadow model: tuning, calibration and threshold on training rows; metrics on later rows, or out of fold.

After a change the recent rows are cross-fitted (`cross_fitting`): they are evaluation rows as well.
"""

from __future__ import annotations

import math
import platform as machine
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.domain.clusters import Clusters, fold_groups, recurs_in, row_clusters, within
from selfheal.domain.contract import TRUE_LABEL, FloatArray, ModelContract
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.records import Calibration, Repair, RepairChoice, ScoreMetrics, TrainingRecord
from selfheal.domain.retraining.calibration import (
    check_calibration,
    correction_of,
    folded_into_linear_step,
    needs_recalibration,
)
from selfheal.domain.retraining.class_counts import EVALUATION, TRAIN
from selfheal.domain.retraining.cross_fitting import CrossFitted, blocks_of_time, decisions_of_others
from selfheal.domain.retraining.dataset import ORIGIN, ORIGINAL, WEIGHT, TrainingSet
from selfheal.domain.retraining.fitting import (
    IntArray,
    Parallelism,
    build_pipeline,
    converges,
    fit,
    fold_probabilities,
    iteration_limits,
)
from selfheal.domain.retraining.reference import labelled_reference, with_unlabelled
from selfheal.domain.retraining.repairs import NAMES as REPAIR_NAMES
from selfheal.domain.retraining.repairs import Candidate, Ladder, RecentRows, choose_repair
from selfheal.domain.retraining.search import SCORING, grid_scores
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import TrainingFailedError
from selfheal.kit.one_thread import one_thread

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from selfheal.domain.model.correction import Correction

FOLDS = 5
MORE_ITERATIONS = 10
"""Factor by which the iterations of an estimator that does not converge are raised, once."""

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "joblib")

NOT_NEEDED = "not needed"
FOLDED = "slope and intercept folded into the logistic regression"
WRAPPED = "sigmoid over the estimator (CalibratedClassifierCV)"

Progress = Callable[[int, int], None]
"""Called with the number of fits done and their total."""


@dataclass(frozen=True)
class TrainedModel:
    """A fitted pipeline, what is needed to use it, and what it learned from.

    `reference` is the frozen reference stored with the model: the newest rows of the training set with all features,
    `probability` (never from a model that saw the row) and `true_label`; where a part of the traffic has no label, its rows
    are among them, with a missing one. `record` describes the training.
    """

    pipeline: Pipeline
    threshold: float
    params: dict[str, Any]
    metrics: ScoreMetrics
    reference: pd.DataFrame
    record: TrainingRecord | None = None
    cross_fitted: CrossFitted | None = None
    """What it is judged by, if its training set is cross-fitted."""


@dataclass(frozen=True)
class _Rows:
    """The training rows, the champion's own first. `folds` split the recent ones; each fold is predicted by the others.

    With `clusters` no model predicts a row of an entity that it has learned from.
    """

    x: FloatArray
    y: IntArray
    weights: FloatArray
    folds: list[tuple[IntArray, IntArray]]
    n_original: int
    clusters: Clusters = None
    in_blocks: bool = False
    """Whether the recent rows are judged by their folds: nothing that a row is scored by may then have seen it."""

    @property
    def recent_y(self) -> IntArray:
        """Return the labels of the recent rows."""
        return self.y[self.n_original :]

    @property
    def recent(self) -> RecentRows:
        """Return the recent rows alone, with the same folds."""
        n = self.n_original
        folds = [(learn[learn >= n] - n, predict - n) for learn, predict in self.folds]
        clusters = None if self.clusters is None else self.clusters[n:]
        return RecentRows(self.x[n:], self.recent_y, folds, clusters, self.in_blocks)


@dataclass(frozen=True)
class _Model:
    """A model before its threshold: out-of-fold `probabilities` of the recent rows, and its calibration before a correction."""

    pipeline: Pipeline
    probabilities: FloatArray
    params: dict[str, Any]
    uncorrected: Calibration
    correction: str
    notes: tuple[str, ...]
    repair: RepairChoice | None = None
    by_others: tuple[FloatArray, IntArray] | None = None
    """Each row's probability and decision by the repair that the other folds choose; None: nothing was chosen."""


def train(
    training_set: TrainingSet,
    contract: ModelContract,
    seed: int,
    parallelism: Parallelism | None = None,
    on_fits: Progress | None = None,
    unlabelled: pd.DataFrame | None = None,
    ladder: Ladder | None = None,
) -> TrainedModel:
    """Train a model: grid search by cross-validation, calibration and F1-optimal threshold out of fold, then metrics.

    The metrics are on the evaluation rows. Original rows are used for learning in every fold, with their weight, and never
    predicted: parameters, calibration and threshold are tuned for the recent population. The same rows, seed, code and
    libraries give the same model bit for bit, whatever the parallelism.

    Args:
        unlabelled: predictions of the time of the reference that are not in the training set: all features and `created_at`.
            The reference is drawn from all traffic, since who has a label may be chosen.
        ladder: versions of which a cheaper repair may come (`selfheal.domain.retraining.repairs`); None: a new fit.

    Raises:
        TrainingFailedError: if the contract builds no pipeline, no candidate can be fitted, the best one does not converge even
            with ten times its iterations, or its probabilities are not numbers.
        ConfigurationError: if the requested parallelism is not available.
    """
    judge = training_set.part(EVALUATION)
    rows = _rows(training_set.part(TRAIN), contract, seed, in_blocks=training_set.is_cross_fitted)
    x_judge, y_judge = _matrix(judge, contract), judge[TRUE_LABEL].to_numpy(dtype=np.int64)
    model = _new_fit(rows, contract, seed, parallelism or Parallelism(), on_fits or _unheard)
    if training_set.info.original_weight is not None:
        model.params["original_weight"] = training_set.info.original_weight
    model = model if ladder is None else _cheapest_repair(ladder, model, rows, contract, seed)
    threshold = f1_optimal_threshold(rows.recent_y, model.probabilities)
    served = _probabilities(model.pipeline, contract, x_judge)
    cross_fitted = None
    if training_set.is_cross_fitted:
        cross_fitted = CrossFitted(*(model.by_others or _by_others(model, rows)))
    judged, decisions = (served, None) if cross_fitted is None else (cross_fitted.probabilities, cross_fitted.decisions)
    known = model.probabilities if cross_fitted is not None else np.concatenate([model.probabilities, judged])
    newest = labelled_reference(training_set, contract, known, None if cross_fitted is None else served)
    return TrainedModel(
        pipeline=model.pipeline,
        threshold=threshold,
        params=model.params | {"threshold": threshold, "folds": FOLDS, "scoring": SCORING, "seed": seed},
        metrics=score_metrics(y_judge, judged, threshold, decisions),
        reference=with_unlabelled(
            newest, unlabelled, contract, lambda rows: _probabilities(model.pipeline, contract, _matrix(rows, contract))
        ),
        record=TrainingRecord(
            seed=seed,
            code_version=code_version(),
            libraries=library_versions(),
            param_grid=grid_as_text(contract.param_grid),
            out_of_fold=model.uncorrected,
            recalibration=model.correction,
            recalibrated=None
            if model.correction == NOT_NEEDED
            else check_calibration(rows.recent_y, model.probabilities),
            evaluation=check_calibration(y_judge, judged),
            notes=model.notes,
            repair=model.repair,
        ),
        cross_fitted=cross_fitted,
    )


def _by_others(model: _Model, rows: _Rows) -> tuple[FloatArray, IntArray]:
    """Return each recent row's probability out of fold, and the decision at the threshold of the other folds."""
    recent = rows.recent
    return model.probabilities, decisions_of_others(recent.y, model.probabilities, recent.folds)


def _new_fit(rows: _Rows, contract: ModelContract, seed: int, parallelism: Parallelism, told: Progress) -> _Model:
    """Tune, fit and calibrate a new model."""
    n_searched = math.prod(map(len, contract.param_grid.values())) * FOLDS
    n_fits = n_searched + 1 + FOLDS
    with parallelism.in_force():
        best = _search(rows, contract, seed, lambda n_done: told(n_done, n_fits))
        pipeline, more_iterations = _fitted(build_pipeline(contract, seed).set_params(**best), rows)
        told(n_searched + 1, n_fits)
        out_of_fold = _out_of_fold(pipeline, rows, seed)
        told(n_fits, n_fits)
        before = check_calibration(rows.recent_y, out_of_fold)
        pipeline, out_of_fold, how = _recalibrated(pipeline, out_of_fold, before, rows, seed)
    notes = _notes(more_iterations, before, how)
    return _Model(pipeline, out_of_fold, {**best, **more_iterations}, before, how, notes)


def _cheapest_repair(ladder: Ladder, new: _Model, rows: _Rows, contract: ModelContract, seed: int) -> _Model:
    """Return the model that the ladder of repairs ends at; the new fit if nothing cheaper will do."""
    fit = Candidate(Repair.RETRAINING, None, new.probabilities, new.probabilities, lambda: new.pipeline)
    found = choose_repair(ladder, fit, rows.recent, contract, seed)
    if found is None:
        return replace(new, notes=(*new.notes, f"version {ladder.champion.version} does not score the training rows"))
    candidate, choice = found.candidate, found.choice
    if choice.repair is Repair.RETRAINING:
        return replace(new, repair=choice, by_others=found.by_others)
    return _Model(
        pipeline=candidate.build(),
        probabilities=candidate.probabilities,
        params={"repair": choice.repair.value, "repaired_version": choice.version},
        uncorrected=check_calibration(rows.recent_y, candidate.uncorrected),
        correction=NOT_NEEDED if candidate.uncorrected is candidate.probabilities else REPAIR_NAMES[choice.repair],
        notes=(choice.reason,),
        repair=choice,
        by_others=found.by_others,
    )


def library_versions() -> dict[str, str]:
    """Return what the bits of a fitted model also depend on: versions of libraries and Python, processor, arithmetic."""
    from threadpoolctl import threadpool_info

    found = {name: installed_version(name) for name in LIBRARIES}
    arithmetic = {
        f"{info['internal_api']} {info.get('version')} {info.get('architecture', '')}".strip()
        for info in threadpool_info()
        if info["user_api"] == "blas"
    }
    return found | {
        "python": machine.python_version(),
        "machine": f"{machine.system()} {machine.machine()}",
        "processor": _processor(),
        "blas": ", ".join(sorted(arithmetic)),
    }


def _processor() -> str:
    """Return what numpy makes use of in this processor: its kernels differ in the last bits of logarithms and the like."""
    configuration: Any = np.show_config(mode="dicts")
    instructions = configuration.get("SIMD Extensions", {})
    return " ".join([*instructions.get("baseline", ()), *instructions.get("found", ())]) or "unknown"


def grid_as_text(grid: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Return a parameter grid as text for a record, because its values may be of any type."""
    return {name: [repr(value) for value in values] for name, values in grid.items()}


# The rows


def _rows(learn: pd.DataFrame, contract: ModelContract, seed: int, *, in_blocks: bool = False) -> _Rows:
    y = learn[TRUE_LABEL].to_numpy(dtype=np.int64)
    n_original = int((learn[ORIGIN] == ORIGINAL).sum())
    clusters = _clusters(learn, contract, n_original)
    parted = fold_groups(learn, contract, clusters) if in_blocks else clusters
    original, recent = np.arange(n_original), np.arange(n_original, len(learn))
    groups = within(parted, np.arange(len(learn)) >= n_original)
    blocks = blocks_of_time(y[recent], FOLDS, groups) if in_blocks else None
    if groups is not None and blocks is None:
        _refuse_few_entities(y[recent], groups)
    cut = _cut(y[recent], groups, seed) if blocks is None else iter(blocks)
    folds = [(np.concatenate([original, recent[others]]), recent[fold]) for others, fold in cut]
    if parted is not None:
        folds = [(others[~np.isin(parted[others], parted[fold])], fold) for others, fold in folds]
    weights = learn[WEIGHT].to_numpy(dtype=np.float64)
    return _Rows(_matrix(learn, contract), y, weights, folds, n_original, clusters, in_blocks)


def _clusters(learn: pd.DataFrame, contract: ModelContract, n_original: int) -> Clusters:
    """Return the entity of each row; None if every row is its own.

    Where all rows together hardly recur, it is asked again of the recent rows and the original ones of their entities: many
    original rows of others would hide that these do.
    """
    found = row_clusters(learn, contract)
    if found is not None or n_original == 0:
        return found
    recent = learn.iloc[n_original:]
    is_related = np.append(recurs_in(learn.iloc[:n_original], recent, contract), np.ones(len(recent), dtype=np.bool_))
    related = row_clusters(learn[is_related], contract)
    if related is None:
        return None
    everyone: IntArray = related.max() + 1 + np.arange(len(learn))
    everyone[is_related] = related
    return everyone


def _refuse_few_entities(y: IntArray, clusters: IntArray) -> None:
    for label in (0, 1):
        n = len(np.unique(clusters[y == label]))
        if n < FOLDS:
            raise TrainingFailedError(
                f"the {int((y == label).sum()):,} recent training rows of class {label} are of {n} entities, and {FOLDS} are needed to "
                "tune on: production is untouched; wait for labels of others, or say in the contract whom rows are about (entity)"
            )


def _cut(y: IntArray, clusters: Clusters, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield the other rows and the rows of each fold; an entity's rows are all in one."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rows = np.arange(len(y))
    if clusters is None:
        return iter(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(rows, y))
    return iter(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(rows, y, clusters))


def _matrix(rows: pd.DataFrame, contract: ModelContract) -> FloatArray:
    return contract.matrix_of(rows)


# Tuning and fitting


def _search(rows: _Rows, contract: ModelContract, seed: int, on_fits: Callable[[int], None]) -> dict[str, Any]:
    """Return the parameters with the best mean score over the folds; of equal ones, the first in the grid."""
    from sklearn.model_selection import ParameterGrid

    candidates = list(ParameterGrid(_grid(contract)))
    pipeline = build_pipeline(contract, seed)
    scores, failure = grid_scores(pipeline, candidates, rows.x, rows.y, rows.weights, rows.folds, on_fits)
    means = scores.mean(axis=1)
    if np.isnan(means).all():
        raise TrainingFailedError(
            f"none of the {len(candidates)} candidates of {contract.name!r} can be trained: {failure}; "
            "production is untouched; mend build_estimator or param_grid of the contract"
        )
    return dict(candidates[int(np.nanargmax(means))])


def _grid(contract: ModelContract) -> dict[str, list[Any]]:
    return {name: [_plain(value) for value in values] for name, values in contract.param_grid.items()}


def _plain(value: Any) -> Any:
    """Return a number of numpy's as Python's own: parameters are stored as JSON, after all the work."""
    return value.item() if isinstance(value, np.generic) else value


def _fitted(pipeline: Pipeline, rows: _Rows) -> tuple[Pipeline, dict[str, Any]]:
    """Fit the pipeline to all training rows; also return the iteration limits that had to be raised."""
    if converges(pipeline, rows.x, rows.y, rows.weights):
        return pipeline, {}
    more = iteration_limits(pipeline, MORE_ITERATIONS)
    if not more or not converges(pipeline.set_params(**more), rows.x, rows.y, rows.weights):
        limits = ", ".join(f"{name}={value:,}" for name, value in more.items()) or "no limit of iterations to raise"
        raise TrainingFailedError(
            f"{type(pipeline.steps[-1][1]).__name__} does not converge ({limits}): its coefficients would be accidents; production "
            "is untouched; scale the features in build_estimator, regularise more, or choose another solver"
        )
    return pipeline, more


def _out_of_fold(pipeline: Pipeline, rows: _Rows, seed: int) -> FloatArray:
    """Return the probabilities of the recent training rows, in order, each from a copy that did not see the row."""
    from joblib import Parallel, delayed

    parts = Parallel()(
        delayed(fold_probabilities)(
            _for_fold(pipeline, rows, learn, seed), rows.x, rows.y, rows.weights, learn, predict
        )
        for learn, predict in rows.folds
    )
    found = np.full(len(rows.y), np.nan)
    for (_, predict), probabilities in zip(rows.folds, parts, strict=True):
        found[predict] = probabilities
    return _finite(found[rows.n_original :], pipeline)


def _for_fold(pipeline: Pipeline, rows: _Rows, learn: IntArray, seed: int) -> Pipeline:
    """Return the pipeline for a fold's learning rows: a calibration by folds of entities has folds of its own there."""
    from sklearn.base import clone

    if rows.clusters is None or "cv" not in pipeline.get_params(deep=False):
        return pipeline
    folds = list(_cut(rows.y[learn], rows.clusters[learn], seed))
    found: Pipeline = clone(pipeline).set_params(cv=folds)
    return found


def _probabilities(pipeline: Pipeline, contract: ModelContract, x: FloatArray) -> FloatArray:
    """Return the probabilities as they will be served."""
    with one_thread():
        return _finite(served_scoring(pipeline, contract)(x), pipeline)


def _finite(probabilities: FloatArray, pipeline: Pipeline) -> FloatArray:
    if not np.isfinite(probabilities).all():
        raise TrainingFailedError(
            f"the fitted {type(pipeline).__name__} gives {int((~np.isfinite(probabilities)).sum()):,} probabilities that are not "
            "numbers; production is untouched; mend build_estimator of the contract"
        )
    return probabilities


# Calibration


def _recalibrated(
    pipeline: Pipeline, out_of_fold: FloatArray, check: Calibration, rows: _Rows, seed: int
) -> tuple[Pipeline, FloatArray, str]:
    """Return the recalibrated pipeline, its out-of-fold probabilities, and how the calibration was reached.

    The correction has only two parameters, so its result on the out-of-fold rows it was fitted to is almost unbiased.
    """
    if not needs_recalibration(check):
        return pipeline, out_of_fold, NOT_NEEDED
    line = correction_of(check)
    folded = folded_into_linear_step(pipeline, line, rows.x)
    if folded is not None:
        return folded, _by_lines_of_others(out_of_fold, line, rows) if rows.in_blocks else line(out_of_fold), FOLDED
    if rows.n_original:
        return pipeline, out_of_fold, "not possible: this estimator's sigmoid cannot be fitted to weighted rows"
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed) if rows.clusters is None else rows.folds
    wrapped = CalibratedClassifierCV(pipeline, method="sigmoid", cv=folds, ensemble=False)
    fit(wrapped, rows.x, rows.y, rows.weights)
    out_of_fold = _out_of_fold(wrapped, rows, seed)
    wrapped.set_params(cv=FOLDS)  # a fitted model needs no splitter, whose type no model file may hold
    return wrapped, out_of_fold, WRAPPED


def _by_lines_of_others(out_of_fold: FloatArray, line: Correction, rows: _Rows) -> FloatArray:
    """Return the probabilities, each corrected by the line of the other folds; by `line` where they have none."""
    found = np.empty(len(out_of_fold))
    for learn, predict in rows.recent.folds:
        check = check_calibration(rows.recent_y[learn], out_of_fold[learn])
        of_others = correction_of(check) if check.slope is not None and check.slope > 0 else line
        found[predict] = of_others(out_of_fold[predict])
    return found


def _notes(more_iterations: Mapping[str, Any], check: Calibration, how: str) -> tuple[str, ...]:
    notes = [f"did not converge at first; {name} was raised to {value:,}" for name, value in more_iterations.items()]
    if how != NOT_NEEDED and check.slope is not None and check.intercept is not None:
        notes.append(
            f"out of fold the probabilities had slope {check.slope:.2f} and intercept {check.intercept:+.2f} (1 and 0 are right): {how}"
        )
    return tuple(notes)


def _unheard(n_done: int, n_fits: int) -> None:
    """Ignore the progress."""
