"""Ingest worker: copies the journals to Postgres while the service runs.

The journal is the source of truth: an outage of Postgres causes only lag.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres.ingest import IngestResult, compress_copied, ingest, lag_bytes
from selfheal.adapters.postgres.journal_seals import seal_finished
from selfheal.adapters.postgres.refusals import refusal
from selfheal.domain.monitoring.unusable_values import UNUSABLE_VALUES, left_out_of_copy
from selfheal.domain.records import Alert, Severity
from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.periodic_thread import PeriodicThread
from selfheal.kit.steady_clock import boot_id
from serving.alerts.latch import AlertLatch

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store
    from selfheal.services.platform import Platform

logger = logging.getLogger(__name__)

COMPRESS_EVERY_SECONDS = 30.0
LAG_VALID_SECONDS = 15.0
"""Age after which a measured lag is no longer reported."""

STOP_TIMEOUT_SECONDS = 10.0
"""Time limit of the last pass when the service stops; the next start copies the rest."""

JOURNAL_LAG, JOURNAL_DAMAGED, LABEL_CONFLICT = "journal_lag", "journal_damaged", "label_conflict"
"""Kinds of alerts."""


class IngestWorker:
    """Copies every `ingest_interval_seconds` in one thread, and raises an alert from another thread if copying fails.

    Several worker processes share a DATA_DIR; one of them copies for all.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._kinds = (prediction_journal(platform.contract), LABEL_JOURNAL)
        self._copying = PeriodicThread("ingest", self.copy_new_lines, self._interval_seconds, self.copy_new_lines)
        # In a thread of its own: a pass that Postgres delays could not report its own delay.
        self._watching = PeriodicThread("ingest lag", self._check_lag, self._interval_seconds)
        self._folder = platform.settings.data_dir / "audit"
        self._done_path = self._folder / ".sink.done"
        """When the last complete pass of any worker began: `boot_id`, a space, and the monotonic clock in seconds."""
        self._caught_up_at = time.monotonic()
        self._lag_bytes: int | None = None
        self._compressed_at = time.monotonic()
        self._lag = AlertLatch(platform, JOURNAL_LAG)
        self._damage = AlertLatch(platform, JOURNAL_DAMAGED)
        self._conflict = AlertLatch(platform, LABEL_CONFLICT)
        self._unusable = AlertLatch(platform, UNUSABLE_VALUES, records_each_call=True)
        self._known_damage: set[str] = set()
        """Damage that the last pass found, so that it is logged once although every pass finds it again."""
        self.problem: str | None = None
        self._reason: str | None = None
        self.n_copied = 0
        self.n_damaged = 0
        self.n_torn = 0
        self.n_label_conflicts = 0
        self.n_unusable = 0

    @property
    def lag_seconds(self) -> float:
        """Seconds since the whole journal was in Postgres, as far as this process knows."""
        return max(0.0, time.monotonic() - self._caught_up_at)

    @property
    def last_lag_bytes(self) -> int | None:
        """Return the journal bytes not in Postgres after the last pass; None if it is too long ago or failed."""
        return self._lag_bytes if self.problem is None and self.lag_seconds < LAG_VALID_SECONDS else None

    def start(self) -> None:
        """Start both threads."""
        self._copying.start()
        self._watching.start()

    def stop(self) -> None:
        """Copy the last lines and end both threads; wait at most `STOP_TIMEOUT_SECONDS`."""
        give_up_at = time.monotonic() + STOP_TIMEOUT_SECONDS
        self._watching.request_stop()
        self._copying.stop(STOP_TIMEOUT_SECONDS)
        self._watching.stop(max(0.0, give_up_at - time.monotonic()))

    def lag_bytes(self, store: Store) -> int:
        """Return the bytes not copied yet.

        Raises:
            sqlalchemy.exc.DBAPIError: if Postgres does not say.
        """
        return sum(lag_bytes(store, kind, self._platform.settings.data_dir) for kind in self._kinds)

    def copy_new_lines(self) -> None:
        """Make one pass over the journals, unless another process is making one."""
        began = time.monotonic()
        try:
            with self._ingest_lock() as is_acquired:
                if is_acquired:
                    self._copy()
                    self._caught_up_at = began
                    with suppress(OSError):  # a full disk: this worker knows it all the same
                        write_atomic(self._done_path, f"{boot_id()} {began!r}".encode())
        except Exception as error:
            self._note(error)
        else:
            if self.problem is not None:
                logger.info("the journal is being copied to Postgres again")
            self.problem = self._reason = None
            with suppress(OSError, ValueError):
                self._caught_up_at = max(self._caught_up_at, self._last_pass_began())
        self._lag_bytes = self._measured_lag()

    def _measured_lag(self) -> int | None:
        """Return the bytes not copied yet; None if that cannot be said, which does not mean that they are not copied."""
        if self.problem is not None:
            return None
        try:
            return self.lag_bytes(self._platform.store)
        except Exception as error:
            logger.warning("how far the journal has been copied cannot be said: %s", error)
            return None

    def _last_pass_began(self) -> float:
        """Return when the last complete pass of any worker of this machine began, on the monotonic clock.

        Raises:
            OSError: if there was none.
            ValueError: if it was before the machine was started, or an earlier release made it.
        """
        boot, _, began = self._done_path.read_text().rpartition(" ")
        if boot != boot_id():
            raise ValueError(f"{self._done_path} was written before the machine was started")
        return min(float(began), time.monotonic())

    def _interval_seconds(self) -> float:
        return self._platform.settings.ingest_interval_seconds

    def _copy(self) -> None:
        settings, store = self._platform.settings, self._platform.store
        total = IngestResult()
        for kind in self._kinds:
            result = ingest(store, kind, settings.data_dir)
            total.corrupt += result.corrupt
            total.unusable += result.unusable
            total.n_conflicts += result.n_conflicts
            self.n_copied += result.n_new
            self.n_torn += result.n_torn
        self._check_damage(total.corrupt)
        self._check_unusable(total.unusable)
        self._check_conflicts(total.n_conflicts)
        if time.monotonic() - self._compressed_at > COMPRESS_EVERY_SECONDS:
            for kind in self._kinds:
                seal_finished(store, kind, settings.data_dir)
                compress_copied(store, kind, settings.data_dir)
            self._compressed_at = time.monotonic()

    @contextmanager
    def _ingest_lock(self) -> Iterator[bool]:
        """Yield whether this process holds the mutex of the pass, which the kernel releases when its owner ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".sink.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _note(self, error: Exception) -> None:
        if self.problem is None:
            logger.error("the journal could not be copied to Postgres: %s", error)
        is_of_postgres = isinstance(error, SQLAlchemyError | psycopg.Error)
        reason = refusal(error) if is_of_postgres else type(error).__name__
        self._reason = reason
        self.problem = f"the journal is not being copied to Postgres ({reason}); no record is lost"

    def _check_lag(self) -> None:
        lag_seconds = self.lag_seconds
        if lag_seconds > self._platform.settings.ingest_lag_alert_seconds:
            message = (
                f"The journal has not been copied to Postgres for {lag_seconds:,.0f} s, so monitoring sees no new traffic. "
                f"No record is lost. {self._why()}Check that Postgres is running and has room."
            )
            self._lag.raise_(Alert(JOURNAL_LAG, Severity.CRITICAL, message, {"lag_seconds": round(lag_seconds)}))
        elif self.problem is None:
            self._lag.clear()

    def _why(self) -> str:
        """Return what went wrong last, as a sentence and a space; nothing if a copy hangs, or another process copies."""
        return "" if self._reason is None else f"Reason: {self._reason}. "

    def _check_damage(self, found: list[str]) -> None:
        places = [place for place in found if place not in self._known_damage]
        self._known_damage = set(found)
        for place in places:
            logger.error("damaged journal line left out: %s", place)
        self.n_damaged += len(places)
        if places:
            message = f"{self.n_damaged:,} damaged journal lines were left out, the last one at {places[-1]}."
            self._damage.raise_(Alert(JOURNAL_DAMAGED, Severity.WARNING, message, {"n_lines": self.n_damaged}))
        elif self.n_damaged == 0:
            self._damage.clear()

    def _check_unusable(self, found: list[str]) -> None:
        self.n_unusable += len(found)
        if found:
            logger.warning("%d journal lines were copied without a derived value, the last: %s", len(found), found[-1])
            self._unusable.raise_(left_out_of_copy(self.n_unusable, found[-1]))
        elif self.n_unusable == 0:
            self._unusable.clear()

    def _check_conflicts(self, n_conflicts: int) -> None:
        self.n_label_conflicts += n_conflicts
        if n_conflicts:
            message = (
                f"{self.n_label_conflicts:,} labels contradict the one that counts for their prediction and have no effect. "
                "If they are right, send them again with is_correction=true."
            )
            self._conflict.raise_(
                Alert(LABEL_CONFLICT, Severity.WARNING, message, {"n_labels": self.n_label_conflicts})
            )
        elif self.n_label_conflicts == 0:
            self._conflict.clear()
