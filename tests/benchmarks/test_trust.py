"""Rules of the benchmark of trust: bounds that hold, and targets met by the bound on their side."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trust.entity_worlds import MOVED, Population, rows_of
from benchmarks.trust.figures import (
    NEVER,
    Figure,
    Target,
    at_least,
    at_most,
    between,
    mean,
    median,
    rate,
    rate_by_cluster,
)
from benchmarks.trust.worlds import all_worlds
from selfheal.credit_risk import contract as credit_contract
from selfheal.domain.contract import TRUE_LABEL


def test_a_rate_meets_a_target_only_with_the_tries_that_its_bound_needs() -> None:
    assert not rate(0, 400, at_most(0.002)).is_met
    assert rate(0, 1_850, at_most(0.002)).is_met
    assert rate(10, 400, at_most(0.05)).is_met
    assert not rate(15, 400, at_most(0.05)).is_met
    assert rate(400, 400, at_least(0.95)).is_met
    assert not rate(388, 400, at_least(0.95)).is_met


def test_a_coverage_is_met_unless_its_bounds_exclude_the_target() -> None:
    assert rate(380, 400, between(0.93, 0.97)).is_met
    assert rate(370, 400, between(0.93, 0.97)).is_met
    assert not rate(300, 400, between(0.93, 0.97)).is_met


def test_what_was_not_measured_meets_no_target() -> None:
    assert not rate(0, 0, at_most(0.05)).is_met
    assert not mean([], at_most(1)).is_met
    assert rate(0, 0).is_met
    assert rate(0, 0).to_dict()["value"] is None


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_bounds_of_a_rate_hold(share: float) -> None:
    rng = np.random.default_rng(1)
    found = [rate(int(n), 200) for n in rng.binomial(200, share, 400)]
    assert np.mean([one.low <= share <= one.high for one in found]) >= 0.95


def test_bounds_of_a_rate_over_looks_hold_although_the_looks_of_a_deployment_are_alike() -> None:
    rng = np.random.default_rng(1)
    n_looks = 50
    hits = [rng.binomial(n_looks, rng.beta(0.6, 2.4, 40)) for _ in range(300)]  # 20 % on average, very different ones
    is_held = [
        [
            found.low <= 0.2 <= found.high
            for found in (rate_by_cluster(one.tolist(), [n_looks] * 40), rate(one.sum(), 2_000))
        ]
        for one in hits
    ]
    clustered, as_if_alone = np.mean(is_held, axis=0)
    assert clustered >= 0.93
    assert as_if_alone < 0.6


def test_while_few_deployments_have_a_hit_each_is_worth_one_look() -> None:
    never = rate_by_cluster([0] * 40, [1_000] * 40, NEVER)
    assert (never.value, never.is_met) == (0.0, True)
    assert never.high == pytest.approx(rate(0, 40).high)
    assert not rate_by_cluster([0] * 30, [1_000] * 30, NEVER).is_met
    assert not rate_by_cluster([1_000] + [0] * 39, [1_000] * 40, NEVER).is_met
    assert rate_by_cluster([], []).to_dict()["value"] is None


def test_bounds_of_a_median_hold_with_times_that_never_came() -> None:
    rng = np.random.default_rng(1)
    draws = np.where(rng.random((400, 41)) < 0.3, np.inf, rng.exponential(size=(400, 41)))
    true = -math.log(1 - 0.5 / 0.7)
    found = [median(list(values)) for values in draws]
    assert np.mean([one.low <= true <= one.high for one in found]) >= 0.93
    assert median([1.0, 2.0, math.inf, math.inf, math.inf]).value == math.inf


def test_a_target_is_written_as_people_write_it() -> None:
    assert [str(target) for target in (at_most(0.05), at_least(3), between(0.93, 0.97), Target())] == [
        "<= 0.05",
        ">= 3",
        ">= 0.93 and <= 0.97",
        "none",
    ]
    assert Figure(1, 0, 2, at_most(3)).is_met


def test_each_world_is_declared_once_and_named_by_its_number() -> None:
    assert all(name.removeprefix("W").isdigit() for name in all_worlds())


# Customers that recur


def test_a_customer_that_recurs_keeps_its_outcome_and_whole_numbers() -> None:
    inputs = credit_contract.synthesize(300, 1)
    population = Population(inputs[list(credit_contract.input_names)], inputs[TRUE_LABEL].to_numpy(dtype=np.int64), ())
    found, labels, visits = population.recurring(200, 5, MOVED, np.random.default_rng(1))
    assert np.bincount(visits).tolist() == [5] * 40
    assert all(len(set(labels[visits == one])) == 1 for one in range(40))
    whole = [feature.name for feature in credit_contract.inputs if feature.kind == "int"]
    assert (found[whole].dropna() % 1 == 0).all().all()
    assert found.duplicated().mean() < 0.1
    copies, _, _ = population.recurring(200, 5, 0.0, np.random.default_rng(1))
    assert copies.duplicated().sum() >= 160  # of 40 customers, drawn with replacement


def test_seeds_of_choosing_draw_from_other_rows_than_those_of_judging(tmp_path: Path) -> None:
    credit_contract.synthesize(400, 1).to_csv(tmp_path / "rows.csv", index=False)
    first, second = (rows_of(tmp_path / "rows.csv", seed)[0] for seed in (100, 1))
    assert not set(first.index) & set(second.index)
