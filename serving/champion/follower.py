"""Following promotions: one thread that hears of them from Postgres, looks from time to time anyway, and outlives outages."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from sqlalchemy.exc import InterfaceError, OperationalError

from selfheal.adapters.postgres.model_versions import PROMOTION_CHANNEL
from selfheal.adapters.postgres.notifications import Listener
from selfheal.adapters.postgres.store import server_url
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from serving.champion.holder import ChampionHolder

logger = logging.getLogger(__name__)

INITIAL_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.25, 10.0
"""Between two attempts to reach a Postgres that is away; doubled from one to the next."""

POSTGRES_AWAY = "Postgres does not answer: promotions are not seen"
DATABASE_NOT_OURS = "Postgres answers but its database cannot be used (the log says why): promotions are not seen"
POLL_FAILED = "looking for a new version failed (the log says why): promotions are not seen"


class Follower:
    """Keeps the holder's champion the version in production, from `start` to `stop`."""

    def __init__(self, platform: Platform, holder: ChampionHolder) -> None:
        self._platform = platform
        self._holder = holder
        settings = platform.settings
        self._listener = Listener(lambda: server_url(settings, settings.mlops_db_name), PROMOTION_CHANNEL)
        self._is_reached = False
        self._pause_seconds = INITIAL_BACKOFF_SECONDS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)

    def start(self) -> None:
        """Looks once, waiting for a version to be loaded, and goes on in a thread. Postgres may be away.

        Raises:
            ConfigurationError: if Postgres answers and its database belongs to another contract.
        """
        self._poll(is_start=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; a version that is being loaded is waited for."""
        self._stopping.set()
        self._listener.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            if self._is_reached:
                self._listener.wait(self._seconds_to_poll())
            else:
                self._stopping.wait(self._pause_seconds)
                self._pause_seconds = min(2 * self._pause_seconds, MAX_BACKOFF_SECONDS)
            if not self._stopping.is_set():
                self._poll()

    def _seconds_to_poll(self) -> float:
        poll_seconds = self._platform.settings.champion_poll_seconds
        retry_seconds = self._holder.seconds_to_retry()
        return poll_seconds if retry_seconds is None else min(poll_seconds, retry_seconds)

    def _poll(self, *, is_start: bool = False) -> None:
        try:
            if not self._is_reached:
                self._platform.prepare()  # also after an outage: what comes back may be another database
            self._holder.refresh()
        except (ServiceUnavailableError, OperationalError, InterfaceError) as error:
            self._note_outage(POSTGRES_AWAY, error)
        except ConfigurationError as error:
            if is_start:
                raise
            self._note_outage(DATABASE_NOT_OURS, error)
        except Exception as error:  # the thread must outlive whatever one look runs into
            self._note_outage(POLL_FAILED, error, exc_info=True)
        else:
            if not self._is_reached:
                logger.info("following promotions")
                self._listener.retry_at_once()
            self._is_reached = True
            self._pause_seconds = INITIAL_BACKOFF_SECONDS

    def _note_outage(self, sentence: str, error: Exception, *, exc_info: bool = False) -> None:
        if self._holder.outage != sentence:  # once, and not at every attempt
            logger.error("%s: %s", sentence, " ".join(str(error).split()), exc_info=exc_info)
        self._is_reached = False
        self._holder.note_outage(sentence)
