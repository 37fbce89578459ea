"""Rules of shadow scoring: what is compared is what the champion logged, and what cannot be compared is unknown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.contract import IS_LABELLED, FloatArray
from selfheal.domain.records import ShadowScoring
from selfheal.domain.retraining.evaluation import Scores
from selfheal.domain.retraining.shadow_scoring import (
    MAX_WORTH_LABELLING,
    Latency,
    compare_on_traffic,
    worth_labelling,
)
from selfheal.kit.serialization import from_dict, to_dict
from tests.times import T0

LATENCY = Latency(ms_per_row=0.002, ms_single=0.4)


def logged(probabilities: list[float], labelled: list[int] | None = None, threshold: float = 0.5) -> pd.DataFrame:
    """What the champion said, a row a second."""
    return pd.DataFrame(
        {
            "prediction_id": [f"id-{i}" for i in range(len(probabilities))],
            "created_at": [pd.Timestamp(T0 + timedelta(seconds=i)) for i in range(len(probabilities))],
            "probability": probabilities,
            "prediction": [int(p >= threshold) for p in probabilities],
            IS_LABELLED: labelled or [0] * len(probabilities),
        }
    )


def scores(*probabilities: float, **changes: Any) -> Scores:
    return Scores(np.array(probabilities), **({"threshold": 0.5} | changes))


def test_a_model_agrees_with_itself() -> None:
    rows = logged([0.1, 0.6, 0.9])
    found = compare_on_traffic(rows, scores(0.1, 0.6, 0.9), LATENCY, 3)
    assert (found.model_version, found.n_rows, found.agreement) == (3, 3, 1.0)
    assert (found.mean_score_difference, found.largest_score_difference, found.ks_distance) == (0.0, 0.0, 0.0)
    assert found.champion_positive_rate == found.challenger_positive_rate == pytest.approx(2 / 3)
    assert (found.first_at, found.last_at) == (T0, T0 + timedelta(seconds=2))
    assert (found.latency_ms_per_row, found.latency_ms_single) == (0.002, 0.4)
    assert found.agreement_interval is not None
    assert found.agreement_interval.low < 1.0, "three rows do not prove that they always agree"


def test_predictions_are_compared_and_not_only_scores() -> None:
    """The same scores at another threshold are other predictions."""
    found = compare_on_traffic(logged([0.1, 0.6, 0.9]), scores(0.1, 0.6, 0.9, threshold=0.7), LATENCY, 1)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.challenger_positive_rate == pytest.approx(1 / 3)
    assert found.largest_score_difference == 0.0


def test_differences_are_without_sign() -> None:
    found = compare_on_traffic(logged([0.2, 0.8]), scores(0.4, 0.5), LATENCY, 1)
    assert found.mean_score_difference == pytest.approx(0.25)
    assert found.largest_score_difference == pytest.approx(0.3)
    assert found.ks_distance == 0.5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (scores(0.2, float("nan")), "no probability for 1 of 2 rows"),
        (scores(float("nan"), float("nan"), failure="ValueError: no"), "ValueError: no"),
    ],
)
def test_of_a_challenger_that_does_not_score_nothing_is_compared(given: Scores, words: str) -> None:
    found = compare_on_traffic(logged([0.2, 0.8]), given, None, 1)
    assert found.problem == words
    assert found.agreement is found.ks_distance is found.challenger_positive_rate is None
    assert found.champion_positive_rate == 0.5
    assert worth_labelling(logged([0.2, 0.8]), given) == ()


def test_one_row_is_compared() -> None:
    found = compare_on_traffic(logged([0.2]), scores(0.9), LATENCY, 1)
    assert (found.agreement, found.ks_distance) == (0.0, 1.0)
    assert from_dict(ShadowScoring, to_dict(found)) == found


def test_worth_labelling_is_what_the_models_disagree_on_and_nobody_has_labelled() -> None:
    rows = logged([0.1, 0.2, 0.6, 0.7], labelled=[0, 1, 0, 0])
    found = worth_labelling(rows, scores(0.2, 0.9, 0.1, 0.8))
    assert [w.prediction_id for w in found] == ["id-2"]
    assert (found[0].champion_probability, found[0].challenger_probability) == (0.6, 0.1)


def test_the_most_different_come_first_and_of_equals_the_newest() -> None:
    rows = logged([0.4, 0.4, 0.4, 0.4])
    found = worth_labelling(rows, scores(0.6, 0.9, 0.6, 0.9))
    assert [w.prediction_id for w in found] == ["id-3", "id-1", "id-2", "id-0"]


def test_no_more_than_a_hundred_are_listed() -> None:
    challenger: FloatArray = np.full(300, 0.9)
    assert len(worth_labelling(logged([0.1] * 300), Scores(challenger, 0.5))) == MAX_WORTH_LABELLING == 100
