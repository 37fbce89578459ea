"""The versions that a cheaper repair than a retraining may come of: the champion, and archived versions that may return.

Belongs here too: what a repaired version keeps of which version (`lineage`). A repair is registered under a number of its own; what
it keeps is told by the record of its run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from selfheal.domain.records import Repair, Stage, Trigger
from selfheal.domain.retraining.paired_gain import Costs
from selfheal.domain.retraining.repairs import Incumbent, Ladder
from selfheal.kit.errors import IntegrityError, MissingArtifactError, ModelRefusedError, PermanentError

if TYPE_CHECKING:
    from selfheal.domain.records import Decision, ModelVersion, RepairChoice
    from selfheal.services.repositories import LoopPlatform

MAX_RETURNS = 3
"""Archived versions that are compared, the newest ones: each costs loading a model."""

MAX_EXAMINED = 20
"""Archived versions, the newest ones, of which it is asked what they keep: each costs reading the record of its run."""

KEEP_PROBABILITIES = frozenset({Repair.THRESHOLD, Repair.RETURN})
"""Repairs that leave the probabilities of a version as they are: what returns is then the same thing under another number."""

CHEAPER_REPAIRS = frozenset(Repair) - {Repair.RETRAINING}

ONLY_RETRAINING = frozenset({Trigger.BOOTSTRAP, Trigger.MANUAL})
"""Triggers that ask for a new fit: nothing is there yet, or a person has asked for one."""


def ladder_for(platform: LoopPlatform, decision: Decision) -> Ladder | None:
    """Return what the decision's challenger may be besides a new fit; None: nothing.

    Archived versions that a rollback has ended since the last change do not return by themselves, nor do versions of another
    contract, or without a sound file. Versions with the same probabilities are one thing under several numbers: what ended the
    newest time in production of any of them counts, and one of them is compared.
    """
    settings = platform.settings
    if settings.repairs == "retraining" or decision.trigger_reason in ONLY_RETRAINING:
        return None
    version = None if decision.champion_version is None else platform.versions.find(decision.champion_version)
    champion = None if version is None else _loaded(platform, version)
    if version is None or champion is None:
        return None
    costs = Costs(settings.cost_of_false_alarm, settings.cost_of_miss)
    changed_at = None if decision.onset is None else decision.onset.at
    return Ladder(champion, tuple(_archived(platform, version, changed_at)), settings.primary_metric, costs)


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


def lineage(
    platform: LoopPlatform, version: ModelVersion, through: Collection[Repair] = CHEAPER_REPAIRS
) -> Iterator[ModelVersion]:
    """Yield a version, the one that it is a repair of, and so on, down to the one whose fit all of them keep.

    A version without a record of a run, as other means register it, counts as a fit of its own.

    Args:
        through: the repairs that are followed; where another one was made, the lineage ends.
    """
    while True:
        yield version
        try:
            params = platform.registry.shadow_of_run(version.mlflow_run_id).params
        except MissingArtifactError:
            return
        number = params.get("repaired_version")
        if number is None or params.get("repair") not in through:
            return
        repaired = platform.versions.find(number)
        if repaired is None or repaired.version >= version.version:
            return
        version = repaired


def _archived(platform: LoopPlatform, champion: ModelVersion, changed_at: datetime | None) -> Iterator[Incumbent]:
    """Yield what may return besides what the champion gives, at most `MAX_RETURNS`; of copies the one that served last."""
    n_found, serving = 0, _kept(platform, champion)
    for kept, copies in _copies_of_archived(platform).items():
        if n_found == MAX_RETURNS:
            return
        if kept == serving or _was_rolled_back(platform, copies[0], changed_at):
            continue
        found = next((one for one in (_loaded(platform, version) for version in copies) if one is not None), None)
        if found is not None:
            n_found += 1
            yield found


def _copies_of_archived(platform: LoopPlatform) -> dict[int, list[ModelVersion]]:
    """Return archived versions by what they give (`_kept`), the newest numbers first; of copies those first that served last."""
    archived = [version for version in platform.versions.newest() if version.stage is Stage.ARCHIVED][:MAX_EXAMINED]
    found: dict[int, list[ModelVersion]] = {}
    for version in archived:
        found.setdefault(_kept(platform, version), []).append(version)
    return {
        kept: sorted(copies, key=lambda one: one.archived_at or one.registered_at, reverse=True)
        for kept, copies in found.items()
    }


def _kept(platform: LoopPlatform, version: ModelVersion) -> int:
    """Return the number of the version that first had these probabilities."""
    *_, first = lineage(platform, version, KEEP_PROBABILITIES)
    return first.version


def _was_rolled_back(platform: LoopPlatform, version: ModelVersion, changed_at: datetime | None) -> bool:
    """Return whether a rollback since the last change ended a version's latest time in production."""
    ended = platform.versions.rollback_of(version.version)
    return ended is not None and (changed_at is None or ended.promoted_at >= changed_at)


def _loaded(platform: LoopPlatform, version: ModelVersion) -> Incumbent | None:
    """Return a version; None if it does not load: it is no repair then, and `selfheal verify` names it."""
    if version.contract_hash != platform.contract.hash:
        return None
    try:
        return Incumbent(version.version, platform.registry.load(version), version.threshold)
    except (ModelRefusedError, IntegrityError, MissingArtifactError):
        return None
