"""A journal and its health: while it cannot be written, records are refused at once; it recovers by itself."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from selfheal.kit.errors import JournalUnavailableError

if TYPE_CHECKING:
    from selfheal.adapters.journal import Journal

logger = logging.getLogger(__name__)


class JournalWriter:
    """Writes one journal and tracks whether it can be written.

    Args:
        journal: the journal, which must have no other writer.
        interval_seconds: how often a failed journal is tried again, and how often it is synced under
            JOURNAL_FSYNC=interval.
    """

    def __init__(self, journal: Journal, interval_seconds: float) -> None:
        self._journal = journal
        self._interval_seconds = interval_seconds
        self.problem: str | None = None
        """Why nothing can be acknowledged, in a sentence; None if records can be written."""

    def write(self, lines: bytes) -> None:
        """Make encoded lines durable.

        Raises:
            JournalUnavailableError: if that fails, or failed recently, because not every request tries a full disk again.
        """
        if self.problem is not None:
            raise JournalUnavailableError(self.problem)
        try:
            self._journal.write(lines)
        except JournalUnavailableError as error:
            self._note(error)
            raise

    async def run(self) -> None:
        """Sync the journal, or try whether it can be written again, until cancelled."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            await asyncio.to_thread(self._check)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _check(self) -> None:
        try:
            if self.problem is None:
                self._journal.sync()
            elif self._journal.failure is None:
                self._journal.probe()
                logger.info("the %s journal can be written again", self._journal.kind.name)
                self.problem = None
        except JournalUnavailableError as error:
            self._note(error)

    def _note(self, error: JournalUnavailableError) -> None:
        if self.problem is None:
            logger.error("the %s journal cannot be written: %s", self._journal.kind.name, error)
        self.problem = str(error)
