"""The penalised logistic regression is at its optimum, with the curvature there."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal.domain.monitoring.newton import fit_logistic, probability


@pytest.mark.parametrize("penalty", [0.0, 10.0])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_fit_is_where_the_gradient_is_0_and_the_hessian_is_that_of_the_coefficients(
    penalty: float, is_weighted: bool
) -> None:
    rng = np.random.default_rng(1)
    design = np.column_stack([np.ones(400), rng.normal(size=(400, 3))])
    offset, labels = rng.normal(size=400), (rng.random(400) < 0.3).astype(np.float64)
    weights = rng.gamma(2.0, size=400) if is_weighted else np.ones(400)
    penalties = np.array([0.0, penalty, penalty, penalty])
    found, hessian = fit_logistic(design, labels, weights if is_weighted else 1.0, offset, penalties)
    expected = probability(offset + design @ found)
    assert design.T @ (weights * (labels - expected)) == pytest.approx(penalties * found, abs=1e-6)
    curvature = (design * (weights * expected * (1 - expected))[:, None]).T @ design + np.diag(penalties)
    assert hessian == pytest.approx(curvature, rel=1e-6)


def test_classes_that_a_column_separates_have_finite_coefficients_under_a_penalty() -> None:
    column = np.linspace(-1, 1, 100)
    design, labels = np.column_stack([np.ones(100), column]), (column > 0).astype(np.float64)
    found, _ = fit_logistic(design, labels, 1.0, np.zeros(100), np.array([0.0, 1.0]))
    assert np.isfinite(found).all()
    assert found[1] > 1
