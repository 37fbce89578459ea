"""Lines of results made by hand: what a replay would have written, with chosen losses, for tests of tables and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfheal.simulate.replay.comparison import WorldResult, results_of
from selfheal.simulate.replay.runs import Cell

N_ROWS = 1_000
ZEROS = ("alarms", "false_alarms", "false_retrains", "trainings", "promotions", "wrong_promotions", "wrong_promotion_h")


def line(brier: float, *, days: int = 20, change_day: float | None = 5.0, **changes: Any) -> dict[str, Any]:
    """The figures of a replay with this Brier score on each day."""
    after = days - (change_day or 0.0)
    expected = [brier] * round(4 * after)
    figures: dict[str, Any] = {
        **dict.fromkeys((*ZEROS, "rollbacks", "labels_used"), 0),
        **{"brier": brier, "log_loss": 0.4, "f1": 0.5, "auc": 0.8, "n_rows_after": N_ROWS, "detect_h": None},
        **{"days": float(days), "hours_after": 24.0 * after, "cpu_seconds": 0.5, "n_decisions": 80},
        **{"expected_brier": expected, "attainable_brier": expected},
        **{"change_h": None if change_day is None else 24.0 * change_day, "events": []},
        "by_day": {"n_rows": [10] * days, "brier": [round(10 * brier, 6)] * days},
    }
    return figures | changes


def results(
    worlds: Mapping[str, Mapping[str, Sequence[float]]], *, natural: Sequence[str] = (), **changes: Any
) -> tuple[WorldResult, ...]:
    """Results of worlds, from each policy's Brier score per seed."""
    done = {
        Cell(world, seed, policy): line(brier, **changes)
        for world, by_policy in worlds.items()
        for policy, briers in by_policy.items()
        for seed, brier in enumerate(briers, start=1)
    }
    return results_of(done, {world: f"what happens in {world}" for world in worlds}, natural)
