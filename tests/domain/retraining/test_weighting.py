"""Original rows count where the relation still holds and recent labels are few, and not at all where it has changed."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline

from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.retraining.dataset import WEIGHT
from selfheal.domain.retraining.fitting import fit
from selfheal.domain.retraining.weighting import CANDIDATE_WEIGHTS, _of_others, choose_weight
from tests.domain.retraining.rows import FEATURES, shifted
from tests.toy_use_case import contract, keyed

N_TRIES = 20


def chosen(n_recent: int, seed: int, *, is_reversed: bool) -> float:
    original = shifted(1_500, seed)
    recent = shifted(n_recent, 1_000 + seed, warmer_by=20.0, is_reversed=is_reversed)
    return choose_weight(recent, original, contract, seed).weight


def test_after_a_shift_of_the_inputs_original_rows_help_few_recent_ones() -> None:
    """Chosen and helpful: on fresh rows the loss is lower than with the recent rows alone, on average over the tries."""
    gains = []
    for seed in range(N_TRIES):
        original = shifted(1_500, seed)
        recent, fresh = (shifted(n, s + seed, warmer_by=20.0) for n, s in ((150, 1_000), (4_000, 2_000)))
        weight = choose_weight(recent, original, contract, seed).weight
        gains.append(loss_on(fresh, recent, original, 0.0, seed) - loss_on(fresh, recent, original, weight, seed))
    assert sum(gain > 0 for gain in gains) >= 0.6 * N_TRIES
    assert mean(gains) > 0.005


def test_after_a_change_of_the_relation_original_rows_do_not_count() -> None:
    weights = [chosen(400, seed, is_reversed=True) for seed in range(N_TRIES)]
    assert weights.count(0.0) >= 0.7 * N_TRIES
    assert max(weights) <= CANDIDATE_WEIGHTS[1], "at most a trace, by the chance of a few later rows"


def loss_on(fresh: pd.DataFrame, recent: pd.DataFrame, original: pd.DataFrame, weight: float, seed: int) -> float:
    rows = pd.concat([original, recent])
    weights = np.repeat([weight, 1.0], [len(original), len(recent)])
    pipeline = contract.build_estimator(seed)
    fit(pipeline, rows[FEATURES].to_numpy(), rows[TRUE_LABEL].to_numpy(), weights)
    return float(log_loss(fresh[TRUE_LABEL], pipeline.predict_proba(fresh[FEATURES].to_numpy())[:, 1]))


def test_the_weight_is_the_one_with_the_lowest_loss_on_the_later_recent_rows() -> None:
    recent, original = shifted(500, 1), shifted(800, 2)
    choice = choose_weight(recent, original, contract, 0)
    losses = {float(w): loss for w, loss in choice.log_losses.items()}
    assert choice.weight == min(losses, key=lambda w: losses[w])  # type: ignore[arg-type, return-value]
    for weight, loss in losses.items():
        assert loss == pytest.approx(loss_on(recent.iloc[350:], recent.iloc[:350], original, weight, 0), abs=1e-12)
    assert "the later 150 of 500 recent training rows" in choice.reason


def test_the_choice_looks_at_weights_of_before() -> None:
    recent, original = shifted(300, 1), shifted(600, 2, is_reversed=True)
    trusted = original.assign(**{WEIGHT: 1.0})
    faint = original.assign(**{WEIGHT: 1e-6})
    assert (
        choose_weight(recent, trusted, contract, 0).log_losses
        == choose_weight(recent, original, contract, 0).log_losses
    )
    losses = choose_weight(recent, faint, contract, 0).log_losses
    assert losses["1"] < choose_weight(recent, trusted, contract, 0).log_losses["1"]  # type: ignore[operator]


def test_an_estimator_without_weights_takes_original_rows_or_leaves_them() -> None:
    def neighbours(seed: int) -> Pipeline:
        return Pipeline([("classify", KNeighborsClassifier(50))])

    use_case = replace(contract, build_estimator=neighbours)
    assert set(choose_weight(shifted(300, 1), shifted(600, 2), use_case, 0).log_losses) == {"0", "1"}


def test_recent_rows_of_one_class_alone_cannot_be_fitted_and_original_ones_are_needed() -> None:
    recent = shifted(300, 1)
    recent.loc[:209, TRUE_LABEL] = 1
    choice = choose_weight(recent, shifted(600, 2), contract, 0)
    assert choice.log_losses["0"] is None
    assert choice.weight > 0


def test_without_original_rows_there_is_nothing_to_weigh() -> None:
    choice = choose_weight(shifted(300, 1), shifted(10, 2).iloc[:0], contract, 0)
    assert (choice.weight, choice.log_losses) == (0.0, {})


def test_rows_that_choose_the_weight_are_not_remembered_however_many_rows_of_others_teach() -> None:
    """100 later rows are of machines among 20,000: all rows together hardly recur."""
    original = shifted(20_000, 1).assign(_entity=[f"machine {n}" for n in range(20_000)])
    later = shifted(100, 2).assign(_entity=[f"machine {n}" for n in range(100)])
    left = _of_others(original, later, keyed)
    assert left["_entity"].tolist() == [f"machine {n}" for n in range(100, 20_000)]
    assert len(_of_others(original, later.assign(_entity=[f"new {n}" for n in range(100)]), keyed)) == 20_000
