"""A journal as the service uses it: its trouble is known, refused at once, and over by itself once there is room again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from selfheal.kit.errors import JournalUnavailableError

if TYPE_CHECKING:
    from selfheal.adapters.journal import Journal

logger = logging.getLogger(__name__)


class JournalWriter:
    """One journal and whether it takes records now.

    Args:
        journal: written by nobody else.
        interval_seconds: how often trouble is looked at anew, and `interval` records are brought to disk.
    """

    def __init__(self, journal: Journal, interval_seconds: float) -> None:
        self._journal = journal
        self._interval_seconds = interval_seconds
        self.problem: str | None = None
        """Why nothing can be acknowledged, in a sentence; None while all is well."""

    def write(self, lines: bytes) -> None:
        """Makes encoded lines durable.

        Raises:
            JournalUnavailableError: if that failed, or failed a moment ago: a full disk is not tried by each request.
        """
        if self.problem is not None:
            raise JournalUnavailableError(self.problem)
        try:
            self._journal.write(lines)
        except JournalUnavailableError as error:
            self._note(error)
            raise

    async def run(self) -> None:
        """Syncs, and tries whether trouble is over, until cancelled."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            await asyncio.to_thread(self._check)

    def close(self) -> None:
        self._journal.close()

    def _check(self) -> None:
        try:
            if self.problem is None:
                self._journal.sync()
            elif self._journal.failure is None:
                self._journal.probe()
                logger.info("the %s journal takes records again", self._journal.kind.name)
                self.problem = None
        except JournalUnavailableError as error:
            self._note(error)

    def _note(self, error: JournalUnavailableError) -> None:
        if self.problem is None:
            logger.error("the %s journal takes no records: %s", self._journal.kind.name, error)
        self.problem = str(error)
