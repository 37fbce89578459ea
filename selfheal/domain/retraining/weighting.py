"""Weighting of the champion's own training rows relative to the recent ones.

If only the mix of inputs has changed (covariate shift), the relation in the original rows still holds, and they add
information to a few hundred recent labels. If the relation itself has changed (concept drift), the original rows mislead. The
recent rows decide which of the two applies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.clusters import of_newest_entities, recurs_in, row_clusters
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.retraining.fitting import build_pipeline, can_weigh, fit
from selfheal.domain.retraining.search import PreparedFold, prepare, split_before

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.retraining.fitting import IntArray

CANDIDATE_WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Candidate weights of an original row; a recent row has weight 1."""

INNER_SHARE = 0.3
"""Share of the recent training rows, the latest ones, on which the weights are compared."""


@dataclass(frozen=True, slots=True)
class WeightChoice:
    """The weight, each candidate's log loss (by its weight as text; None: it could not be fitted), and the reason in a sentence."""

    weight: float
    log_losses: dict[str, float | None]
    reason: str


def choose_weight(recent: pd.DataFrame, original: pd.DataFrame, contract: ModelContract, seed: int) -> WeightChoice:
    """Return the candidate weight with the lowest log loss on the later recent training rows.

    With p_w fitted to the original rows (weight w each) and the earlier 70 % of the recent training rows (weight 1 each),

        w* = argmin_w  - mean over the later 30 % of [ y log p_w(x) + (1 - y) log(1 - p_w(x)) ]

    This is forward validation. Sugiyama, Krauledat and Mueller (2007, Journal of Machine Learning Research 8) weight the
    validation rows; here they come from the target population itself. Evaluation rows are not used. Where rows recur, the later
    rows are those of the entities that came last, with all their rows: else hardly any entity would be left to learn from.

    Args:
        recent: recent training rows, oldest first: features and `true_label`.
        original: the champion's rows: features, `true_label`, and the `weight` they had then.
    """
    n_later = round(len(recent) * INNER_SHARE)
    clusters = row_clusters(recent, contract)
    if clusters is None:
        is_later = np.arange(len(recent)) >= len(recent) - n_later
    else:
        is_later = of_newest_entities(recent, n_later, clusters)
    earlier, later = recent[~is_later], recent[is_later]
    earlier, original = _of_others(earlier, later, contract), _of_others(original, later, contract)
    if len(original) == 0 or n_later == 0:
        return WeightChoice(0.0, {}, "there are no original rows to weigh")
    pipeline = build_pipeline(contract, seed)
    candidates = CANDIDATE_WEIGHTS if can_weigh(pipeline) else (0.0, 1.0)
    losses = dict(zip(candidates, _later_log_losses(original, earlier, later, candidates, contract, seed), strict=True))
    known = {w: loss for w, loss in losses.items() if loss is not None}
    best = min(known, key=lambda w: known[w]) if known else 0.0
    reason = (
        f"original rows count {best:g}: of the weights {', '.join(f'{w:g}' for w in candidates)} it gives the lowest log loss on "
        f"the later {len(later):,} of {len(recent):,} recent training rows"
    )
    return WeightChoice(best, {f"{w:g}": loss for w, loss in losses.items()}, reason)


def _of_others(rows: pd.DataFrame, later: pd.DataFrame, contract: ModelContract) -> pd.DataFrame:
    """Return the rows of entities that are not among the later rows, however few those are: they would be remembered."""
    return rows[~recurs_in(rows, later, contract)]


def _later_log_losses(
    original: pd.DataFrame,
    earlier: pd.DataFrame,
    later: pd.DataFrame,
    weights: Sequence[float],
    contract: ModelContract,
    seed: int,
) -> Iterator[float | None]:
    """Yield the log loss on the later rows by weight; None without rows of both classes, or if the estimator cannot be fitted."""
    own = original["weight"].to_numpy(dtype=np.float64) if "weight" in original else np.ones(len(original))
    parts = (original, earlier, later)
    x = np.concatenate([_features(part, contract) for part in parts])
    y: IntArray = np.concatenate([part[TRUE_LABEL] for part in parts]).astype(np.int64)
    predict = np.arange(len(original) + len(earlier), len(y))
    head, last = split_before(build_pipeline(contract, seed), ())
    prepared: dict[bytes, PreparedFold] = {}  # by the rows that count: most weights let all of them
    for weight in weights:
        row_weights = np.concatenate([weight * own, np.ones(len(earlier) + len(later))])
        learn = np.flatnonzero(row_weights[: len(original) + len(earlier)] > 0)
        if len(set(y[learn].tolist())) < 2:
            yield None
            continue
        try:
            key = learn.tobytes()
            if key not in prepared:
                prepared[key] = prepare(head, x, y, row_weights, learn, predict)
            yield _log_loss(last, replace(prepared[key], weights=row_weights[learn]))
        except ValueError:  # training reports what is wrong with the estimator
            yield None


def _log_loss(last: Pipeline, fold: PreparedFold) -> float:
    from sklearn.base import clone
    from sklearn.metrics import log_loss

    copy = clone(last)
    fit(copy, fold.x_learn, fold.y_learn, fold.weights)
    return float(log_loss(fold.y_predict, copy.predict_proba(fold.x_predict)[:, 1], labels=[0, 1]))


def _features(rows: pd.DataFrame, contract: ModelContract) -> FloatArray:
    return contract.matrix_of(rows)
