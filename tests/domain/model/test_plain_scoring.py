"""Rules of plain scoring: the pipeline's own scores, or the pipeline itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, QuantileTransformer, StandardScaler

from selfheal.domain.contract import FloatArray
from selfheal.domain.model.plain_scoring import BLOCK_ROWS, plain_scoring
from tests import toy_use_case
from tests.domain.model.scores_in_company import digest_of_numbers

N_FEATURES = 4
REPOSITORY = Path(__file__).parents[3]


def training_rows(seed: int = 1, n_rows: int = 500) -> tuple[FloatArray, FloatArray]:
    """Ties, a heavy tail, a constant column and missing values."""
    rng = np.random.default_rng(seed)
    matrix = np.column_stack(
        [
            rng.poisson(1.0, n_rows).astype(float),
            np.exp(3 * rng.normal(size=n_rows)),
            np.full(n_rows, 7.0),
            rng.normal(size=n_rows),
        ]
    )
    labels = (matrix[:, 0] + matrix[:, 3] > 1.0).astype(int)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    return matrix, labels


def fitted(*steps: Any) -> Pipeline:
    return make_pipeline(*steps).fit(*training_rows())


KNOWN: dict[str, Callable[[], Pipeline]] = {
    "quantiles": lambda: fitted(
        SimpleImputer(strategy="median"), QuantileTransformer(n_quantiles=50), LogisticRegression()
    ),
    "scaled": lambda: fitted(SimpleImputer(), StandardScaler(), LogisticRegression(class_weight="balanced")),
    "unscaled": lambda: fitted(SimpleImputer(strategy="most_frequent"), LogisticRegression(max_iter=2_000)),
    "unchanged by the scaler": lambda: fitted(
        SimpleImputer(), StandardScaler(with_mean=False, with_std=False), LogisticRegression(max_iter=2_000)
    ),
    "of the toy use case": lambda: toy_use_case.build_estimator(1).fit(*training_rows()),
}

values = st.floats(-1e6, 1e6) | st.just(float("nan")) | st.sampled_from([0.0, -0.0, 1.0, 7.0, 1e300, -1e300])
rows = st.lists(st.tuples(*[values] * N_FEATURES), min_size=1, max_size=20).map(lambda r: np.array(r, dtype=float))


@pytest.mark.parametrize("make", KNOWN.values(), ids=KNOWN)
def test_known_steps_are_scored_without_the_pipeline_and_as_it_scores(make: Callable[[], Pipeline]) -> None:
    pipeline = make()
    plain = plain_scoring(pipeline, training_rows(2)[0])

    @settings(max_examples=60, deadline=None)
    @given(rows)
    def check(matrix: FloatArray) -> None:
        before = matrix.copy()
        expected = pipeline.predict_proba(matrix)[:, 1]
        assert np.abs(plain(matrix) - expected).max() <= 1e-12
        assert np.array_equal(matrix, before, equal_nan=True), "the rows were changed"

    check()
    seen = training_rows()[0]  # the values that the quantiles were made of
    assert np.abs(plain(seen) - pipeline.predict_proba(seen)[:, 1]).max() <= 1e-12
    pipeline.predict_proba = None
    assert plain(seen).shape == (len(seen),), "it was scored by the pipeline after all"


UNKNOWN: dict[str, Callable[[], Pipeline]] = {
    "trees": lambda: fitted(SimpleImputer(), RandomForestClassifier(n_estimators=5, random_state=1)),
    "a function": lambda: fitted(SimpleImputer(), FunctionTransformer(np.tanh), LogisticRegression()),
    "indicators": lambda: fitted(SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression()),
    "normal quantiles": lambda: fitted(
        SimpleImputer(), QuantileTransformer(n_quantiles=50, output_distribution="normal"), LogisticRegression()
    ),
    "calibrated": lambda: fitted(SimpleImputer(), CalibratedClassifierCV(LogisticRegression(max_iter=2_000))),
}


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_any_other_pipeline_is_called(make: Callable[[], Pipeline]) -> None:
    pipeline = make()
    matrix = training_rows(3)[0]
    assert np.abs(plain_scoring(pipeline, matrix)(matrix) - pipeline.predict_proba(matrix)[:, 1]).max() <= 1e-12


def test_to_load_a_pipeline_that_is_called_costs_one_call_for_each_size_of_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = UNKNOWN["a function"]()
    n_rows: list[int] = []
    predict_proba = pipeline.predict_proba

    def counted(matrix: FloatArray) -> FloatArray:
        n_rows.append(len(matrix))
        return np.asarray(predict_proba(matrix))

    monkeypatch.setattr(pipeline, "predict_proba", counted)
    plain_scoring(pipeline, training_rows(3)[0][:16])
    assert n_rows == list(BLOCK_ROWS)


class Doubtful(LogisticRegression):
    """Named and placed like the known step, with scores of its own."""

    __module__ = "sklearn.linear_model"

    def predict_proba(self, X: FloatArray) -> FloatArray:  # noqa: N803  (scikit-learn's name)
        return np.asarray(super().predict_proba(X)[:, ::-1])


Doubtful.__name__ = "LogisticRegression"


def test_a_step_that_is_not_what_its_name_says_is_found_out_on_the_probe() -> None:
    pipeline = fitted(SimpleImputer(), StandardScaler(), Doubtful())
    matrix = training_rows(3)[0]
    assert np.abs(plain_scoring(pipeline, matrix)(matrix) - pipeline.predict_proba(matrix)[:, 1]).max() <= 1e-12


def test_rows_that_the_pipeline_refuses_are_refused_when_they_are_scored_not_before() -> None:
    pipeline = fitted(SimpleImputer(), FunctionTransformer(np.tanh), LogisticRegression())
    score = plain_scoring(pipeline, np.full((3, N_FEATURES + 1), 1.0))
    assert score(training_rows(3)[0]).shape == (500,)
    with pytest.raises(ValueError, match="features"):
        score(np.full((3, N_FEATURES + 1), 1.0))


@pytest.mark.parametrize("n_rows", [0, 1, 2, 63, 64, 65, 256, 257, 1_024, 1_025, 2_100])
def test_a_pipeline_that_is_called_gives_one_score_a_row_however_many_there_are(n_rows: int) -> None:
    pipeline = UNKNOWN["a function"]()
    matrix = np.resize(training_rows(3)[0], (n_rows, N_FEATURES))
    scores = plain_scoring(pipeline, training_rows()[0])(matrix)
    assert scores.shape == (n_rows,)
    expected = pipeline.predict_proba(matrix)[:, 1] if n_rows else scores
    assert np.abs(scores - expected).max(initial=0.0) <= 1e-12


# A row's score is a function of the row and the model


KERNELS = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "SkylakeX", "SapphireRapids")
"""What OPENBLAS_CORETYPE may be on x86; another processor's OpenBLAS knows none of them and takes its own kernels."""


@pytest.fixture(scope="module")
def numbers_here() -> str:
    """What scores, drift statistics and gates are by the kernels of this process."""
    return digest_of_numbers()


@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_drift_and_gates_are_the_same_in_any_company_and_under_any_kernel_of_blas(
    kernel: str, numbers_here: str
) -> None:
    """Every size of batch from 1 to 70, and larger ones, shuffled; for estimators with and without a formula known here."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.domain.model.scores_in_company"],
        env=environment | {"OPENBLAS_CORETYPE": kernel},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["differing"] == {}, "rows whose score depends on its company, by estimator and size of batch"
    assert found["numbers"] == numbers_here
