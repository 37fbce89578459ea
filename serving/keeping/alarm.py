"""An alert that this service raises by itself: kept in Postgres, sent out once, cleared when its cause is gone."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from selfheal.notify import notify
from selfheal.store.monitoring import SERVING, hold_alert, resolve_alert

if TYPE_CHECKING:
    from selfheal.platform import Platform
    from selfheal.records import Alert


class Alarm:
    """One kind of alert. For one thread."""

    def __init__(self, platform: Platform, kind: str) -> None:
        self._platform = platform
        self._kind = kind
        self._is_kept = False
        self._is_sent = False
        self._unkept: tuple[Alert, datetime] | None = None
        """What was raised while Postgres was away, and when first."""
        self._may_be_open = True  # raised by a process before this one

    def raise_(self, alert: Alert) -> None:
        """Sends the alert out, unless it is open already, and keeps it as soon as Postgres takes it.

        Sent even if Postgres does not answer: that may be what the alert says.
        """
        assert alert.kind == self._kind
        is_new = True
        if not self._is_kept:
            raised_at = datetime.now(UTC) if self._unkept is None else self._unkept[1]
            self._unkept = alert, raised_at
            with contextlib.suppress(SQLAlchemyError):  # tried again when it is raised again, or cleared
                is_new = self._keep()
        self._may_be_open = True
        if is_new and not self._is_sent:
            # Beside this thread: a mail server that does not answer must not hold it up.
            threading.Thread(target=notify, args=(self._platform.settings, [alert]), daemon=True).start()
        self._is_sent = True

    def clear(self) -> None:
        """Resolves the alert, if it may be open. Postgres being away, it is cleared when this is called again.

        One that could not be kept while it held is kept now: what happened should be found afterwards.
        """
        if not self._may_be_open:
            return
        try:
            self._keep()
            resolve_alert(self._platform.store, SERVING, self._kind, datetime.now(UTC))
        except SQLAlchemyError:
            return
        self._is_kept = self._is_sent = self._may_be_open = False

    def _keep(self) -> bool:
        """Writes the alert to Postgres if that is still to be done; True if it was newly opened.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if Postgres does not take it.
        """
        if self._unkept is None:
            return False
        is_new = hold_alert(self._platform.store, SERVING, None, *self._unkept)
        self._unkept, self._is_kept = None, True
        return is_new
