"""Copies the journals to Postgres while the service runs. The journal is the truth: Postgres being away costs only lag."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from selfheal.journal import LABEL_JOURNAL, prediction_journal
from selfheal.store.ingest import ingest, lag_bytes

if TYPE_CHECKING:
    from selfheal.platform import Platform

logger = logging.getLogger(__name__)


class Sink:
    """Runs `selfheal.store.ingest` every `sink_interval_seconds`."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._kinds = (prediction_journal(platform.contract), LABEL_JOURNAL)
        self.problem: str | None = None

    async def run(self) -> None:
        """Copies until cancelled; an outage is reported once and then as a problem in `/health`."""
        while True:
            await asyncio.to_thread(self.copy_once)
            await asyncio.sleep(self._platform.settings.sink_interval_seconds)

    def copy_once(self) -> None:
        try:
            for kind in self._kinds:
                result = ingest(self._platform.store, kind, self._platform.settings.data_dir)
                for place in result.corrupt:
                    logger.error("damaged journal line left out: %s", place)
        except Exception as error:
            if self.problem is None:
                logger.error("the journal cannot be copied to Postgres: %s", error)
            reason = "Postgres does not answer" if isinstance(error, DBAPIError) else type(error).__name__
            self.problem = f"the journal is not being copied to Postgres ({reason}); nothing is lost"
        else:
            if self.problem is not None:
                logger.info("the journal is copied to Postgres again")
            self.problem = None

    def lag_bytes(self) -> int | None:
        """Bytes not copied yet; None if Postgres does not answer."""
        try:
            return sum(lag_bytes(self._platform.store, kind, self._platform.settings.data_dir) for kind in self._kinds)
        except DBAPIError:
            return None
