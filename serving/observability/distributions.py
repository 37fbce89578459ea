"""Distributions: the columns of the newest tick's window beside the reference, for a chart. Cached per tick."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfheal.adapters.postgres import model_versions, predictions, ticks
from selfheal.domain.monitoring.drift import PROBABILITY
from selfheal.domain.monitoring.histogram import Distribution, bars_of
from selfheal.domain.records import Window
from selfheal.services.reports.files import read_tick, results_folder
from serving.schemas.problems import ProblemError

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Row

    from selfheal.adapters.postgres.store import Store
    from selfheal.domain.features import Kind
    from selfheal.domain.records import ColumnDrift, ModelVersion
    from selfheal.services.platform import Platform

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparedColumn:
    """One column.

    `bars` is None if no value is known on either side, `drift` if the tick did not compare or this host lacks its file.
    """

    bars: Distribution | None
    drift: ColumnDrift | None
    reference_missing_pct: float
    current_missing_pct: float


@dataclass(frozen=True)
class ComparedWindow:
    """All columns of a tick's window (the rows that the tick compared) and of its version's reference."""

    tick: Row[Any]
    n_reference: int
    n_current: int
    columns: Mapping[str, ComparedColumn]


class Distributions:
    """Reads the rows of a tick once for all callers and columns. For the threads of the read pool."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._cached: ComparedWindow | None = None

    def latest(self, store: Store) -> ComparedWindow | None:
        """Return the latest compared window of the version in production; None before its first tick.

        Raises:
            ProblemError: 503 if its reference cannot be read.
        """
        version = model_versions.production_version(store)
        tick = None if version is None else ticks.latest_tick(store, version.version)
        if version is None or tick is None:
            return None
        with self._lock:
            if self._cached is None or self._cached.tick.tick_id != tick.tick_id:
                self._cached = self._compare(store, version, tick)
            return self._cached

    def _compare(self, store: Store, version: ModelVersion, tick: Row[Any]) -> ComparedWindow:
        window = Window(
            model_name=tick.model_name,
            model_version=tick.model_version,
            start=tick.window_start,
            end=tick.window_end,
            n_predictions=tick.n_predictions,
            n_labels=tick.n_labels,
        )
        current = predictions.window_rows(store, window, self._platform.settings.monitoring_max_rows)
        reference = self._reference(version)
        names = [*self._platform.contract.feature_names, PROBABILITY]
        drift = self._drift(tick)
        kinds = self._platform.contract.kinds
        columns = {
            name: _compared(current, reference, name, kinds.get(name, "float"), drift.get(name)) for name in names
        }
        return ComparedWindow(tick, len(reference), len(current), columns)

    def _drift(self, tick: Row[Any]) -> Mapping[str, ColumnDrift]:
        record = read_tick(results_folder(self._platform.settings.data_dir), tick.window_end, tick.tick_id)
        return {} if record is None else {column.column: column for column in record.drift.columns}

    def _reference(self, version: ModelVersion) -> pd.DataFrame:
        try:
            return self._platform.registry.reference(version)
        except Exception as error:  # MLflow, the network or the file: in any case there is nothing to compare with
            logger.warning("the reference data of version %d cannot be read: %s", version.version, error)
            detail = f"the reference data of version {version.version} cannot be read now; see the service's log"
            raise ProblemError(503, "reference_unavailable", detail, retry_after_seconds=60) from None


def _compared(
    current: pd.DataFrame, reference: pd.DataFrame, name: str, kind: Kind, drift: ColumnDrift | None
) -> ComparedColumn:
    """Compare one column. A feature that the reference does not have is missing in all of its rows."""
    now, then = (frame.reindex(columns=[name])[name] for frame in (current, reference))
    return ComparedColumn(bars_of(now, then, kind), drift, _missing_pct(then), _missing_pct(now))


def _missing_pct(column: pd.Series) -> float:
    return round(100.0 * float(column.isna().mean()), 2) if len(column) else 0.0
