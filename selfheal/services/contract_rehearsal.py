"""Dry run of a bootstrap: test a contract and its data before anything starts. Nothing is written.

Belongs here: trying the parts of a contract on its probe rows and on the rows of a file. Does not belong here: what
`ModelContract` itself refuses, and what `selfheal.adapters.datasets` refuses in a file. Rows, training and gates are those
of the bootstrap, by the same functions: the same contract, file and settings have the same verdict there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from selfheal.domain.contract import PROBE_ROWS, TRUE_LABEL, FloatArray, ModelContract
from selfheal.domain.derived_values import MAX_FLOAT, MAX_INT
from selfheal.domain.levels import codes_of, derived_levels
from selfheal.domain.records import GateStatus
from selfheal.kit.errors import (
    InvalidDataError,
    ModelNotExplainableError,
    ModelRefusedError,
    SelfhealError,
    TrainingFailedError,
)

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from selfheal.adapters.datasets import Dataset
    from selfheal.domain.features import DerivedFeature, Feature, Kind
    from selfheal.domain.retraining.dataset import TrainingSet
    from selfheal.domain.retraining.training import Progress, TrainedModel
    from selfheal.settings import Settings

Level = Literal["ok", "note", "problem"]

MANY_COPIES = 0.2
"""Share of the training rows dropped as copies of later rows from which a note is given."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one test: a `problem` would stop a bootstrap, a `note` is for a person to judge."""

    level: Level
    text: str


def check_contract(
    contract: ModelContract, settings: Settings, dataset: Dataset | None, on_fits: Progress | None = None
) -> list[Finding]:
    """Test derivation and estimator and, with data, do what a bootstrap would do. It takes as long as its training.

    `settings` must come from `load_settings`, which includes the settings that gates declare.
    """
    findings = [*_check_derivation(contract), *_check_grid(contract)]
    if dataset is None or any(finding.level == "problem" for finding in findings):
        return findings
    return [*findings, *_check_data(contract, settings, dataset, on_fits)]


def column_summary(contract: ModelContract, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry per input: the contract's limits, and the range and `missing_pct` of the rows."""
    return [
        {
            "input": feature.name,
            "kind": feature.kind,
            "limits": _limits(feature),
            "unit": feature.unit,
            "may_be_missing": "yes" if feature.is_nullable else "no",
            "missing_pct": round(100.0 * float(frame[feature.name].isna().mean()), 2),
            **_range(frame[feature.name], feature.kind),
        }
        for feature in contract.inputs
    ]


def _limits(feature: Feature) -> str:
    if feature.kind == "category":
        return f"{len(feature.levels):,} levels or others" if feature.levels else "any level"
    return "" if feature.kind == "bool" else f"{feature.lower:g} to {feature.upper:g}"


def _range(column: pd.Series, kind: Kind) -> dict[str, Any]:
    """Return lowest, middle and highest value; of a category the commonest level in the middle."""
    if kind == "category":
        commonest = column.mode()
        return {"min": None, "median": None if commonest.empty else commonest.iloc[0], "max": None}
    return {name: float(column.quantile(q)) for name, q in (("min", 0), ("median", 0.5), ("max", 1))}


# The contract by itself


def _check_derivation(contract: ModelContract) -> Iterator[Finding]:
    rows, declared = contract.probe_rows(), {feature.name: feature for feature in contract.derived}
    try:
        with np.errstate(all="ignore"):
            derived = contract.derive(rows)
            alone = [contract.derive({n: values[i : i + 1] for n, values in rows.items()}) for i in range(PROBE_ROWS)]
    except Exception as error:  # user code may raise anything
        yield Finding("problem", f"derive fails on rows within the limits: {type(error).__name__}: {error}")
        return
    for name in sorted(set(declared) ^ set(derived)):
        said = "declared, but derive does not return it" if name in declared else "returned by derive, but not declared"
        yield Finding("problem", f"the derived feature {name!r} is {said}")
    for name in sorted(set(declared) & set(derived)):
        try:
            values, *each = (_numbers(declared[name], one[name]) for one in (derived, *alone))
        except ValueError as error:
            yield Finding("problem", f"the derived feature {name!r} is of another kind: {error}")
            continue
        apart = np.concatenate([np.ravel(one) for one in each])
        problem = _problem_of(values, apart, declared[name].kind, declared[name].is_nullable)
        if problem is not None:
            yield Finding("problem", f"the derived feature {name!r} {problem}")


def _numbers(feature: DerivedFeature, values: Any) -> FloatArray:
    """Return a derived column as in a matrix."""
    if feature.kind == "category":
        return codes_of(derived_levels(feature.name, values))
    return np.asarray(values, dtype=np.float64)


def _problem_of(values: FloatArray, apart: FloatArray, kind: str, is_nullable: bool) -> str | None:
    """Return what is wrong with a derived column on the probe rows; `apart` has each row's value computed alone."""
    if values.shape != (PROBE_ROWS,) or apart.shape != (PROBE_ROWS,):
        return f"has shape {values.shape} for {PROBE_ROWS} rows; derive must work on arrays and return one value a row"
    if not np.allclose(values, apart, rtol=1e-9, equal_nan=True):
        return "depends on the rows beside it; a row must give the same by itself"
    if np.isinf(values).any():
        return "becomes infinite within the limits of the inputs; bound it, or narrow the limits"
    if np.isnan(values).any() and not is_nullable:
        return "can be missing, but is not declared with is_nullable=True"
    return _unfit(values, kind) or _excess(values, kind)


def _unfit(values: FloatArray, kind: str) -> str | None:
    """Return what a derived column is declared to be and is not."""
    known = values[~np.isnan(values)]
    if kind == "int" and (known % 1 != 0).any():
        return "is declared an int, but is not always whole"
    if kind == "bool" and not np.isin(known, (0.0, 1.0)).all():
        return "is declared a bool, but is not always 1 or 0"
    return None


def _excess(values: FloatArray, kind: str) -> str | None:
    """Return by how much a derived column exceeds what it may hold; None if it does not."""
    largest = MAX_INT if kind == "int" else MAX_FLOAT
    if not (np.abs(values) > largest).any():
        return None
    remedy = "declare it as a float, or narrow their limits" if kind == "int" else "bound it, or narrow their limits"
    return f"reaches {np.nanmax(np.abs(values)):,.6g} within the limits of the inputs, beyond {largest:,.10g}; {remedy}"


def _check_grid(contract: ModelContract) -> Iterator[Finding]:
    from selfheal.domain.retraining.fitting import build_pipeline

    try:
        estimator = build_pipeline(contract, 0)
    except TrainingFailedError as error:
        yield Finding("problem", str(error))
        return
    except Exception as error:  # user code may raise anything
        yield Finding("problem", f"build_estimator fails: {type(error).__name__}: {error}")
        return
    unknown = sorted(set(contract.param_grid) - set(estimator.get_params()))
    if unknown:
        yield Finding("problem", f"param_grid has {', '.join(unknown)}, which the estimator does not know")
    if not hasattr(estimator, "predict_proba"):
        yield Finding("problem", f"the {type(estimator.steps[-1][1]).__name__} of build_estimator has no predict_proba")


# With data


def _check_data(
    contract: ModelContract, settings: Settings, dataset: Dataset, on_fits: Progress | None
) -> Iterator[Finding]:
    from selfheal.domain.retraining.dataset import bootstrap_training_set

    labels = dataset.frame[TRUE_LABEL]
    yield Finding("ok", f"{dataset.description}: {int(labels.sum()):,} ({100 * labels.mean():.1f} %) are positive")
    for name in contract.input_names:
        if dataset.frame[name].nunique(dropna=False) == 1:
            yield Finding("note", f"{name} is the same in all rows: nothing can be learned from it")
    yield from _check_scenarios(contract, dataset)
    try:
        rows = bootstrap_training_set(
            dataset.frame,
            contract,
            source=dataset.description,
            min_evaluation_rows=settings.min_samples_for_decision,
        )
    except InvalidDataError as error:
        yield Finding("problem", str(error))
        return
    yield from _notes_on(rows, settings)
    yield from _check_model(contract, settings, rows, on_fits)


def _check_scenarios(contract: ModelContract, dataset: Dataset) -> Iterator[Finding]:
    """Check that the API would accept the rows of each scenario."""
    from selfheal.adapters.datasets import input_schema, typed_inputs
    from selfheal.domain.scenarios import scenario_rows

    names = [*contract.input_names, TRUE_LABEL]
    for scenario in contract.scenarios:
        try:
            changed = scenario_rows(dataset.frame.iloc[:2_000][names], contract, scenario.name, seed=0)
            input_schema(contract).validate(typed_inputs(changed, contract))
        except Exception as error:  # user code may raise anything; the schema's own message is a page long
            why = str(error).strip().splitlines()[0]
            yield Finding("problem", f"the scenario {scenario.name!r} makes rows that the API would refuse: {why}")


def _notes_on(rows: TrainingSet, settings: Settings) -> Iterator[Finding]:
    from selfheal.domain.retraining.class_counts import ALIKE, EVALUATION, MIN_ROWS_PER_CLASS, TRAIN
    from selfheal.domain.retraining.dataset import EVALUATION_SHARE

    info = rows.info
    rates = [100 * rows.part(part)[TRUE_LABEL].mean() for part in (TRAIN, EVALUATION)]
    yield Finding(
        "ok",
        f"{info.n_train:,} rows to learn from ({rates[0]:.1f} % positive), {info.n_evaluation:,} later ones to be judged on "
        f"({rates[1]:.1f} %)",
    )
    copied = info.n_copied_inputs / max(1, info.n_train + info.n_copied_inputs)
    if copied > MANY_COPIES:
        yield Finding(
            "note",
            f"{100 * copied:.0f} % of the earlier rows are left out of training: a later row has the same inputs, or nearly. Right "
            f"for the same case twice; {ALIKE}",
        )
    rarer_pct = min(min(rate, 100 - rate) for rate in rates)
    of_both_classes = MIN_ROWS_PER_CLASS / (rarer_pct / 100 * EVALUATION_SHARE)
    n_labels = math.ceil(max(settings.min_samples_for_decision / EVALUATION_SHARE, of_both_classes))
    yield Finding("ok", f"a retraining will ask for at least {n_labels:,} labelled predictions")
    days = max(settings.monitoring_max_lookback, settings.monitoring_lookback) / 24
    yield Finding(
        "ok",
        f"monitoring compares from {settings.min_drift_rows:,} predictions on (MIN_DRIFT_ROWS) of at most {days:g} days "
        f"(MONITORING_MAX_LOOKBACK): it judges nothing with less than {settings.min_drift_rows / days:.1f} a day",
    )


def _check_model(
    contract: ModelContract, settings: Settings, rows: TrainingSet, on_fits: Progress | None
) -> Iterator[Finding]:
    """Train as the bootstrap does, and check what gates, registry and API require of the model."""
    from selfheal.domain.retraining.class_counts import TRAIN
    from selfheal.domain.retraining.training import train
    from selfheal.services.retraining import parallelism

    try:
        trained = train(rows, contract, settings.random_seed, parallelism(settings), on_fits)
    except SelfhealError as error:
        yield Finding("problem", str(error))
        return
    except Exception as error:  # user code may raise anything
        yield Finding("problem", f"the estimator cannot be fitted: {type(error).__name__}: {error}")
        return
    try:
        loaded = _reloaded(contract, settings, trained)
    except SelfhealError as error:
        yield Finding("problem", str(error))
        return
    yield from _judged(contract, settings, rows, loaded, trained.threshold)
    yield _explainable(contract, loaded, contract.matrix_of(rows.part(TRAIN)))


def _reloaded(contract: ModelContract, settings: Settings, trained: TrainedModel) -> Pipeline:
    """Write the model to memory, load it as the API does, and validate it as a promotion does.

    Raises:
        ModelRefusedError: if it cannot be written, loaded or served, or scores otherwise once it is loaded.
    """
    import skops.io

    from selfheal.domain.model.examination import examine
    from selfheal.domain.model.file import load_trusted
    from selfheal.services.promotion.final_validation import check_parity

    try:
        packed = skops.io.dumps(trained.pipeline)
    except Exception as error:  # skops raises its own errors for types it cannot write
        raise ModelRefusedError(
            f"the model cannot be written as a skops file: {type(error).__name__}: {error}"
        ) from error
    judged = trained.reference.iloc[-min(trained.metrics.n_rows, len(trained.reference)) :]
    try:
        loaded = load_trusted(packed, "its file", int(settings.max_model_mb * 1_000_000), contract.trusted_types)
        examine(loaded, contract)
        check_parity(
            loaded,
            contract.matrix_of(judged),
            judged["probability"].to_numpy(dtype=np.float64),
        )
    except ModelRefusedError as error:
        raise ModelRefusedError(
            f"the API would refuse the model: {error} (see trusted_types, if you trust your registry)"
        ) from error
    except Exception as error:  # a model's own code may raise anything
        raise ModelRefusedError(f"the model does not score: {type(error).__name__}: {error}") from error
    return loaded


def _judged(
    contract: ModelContract, settings: Settings, rows: TrainingSet, model: Pipeline, threshold: float
) -> Iterator[Finding]:
    """Yield the outcome of each gate that applies to a first version."""
    from selfheal.domain.model.plain_scoring import served_scoring
    from selfheal.domain.retraining.class_counts import EVALUATION
    from selfheal.domain.retraining.evaluation import evaluation_on, scores_of
    from selfheal.domain.retraining.judging import evaluate_gates
    from selfheal.services.retraining import gate_limits

    scores = scores_of(served_scoring(model, contract), threshold, rows.part(EVALUATION), contract)
    evaluation = evaluation_on(rows, contract, challenger=scores, champion=None, n_labels=0)
    outcome = evaluate_gates(evaluation, gate_limits(settings), verdict_number=1)
    for gate in outcome.gates:
        if gate.status is GateStatus.PASS:
            yield Finding("ok", f"gate {gate.name}: {gate.sentence}")
        elif gate.status in {GateStatus.FAIL, GateStatus.INCONCLUSIVE}:
            yield Finding("problem", f"gate {gate.name}: {gate.sentence}; {_remedy_of(gate.name)}")


def _remedy_of(gate: str) -> str:
    """Return what helps against a gate that does not pass: other features, or other limits."""
    from selfheal.domain.retraining.gates import GATES
    from selfheal.settings import Settings

    names = [limit.setting_name for spec in GATES if spec.name == gate for limit in spec.limits]
    names += [f"harm_{name}" for name in names if f"harm_{name}" in Settings.model_fields]
    return f"find better features, or set {' and '.join(map(str.upper, names))} to what is useful"


def _explainable(contract: ModelContract, pipeline: Pipeline, population: FloatArray) -> Finding:
    from selfheal.domain.model.explanation import build_explainer

    try:
        build_explainer(pipeline, contract, population)
    except ModelNotExplainableError as error:
        return Finding("note", f"it will serve without explanations: {error}")
    except SelfhealError as error:
        return Finding("problem", str(error))
    return Finding("ok", "its answers can be explained exactly (?explain=true)")
