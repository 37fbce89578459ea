"""Following promotions: one thread that Postgres notifies, that also polls, and that survives outages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from selfheal.adapters.postgres.model_versions import PROMOTION_CHANNEL
from selfheal.adapters.postgres.notifications import Listener
from selfheal.adapters.postgres.refusals import refusal
from selfheal.adapters.postgres.store import server_url
from selfheal.kit.backoff import Backoff
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.kit.periodic_thread import PeriodicThread

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from serving.champion.holder import ChampionHolder

logger = logging.getLogger(__name__)

RECONNECT_BACKOFF = Backoff(initial_seconds=0.25, max_seconds=10.0)
"""Pauses between two attempts to reach an unavailable Postgres."""

NOT_FOLLOWED = "so promotions are not followed"
DATABASE_NOT_OURS = f"Postgres responds but its database cannot be used (see the log), {NOT_FOLLOWED}"
POLL_FAILED = f"the check for a new version failed (see the log), {NOT_FOLLOWED}"


class Follower:
    """Makes the holder's champion the version in production, from `start` to `stop`."""

    def __init__(self, platform: Platform, holder: ChampionHolder) -> None:
        self._platform = platform
        self._holder = holder
        settings = platform.settings
        self._listener = Listener(lambda: server_url(settings, settings.mlops_db_name), PROMOTION_CHANNEL)
        self._is_reached = False
        self._n_failures = 0
        self._thread = PeriodicThread("champion", self._wait_and_poll, self._pause_seconds)

    def start(self) -> None:
        """Poll once, which loads the version in production, and start the thread. Postgres may be unavailable.

        Raises:
            ConfigurationError: if Postgres responds and its database belongs to another contract.
        """
        self._poll(is_start=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; wait for a version that is being loaded."""
        self._thread.request_stop()
        self._listener.wake()
        self._thread.stop()
        self._listener.close()

    def _pause_seconds(self) -> float:
        return 0.0 if self._is_reached else RECONNECT_BACKOFF.seconds(self._n_failures)

    def _wait_and_poll(self) -> None:
        if self._is_reached:
            self._listener.wait(self._seconds_to_poll())
        if not self._thread.is_stopping:
            self._poll()

    def _seconds_to_poll(self) -> float:
        poll_seconds = self._platform.settings.champion_poll_seconds
        retry_seconds = self._holder.seconds_to_retry()
        return poll_seconds if retry_seconds is None else min(poll_seconds, retry_seconds)

    def _poll(self, *, is_start: bool = False) -> None:
        try:
            if not self._is_reached:
                self._platform.prepare()  # also after an outage, which another database may follow
            self._holder.refresh()
        except (ServiceUnavailableError, DBAPIError) as error:
            self._note_outage(f"{refusal(error)}, {NOT_FOLLOWED}", error)
        except ConfigurationError as error:
            if is_start:
                raise
            self._note_outage(DATABASE_NOT_OURS, error)
        except Exception as error:  # whatever fails in one poll, the next one is made
            self._note_outage(POLL_FAILED, error, exc_info=True)
        else:
            if not self._is_reached:
                logger.info("following promotions")
                self._listener.retry_at_once()
            self._is_reached = True
            self._n_failures = 0

    def _note_outage(self, sentence: str, error: Exception, *, exc_info: bool = False) -> None:
        if self._holder.outage != sentence:  # log it once, not at every attempt
            logger.error("%s: %s", sentence, " ".join(str(error).split()), exc_info=exc_info)
        self._is_reached = False
        self._n_failures += 1
        self._holder.note_outage(sentence)
