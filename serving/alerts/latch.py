"""Alert latch: one kind of alert of the service, recorded and sent once, resolved when its cause is gone."""

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
"""Wait for a message sent without Postgres that is still in flight when the alert can be recorded; if it takes longer, the
message may be sent twice."""


class AlertLatch:
    """One kind of alert. For one thread.

    Args:
        records_each_call: whether each `raise_` writes to Postgres, because the message changes or another process may
            have resolved the alert meanwhile; if not, only the first one does.
    """

    def __init__(self, platform: Platform, kind: str, *, records_each_call: bool = False) -> None:
        self._platform = platform
        self._kind = kind
        self._records_each_call = records_each_call
        self._is_recorded = False
        self._unrecorded: tuple[Alert, int | None, datetime] | None = None
        """The alert that Postgres does not have yet, its version, and when it was first raised."""
        self._direct: _DirectMessage | None = None
        self._may_be_open = True  # raised by a process before this one

    def raise_(self, alert: Alert, model_version: int | None = None) -> None:
        """Record the alert as open and send it, unless that has been done.

        It is sent even if Postgres is unavailable, which may be the alert's subject. The next call that reaches Postgres
        then records it.
        """
        assert alert.kind == self._kind
        self._may_be_open = True
        if self._is_recorded and not self._records_each_call:
            return
        raised_at = datetime.now(UTC) if self._unrecorded is None else self._unrecorded[2]
        self._unrecorded = alert, model_version, raised_at
        try:
            self._record()
        except SQLAlchemyError:
            if self._direct is None:
                self._direct = _DirectMessage(self._platform, alert)

    def clear(self) -> None:
        """Resolve the alert, if it may be open. If Postgres is unavailable, the next call does it.

        An alert that could not be recorded while it was open is recorded now, so that it can be found later.
        """
        if not self._may_be_open:
            return
        try:
            self._record()
            is_resolved = resolve_alert(self._platform.store, SERVING, self._kind, datetime.now(UTC))
        except SQLAlchemyError:
            return
        self._is_recorded = self._may_be_open = False
        if is_resolved:
            deliver_in_background(self._platform.settings, self._platform.store)

    def _record(self) -> None:
        """Write the alert to Postgres if that has not been done, and send it to the channels that do not have it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if Postgres does not accept it.
        """
        if self._unrecorded is None:
            return
        alert, model_version, raised_at = self._unrecorded
        delivered_to = {} if self._direct is None else self._direct.delivered_to()
        open_or_update_alert(self._platform.store, SERVING, model_version, alert, raised_at, delivered_to)
        self._unrecorded, self._direct, self._is_recorded = None, None, True
        deliver_in_background(self._platform.settings, self._platform.store)


class _DirectMessage:
    """An alert sent without the alerts table, still in flight."""

    def __init__(self, platform: Platform, alert: Alert) -> None:
        self._delivered_to: dict[str, str] = {}
        self._thread = threading.Thread(target=self._send, args=(platform, alert), name="notify", daemon=True)
        self._thread.start()

    def _send(self, platform: Platform, alert: Alert) -> None:
        self._delivered_to = notify(platform.settings, [alert])

    def delivered_to(self) -> dict[str, str]:
        """Return which channels have it, and with which severity."""
        self._thread.join(DIRECT_TIMEOUT_SECONDS)
        return self._delivered_to
