"""The model that answers: how a version comes to be the champion, and what is told if it may not.

A new version is fetched, checked (digest, contract, types), loaded, warmed and examined before one assignment swaps it
in; one that fails any of it is refused, an alert is raised, and the old one stays. When to look is `serving.champion.follower`'s.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from selfheal.adapters.alerting.delivery import deliver_in_background
from selfheal.adapters.postgres.alerts import SERVING, open_or_update_alert, resolve_alert
from selfheal.adapters.postgres.model_versions import production_version
from selfheal.domain.model.examination import examine
from selfheal.domain.model.plain_scoring import plain_scoring
from selfheal.domain.records import Alert, Severity
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
"""Champions kept in memory: a rollback swaps the previous one back without loading anything."""

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 60.0
"""Pause before a refused version is tried again (its file may have been out of reach); doubled from one to the next."""


@dataclass(frozen=True)
class Champion:
    """A loaded version. Immutable: a request keeps the one it began with."""

    version: ModelVersion
    pipeline: Pipeline
    probabilities: Callable[[FloatArray], FloatArray]
    """Probability of class 1 for each row of a feature matrix, shape (n,)."""

    def is_same_model(self, version: ModelVersion) -> bool:
        """Whether the version is what is loaded here; its stage and times may differ."""
        return all(getattr(self.version, name) == getattr(version, name) for name in IDENTITY)


IDENTITY = ("model_name", "version", "artifact_sha256", "contract_hash", "threshold")
"""What makes a version this version, in a record of it."""


@dataclass(frozen=True)
class Refusal:
    """A version that was refused, why, and when (monotonic clock) it is tried again."""

    version: ModelVersion
    reason: str
    n_tries: int
    retry_at: float


class ChampionHolder:
    """Holds the champion and makes it the one that Postgres says is in production. One thread refreshes, any reads."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._loaded: list[Champion] = []  # the latest first
        self._refusal: Refusal | None = None
        self._told: Refusal | None = None
        self._may_have_alert = True  # of a process before this one
        self._has_tried_remembered = False
        self._has_no_production = False
        self._served_since: datetime | None = None
        self.outage: str | None = None
        self.current: Champion | None = None

    @property
    def problem(self) -> str | None:
        """What a person should know, in a sentence; None if the version in production is served and followed."""
        if self.outage is not None:
            return f"{self.outage}; {self._what_answers()}"
        if self._refusal is not None:
            refused = f"version {self._refusal.version.version} is in production but was refused"
            return f"{refused}: {self._refusal.reason}; {self._what_answers()}"
        if self._has_no_production:
            return "no version is in production yet"
        return None if self.current is not None else "no version has been loaded yet"

    def refresh(self) -> None:
        """Looks once; swaps if another version is in production. Never raises for a version it has to refuse.

        Raises:
            sqlalchemy.exc.DBAPIError: if Postgres does not answer; what is served stays.
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
        self._tell()

    def note_outage(self, reason: str) -> None:
        """Postgres is away. What was loaded answers on; after a start, what this machine served last."""
        self.outage = reason
        if self.current is None:
            self._serve_remembered()

    def seconds_to_retry(self) -> float | None:
        """Until a refused version is tried again; None if there is none."""
        return None if self._refusal is None else max(0.0, self._refusal.retry_at - time.monotonic())

    def _is_due(self, version: ModelVersion) -> bool:
        refusal = self._refusal
        return refusal is None or refusal.version != version or time.monotonic() >= refusal.retry_at

    def _try(self, version: ModelVersion) -> None:
        try:
            champion = self._load(version)
        except Exception as error:  # MLflow, the network, the disk, the file: whatever it is, the old version stays
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
            logger.warning("version %d will not be known to a start without Postgres: %s", version.version, error)

    def _serve_remembered(self) -> None:
        """After a start: serves what this machine served last, if its file is still here and still passes."""
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
                logger.error("version %d of this machine's cache was refused: %s", version.version, error)
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
        reason = str(error) if is_ours else f"{type(error).__name__}; the log says more"
        pause_seconds = min(FIRST_RETRY_SECONDS * 2 ** (n_tries - 1), LONGEST_RETRY_SECONDS)
        self._refusal = Refusal(version, reason, n_tries, time.monotonic() + pause_seconds)

    def _tell(self) -> None:
        """Holds the alert while a version is refused, and resolves it once another one, or this one, is served."""
        if self._refusal is not None:
            self._may_have_alert = True
            if self._told is not self._refusal:
                self._hold(self._refusal)
                self._told = self._refusal
        elif self._may_have_alert and self.current is not None:
            resolve_alert(self._platform.store, SERVING, MODEL_REFUSED, datetime.now(UTC))
            self._may_have_alert = False

    def _hold(self, refusal: Refusal) -> None:
        number = refusal.version.version
        answers = "nothing answers" if self.current is None else f"version {self.current.version.version} answers on"
        message = f"Version {number} is in production but was refused: {refusal.reason}; {answers}."
        alert = Alert(MODEL_REFUSED, Severity.CRITICAL, message, {"model_version": number})
        if open_or_update_alert(self._platform.store, SERVING, number, alert, datetime.now(UTC)):
            deliver_in_background(self._platform.settings, self._platform.store)

    def _what_answers(self) -> str:
        current = self.current
        if current is None:
            return "nothing can be scored"
        return (
            f"version {current.version.version}, served here since {self._served_since:%Y-%m-%d %H:%M:%S} UTC, answers"
        )


def ready_champion(version: ModelVersion, pipeline: Pipeline, contract: ModelContract) -> Champion:
    """The version as a champion, warmed and examined.

    Raises:
        ModelRefusedError: as `examine`.
    """
    examine(pipeline, contract)
    return Champion(version, pipeline, plain_scoring(pipeline, contract.matrix(contract.probe_rows())))
