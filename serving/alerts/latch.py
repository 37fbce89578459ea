"""An alert that this service raises by itself: kept in Postgres, sent out once, cleared when its cause is gone."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from selfheal.adapters.alerting.delivery import deliver_in_background, notify
from selfheal.adapters.postgres.alerts import SERVING, open_or_update_alert, resolve_alert

if TYPE_CHECKING:
    from selfheal.domain.records import Alert
    from selfheal.services.platform import Platform

DIRECT_TIMEOUT_SECONDS = 1.0
"""For a message past Postgres that is still on its way when the alert can be kept; if it takes longer it may go twice."""


class AlertLatch:
    """One kind of alert. For one thread."""

    def __init__(self, platform: Platform, kind: str) -> None:
        self._platform = platform
        self._kind = kind
        self._is_kept = False
        self._unkept: tuple[Alert, datetime] | None = None
        """What was raised while Postgres was away, and when first."""
        self._direct: _Direct | None = None
        self._may_be_open = True  # raised by a process before this one

    def raise_(self, alert: Alert) -> None:
        """Keeps the alert, unless it is open already, as soon as Postgres takes it, and sends it out.

        Sent even if Postgres does not answer: that may be what the alert says.
        """
        assert alert.kind == self._kind
        self._may_be_open = True
        if self._is_kept:
            return
        raised_at = datetime.now(UTC) if self._unkept is None else self._unkept[1]
        self._unkept = alert, raised_at
        try:
            self._keep()
        except SQLAlchemyError:  # tried again when it is raised again, or cleared
            if self._direct is None:
                self._direct = _Direct(self._platform, alert)

    def clear(self) -> None:
        """Resolves the alert, if it may be open. Postgres being away, it is cleared when this is called again.

        One that could not be kept while it held is kept now: what happened should be found afterwards.
        """
        if not self._may_be_open:
            return
        try:
            self._keep()
            is_resolved = resolve_alert(self._platform.store, SERVING, self._kind, datetime.now(UTC))
        except SQLAlchemyError:
            return
        self._is_kept = self._may_be_open = False
        if is_resolved:
            deliver_in_background(self._platform.settings, self._platform.store)

    def _keep(self) -> None:
        """Writes the alert to Postgres if that is still to be done, and has it sent to those who have not heard of it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if Postgres does not take it.
        """
        if self._unkept is None:
            return
        delivered_to = {} if self._direct is None else self._direct.delivered_to()
        open_or_update_alert(self._platform.store, SERVING, None, *self._unkept, delivered_to)
        self._unkept, self._direct, self._is_kept = None, None, True
        deliver_in_background(self._platform.settings, self._platform.store)


class _Direct:
    """A message past Postgres, on its way."""

    def __init__(self, platform: Platform, alert: Alert) -> None:
        self._delivered_to: dict[str, str] = {}
        self._thread = threading.Thread(target=self._send, args=(platform, alert), name="notify", daemon=True)
        self._thread.start()

    def _send(self, platform: Platform, alert: Alert) -> None:
        self._delivered_to = notify(platform.settings, [alert])

    def delivered_to(self) -> dict[str, str]:
        self._thread.join(DIRECT_TIMEOUT_SECONDS)
        return self._delivered_to
