"""Watchdog of the monitor: the API, which always runs, raises an alert if there is traffic but no tick.

It also delivers overdue messages of alerts, which nothing else would do without the monitor.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from selfheal.adapters.alerting.delivery import deliver_due_alerts
from selfheal.adapters.postgres import model_versions, ticks
from selfheal.adapters.postgres.store import with_own_connections
from selfheal.domain.monitoring.silence import MONITOR_SILENT, Pulse, Sight, Watched, monitor_alert, pulse
from selfheal.kit.periodic_thread import PeriodicThread
from selfheal.kit.steady_clock import SteadyClock
from serving.alerts.latch import AlertLatch

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store
    from selfheal.services.platform import Platform

logger = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 30.0
STATEMENT_TIMEOUT_SECONDS = 5.0
STOP_TIMEOUT_SECONDS = 1.0


class MonitorWatchdog:
    """Checks every `POLL_INTERVAL_SECONDS` (or MONITORING_INTERVAL, if that is shorter) in a thread of its own."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._store = with_own_connections(platform.store, 1, STATEMENT_TIMEOUT_SECONDS)
        self._interval = timedelta(seconds=platform.settings.monitoring_interval)
        self._latch = AlertLatch(platform, MONITOR_SILENT)
        self._watched: Watched | None = None
        self._clock = SteadyClock()
        self._thread = PeriodicThread("monitor watchdog", self._poll, self._pause_seconds)

    def start(self) -> None:
        """Start the thread; it pauses before its first check."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, waiting at most `STOP_TIMEOUT_SECONDS`, and close the connection."""
        self._thread.stop(STOP_TIMEOUT_SECONDS)
        self._store.close()

    def check(self, now: datetime) -> None:
        """Check the monitor once: raise the alert, clear it, or leave it as it is where the state is unknown.

        Args:
            now: of a clock that is not set meanwhile; only how far two calls are apart matters.
        """
        sight = sight_of_monitor(self._store)
        state, self._watched = (
            (Pulse.BEATING, None) if sight is None else pulse(self._watched, sight, self._interval, now)
        )
        if state is Pulse.SILENT and sight is not None and sight.unseen_since is not None:
            self._latch.raise_(monitor_alert(sight.unseen_since, now))
        elif state is Pulse.BEATING:
            self._latch.clear()

    def _pause_seconds(self) -> float:
        return min(POLL_INTERVAL_SECONDS, self._interval.total_seconds())

    def _poll(self) -> None:
        try:
            self.check(self._clock.now())
            deliver_due_alerts(self._platform.settings, self._store, datetime.now(UTC))
        except SQLAlchemyError:
            # The monitor cannot write a tick either. Once Postgres is back, it gets the full time again.
            self._watched = None
        except Exception:
            logger.exception("the check of the monitor failed; it is repeated")
            self._watched = None


def sight_of_monitor(store: Store) -> Sight | None:
    """Return the newest tick and the oldest prediction after it; None while no version is in production."""
    version = model_versions.production_version(store)
    if version is None:
        return None
    unseen_since = ticks.unseen_since(store, version.version)
    tick = ticks.latest_tick(store, version.version)  # read last, so that a tick in between counts
    return Sight(None if tick is None else tick.tick_id, unseen_since)
