"""What depends on the rows beside a row, or on BLAS: `python -m tests.domain.model.scores_in_company` prints it as JSON.

A process of its own, since OpenBLAS chooses its kernels once, by OPENBLAS_CORETYPE, when it is loaded. `differing` has for
each estimator and size of batch the number of rows that are scored otherwise than alone; nothing where no row is.
`numbers` are a digest of what the platform computes from a fitted model: scores, drift statistics and gates.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from selfheal import credit_risk
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.monitoring.multivariate import domain_check
from selfheal.domain.monitoring.shift import column_shift
from selfheal.domain.retraining.evaluation import Evaluation, Scores
from selfheal.domain.retraining.judging import evaluate_gates
from selfheal.services.retraining import gate_limits
from selfheal.settings import default_settings

N_ROWS, N_TRAINING_ROWS = 140, 600
SIZES = (*range(2, 71), 140)

ESTIMATORS: dict[str, Callable[[], Pipeline]] = {
    "default": lambda: credit_risk.contract.build_estimator(20),
    "scaled": lambda: _after_scaling(LogisticRegression()),
    "network": lambda: _after_scaling(MLPClassifier((30,), max_iter=20, random_state=1)),
    "components": lambda: make_pipeline(SimpleImputer(), StandardScaler(), PCA(8), LogisticRegression()),
    "discriminant": lambda: _after_scaling(LinearDiscriminantAnalysis()),
    "Bayes": lambda: _after_scaling(GaussianNB()),
    "forest": lambda: _after_scaling(RandomForestClassifier(8, n_jobs=2, max_depth=4, random_state=1)),
}
FEWER_SIZES = (2, 3, 65, 140)
"""Of all but the default estimator: scikit-learn takes a millisecond a call."""


def main() -> None:
    sys.stdout.write(json.dumps({"differing": differing(), "numbers": digest_of_numbers()}))


def digest_of_numbers() -> str:
    """Return a digest of scores, drift statistics and a verdict of two models whose coefficients are given."""
    contract = credit_risk.contract
    inputs = contract.synthesize(2_000, 20).round(6)  # it multiplies matrices itself
    rows, labels = contract.feature_frame(inputs), inputs[TRUE_LABEL].to_numpy(dtype=np.int64)
    scores = [served_scoring(_given(seed), contract)(rows.to_numpy(dtype=np.float64)) for seed in (1, 2)]
    now, then = (part.assign(probability=score[half]) for part, half, score in _halves(rows, scores[0]))
    shifts = [column_shift(now[name].to_numpy(), then[name].to_numpy()) for name in now]
    drift = domain_check(now, then, contract.feature_names, seed=1)
    evaluation = Evaluation(labels, *(Scores(score, 0.4) for score in scores), label_coverage_pct=100.0, n_labels=2_000)
    gates = evaluate_gates(evaluation, gate_limits(default_settings()), 1).gates
    digest = hashlib.sha256(b"".join(score.tobytes() for score in scores))
    digest.update(repr((shifts, drift, gates)).encode())
    return digest.hexdigest()


def _halves(rows: pd.DataFrame, score: FloatArray) -> list[tuple[pd.DataFrame, slice, FloatArray]]:
    middle = len(rows) // 2
    return [(rows.iloc[half], half, score) for half in (slice(0, middle), slice(middle, None))]


def _given(seed: int) -> Pipeline:
    """The default estimator with coefficients that no solver has fitted."""
    contract = credit_risk.contract
    inputs = contract.synthesize(N_TRAINING_ROWS, 3).round(6)
    matrix = contract.feature_frame(inputs).to_numpy(dtype=np.float64)
    pipeline = contract.build_estimator(20).fit(matrix, inputs[TRUE_LABEL].to_numpy())
    last = pipeline.steps[-1][1]
    last.coef_ = np.random.default_rng(seed).normal(size=last.coef_.shape)
    last.intercept_ = np.array([-1.0])
    return pipeline


def differing() -> dict[str, dict[int, int]]:
    """Return how many rows are scored otherwise in company, by estimator and size of batch."""
    contract = credit_risk.contract
    inputs = contract.synthesize(N_TRAINING_ROWS + N_ROWS, 20)
    matrix = contract.feature_frame(inputs).to_numpy(dtype=np.float64)
    learn, ask = matrix[:N_TRAINING_ROWS], matrix[N_TRAINING_ROWS:]
    found: dict[str, dict[int, int]] = {}
    for name, make in ESTIMATORS.items():
        pipeline = make().fit(learn, inputs[TRUE_LABEL].to_numpy()[:N_TRAINING_ROWS])
        score = served_scoring(pipeline, contract)
        found[name] = _differing(score, ask, SIZES if name in ("default", "scaled") else FEWER_SIZES)
        if name == "default":
            raw = inputs[list(contract.input_names)].to_numpy(dtype=np.float64)[N_TRAINING_ROWS:]
            found["with the derived features"] = _differing(lambda rows: score(_derived(rows)), raw, SIZES)  # noqa: B023
    return {name: sizes for name, sizes in found.items() if sizes}


def _derived(raw: FloatArray) -> FloatArray:
    contract = credit_risk.contract
    return contract.matrix(dict(zip(contract.input_names, raw.T, strict=True)))


def _differing(score: Callable[[FloatArray], FloatArray], rows: FloatArray, sizes: tuple[int, ...]) -> dict[int, int]:
    alone = np.concatenate([score(row[np.newaxis]) for row in rows])
    shuffled = np.random.default_rng(1)
    found = {}
    for size in sizes:
        order = shuffled.permutation(len(rows))
        parts = [order[start : start + size] for start in range(0, len(rows), size)]
        n_differing = sum(
            int((score(laid_out(rows[part])) != alone[part]).sum())
            for part, laid_out in zip(parts, itertools.cycle((np.ascontiguousarray, np.asfortranarray)))
        )
        if n_differing:
            found[size] = n_differing
    return found


def _after_scaling(estimator: object) -> Pipeline:
    return make_pipeline(SimpleImputer(), StandardScaler(), estimator)


if __name__ == "__main__":
    main()
