"""From the figures of single replays to a table: means over seeds with 95 % bounds, each policy against never and the oracle.

Method: seeds are independent deployments of one world, and all policies run on the same ones, so differences are paired by seed. A mean
has Student's t interval over the seeds; with one seed there is no interval. A ratio of two sums has Fieller's (1954, Journal of the
Royal Statistical Society B 16), and is null if its denominator is within its own bound of 0, where that interval is not finite.
Healing and detection that did not come by the end are censored there: their mean is the restricted mean, and the share of seeds that
healed stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selfheal.simulate.replay.healing import Healing, healing

LEVEL = 0.95

Bounds = tuple[float | None, float | None, float | None]
"""Lower bound, mean, upper bound; all None where the figure does not exist, the bounds None where one seed gives none."""

NO_FIGURE: Bounds = (None, None, None)

Cell = Mapping[str, Any]
"""The figures of one replay (`measures.Figures.as_json`)."""


def mean_bounds(values: Sequence[float]) -> Bounds:
    """Return the mean with Student's t interval.

    >>> mean_bounds([1.0, 2.0, 3.0])[1]
    2.0
    """
    n = len(values)
    if n == 0:
        return NO_FIGURE
    mean = float(np.mean(values))
    if n == 1:
        return None, mean, None
    half = _t_quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean - half, mean, mean + half


def ratio_bounds(numerators: Sequence[float], denominators: Sequence[float]) -> Bounds:
    """Return sum(numerators) / sum(denominators) with Fieller's interval; `NO_FIGURE` if the denominator may be 0.

    With one pair, the ratio has no interval, and the denominator no bound: the ratio is given unless it divides by 0 or less.
    """
    n = len(numerators)
    if n == 0:
        return NO_FIGURE
    a, b = float(np.mean(numerators)), float(np.mean(denominators))
    if n == 1:
        return (None, a / b, None) if b > 0 else NO_FIGURE
    (var_a, cov), (_, var_b) = np.cov(numerators, denominators, ddof=1) / n
    t2 = _t_quantile(n - 1) ** 2
    denominator = b * b - t2 * var_b
    if b <= 0 or denominator <= 0:
        return NO_FIGURE
    middle = a * b - t2 * cov
    half = math.sqrt(max(0.0, middle**2 - denominator * (a * a - t2 * var_a)))
    return (middle - half) / denominator, a / b, (middle + half) / denominator


def paired_difference(one: Mapping[int, Cell], other: Mapping[int, Cell]) -> Bounds:
    """Return by how much more one policy lost than another, in Brier x rows, over the seeds that both have."""
    seeds = sorted(one.keys() & other.keys())
    return mean_bounds([total_brier(one[seed]) - total_brier(other[seed]) for seed in seeds])


def world_summary(cells: Mapping[str, Mapping[int, Cell]]) -> dict[str, dict[str, Any]]:
    """Return each policy's figures, from its cells by policy and seed.

    Only the seeds that never and the oracle have finished too are compared with them.
    """
    return {policy: _policy_summary(by_seed, cells) for policy, by_seed in cells.items()}


def _policy_summary(by_seed: Mapping[int, Cell], cells: Mapping[str, Mapping[int, Cell]]) -> dict[str, Any]:
    values = list(by_seed.values())
    paired = [
        (by_seed[seed], cells["never"][seed], cells["oracle"][seed])
        for seed in sorted(by_seed)
        if seed in cells.get("never", {}) and seed in cells.get("oracle", {})
    ]
    recovered = ratio_bounds(
        [total_brier(never) - total_brier(cell) for cell, never, _ in paired],
        [total_brier(never) - total_brier(oracle) for _, never, oracle in paired],
    )
    has_gap = recovered[1] is not None
    healed = [_healing(*three) for three in paired] if has_gap else []
    detected = [cell["detect_h"] for cell in values]
    end = [cell["hours_after"] for cell in values]
    return {
        "seeds": len(values),
        "recovered_share": recovered,
        "regret": mean_bounds([total_brier(cell) - total_brier(oracle) for cell, _, oracle in paired]),
        "brier": mean_bounds([cell["brier"] for cell in values]),
        "log_loss": mean_bounds([cell["log_loss"] for cell in values]),
        "f1": mean_bounds([cell["f1"] for cell in values]),
        "auc": mean_bounds([cell["auc"] for cell in values if cell["auc"] is not None]),
        "detect_h": mean_bounds(
            [until if hours is None else hours for hours, until in zip(detected, end, strict=True)]
        ),
        "detected_share": float(np.mean([hours is not None for hours in detected])) if detected else None,
        "heal_h": mean_bounds([one.hours for one in healed]),
        "healed_share": float(np.mean([one.is_healed for one in healed])) if healed else None,
        **{
            name: mean_bounds([cell[name] for cell in values])
            for name in (
                *("alarms", "false_alarms", "false_retrains", "trainings", "promotions"),
                *("wrong_promotions", "wrong_promotion_h", "rollbacks", "labels_used"),
            )
        },
    }


def stream_summary(by_seed: Mapping[int, Cell]) -> dict[str, Bounds]:
    """Return a policy's figures on a natural stream; one seed gives no bounds."""
    return {
        name: mean_bounds([float(cell[name]) for cell in by_seed.values() if cell[name] is not None])
        for name in ("brier", "log_loss", "f1", "auc", "trainings", "promotions", "labels_used")
    }


def _healing(cell: Cell, never: Cell, oracle: Cell) -> Healing:
    hours = float(cell["hours_after"])
    return healing(cell["expected_brier"], never["expected_brier"], oracle["attainable_brier"], hours)


def total_brier(cell: Cell) -> float:
    """Return the sum of the squared errors over all rows from the change on whose outcome is known."""
    return float(cell["brier"]) * float(cell["n_rows_after"])


def _t_quantile(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + LEVEL / 2, degrees))
