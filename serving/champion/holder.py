"""The champion: the loaded model that scores, and how a version becomes it or is refused.

A new version is fetched, checked (digest, contract, types), loaded, warmed up and examined before one assignment swaps it in.
If any step fails, the version is refused, an alert is raised, and the old version remains. `serving.champion.follower`
decides when to check.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from selfheal.adapters.postgres.model_versions import production_version
from selfheal.domain.model.examination import examine
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.records import Alert, Severity
from selfheal.kit.backoff import Backoff
from selfheal.kit.errors import SelfhealError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform

logger = logging.getLogger(__name__)

MODEL_REFUSED = "model_refused"
"""Kind of the alert."""

MAX_LOADED_VERSIONS = 2
"""Number of champions in memory: a rollback swaps the previous one back without loading it."""

RETRY_BACKOFF = Backoff(initial_seconds=2.0, max_seconds=60.0)
"""Pauses before a refused version is tried again, because its file may have been unavailable."""


class RefusalLatch(Protocol):
    """The methods of an `AlertLatch` that the holder needs. It is passed in, so that this package does not import alerts."""

    def raise_(self, alert: Alert, model_version: int | None = None) -> None:
        """Record the alert as open."""

    def clear(self) -> None:
        """Resolve the alert, if it may be open."""


@dataclass(frozen=True)
class Champion:
    """A loaded version. Immutable: a request is scored by the champion at its start."""

    version: ModelVersion
    pipeline: Pipeline
    probabilities: Callable[[FloatArray], FloatArray]
    """Maps a feature matrix to the probability of class 1 of each row, shape (n,)."""

    def is_same_model(self, version: ModelVersion) -> bool:
        """Return whether the version is the one loaded here; its stage and times may differ."""
        return all(getattr(self.version, name) == getattr(version, name) for name in IDENTITY)


IDENTITY = ("model_name", "version", "artifact_sha256", "contract_hash", "threshold")
"""Fields of a record that identify a version."""


@dataclass(frozen=True)
class Refusal:
    """A version that was refused, why, and when (monotonic clock) it is tried again."""

    version: ModelVersion
    reason: str
    n_tries: int
    retry_at: float


class ChampionHolder:
    """Owns the champion and makes it the version in production. One thread refreshes, any thread reads.

    Args:
        latch: of alerts of the kind `MODEL_REFUSED`.
    """

    def __init__(self, platform: Platform, latch: RefusalLatch) -> None:
        self._platform = platform
        self._latch = latch
        self._loaded: list[Champion] = []  # the latest first
        self._refusal: Refusal | None = None
        self._alerted: Refusal | None = None
        self._has_tried_remembered = False
        self._has_no_production = False
        self._served_since: datetime | None = None
        self.outage: str | None = None
        self.current: Champion | None = None

    @property
    def problem(self) -> str | None:
        """Return what is wrong in a sentence; None if the version in production is served and promotions are followed."""
        if self.outage is not None:
            return f"{self.outage}; {self._what_serves()}"
        if self._refusal is not None:
            refused = f"version {self._refusal.version.version} is in production but was refused"
            return f"{refused}: {self._refusal.reason}; {self._what_serves()}"
        if self._has_no_production:
            return "no version is in production yet"
        return None if self.current is not None else "no version has been loaded yet"

    def refresh(self) -> None:
        """Read which version is in production and swap it in if it changed. A refused version raises no error.

        Raises:
            sqlalchemy.exc.DBAPIError: if Postgres is unavailable; the champion is unchanged.
        """
        version = production_version(self._platform.store)
        self.outage = None
        self._has_no_production = version is None
        if version is None:
            self._refusal = None
        elif self.current is not None and self.current.is_same_model(version):
            self._refusal = None
            if version != self.current.version:
                self.current = replace(self.current, version=version)
        elif self._is_due(version):
            self._try(version)
        self._raise_or_clear_alert()

    def note_outage(self, reason: str) -> None:
        """Record why promotions are not followed. Without a champion, load the version that was served last."""
        self.outage = reason
        if self.current is None:
            self._serve_remembered()

    def seconds_to_retry(self) -> float | None:
        """Return the seconds until a refused version is tried again; None if there is none."""
        return None if self._refusal is None else max(0.0, self._refusal.retry_at - time.monotonic())

    def _is_due(self, version: ModelVersion) -> bool:
        refusal = self._refusal
        return refusal is None or refusal.version != version or time.monotonic() >= refusal.retry_at

    def _try(self, version: ModelVersion) -> None:
        try:
            champion = self._load(version)
        except Exception as error:  # MLflow, the network, the disk or the file: in any case the old version remains
            self._refuse(version, error)
            if self.current is None:
                self._serve_remembered()
        else:
            self._refusal = None
            self._swap(champion)
            self._remember(version)

    def _load(self, version: ModelVersion) -> Champion:
        for champion in self._loaded:
            if champion.is_same_model(version):
                return replace(champion, version=version)
        return ready_champion(version, self._platform.registry.load(version), self._platform.contract)

    def _swap(self, champion: Champion) -> None:
        number = champion.version.version
        others = [one for one in self._loaded if one.version.version != number]
        self._loaded = [champion, *others][:MAX_LOADED_VERSIONS]
        self._served_since = datetime.now(UTC)
        self.current = champion
        logger.info("serving version %d", number)

    def _remember(self, version: ModelVersion) -> None:
        try:
            self._platform.registry.cache.remember(version, datetime.now(UTC))
        except OSError as error:
            logger.warning("could not save version %d for offline starts: %s", version.version, error)

    def _serve_remembered(self) -> None:
        """Serve the version that this machine served last, if its file is still here and valid. Tried once after a start."""
        if self._has_tried_remembered:
            return
        self._has_tried_remembered = True
        registry = self._platform.registry
        for remembered in registry.cache.remembered():
            version = remembered.version
            try:
                pipeline = registry.load(version, may_download=False)
                champion = ready_champion(version, pipeline, self._platform.contract)
            except Exception as error:
                logger.error("version %d from this machine's cache was refused: %s", version.version, error)
            else:
                self._swap(champion)
                self._served_since = remembered.served_since
                return

    def _refuse(self, version: ModelVersion, error: Exception) -> None:
        is_ours = isinstance(error, SelfhealError)
        before = self._refusal
        n_tries = before.n_tries + 1 if before is not None and before.version == version else 1
        if n_tries == 1:
            logger.error("version %d refused: %s", version.version, error, exc_info=None if is_ours else error)
        reason = str(error) if is_ours else f"{type(error).__name__}; see the log"
        self._refusal = Refusal(version, reason, n_tries, time.monotonic() + RETRY_BACKOFF.seconds(n_tries))

    def _raise_or_clear_alert(self) -> None:
        """Raise the alert with each refusal, and clear it once another version, or this one, is served."""
        if self._refusal is not None:
            if self._alerted is not self._refusal:
                self._latch.raise_(self._alert(self._refusal), self._refusal.version.version)
                self._alerted = self._refusal
        elif self.current is not None:
            self._latch.clear()

    def _alert(self, refusal: Refusal) -> Alert:
        number = refusal.version.version
        remains = (
            "no version is loaded" if self.current is None else f"version {self.current.version.version} still serves"
        )
        message = f"Version {number} is in production but was refused: {refusal.reason}; {remains}."
        return Alert(MODEL_REFUSED, Severity.CRITICAL, message, {"model_version": number})

    def _what_serves(self) -> str:
        current = self.current
        if current is None:
            return "nothing can be scored"
        since = f"{self._served_since:%Y-%m-%d %H:%M:%S} UTC"
        return f"version {current.version.version}, served here since {since}, still serves"


def ready_champion(version: ModelVersion, pipeline: Pipeline, contract: ModelContract) -> Champion:
    """Return the version as a champion, warmed up and examined.

    Raises:
        ModelRefusedError: as `examine`.
    """
    examine(pipeline, contract)
    return Champion(version, pipeline, served_scoring(pipeline, contract))
