"""W5 to W8: late, selected and poisoned labels. Nothing changes in any of them, and the loop is to change nothing.

Whole deployments are lived through by the platform's own policy (`selfheal.simulate.replay.ours`) on rows that no parameter was
chosen on: the second half of the data, in file order. A deployment costs 20 to 40 s, most of it for trainings.

Belongs here: which deployments, and what is counted. Does not belong here: any rule of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from benchmarks.trust.figures import Figure, at_least, at_most, mean, rate
from benchmarks.trust.worlds import Figures, Given, Half, TrustWorld, halves
from selfheal.credit_risk import contract
from selfheal.domain.monitoring.performance import roc_auc
from selfheal.domain.records import Action, Verdict
from selfheal.settings import default_settings
from selfheal.simulate.replay.build import CHANGE_AT, Source, build, source_of
from selfheal.simulate.replay.catalogue import APPROVED, LATE_GOOD, MORE_DEFAULTS
from selfheal.simulate.replay.deployment import Kind
from selfheal.simulate.replay.engine import Replay, What, replay
from selfheal.simulate.replay.memory.traffic import as_moment
from selfheal.simulate.replay.ours import Ours
from selfheal.simulate.replay.replay_settings import settings_of_replay
from selfheal.simulate.replay.worlds import Labels, World

INTERVAL = timedelta(hours=6)
TRIES, QUICK_TRIES = 40, 2

NEVER = at_most(0.1)
"""Target of what is never to happen: none of 40 has an upper bound of 0.088."""

ALWAYS = at_least(0.9)

POISONED_DAYS = 7.0

_CALM = World("trust_labels", "nothing changes", Kind.HARMLESS, champion_age_days=0.0)
LATE = replace(_CALM, name="trust_late", days_after=45.0, labels=LATE_GOOD)
"""45 days: long after the defaults, long before the good loans."""

MORE = replace(_CALM, name="trust_more_defaults", days_after=28.0, labels=MORE_DEFAULTS)
ACCEPTED = replace(_CALM, name="trust_approved", days_after=28.0, labels=APPROVED)
POISONED = replace(
    _CALM,
    name="trust_poisoned",
    champion_age_days=7.0,
    days_after=14.0,
    labels=Labels(poisoned=(0.0, POISONED_DAYS, 1.0)),
)


@dataclass(frozen=True)
class _Lived:
    """What a deployment came to, and what the loop said at its end."""

    replay: Replay
    ours: Ours

    @property
    def is_promoted(self) -> bool:
        return len(self.replay.models) > 1

    def is_called_harmful(self, days: float = math.inf) -> bool:
        """Return whether a tick called the model harmful, within so many days of the change."""
        until = CHANGE_AT + np.timedelta64(round(min(days, 3_650) * 24), "h")
        ends = [tick.window_end for tick in self.ours.ticks if tick.verdict == Verdict.HARMFUL_SHIFT]
        return any(days == math.inf or CHANGE_AT <= as_moment(end) <= until for end in ends)

    def share_of(self, verdicts: Sequence[Verdict]) -> float:
        ticks = self.ours.ticks
        return sum(tick.verdict in verdicts for tick in ticks) / max(1, len(ticks))

    def says(self, *words: str) -> bool:
        """Return whether a decision not to retrain, or an alert, has one of the words."""
        said = [one.reason for one in self.ours.decisions if one.action is Action.SKIP]
        said += [event.reason for event in self.replay.events if event.what is What.ALARM]
        return any(word in text for text in said for word in words)

    @property
    def lowest_auc(self) -> float:
        """The lowest AUC, on all rows with their true outcomes, of the versions that were promoted; 1 without one."""
        stream = self.replay.deployment.stream
        outcomes = stream.true_label.astype(np.int64)
        promoted = range(1, len(self.replay.models))
        return min((roc_auc(outcomes, self.replay.scores(one, 0, len(stream))) for one in promoted), default=1.0)


def _source(given: Given) -> Source:
    return source_of(halves(given.data)[1], contract, given.data.name)


def _live(world: World, given: Given) -> list[_Lived]:
    source = _source(given)
    return [_lived(world, source, given.seed + number) for number in range(given.tries(TRIES, QUICK_TRIES))]


def _lived(world: World, source: Source, seed: int) -> _Lived:
    deployment = build(world, source, seed)
    ours = Ours(settings_of_replay(default_settings(), INTERVAL, seed))
    return _Lived(replay(deployment, ours, interval=INTERVAL, seed=seed), ours)


def _share(hits: Sequence[bool]) -> tuple[int, int]:
    return sum(hits), len(hits)


def _calm_figures(lived: Sequence[_Lived], *words: str) -> dict[str, Figure]:
    return {
        "called_harmful": rate(*_share([one.is_called_harmful() for one in lived]), NEVER),
        "promoted": rate(*_share([one.is_promoted for one in lived]), NEVER),
        "says_why": rate(*_share([one.says(*words) for one in lived]), ALWAYS),
    }


def measure_late(given: Given) -> Figures:
    """Measure W5: defaults are known in 10 days, 70 % of the good loans after 90."""
    return _calm_figures(_live(LATE, given), "not identifiable")


def measure_more_defaults(given: Given) -> Figures:
    """Measure W6: labels of all defaults and of 40 % of the others, ever."""
    return _calm_figures(_live(MORE, given), "not identifiable")


def measure_approved(given: Given) -> Figures:
    """Measure W7: labels of approved applicants only."""
    lived = _live(ACCEPTED, given)
    drifted = [one.share_of([Verdict.BENIGN_SHIFT, Verdict.HARMFUL_SHIFT, Verdict.BROKEN_FEED]) for one in lived]
    return _calm_figures(lived, "not identifiable") | {"calm_ticks_called_drifted": mean(drifted, at_most(0.05))}


def measure_poisoned(given: Given) -> Figures:
    """Measure W8: all labels of one week are inverted; the champion is a week old."""
    lived = _live(POISONED, given)
    return {
        "called_harmful": rate(*_share([one.is_called_harmful(POISONED_DAYS + 2) for one in lived]), NEVER),
        "promoted_below_half": rate(*_share([one.lowest_auc < 0.5 for one in lived]), NEVER),
        "says_why": rate(*_share([one.says("are withheld") for one in lived]), ALWAYS),
    }


WORLDS: tuple[TrustWorld, ...] = (
    TrustWorld("W5", "defaults known in 10 days, most good loans after 90", Half.CHOSEN, measure_late),
    TrustWorld("W6", "labels of all defaults, and of 40 % of the others", Half.JUDGED, measure_more_defaults),
    TrustWorld("W7", "labels of approved applicants only", Half.CHOSEN, measure_approved),
    TrustWorld("W8", "labels inverted for one week", Half.JUDGED, measure_poisoned),
)
