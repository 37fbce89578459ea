"""Dry run of a bootstrap: test a contract and its data within seconds, before anything starts.

Belongs here: trying the parts of a contract on its probe rows and on the rows of a file. Does not belong here: what
`ModelContract` itself refuses, and what `selfheal.adapters.datasets` refuses in a file. Nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from selfheal.domain.contract import PROBE_ROWS, TRUE_LABEL, FloatArray, ModelContract
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
    from selfheal.domain.retraining.dataset import TrainingSet
    from selfheal.settings import Settings

Level = Literal["ok", "note", "problem"]

MANY_COPIES = 0.2
"""Share of the training rows dropped as copies of later rows from which a note is given."""

AUC_MARGIN = 0.02
"""Typical effect of tuning on the area under the curve; closer to the limit than this, the gate's outcome is uncertain."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one test: a `problem` would stop a bootstrap, a `note` is for a person to judge."""

    level: Level
    text: str


def check_contract(contract: ModelContract, settings: Settings, dataset: Dataset | None) -> list[Finding]:
    """Test derivation and estimator and, with data, what a bootstrap would do with it. It takes seconds."""
    findings = [*_check_derivation(contract), *_check_grid(contract)]
    if dataset is None or any(finding.level == "problem" for finding in findings):
        return findings
    return [*findings, *_check_data(contract, settings, dataset)]


def column_summary(contract: ModelContract, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry per input: the contract's limits, and the range and `missing_pct` of the rows."""
    return [
        {
            "input": feature.name,
            "kind": feature.kind,
            "limits": f"{feature.lower:g} to {feature.upper:g}",
            "unit": feature.unit,
            "may_be_missing": "yes" if feature.is_nullable else "no",
            "missing_pct": round(100.0 * float(frame[feature.name].isna().mean()), 2),
            **{name: float(frame[feature.name].quantile(q)) for name, q in (("min", 0), ("median", 0.5), ("max", 1))},
        }
        for feature in contract.inputs
    ]


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
        values = np.asarray(derived[name], dtype=np.float64)
        apart = np.concatenate([np.ravel(one[name]) for one in alone]).astype(np.float64)
        problem = _problem_of(values, apart, declared[name].kind, declared[name].is_nullable)
        if problem is not None:
            yield Finding("problem", f"the derived feature {name!r} {problem}")


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
    if kind == "int" and (np.nan_to_num(values) % 1 != 0).any():
        return "is declared an int, but is not always whole"
    return None


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


def _check_data(contract: ModelContract, settings: Settings, dataset: Dataset) -> Iterator[Finding]:
    labels = dataset.frame[TRUE_LABEL]
    yield Finding("ok", f"{dataset.description}: {int(labels.sum()):,} ({100 * labels.mean():.1f} %) are positive")
    for name in contract.input_names:
        if dataset.frame[name].nunique(dropna=False) == 1:
            yield Finding("note", f"{name} is the same in all rows: nothing can be learned from it")
    yield from _check_scenarios(contract, dataset)
    try:
        rows = _bootstrap_rows(contract, settings, dataset)
    except InvalidDataError as error:
        yield Finding("problem", str(error))
        return
    yield from _notes_on(rows, settings)
    yield from _check_model(contract, settings, rows)


def _check_scenarios(contract: ModelContract, dataset: Dataset) -> Iterator[Finding]:
    """Check that the API would accept the rows of each scenario."""
    from selfheal.adapters.datasets import input_schema
    from selfheal.domain.scenarios import scenario_rows

    for scenario in contract.scenarios:
        try:
            changed = scenario_rows(dataset.frame.iloc[:2_000], contract, scenario.name, seed=0)
            input_schema(contract).validate(changed.astype("float64"))
        except Exception as error:  # user code may raise anything; the schema's own message is a page long
            why = str(error).strip().splitlines()[0]
            yield Finding("problem", f"the scenario {scenario.name!r} makes rows that the API would refuse: {why}")


def _bootstrap_rows(contract: ModelContract, settings: Settings, dataset: Dataset) -> TrainingSet:
    from selfheal.domain.retraining.dataset import training_set

    rows = contract.feature_frame(dataset.frame).assign(**{TRUE_LABEL: dataset.frame[TRUE_LABEL]})
    return training_set(
        rows,
        contract,
        source=dataset.description,
        min_evaluation_rows=settings.min_samples_for_decision,
        label_coverage_pct=None,
    )


def _notes_on(rows: TrainingSet, settings: Settings) -> Iterator[Finding]:
    from selfheal.domain.retraining.dataset import ALIKE, EVALUATION, EVALUATION_SHARE, TRAIN

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
            f"{100 * copied:.0f} % of the earlier rows are left out of training: a later row has the very same inputs. Right "
            f"for the same case twice; {ALIKE}",
        )
    n_labels = math.ceil(settings.min_samples_for_decision / EVALUATION_SHARE)
    yield Finding("ok", f"a retraining will ask for at least {n_labels:,} labelled predictions")


def _check_model(contract: ModelContract, settings: Settings, rows: TrainingSet) -> Iterator[Finding]:
    """Fit the estimator once, untuned, and check what training, registry and API require of it."""
    import warnings

    from sklearn.metrics import roc_auc_score

    from selfheal.domain.retraining.dataset import EVALUATION, TRAIN

    learn, judge = (
        (part[list(contract.feature_names)].to_numpy(dtype=np.float64), part[TRUE_LABEL].to_numpy(dtype=np.int64))
        for part in (rows.part(TRAIN), rows.part(EVALUATION))
    )
    try:
        with warnings.catch_warnings(action="ignore"):
            pipeline = contract.build_estimator(settings.random_seed).fit(*learn)
            auc = float(roc_auc_score(judge[1], pipeline.predict_proba(judge[0])[:, 1]))
    except Exception as error:  # user code may raise anything
        yield Finding("problem", f"the estimator cannot be fitted: {type(error).__name__}: {error}")
        return
    yield _judged(auc, settings.min_auc)
    yield from _check_file(contract, settings, pipeline)
    yield _explainable(contract, pipeline, learn[0])


def _judged(auc: float, min_auc: float) -> Finding:
    text = f"untuned, the estimator reaches an AUC-ROC of {auc:.3f} on the later rows; MIN_AUC is {min_auc:g}"
    if auc < min_auc - AUC_MARGIN:
        remedy = "find better features, or set MIN_AUC and HARM_MIN_AUC to what is useful"
        return Finding("problem", f"{text}: the gates would reject it; {remedy}")
    return Finding("note" if auc < min_auc + AUC_MARGIN else "ok", text)


def _check_file(contract: ModelContract, settings: Settings, pipeline: Pipeline) -> Iterator[Finding]:
    """Write the model to memory and load it as the API does."""
    import skops.io

    from selfheal.domain.model.examination import examine
    from selfheal.domain.model.file import load_trusted

    try:
        packed = skops.io.dumps(pipeline)
        examine(
            load_trusted(packed, "its file", int(settings.max_model_mb * 1_000_000), contract.trusted_types), contract
        )
    except ModelRefusedError as error:
        yield Finding(
            "problem", f"the API would refuse the model: {error} (see trusted_types, if you trust your registry)"
        )
    except Exception as error:  # skops raises its own errors for types it cannot write
        yield Finding("problem", f"the model cannot be written as a skops file: {type(error).__name__}: {error}")


def _explainable(contract: ModelContract, pipeline: Pipeline, population: FloatArray) -> Finding:
    from selfheal.domain.model.explanation import build_explainer

    try:
        build_explainer(pipeline, contract, population)
    except ModelNotExplainableError as error:
        return Finding("note", f"it will serve without explanations: {error}")
    except SelfhealError as error:
        return Finding("problem", str(error))
    return Finding("ok", "its answers can be explained exactly (?explain=true)")
