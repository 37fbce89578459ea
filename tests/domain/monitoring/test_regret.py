"""What labels show of a loss, against what the reference lets expect of the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.outcome_curve import UNCALIBRATED, curve_basis, log_odds_of
from selfheal.domain.monitoring.performance import brier_excess, score_metrics
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.regret import REGRET_LEVEL, regret, score_parts
from selfheal.domain.monitoring.relation import Relation
from selfheal.domain.records import Regret

THRESHOLD = 0.3
Chance: TypeAlias = Callable[[FloatArray], FloatArray]


def as_scored(scores: FloatArray) -> FloatArray:
    return scores


def gone(scores: FloatArray) -> FloatArray:
    """In 40 % of the rows the inputs say nothing."""
    return np.asarray(0.6 * scores + 0.4 * scores.mean())


def riskiest_average(scores: FloatArray) -> FloatArray:
    return np.where(scores >= np.quantile(scores, 0.9), scores.mean(), scores)


def rows_of(
    n_rows: int, seed: int, chance: Chance = as_scored, shape: tuple[float, float] = (0.5, 5.0)
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    scores = rng.beta(*shape, size=n_rows)
    labels = (rng.random(n_rows) < chance(scores)).astype(np.int64)
    return pd.DataFrame({"load": scores, "probability": scores, TRUE_LABEL: labels})


REFERENCE = PreparedRows(rows_of(4_000, seed=3))


def regret_of(rows: pd.DataFrame) -> Regret:
    relation = Relation.of(rows, REFERENCE, ["load"])
    assert relation is not None
    return regret(relation, THRESHOLD, seed=1)


def test_a_loss_of_ranking_is_shown_where_the_inputs_say_nothing_in_many_rows() -> None:
    found = regret_of(rows_of(1_440, 4, gone))
    assert found.auc_roc is not None
    assert found.auc_roc.p_value < REGRET_LEVEL
    assert found.auc_roc.share_above(0.5) > 0.2
    assert found.parts is not None
    assert found.parts.discrimination.value < found.parts.discrimination.by_chance


def test_a_loss_of_decisions_is_shown_where_the_brier_score_is_better_than_announced() -> None:
    """The riskiest tenth becomes average: the champion says too much, so its loss is smaller than it announces."""
    rows = rows_of(1_440, 4, riskiest_average)
    excess, _ = brier_excess(rows[TRUE_LABEL].to_numpy(), rows["probability"].to_numpy())
    found = regret_of(rows)
    assert excess < 0
    assert found.f1 is not None
    assert found.f1.p_value < REGRET_LEVEL
    assert found.f1.share_above(0.0) > 0.3
    assert found.parts is not None
    assert found.parts.miscalibration.value > 2 * found.parts.miscalibration.by_chance
    assert found.parts.miscalibration.p_value < 0.01


@pytest.mark.parametrize("shape", [(0.5, 5.0), (0.8, 4.0)], ids=["as before", "a riskier mix"])
def test_nothing_is_lost_where_the_relation_is_that_of_the_reference(shape: tuple[float, float]) -> None:
    found = [regret_of(rows_of(1_000, seed, shape=shape)) for seed in range(100, 160)]
    p_values = np.array([[one.f1.p_value, one.auc_roc.p_value] for one in found if one.f1 and one.auc_roc])
    assert len(p_values) == len(found)
    assert (p_values >= REGRET_LEVEL).all()
    assert 0.3 < p_values.mean() < 0.7  # uniform but for the reference's luck, which all of them share


def test_realised_values_are_those_of_the_metrics_and_expected_ones_those_of_many_rows() -> None:
    rows, many = rows_of(1_000, 5), rows_of(200_000, 6)
    found = regret_of(rows)
    shown, expected = (
        score_metrics(one[TRUE_LABEL].to_numpy(), one["probability"].to_numpy(), THRESHOLD) for one in (rows, many)
    )
    assert found.f1 is not None
    assert found.auc_roc is not None
    assert (found.f1.realised, found.auc_roc.realised) == (pytest.approx(shown.f1), pytest.approx(shown.auc_roc))
    assert found.f1.expected == pytest.approx(expected.f1, abs=0.04)
    assert found.auc_roc.expected == pytest.approx(expected.auc_roc, abs=0.03)


def certain_relation(scores: FloatArray, labels: FloatArray) -> Relation:
    """A reference without uncertainty that agrees with the scores."""
    return Relation(scores, labels, scores, curve_basis(log_odds_of(scores), UNCALIBRATED.knots), UNCALIBRATED)


def test_the_tail_is_that_of_rare_events_with_skewed_weights() -> None:
    """A normal tail would be several times too light."""
    rng = np.random.default_rng(1)
    scores = rng.beta(0.5, 20.0, size=300)
    direction = -np.sqrt(1 / (scores + 0.01))
    sets = (rng.random((40_000, len(scores))) < scores).astype(np.float64)
    sums = (sets - scores) @ direction
    for share in (0.005, 0.001):
        one = sets[np.argsort(sums)[int(share * len(sums))]]
        assert certain_relation(scores, one).lower_tail(direction) == pytest.approx(share, rel=0.25)


def test_nothing_is_lost_because_rows_recur() -> None:
    """Five rows of each entity share one outcome: as rows of their own they show losses that are chance."""
    p_values: dict[str, list[float]] = {"entities": [], "rows": []}
    for seed in range(100, 160):
        who = np.random.default_rng(seed).permutation(np.repeat(np.arange(300), 5))
        rows = rows_of(300, seed).iloc[who].reset_index(drop=True)
        for name, clusters in (("entities", who), ("rows", None)):
            relation = Relation.of(rows, REFERENCE, ["load"], clusters)
            assert relation is not None
            found = regret(relation, THRESHOLD, seed=1)
            assert found.f1 is not None
            assert found.auc_roc is not None
            p_values[name] += [found.f1.p_value, found.auc_roc.p_value, found.relation_p_value]
    shares = {name: np.mean(np.array(found) < 0.01) for name, found in p_values.items()}
    assert shares["entities"] <= 0.03
    assert shares["rows"] >= 0.1


@pytest.mark.parametrize("n_rows", [60, 200])
def test_one_entity_of_many_rows_shows_no_loss(n_rows: int) -> None:
    """The sum has one large step then, on which the search for the tail must not jump to and fro."""
    found = []
    for seed in range(100, 400):
        own = rows_of(1_440 - n_rows, seed)
        one = rows_of(1, seed + 1_000)
        rows = pd.concat([own, *[one] * n_rows], ignore_index=True)
        who = np.concatenate([np.arange(len(own)), np.full(n_rows, len(own))])
        relation = Relation.of(rows, REFERENCE, ["load"], who)
        assert relation is not None
        directions = (np.ones(len(rows)), relation.basis[:, 1])
        found += [relation.lower_tail(sign * direction) for direction in directions for sign in (1.0, -1.0)]
    assert min(found) >= REGRET_LEVEL
    assert np.mean(np.array(found) < 0.01) <= 0.02


def test_the_parts_do_not_depend_on_the_order_of_rows_with_one_score() -> None:
    rows = rows_of(1_200, 7).round({"probability": 1}).clip(lower=0.05)
    parts = []
    for ordered in (rows.sort_values(TRUE_LABEL), rows.sort_values(TRUE_LABEL, ascending=False)):
        scores, labels = (ordered[name].to_numpy(dtype=np.float64) for name in ("probability", TRUE_LABEL))
        found = score_parts(certain_relation(scores, labels), seed=1)
        parts.append((found.miscalibration.value, found.discrimination.value))
    assert parts[0] == pytest.approx(parts[1], abs=1e-12)


def test_a_small_reference_makes_the_same_loss_less_certain() -> None:
    rows, few = rows_of(1_440, 4, gone), PreparedRows(rows_of(700, seed=3))
    relation = Relation.of(rows, few, ["load"])
    assert relation is not None
    by_few, by_many = regret(relation, THRESHOLD, 1).auc_roc, regret_of(rows).auc_roc
    assert by_few is not None
    assert by_many is not None
    assert by_few.p_value > by_many.p_value


def test_the_parts_add_up_to_the_brier_score_and_a_perfect_forecast_has_some_miscalibration() -> None:
    rows = rows_of(1_000, 7)
    scores, labels = (rows[name].to_numpy(dtype=np.float64) for name in ("probability", TRUE_LABEL))
    found = score_parts(certain_relation(scores, labels), seed=1)
    skill, miscalibration, discrimination = found.skill, found.miscalibration, found.discrimination
    brier, rate = float(np.mean((scores - labels) ** 2)), float(labels.mean())
    assert miscalibration.value - discrimination.value + rate * (1 - rate) == pytest.approx(brier, abs=1e-12)
    assert miscalibration.by_chance > 0
    assert miscalibration.p_value > 0.01
    assert skill == pytest.approx(scores.mean() * (1 - scores.mean()) - float(np.mean(scores * (1 - scores))))


def test_metrics_that_nothing_defines_are_unknown() -> None:
    rows = rows_of(200, 8)
    relation = certain_relation(rows["probability"].to_numpy(), np.zeros(len(rows)))
    found = regret(relation, threshold=2.0, seed=1)
    assert (found.f1, found.auc_roc) == (None, None)


def test_the_relation_is_certainly_changed_only_where_it_is() -> None:
    found = np.array([regret_of(rows_of(1_000, seed)).relation_p_value for seed in range(100, 160)])
    assert found.min() >= REGRET_LEVEL
    assert regret_of(rows_of(1_000, 100)).parts is None, "nothing asks where a loss lies that is none"
    assert (found < 0.05).mean() <= 0.15
    assert regret_of(rows_of(1_440, 4, gone)).relation_p_value < REGRET_LEVEL
