"""W5 to W8: late, selected and poisoned labels. Nothing changes in any of them, and the loop is to change nothing.

Whole deployments are lived through by the platform's own policy (`selfheal.simulate.replay.ours`) on rows that no parameter was
chosen on: the second half of the data, in file order. A deployment costs 20 to 40 s, most of it for trainings.

Belongs here: which deployments, and what is counted. Does not belong here: any rule of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np

from benchmarks.trust.figures import NEVER, Figure, Target, at_least, at_most, mean, rate
from benchmarks.trust.worlds import Figures, Found, Given, Half, Piece, TrustWorld, judging_source
from selfheal.domain.monitoring.performance import roc_auc
from selfheal.domain.records import Action, Verdict
from selfheal.settings import default_settings
from selfheal.simulate.replay.build import CHANGE_AT, build
from selfheal.simulate.replay.catalogue import APPROVED, LATE_GOOD, MORE_DEFAULTS
from selfheal.simulate.replay.deployment import Kind
from selfheal.simulate.replay.engine import Replay, What, replay
from selfheal.simulate.replay.memory.traffic import as_moment
from selfheal.simulate.replay.ours import Ours
from selfheal.simulate.replay.replay_settings import settings_of_replay
from selfheal.simulate.replay.worlds import Labels, World

INTERVAL = timedelta(hours=6)
TRIES, QUICK_TRIES = 40, 1

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
class Lived:
    """What a deployment came to, and what the loop said.

    Args:
        is_called_harmful: a tick called the model harmful.
        is_called_harmful_poisoned: one did within the poisoned week, or two days later.
        share_drifted: share of the ticks that reported a shift or a fault.
        is_not_identifiable, is_withheld: a decision not to retrain, or an alert, says so.
        lowest_auc: on all rows with their true outcomes, of the versions that were promoted; 1 without one.
    """

    is_promoted: bool
    is_called_harmful: bool
    is_called_harmful_poisoned: bool
    share_drifted: float
    is_not_identifiable: bool
    is_withheld: bool
    lowest_auc: float


def lived(given: Given, world: World, seed: int) -> dict[str, Any]:
    """Live through a deployment."""
    deployment = build(world, judging_source(given.data), seed)
    ours = Ours(settings_of_replay(default_settings(), INTERVAL, seed))
    found = replay(deployment, ours, interval=INTERVAL, seed=seed)
    return asdict(
        Lived(
            is_promoted=len(found.models) > 1,
            is_called_harmful=is_called_harmful(ours),
            is_called_harmful_poisoned=is_called_harmful(ours, POISONED_DAYS + 2),
            share_drifted=share_of(ours, [Verdict.BENIGN_SHIFT, Verdict.HARMFUL_SHIFT, Verdict.BROKEN_FEED]),
            is_not_identifiable=says(found, ours, "not identifiable"),
            is_withheld=says(found, ours, "are withheld"),
            lowest_auc=lowest_auc(found),
        )
    )


def is_called_harmful(ours: Ours, days: float = math.inf) -> bool:
    """Return whether a tick called the model harmful, within so many days of the change."""
    until = CHANGE_AT + np.timedelta64(round(min(days, 3_650) * 24), "h")
    ends = [tick.window_end for tick in ours.ticks if tick.verdict == Verdict.HARMFUL_SHIFT]
    return any(days == math.inf or CHANGE_AT <= as_moment(end) <= until for end in ends)


def share_of(ours: Ours, verdicts: Sequence[Verdict]) -> float:
    """Return the share of ticks with one of these verdicts."""
    return sum(tick.verdict in verdicts for tick in ours.ticks) / max(1, len(ours.ticks))


def says(found: Replay, ours: Ours, words: str) -> bool:
    """Return whether a decision not to retrain, or an alert, has these words."""
    said = [one.reason for one in ours.decisions if one.action is Action.SKIP]
    said += [event.reason for event in found.events if event.what is What.ALARM]
    return any(words in text for text in said)


def lowest_auc(found: Replay) -> float:
    """Return the lowest AUC, on all rows with their true outcomes, of the versions that were promoted; 1 without one."""
    stream = found.deployment.stream
    outcomes = stream.true_label.astype(np.int64)
    return min(
        (roc_auc(outcomes, found.scores(one, 0, len(stream))) for one in range(1, len(found.models))), default=1.0
    )


def pieces_of(world: World, cpu_s: float) -> Callable[[Given], list[Piece]]:
    """Return the deployments of a world, each with the seconds that it takes."""

    def pieces(given: Given) -> list[Piece]:
        seeds = range(given.seed, given.seed + given.tries(TRIES, QUICK_TRIES))
        return [Piece(f"deployment.{seed}", lived, (world, seed), cpu_s) for seed in seeds]

    return pieces


def _share(hits: Iterable[bool], target: Target) -> Figure:
    found = list(hits)
    return rate(sum(found), len(found), target)


def calm_figures(_: Given, found: Found) -> Figures:
    """Return how often the loop believes labels that are late or selected, and says what is wrong with them."""
    deployments = [Lived(**one) for one in found.values()]
    return {
        "called_harmful": _share((one.is_called_harmful for one in deployments), NEVER),
        "promoted": _share((one.is_promoted for one in deployments), NEVER),
        "says_why": _share((one.is_not_identifiable for one in deployments), ALWAYS),
    }


def approved_figures(given: Given, found: Found) -> Figures:
    """Return the same, and how many calm ticks are called drifted."""
    drifted = [one["share_drifted"] for one in found.values()]
    return {**calm_figures(given, found), "calm_ticks_called_drifted": mean(drifted, at_most(0.05))}


def poisoned_figures(_: Given, found: Found) -> Figures:
    """Return how often the loop believes labels that are inverted, and says that it does not."""
    deployments = [Lived(**one) for one in found.values()]
    return {
        "called_harmful": _share((one.is_called_harmful_poisoned for one in deployments), NEVER),
        "promoted_below_half": _share((one.lowest_auc < 0.5 for one in deployments), NEVER),
        "says_why": _share((one.is_withheld for one in deployments), ALWAYS),
    }


WORLDS: tuple[TrustWorld, ...] = (
    TrustWorld(
        "W5",
        "defaults known in 10 days, most good loans after 90",
        Half.CHOSEN,
        pieces_of(LATE, 25.0),
        calm_figures,
    ),
    TrustWorld(
        "W6", "labels of all defaults, and of 40 % of the others", Half.JUDGED, pieces_of(MORE, 15.0), calm_figures
    ),
    TrustWorld("W7", "labels of approved applicants only", Half.CHOSEN, pieces_of(ACCEPTED, 15.0), approved_figures),
    TrustWorld("W8", "labels inverted for one week", Half.JUDGED, pieces_of(POISONED, 15.0), poisoned_figures),
)
