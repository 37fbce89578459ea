"""Predictions and labels of a replay, as they were at its moment.

Belongs here: what the queries of `selfheal.adapters.postgres.predictions` and `.label_delays` return, on the arrays of a stream:
the same rows in the same order, with the same types. A row is named by its position, from 0.

One answer differs where it may: of a window with more than `max_rows` rows Postgres draws its sample by a hash of the ids, and
this one by another. Both are simple random samples; up to `max_rows`, every answer is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import IS_LABELLED, TRUE_LABEL
from selfheal.domain.monitoring.label_delay import ROWS_PER_SLICE, sample_slices
from selfheal.domain.records import ProxyMetrics, Window
from selfheal.domain.retraining.dataset import INPUTS_KEY
from selfheal.simulate.replay.stream import BoolArray, IntArray, TimeArray

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.records import LabelQuarantine, SpoiledPeriod
    from selfheal.simulate.replay.policy import View

LABEL_SOURCE = "replay"
"""The source of a replay's labels."""

ID_BASE = UUID("00000000-0000-4000-8000-000000000000").int

IDS_REMEMBERED = 65_536
"""Ids that are remembered, some 10 MB: the rows of a window are read at every look."""


@lru_cache(maxsize=IDS_REMEMBERED)
def prediction_id_of(row: int) -> str:
    """Return the id of the prediction at a position: ids ascend with the rows, so that both order equal times alike."""
    return str(UUID(int=ID_BASE + row))


@lru_cache(maxsize=IDS_REMEMBERED)
def row_of(prediction_id: str) -> int:
    """Return the position of the prediction with an id of `prediction_id_of`."""
    return UUID(prediction_id).int - ID_BASE


def as_datetime(moment: np.datetime64) -> datetime:
    """Return a time of a stream (UTC) as the platform has it."""
    found: datetime = moment.astype("M8[us]").astype(datetime)
    return found.replace(tzinfo=UTC)


def as_moment(time: datetime) -> np.datetime64:
    """Return a time of the platform as a stream has it."""
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "us")


class MemoryTraffic:
    """Predictions and labels of a replay (`TrafficRepository`). `view` is set before each look.

    Args:
        contract: of the stream.
        index_of: returns the replay's number of a version; None if it has never been in production.
        version_of: returns the version with a replay's number.
        threshold_of: returns the threshold of the version with a replay's number.
    """

    def __init__(
        self,
        contract: ModelContract,
        index_of: Callable[[int], int | None],
        version_of: Callable[[int], int],
        threshold_of: Callable[[int], float],
    ) -> None:
        self.view: View | None = None
        self._contract = contract
        self._index_of, self._version_of, self._threshold_of = index_of, version_of, threshold_of
        self._spoiled: dict[str, SpoiledPeriod] = {}
        self._quarantines: dict[str, LabelQuarantine] = {}

    def latest_activity(self, now: datetime) -> tuple[datetime | None, datetime | None]:  # noqa: ARG002
        view = self._now()
        if view.n_rows == 0:
            return None, None
        n_arrived = int(np.searchsorted(view.log.arrivals, view.now, side="right"))
        newest = view.log.arrivals[n_arrived - 1] if n_arrived else None
        return as_datetime(view.event_time[-1]), None if newest is None else as_datetime(newest)

    def window_of(self, model_version: int, since: datetime, until: datetime | None = None) -> Window | None:
        rows = self._rows(model_version, since, until)
        if len(rows) == 0:
            return None
        arrivals = self._arrivals(rows)
        known = arrivals[~np.isnat(arrivals)]
        return Window(
            model_name=self._contract.name,
            model_version=model_version,
            start=since,
            end=as_datetime(self._now().event_time[rows[-1]]),
            n_predictions=len(rows),
            n_labels=len(known),
            last_label_at=as_datetime(known.max()) if len(known) else None,
        )

    def time_of_nth_newest(self, model_version: int, since: datetime, until: datetime, n: int) -> datetime | None:
        rows = self._rows(model_version, since, until)
        return as_datetime(self._now().event_time[rows[-n]]) if len(rows) >= n else None

    def proxy_metrics(self, window: Window) -> ProxyMetrics:
        """Return the counts and means of the window. Nobody decides by them; their last bits depend on the order of a sum."""
        rows = self._rows(window.model_version, window.start, window.end)
        if len(rows) == 0:
            return ProxyMetrics(window, None, None, None, None)
        probability = self._now().probability[rows]
        flagged = self._flagged(rows)
        return ProxyMetrics(
            window,
            positive_rate=float(flagged.mean()),
            probability_mean=float(probability.mean()),
            probability_std=float(probability.std(ddof=1)) if len(rows) > 1 else None,
            entropy=_entropy_bits(probability),
        )

    def window_rows(self, window: Window, max_rows: int, *, usable_only: bool = True) -> pd.DataFrame:
        rows = self._rows(window.model_version, window.start, window.end)
        if len(rows) > max_rows:
            order = np.argsort(_hash(rows.astype(np.uint64)), kind="stable")
            rows = np.sort(rows[order[:max_rows]])
        frame = self._predictions(rows)
        return self._usable(frame) if usable_only else frame

    def newest_rows(self, window: Window, n_rows: int) -> pd.DataFrame:
        rows = self._rows(window.model_version, window.start, window.end)
        return self._usable(self._predictions(rows[-n_rows:]))

    def newest_of_version(self, model_version: int, max_rows: int) -> pd.DataFrame:
        rows = self._rows(model_version)[-max_rows:]
        frame = self._predictions(rows)
        frame.insert(0, "prediction_id", _ids(rows))
        frame[IS_LABELLED] = (~np.isnat(self._arrivals(rows))).astype(np.int64)
        return self._usable(frame)

    def labelled_rows(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        model_version: int | None = None,
        max_rows: int,
        sound_only: bool = False,
        usable_only: bool = True,
        received_before: datetime | None = None,
    ) -> pd.DataFrame:
        rows = self._labelled(since, until, model_version, max_rows, sound_only=sound_only, before=received_before)
        frame = self._predictions(rows)
        frame.insert(0, "prediction_id", _ids(rows))
        frame["model_version"] = self._versions(rows)
        frame[TRUE_LABEL] = self._now().log.stream.label[rows].astype(np.int64)
        return self._usable(frame) if usable_only else frame

    def labelled_keys(
        self, *, since: datetime | None = None, until: datetime | None = None, max_rows: int
    ) -> pd.DataFrame:
        import pandas as pd

        rows = self._labelled(since, until, None, max_rows, sound_only=True)
        stream = self._now().log.stream
        keys = _keys([stream.columns[name][rows] for name in self._contract.input_names])
        has_keys = self._contract.equal_inputs_are_one_case
        found = pd.DataFrame(
            {
                "created_at": self._times(rows),
                TRUE_LABEL: stream.label[rows].astype(np.int64),
                INPUTS_KEY: pd.array(keys if has_keys else [None] * len(rows), dtype="Int64"),
            }
        )
        if self._contract.entity in self._contract.input_names:
            return found.assign(**{ENTITY: stream.columns[self._contract.entity][rows]})
        return self._with_entity(found, rows)

    def count_labels(self, *, since: datetime | None = None, sound_only: bool = False) -> tuple[int, int]:
        rows = self._all_rows(since, None)
        if not sound_only:
            return len(rows), int((~np.isnat(self._arrivals(rows))).sum())
        rows = rows[self._is_sound(rows)]
        return len(rows), int((~np.isnat(self._trusted_arrivals(rows))).sum())

    def count_labels_received_after(
        self, moment: datetime, *, since: datetime | None = None, until: datetime | None = None
    ) -> int:
        rows = self._all_rows(since, until)
        rows = rows[self._trusted_arrivals(rows) > as_moment(moment)]  # NaT compares as False
        return int(self._is_sound(rows).sum())

    def label_delay_sample(self, model_version: int, since: datetime, until: datetime) -> pd.DataFrame:
        import pandas as pd

        view, horizon = self._now(), as_moment(until)
        of_version = self._rows(model_version, since, until)
        times = view.event_time[of_version]
        bounds = sample_slices(since, until)
        parts = [
            of_version[start : min(stop, start + ROWS_PER_SLICE)]
            for begins, ends in bounds
            for start, stop in [np.searchsorted(times, [as_moment(begins), as_moment(ends)], side="right")]
        ]
        rows = np.concatenate(parts) if parts else of_version[:0]
        rows = rows[~self._is_withheld(rows)]
        created, arrivals = view.event_time[rows], self._arrivals(rows)
        is_known = arrivals <= horizon
        delay = np.where(is_known, _seconds(arrivals - created), np.nan)
        return pd.DataFrame(
            {
                "age_s": _seconds(horizon - created),
                "delay_s": delay,
                TRUE_LABEL: np.where(is_known, view.log.stream.label[rows].astype(np.float64), np.nan),
                "is_replaced": np.zeros(len(rows), dtype=np.bool_),
                "probability": view.probability[rows],
            }
        )

    def record_spoiled_period(self, tick_id: str, period: SpoiledPeriod) -> None:
        self._spoiled.setdefault(tick_id, period)

    def spoiled_periods(self, model_version: int | None = None) -> dict[str, SpoiledPeriod]:
        found = [pair for pair in self._spoiled.items() if model_version in {None, pair[1].model_version}]
        return dict(sorted(found, key=lambda pair: (pair[1].started_at, pair[0])))

    def accept_spoiled_periods(self, accepted: Mapping[str, str | None]) -> None:
        for tick_id, decision_id in accepted.items():
            self._spoiled[tick_id] = replace(self._spoiled[tick_id], accepted_by=decision_id)

    def sound_rows(self, model_version: int, since: datetime, until: datetime, max_rows: int) -> pd.DataFrame:
        rows = self._rows(model_version, since, until)
        rows = rows[self._is_sound(rows)][-max_rows:]
        frame = self._predictions(rows).drop(columns=["probability", "prediction"])
        frame.insert(0, "prediction_id", _ids(rows))
        return self._usable(frame)

    def newest_labels(self, model_version: int, until: datetime, n_labels: int) -> pd.DataFrame:
        import pandas as pd

        view, index = self._now(), self._index_of(model_version)
        known = view.log.by_arrival[: np.searchsorted(view.log.arrivals, as_moment(until), side="right")]
        n_looked_at = 2 * n_labels
        while True:
            rows = known[-n_looked_at:]
            rows = rows[rows < view.n_rows]
            rows = rows[(view.served_by[rows] == index) & ~np.isnat(self._arrivals(rows))]
            rows = rows[self._is_sound(rows)][-n_labels:]
            if len(rows) == n_labels or n_looked_at >= len(known):
                break
            n_looked_at *= 4
        return pd.DataFrame(
            {
                "received_at": pd.DatetimeIndex(self._arrivals(rows)).tz_localize("UTC"),
                "probability": view.probability[rows],
                TRUE_LABEL: view.log.stream.label[rows].astype(np.int64),
                "label_source": np.full(len(rows), LABEL_SOURCE, dtype=object),
            }
        )

    def label_quarantines(self, model_version: int | None = None) -> list[LabelQuarantine]:
        found = [one for one in self._quarantines.values() if model_version in {None, one.model_version}]
        return sorted(found, key=lambda one: (one.started_at, one.quarantine_id))

    def record_label_quarantine(self, found: LabelQuarantine) -> None:
        known = self._quarantines.get(found.quarantine_id)
        if known is None or known.released_at is None:
            self._quarantines[found.quarantine_id] = found

    def baseline(self) -> pd.DataFrame | None:
        """Return None: the first baseline informs people and decides nothing."""
        return None

    def _now(self) -> View:
        assert self.view is not None, "a look has a view"
        return self.view

    def _all_rows(self, since: datetime | None, until: datetime | None) -> IntArray:
        times = self._now().event_time
        start = 0 if since is None else int(np.searchsorted(times, as_moment(since), side="right"))
        stop = len(times) if until is None else int(np.searchsorted(times, as_moment(until), side="right"))
        return np.arange(start, max(start, stop))

    def _rows(self, model_version: int, since: datetime | None = None, until: datetime | None = None) -> IntArray:
        """Return the rows in (since, until] that a version has served."""
        index = self._index_of(model_version)
        rows = self._all_rows(since, until)
        return rows[:0] if index is None else rows[self._now().served_by[rows] == index]

    def _labelled(
        self,
        since: datetime | None,
        until: datetime | None,
        model_version: int | None,
        max_rows: int,
        *,
        sound_only: bool,
        before: datetime | None = None,
    ) -> IntArray:
        rows = self._all_rows(since, until) if model_version is None else self._rows(model_version, since, until)
        arrivals = self._trusted_arrivals(rows)
        rows = rows[~np.isnat(arrivals) if before is None else arrivals < as_moment(before)]
        return (rows[self._is_sound(rows)] if sound_only else rows)[-max_rows:]

    def _arrivals(self, rows: IntArray) -> TimeArray:
        """Return when the labels of rows arrived; NaT where none has until now."""
        view = self._now()
        arrivals = view.log.label_time[rows]
        return np.where(arrivals <= view.now, arrivals, np.datetime64("NaT", "us"))

    def _trusted_arrivals(self, rows: IntArray) -> TimeArray:
        """Return the arrivals without those of labels that are withheld."""
        return np.where(self._is_withheld(rows), np.datetime64("NaT", "us"), self._arrivals(rows))

    def _is_withheld(self, rows: IntArray) -> BoolArray:
        """Return which rows have a label that a quarantine withholds. A replay's labels have one source."""
        is_withheld = np.zeros(len(rows), dtype=np.bool_)
        for one in self._quarantines.values():
            if one.released_at is None:
                arrivals = self._arrivals(rows)
                is_within = arrivals >= as_moment(one.started_at)
                if one.ended_at is not None:
                    is_within &= arrivals <= as_moment(one.ended_at)
                is_withheld |= is_within & (self._now().served_by[rows] == self._index_of(one.model_version))
        return is_withheld

    def _is_sound(self, rows: IntArray) -> BoolArray:
        """Return which rows were not sent while a tick found their version's feed broken, and nobody has accepted that."""
        view = self._now()
        is_sound = np.ones(len(rows), dtype=np.bool_)
        for period in (one for one in self._spoiled.values() if one.accepted_by is None):
            index = self._index_of(period.model_version)
            times = view.event_time[rows]
            is_within = (times >= as_moment(period.started_at)) & (times <= as_moment(period.ended_at))
            is_sound &= ~(is_within & (view.served_by[rows] == index))
        return is_sound

    def _versions(self, rows: IntArray) -> IntArray:
        indices, place = np.unique(self._now().served_by[rows], return_inverse=True)
        return np.array([self._version_of(int(index)) for index in indices], dtype=np.int64)[place]

    def _flagged(self, rows: IntArray) -> BoolArray:
        view = self._now()
        indices, place = np.unique(view.served_by[rows], return_inverse=True)
        thresholds = np.array([self._threshold_of(int(index)) for index in indices], dtype=np.float64)
        return np.asarray(view.probability[rows] >= thresholds[place])

    def _times(self, rows: IntArray) -> pd.DatetimeIndex:
        import pandas as pd

        return pd.DatetimeIndex(self._now().event_time[rows].astype("M8[ns]")).tz_localize("UTC")

    def _predictions(self, rows: IntArray) -> pd.DataFrame:
        """Return `created_at`, features, `probability` and `prediction` of the rows."""
        import pandas as pd

        view = self._now()
        frame = pd.DataFrame(view.log.stream.features_at(rows), columns=list(self._contract.feature_names))
        frame.insert(0, "created_at", self._times(rows))
        frame = self._with_entity(frame, rows)
        frame["probability"] = view.probability[rows]
        frame["prediction"] = self._flagged(rows).astype(np.int64)
        return frame

    def _with_entity(self, frame: pd.DataFrame, rows: IntArray) -> pd.DataFrame:
        """Add the key of each row's entity, if the contract declares one."""
        if not self._contract.has_entity_key:
            return frame
        return frame.assign(**{ENTITY: [f"e{one}" for one in self._now().log.stream.entity[rows].tolist()]})

    def _usable(self, frame: pd.DataFrame) -> pd.DataFrame:
        usable, _ = self._contract.without_unusable(frame)
        return usable if len(usable) == len(frame) else usable.reset_index(drop=True)


def _ids(rows: IntArray) -> list[str]:
    return [prediction_id_of(row) for row in rows.tolist()]


def _seconds(spans: np.ndarray) -> FloatArray:
    """Return time spans in seconds: the float nearest to the decimal number, as Postgres has it; NaT becomes NaN."""
    micros = spans.astype("m8[us]")
    return np.where(np.isnat(micros), np.nan, micros.astype(np.int64) / 1e6)


def _entropy_bits(probability: FloatArray) -> float:
    parts = [np.where(p > 0, -p * np.log2(np.where(p > 0, p, 1.0)), 0.0) for p in (probability, 1 - probability)]
    return float(np.mean(parts[0] + parts[1]))


def _hash(values: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each value (splitmix64, Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _keys(columns: list[FloatArray]) -> IntArray:
    """Return a key of each row: equal for equal inputs, a missing value being equal to another."""
    key = np.zeros(len(columns[0]), dtype=np.uint64)
    for values in columns:
        plain = np.where(np.isnan(values), np.nan, values) + 0.0  # one bit pattern for all NaN, and for -0.0 and 0.0
        key = _hash(key ^ _hash(plain.view(np.uint64)))
    return key.view(np.int64)
