"""The versions that a cheaper repair than a retraining may come of: the champion, and archived versions that may return."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from selfheal.domain.records import Stage, Trigger
from selfheal.domain.retraining.paired_gain import Costs
from selfheal.domain.retraining.repairs import Incumbent, Ladder
from selfheal.kit.errors import IntegrityError, MissingArtifactError, ModelRefusedError, PermanentError

if TYPE_CHECKING:
    from selfheal.domain.records import Decision, ModelVersion, RepairChoice
    from selfheal.services.repositories import LoopPlatform

MAX_RETURNS = 3
"""Archived versions that are compared, the newest ones: each costs loading a model."""

ONLY_RETRAINING = frozenset({Trigger.BOOTSTRAP, Trigger.MANUAL})
"""Triggers that ask for a new fit: nothing is there yet, or a person has asked for one."""


def ladder_for(platform: LoopPlatform, decision: Decision) -> Ladder | None:
    """Return what the decision's challenger may be besides a new fit; None: nothing.

    Archived versions that a rollback has ended do not return by themselves, nor do versions of another contract, or without a
    sound file.
    """
    settings = platform.settings
    if settings.repairs == "retraining" or decision.trigger_reason in ONLY_RETRAINING:
        return None
    version = None if decision.champion_version is None else platform.versions.find(decision.champion_version)
    champion = None if version is None else _loaded(platform, version)
    if champion is None:
        return None
    costs = Costs(settings.cost_of_false_alarm, settings.cost_of_miss)
    return Ladder(champion, tuple(_archived(platform)), settings.primary_metric, costs)


def ladder_of_record(platform: LoopPlatform, choice: RepairChoice | None) -> Ladder | None:
    """Return the ladder that a recorded choice was made from; None: only a retraining was considered.

    Raises:
        PermanentError: if one of its versions is not registered.
        ModelRefusedError, IntegrityError, MissingArtifactError: if one of them does not load.
    """
    if choice is None:
        return None
    incumbents = []
    for number in dict.fromkeys(rung.version for rung in choice.rungs if rung.version is not None):
        version = platform.versions.find(number)
        if version is None:
            raise PermanentError(f"version {number}, which it was compared with, is not registered any more")
        incumbents.append(Incumbent(number, platform.registry.load(version), version.threshold))
    costs = Costs(choice.cost_of_false_alarm, choice.cost_of_miss)
    return Ladder(incumbents[0], tuple(incumbents[1:]), choice.metric, costs)


def _archived(platform: LoopPlatform) -> Iterator[Incumbent]:
    n_found = 0
    for version in platform.versions.newest():
        if n_found == MAX_RETURNS:
            return
        if version.stage is not Stage.ARCHIVED or platform.versions.was_rolled_back(version.version):
            continue
        found = _loaded(platform, version)
        if found is not None:
            n_found += 1
            yield found


def _loaded(platform: LoopPlatform, version: ModelVersion) -> Incumbent | None:
    """Return a version; None if it does not load: it is no repair then, and `selfheal verify` names it."""
    if version.contract_hash != platform.contract.hash:
        return None
    try:
        return Incumbent(version.version, platform.registry.load(version), version.threshold)
    except (ModelRefusedError, IntegrityError, MissingArtifactError):
        return None
