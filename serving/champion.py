"""The model that answers, and the task that follows promotions.

A new version is fetched, checked (digest, contract, types), loaded and warmed before one assignment swaps it in; one that
fails any of it is refused and the old one stays.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy.exc import DBAPIError

from selfheal.errors import ModelRefusedError, SelfhealError
from selfheal.store.models import production_version

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.contract import FloatArray
    from selfheal.platform import Platform
    from selfheal.records import ModelVersion

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """A loaded production version. Immutable: a request keeps the one it began with."""

    version: ModelVersion
    pipeline: Pipeline

    def probabilities(self, matrix: FloatArray) -> FloatArray:
        """Probability of class 1 for each row of the feature matrix, shape (n,)."""
        return np.asarray(self.pipeline.predict_proba(matrix)[:, 1], dtype=np.float64)


class ChampionHolder:
    """Holds the champion and keeps it the one that Postgres says is in production."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._refused_version: int | None = None
        self.current: Champion | None = None
        self.problem: str | None = None

    def refresh(self) -> None:
        """Looks once; swaps if another version is in production. Never raises for a version it has to refuse."""
        try:
            version = production_version(self._platform.store)
        except DBAPIError:
            self.problem = "Postgres does not answer: promotions are not seen"
            return
        if version is None:
            self.problem = "no version is in production yet"
            return
        if self.current is not None and self.current.version.version == version.version:
            self.current = Champion(version, self.current.pipeline)  # its stage or times may have changed
            self.problem = self._refused_version = None
            return
        try:
            self.current = self._load(version)
        except Exception as error:  # MLflow, the network, the disk, the file: whatever it is, the old version stays
            self._refuse(version, error)
        else:
            self.problem = self._refused_version = None
            logger.info("serving version %d", version.version)

    def _refuse(self, version: ModelVersion, error: Exception) -> None:
        is_ours = isinstance(error, SelfhealError)
        if self._refused_version != version.version:
            logger.error("version %d refused: %s", version.version, error, exc_info=None if is_ours else error)
        self._refused_version = version.version
        reason = str(error) if is_ours else f"{type(error).__name__}; the log says more"
        self.problem = f"version {version.version} is in production but was refused: {reason}"

    def _load(self, version: ModelVersion) -> Champion:
        champion = Champion(version, self._platform.registry.load(version))
        n_features = len(self._platform.contract.feature_names)
        (score,) = champion.probabilities(np.zeros((1, n_features)))  # the first call is slow: before anyone waits
        if not 0.0 <= score <= 1.0:
            raise ModelRefusedError(f"it gives {score} as a probability")
        return champion

    async def follow(self) -> None:
        """Looks every `champion_poll_seconds` until cancelled."""
        while True:
            await asyncio.sleep(self._platform.settings.champion_poll_seconds)
            await asyncio.to_thread(self._refresh_logged)

    def _refresh_logged(self) -> None:
        try:
            self.refresh()
        except Exception:  # the task must outlive whatever one look runs into
            logger.exception("looking for a new version failed")
            self.problem = "looking for a new version failed; the log says why"
