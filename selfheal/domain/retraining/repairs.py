"""The ladder of repairs: a challenger is the cheapest change that is no worse than a retraining. Pure.

All rungs are compared on the recent training rows, each on rows that it was not fitted to, and before the gates: one challenger
comes of it, so that a verdict has one level. Where the training rows judge as well (`cross_fitting`), each block is judged by the
rung that the other blocks choose. A cheap rung is chosen only if

- no rung has a log loss that is lower by more than one standard error of their difference (the one-standard-error rule; Breiman,
  Friedman, Olshen and Stone, 1984, "Classification and Regression Trees"), and a retraining's primary metric is not better by more
  than that either: the ranking is then as good as a new fit's, and only levels are off; and
- it improves the champion's primary metric by more than one standard error: what repairs nothing would only spend a verdict.

Otherwise the challenger is a retraining, as without a ladder.

Belongs here: the rungs, and the choice. Does not belong here: fitting a new model (`training`), fits of corrections
(`corrections`), and where versions come from (`selfheal.services.repairs`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from selfheal.domain.clusters import Clusters, design_effect
from selfheal.domain.model.correction import Correction
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.records import Repair, RepairChoice, Rung
from selfheal.domain.retraining.calibration import folded_into_linear_step
from selfheal.domain.retraining.corrections import beta_correction, platt_correction, prior_shift_correction
from selfheal.domain.retraining.cross_fitting import decisions_of_others
from selfheal.domain.retraining.evaluation import Evaluation, Scores
from selfheal.domain.retraining.evidence import (
    CHALLENGER_SAYS_SO,
    IntArray,
    counts_worth,
    f1,
    f1_difference_bounds,
    kind_counts,
    kinds_of,
)
from selfheal.domain.retraining.paired_gain import EQUAL_COSTS, Costs, PrimaryMetric, log_losses, paired_gain

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.retraining.fitting import Folds

Fit: TypeAlias = "Callable[[IntArray, FloatArray], Correction | None]"

LEVEL = 0.16
"""One-sided level at which a primary metric counts as better, one standard error like that of the log loss. It promotes nothing: the
gates have a level of their own. At 5 % a new fit is brought before them in most cases in which a constant would do, and passes less
often (`benchmarks.repairs`)."""

NAMES: dict[Repair, str] = {
    Repair.THRESHOLD: "another threshold",
    Repair.PRIOR_SHIFT: "a constant added to the log-odds",
    Repair.PLATT: "a line of the log-odds (Platt)",
    Repair.BETA: "beta calibration",
    Repair.RETURN: "as it was",
    Repair.RETRAINING: "a retraining",
}


@dataclass(frozen=True)
class Incumbent:
    """A registered version: its number, fitted pipeline and decision threshold."""

    version: int
    pipeline: Pipeline
    threshold: float


@dataclass(frozen=True)
class Ladder:
    """What a challenger may be besides a new fit.

    Args:
        champion: the version in production.
        archived: versions that may return, the first ones before others.
        metric: the primary metric.
        costs: of wrong decisions, for the expected cost.
    """

    champion: Incumbent
    archived: tuple[Incumbent, ...] = ()
    metric: PrimaryMetric = "f1"
    costs: Costs = EQUAL_COSTS


class RecentRows(NamedTuple):
    """The recent training rows: features, shape (n, f), labels, folds, entities, and whether they are evaluation rows as well."""

    x: FloatArray
    y: IntArray
    folds: Folds
    clusters: Clusters
    are_judged_on: bool = False


@dataclass(frozen=True)
class Candidate:
    """A rung: `probabilities` of the recent rows, none from what was fitted to the row; `uncorrected` ones; `build` makes the model."""

    repair: Repair
    version: int | None
    probabilities: FloatArray
    uncorrected: FloatArray
    build: Callable[[], Pipeline]


class Chosen(NamedTuple):
    """The chosen rung and the record of the choice; if the rows judge as well, what they are judged by (`_by_others`)."""

    candidate: Candidate
    choice: RepairChoice
    by_others: tuple[FloatArray, IntArray] | None


def choose_repair(
    ladder: Ladder, retraining: Candidate, rows: RecentRows, contract: ModelContract, seed: int
) -> Chosen | None:
    """Compare all rungs and return the chosen one; None if the champion does not score these rows.

    Args:
        ladder: the versions that there are.
        retraining: the new fit, out of fold.
        rows: what all are compared on.
        contract: of all models.
        seed: of the draws behind bounds.
    """
    champion = ladder.champion
    as_is = _scored(champion, rows, contract)
    if as_is is None:
        return None
    candidates = (
        *_of_champion(champion, as_is, rows),
        *_of_archive(ladder.archived, rows, contract),
        retraining,
    )
    decided = (as_is >= champion.threshold).astype(np.int64)
    before = _Compared(as_is, decided, _losses(rows.y, as_is))
    all_rows = _Comparison(rows.y, rows.clusters, before, tuple(_Compared.of(one, rows) for one in candidates))
    chosen = all_rows.chosen(ladder, seed)
    rungs = tuple(
        Rung(candidate.repair, candidate.version, one.log_loss, one.f1(rows.y))
        for candidate, one in zip(candidates, all_rows.rungs, strict=True)
    )
    candidate = candidates[chosen]
    reason = _reason(rungs, chosen, (before.log_loss, before.f1(rows.y)), len(rows.y))
    asked = (ladder.metric, ladder.costs.false_alarm, ladder.costs.miss)
    choice = RepairChoice(candidate.repair, candidate.version, reason, rungs, *asked)
    return Chosen(candidate, choice, _by_others(all_rows, rows.folds, ladder, seed) if rows.are_judged_on else None)


def _by_others(all_rows: _Comparison, folds: Folds, ladder: Ladder, seed: int) -> tuple[FloatArray, IntArray]:
    """Return each row's probability and decision by the rung that the other folds choose: a choice is not judged by its own rows."""
    probabilities, decisions = np.empty(len(all_rows.y)), np.empty(len(all_rows.y), dtype=np.int64)
    for learn, predict in folds:
        rung = all_rows.rungs[all_rows.within(learn).chosen(ladder, seed)]
        probabilities[predict] = rung.probabilities[predict]
        decisions[predict] = rung.decisions[predict]
    return probabilities, decisions


# The rungs


def _of_champion(champion: Incumbent, as_is: FloatArray, rows: RecentRows) -> Iterator[Candidate]:
    """Yield what the champion becomes by another threshold or a correction; all leave its ranking, and its explanation, as it is."""
    version = champion.version
    yield Candidate(Repair.THRESHOLD, version, as_is, as_is, partial(_same, champion.pipeline))
    for repair, fit in ((Repair.PRIOR_SHIFT, prior_shift_correction), (Repair.PLATT, platt_correction)):
        found = _cross_fitted(fit, as_is, rows)
        if found is not None:
            correction, probabilities = found
            build = partial(_corrected_by_line, champion.pipeline, correction, rows.x)
            yield Candidate(repair, version, probabilities, as_is, build)
    if folded_into_linear_step(champion.pipeline, Correction(0.0), rows.x) is not None:
        return
    base, first = _uncorrected(champion.pipeline)
    inner = as_is if first is None else np.asarray(base.predict_proba(rows.x), dtype=np.float64)[:, 1]
    found = _cross_fitted(beta_correction, inner, rows)
    if found is not None:
        correction, probabilities = found
        yield Candidate(Repair.BETA, version, probabilities, as_is, partial(_recalibrated, base, correction))


def _of_archive(archived: Sequence[Incumbent], rows: RecentRows, contract: ModelContract) -> Iterator[Candidate]:
    for one in archived:
        probabilities = _scored(one, rows, contract)
        if probabilities is not None:
            build = partial(_same, one.pipeline)
            yield Candidate(Repair.RETURN, one.version, probabilities, probabilities, build)


def _scored(incumbent: Incumbent, rows: RecentRows, contract: ModelContract) -> FloatArray | None:
    """Return the version's probabilities of the rows; None if it does not score all of them."""
    try:
        found = served_scoring(incumbent.pipeline, contract)(rows.x)
    except Exception:  # a model's own code may raise anything
        return None
    return found if bool(((found >= 0) & (found <= 1)).all()) else None


def _cross_fitted(fit: Fit, probabilities: FloatArray, rows: RecentRows) -> tuple[Correction, FloatArray] | None:
    """Return the correction fitted to all rows, and each row's probability by one fitted to the other folds."""
    whole = fit(rows.y, probabilities)
    found = np.full(len(rows.y), np.nan)
    for learn, predict in rows.folds:
        correction = fit(rows.y[learn], probabilities[learn])
        if correction is None or whole is None:
            return None
        found[predict] = correction(probabilities[predict])
    return None if whole is None else (whole, found)


def _corrected_by_line(pipeline: Pipeline, line: Correction, x: FloatArray) -> Pipeline:
    """Return the model with a line of its log-odds: in its logistic step if it has one, else around it, once."""
    folded = folded_into_linear_step(pipeline, line, x)
    if folded is not None:
        return folded
    base, first = _uncorrected(pipeline)
    return _recalibrated(base, line if first is None else line.after(first))


def _uncorrected(pipeline: Pipeline) -> tuple[Pipeline, Correction | None]:
    from selfheal.domain.model.recalibrated import RecalibratedClassifier

    if isinstance(pipeline, RecalibratedClassifier):
        return pipeline.classifier, pipeline.correction
    return pipeline, None


def _recalibrated(base: Pipeline, correction: Correction) -> Pipeline:
    from selfheal.domain.model.recalibrated import RecalibratedClassifier

    found: Pipeline = RecalibratedClassifier(base, correction.intercept, correction.of_event, correction.of_other)
    return found


def _same(pipeline: Pipeline) -> Pipeline:
    return pipeline


# The choice


@dataclass(frozen=True)
class _Compared:
    """A rung's probabilities, its decisions and its log losses, shape (n,); each row by what was fitted to the other folds."""

    probabilities: FloatArray
    decisions: IntArray
    losses: FloatArray

    @classmethod
    def of(cls, candidate: Candidate, rows: RecentRows) -> _Compared:
        p = candidate.probabilities
        return cls(p, decisions_of_others(rows.y, p, rows.folds), _losses(rows.y, p))

    def at(self, rows: IntArray) -> _Compared:
        return _Compared(self.probabilities[rows], self.decisions[rows], self.losses[rows])

    @property
    def log_loss(self) -> float:
        return float(self.losses.mean())

    def f1(self, labels: IntArray) -> float:
        return float(f1(kind_counts(labels, self.decisions, self.decisions), CHALLENGER_SAYS_SO))


@dataclass(frozen=True)
class _Comparison:
    """All rungs on the same rows, the cheapest first, a retraining last; and the champion as it is."""

    y: IntArray
    clusters: Clusters
    before: _Compared
    rungs: tuple[_Compared, ...]

    def within(self, rows: IntArray) -> _Comparison:
        """Return the comparison on a part of the rows."""
        clusters = None if self.clusters is None else self.clusters[rows]
        return _Comparison(self.y[rows], clusters, self.before.at(rows), tuple(one.at(rows) for one in self.rungs))

    def chosen(self, ladder: Ladder, seed: int) -> int:
        """Return the place of the first rung that is as good as a retraining and better than the champion as it is."""
        best, retraining = min(self.rungs, key=lambda one: one.log_loss), self.rungs[-1]
        gain = partial(self._is_gain, ladder, seed)
        for place, one in enumerate(self.rungs[:-1]):
            if not self._is_lower(best, one) and gain(one, self.before) and not gain(retraining, one):
                return place
        return len(self.rungs) - 1

    def _is_lower(self, one: _Compared, other: _Compared) -> bool:
        """Return whether a log loss is lower by more than the standard error of the difference."""
        differences = other.losses - one.losses
        variance = float(differences.var()) / len(differences) * design_effect(differences, self.clusters)
        return float(differences.mean()) > math.sqrt(variance)

    def _is_gain(self, ladder: Ladder, seed: int, new: _Compared, old: _Compared) -> bool:
        """Return whether the primary metric is better, at `LEVEL`."""
        if ladder.metric == "f1":
            kinds = kinds_of(self.y, new.decisions, old.decisions)
            return f1_difference_bounds(counts_worth(kinds, self.clusters), LEVEL, seed).low > 0
        challenger, champion = (Scores(one.probabilities, math.nan, decisions=one.decisions) for one in (new, old))
        evaluation = Evaluation(self.y, challenger, champion, clusters=self.clusters).one_row_of_each_entity()
        found = paired_gain(ladder.metric, evaluation, LEVEL, ladder.costs, seed)
        return found is not None and found.bounds.low > 0


def _losses(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Return each row's log loss, as a gain in it is measured."""
    return np.asarray(log_losses(probabilities)[labels, np.arange(len(labels))], dtype=np.float64)


def _reason(rungs: Sequence[Rung], chosen: int, before: tuple[float, float], n_rows: int) -> str:
    rung, retraining = rungs[chosen], rungs[-1]
    measured = f"on {n_rows:,} recent training rows, log loss {rung.log_loss:.4f} and F1 {rung.f1:.3f}"
    champion = f"the champion has {before[0]:.4f} and {before[1]:.3f}"
    if rung is retraining:
        return f"a retraining: {measured}; {champion}; nothing cheaper is as good and shown to improve it"
    return (
        f"version {rung.version}, {NAMES[rung.repair]}: {measured}; {champion}, "
        f"a retraining {retraining.log_loss:.4f} and {retraining.f1:.3f}, which is not shown to be better"
    )
