"""Watches the monitor from the API, which runs all the time: no tick although there is traffic is an alert.

It also sends messages that could not be delivered before: with the monitor dead, nobody else would.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from selfheal.adapters.alerting.delivery import deliver_due_alerts
from selfheal.adapters.postgres import model_versions, ticks
from selfheal.adapters.postgres.store import with_own_connections
from selfheal.domain.monitoring.silence import MONITOR_SILENT, Pulse, Sight, Watched, monitor_alert, pulse
from serving.alerts.latch import AlertLatch

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store
    from selfheal.services.platform import Platform

logger = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 30.0
STATEMENT_SECONDS = 5.0
STOP_TIMEOUT_SECONDS = 1.0


class MonitorWatchdog:
    """Looks every `POLL_INTERVAL_SECONDS` (or MONITORING_INTERVAL, if that is shorter) in a thread of its own."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._store = with_own_connections(platform.store, 1, STATEMENT_SECONDS)
        self._interval = timedelta(seconds=platform.settings.monitoring_interval)
        self._alarm = AlertLatch(platform, MONITOR_SILENT)
        self._watched: Watched | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_SECONDS)
        self._store.close()

    def check(self, now: datetime) -> None:
        """One look; raises or clears the alert, or leaves it as it is where nothing is known."""
        sight = sight_of_monitor(self._store)
        state, self._watched = (
            (Pulse.BEATING, None) if sight is None else pulse(self._watched, sight, self._interval, now)
        )
        if state is Pulse.SILENT and sight is not None and sight.unseen_since is not None:
            self._alarm.raise_(monitor_alert(sight.unseen_since, now))
        elif state is Pulse.BEATING:
            self._alarm.clear()

    def _run(self) -> None:
        pause_seconds = min(POLL_INTERVAL_SECONDS, self._interval.total_seconds())
        while not self._stopping.wait(pause_seconds):
            try:
                self.check(datetime.now(UTC))
                deliver_due_alerts(self._platform.settings, self._store, datetime.now(UTC))
            except SQLAlchemyError:
                # Nobody can write a tick either. Once Postgres is back, the monitor gets its time again.
                self._watched = None
            except Exception:
                logger.exception("watching the monitor failed; it is tried again")
                self._watched = None


def sight_of_monitor(store: Store) -> Sight | None:
    """What is to be seen of the monitor; None while no version is in production: there is nothing to look at."""
    version = model_versions.production_version(store)
    if version is None:
        return None
    unseen_since = ticks.unseen_since(store, version.version)
    tick = ticks.latest_tick(
        store, version.version
    )  # read last: a tick that comes in between shows that the monitor works
    return Sight(None if tick is None else tick.tick_id, unseen_since)
