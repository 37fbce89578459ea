"""The platform of a replay: the same settings and contract, and repositories in memory.

Belongs here: putting them together, and which of the replay's versions a registered one is. Does not belong here: when what is
done (`selfheal.simulate.replay.ours`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from selfheal.services.prepared_references import PreparedReferences
from selfheal.simulate.replay.memory.records import MemoryAlerts, MemoryDecisions, MemoryTicks
from selfheal.simulate.replay.memory.registry import MemoryRegistry
from selfheal.simulate.replay.memory.traffic import MemoryTraffic
from selfheal.simulate.replay.memory.versions import MemoryVersions

if TYPE_CHECKING:
    from selfheal.adapters.postgres.lock_keys import Lock
    from selfheal.domain.contract import ModelContract
    from selfheal.settings import Settings


class MemoryPlatform:
    """What the stages of the loop run on in a replay (`LoopPlatform`).

    The replay numbers the versions that served, from 0; the platform numbers those that were registered, from 1. `note_live`
    connects the two.
    """

    def __init__(self, settings: Settings, contract: ModelContract) -> None:
        self.settings, self.contract = settings, contract
        self.decisions = MemoryDecisions()
        self.versions = MemoryVersions(self.decisions)
        self.ticks, self.alerts = MemoryTicks(), MemoryAlerts()
        self.registry = MemoryRegistry(contract)
        self.prepared_references = PreparedReferences()
        self._served: list[int] = []
        self.traffic = MemoryTraffic(contract, self._index_of, self._served.__getitem__, self._threshold_of)

    def exclusive(self, lock: Lock) -> AbstractContextManager[None]:  # noqa: ARG002
        """Do nothing: a replay is alone."""
        return nullcontext()

    def note_live(self, version: int) -> None:
        """Note that a version goes into production for the first time."""
        self._served.append(version)

    def has_served(self, version: int) -> bool:
        """Return whether a version has been in production."""
        return version in self._served

    def _index_of(self, version: int) -> int | None:
        return self._served.index(version) if version in self._served else None

    def _threshold_of(self, index: int) -> float:
        found = self.versions.find(self._served[index])
        assert found is not None, "a version that served is registered"
        return found.threshold
