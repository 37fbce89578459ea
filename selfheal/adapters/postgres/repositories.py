"""Repositories of the loop in Postgres: the queries of this package, bound to one store.

Belongs here: nothing but the binding. The interfaces are in `selfheal.services.repositories`, the queries in the modules named
like what they read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from selfheal.adapters import decision_log
from selfheal.adapters.postgres import (
    alerts,
    baseline,
    decisions,
    label_delays,
    label_quarantines,
    logged_rows,
    model_versions,
    predictions,
    probations,
    promotions,
    season_memories,
    spoiled_periods,
    ticks,
    training_failures,
)
from selfheal.adapters.postgres.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.records import (
        Action,
        Alert,
        Decision,
        DriftReport,
        LabelQuarantine,
        ModelVersion,
        PerformanceReport,
        ProbationReport,
        Promotion,
        ProxyMetrics,
        SeasonMemory,
        SpoiledPeriod,
        Triage,
        Window,
    )


@dataclass(frozen=True)
class PostgresTraffic:
    """Predictions and labels (`TrafficRepository`)."""

    store: Store
    data_dir: Path

    def latest_activity(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        return predictions.latest_activity(self.store, now)

    def window_of(self, model_version: int, since: datetime, until: datetime | None = None) -> Window | None:
        return predictions.window_of(self.store, model_version, since, until)

    def time_of_nth_newest(self, model_version: int, since: datetime, until: datetime, n: int) -> datetime | None:
        return predictions.time_of_nth_newest(self.store, model_version, since, until, n)

    def proxy_metrics(self, window: Window) -> ProxyMetrics:
        return predictions.proxy_metrics(self.store, window)

    def window_rows(self, window: Window, max_rows: int, *, usable_only: bool = True) -> pd.DataFrame:
        return predictions.window_rows(self.store, window, max_rows, usable_only=usable_only)

    def newest_rows(self, window: Window, n_rows: int) -> pd.DataFrame:
        return predictions.newest_rows(self.store, window, n_rows)

    def newest_of_version(self, model_version: int, max_rows: int) -> pd.DataFrame:
        return predictions.newest_of_version(self.store, model_version, max_rows)

    def labelled_rows(self, **which: Any) -> pd.DataFrame:
        return predictions.labelled_rows(self.store, **which)

    def labelled_keys(self, **which: Any) -> pd.DataFrame:
        return predictions.labelled_keys(self.store, **which)

    def count_labels(self, *, since: datetime | None = None, sound_only: bool = False) -> tuple[int, int]:
        return predictions.count_labels(self.store, since=since, sound_only=sound_only)

    def count_labels_received_after(self, moment: datetime, **within: datetime | None) -> int:
        return predictions.count_labels_received_after(self.store, moment, **within)

    def label_delay_sample(self, model_version: int, since: datetime, until: datetime) -> pd.DataFrame:
        return label_delays.label_delay_sample(self.store, model_version, since, until)

    def record_spoiled_period(self, tick_id: str, period: SpoiledPeriod) -> None:
        spoiled_periods.record_spoiled_period(self.store, tick_id, period)

    def spoiled_periods(self, model_version: int | None = None) -> Mapping[str, SpoiledPeriod]:
        return spoiled_periods.spoiled_periods(self.store, model_version)

    def accept_spoiled_periods(self, accepted: Mapping[str, str | None]) -> None:
        spoiled_periods.accept_spoiled_periods(self.store, accepted)

    def sound_rows(self, model_version: int, since: datetime, until: datetime, max_rows: int) -> pd.DataFrame:
        return logged_rows.sound_rows(self.store, model_version, since, until, max_rows)

    def newest_labels(self, model_version: int, until: datetime, n_labels: int) -> pd.DataFrame:
        return label_quarantines.newest_labels(self.store, model_version, until, n_labels)

    def label_quarantines(self, model_version: int | None = None) -> list[LabelQuarantine]:
        return label_quarantines.label_quarantines(self.store, model_version)

    def record_label_quarantine(self, found: LabelQuarantine) -> None:
        label_quarantines.record_label_quarantine(self.store, found)

    def baseline(self) -> pd.DataFrame | None:
        return baseline.read_baseline(self.store, self.data_dir)


@dataclass(frozen=True)
class PostgresVersions:
    """Model versions, their promotions and probations (`VersionRepository`)."""

    store: Store

    def production(self) -> ModelVersion | None:
        return model_versions.production_version(self.store)

    def champion(self) -> ModelVersion:
        return model_versions.champion(self.store)

    def find(self, version: int) -> ModelVersion | None:
        return model_versions.model_version(self.store, version)

    def newest(self, limit: int = 100) -> list[ModelVersion]:
        return model_versions.list_versions(self.store, limit=limit)

    def register_staging(self, version: ModelVersion) -> None:
        model_versions.register_staging(self.store, version)

    def go_live(
        self,
        version: int,
        *,
        replaces: int | None,
        decision: Decision,
        now: datetime,
        probation_until: datetime | None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        model_versions.go_live(
            self.store,
            version,
            replaces=replaces,
            decision=decision,
            now=now,
            probation_until=probation_until,
            on_step=on_step,
        )

    def predecessor(self, version: int) -> int | None:
        return promotions.predecessor(self.store, version)

    def has_taken_effect(self, decision_id: str) -> bool:
        return promotions.has_taken_effect(self.store, decision_id)

    def rollback_of(self, version: int) -> Promotion | None:
        return promotions.rollback_of(self.store, version)

    def record_probation(self, report: ProbationReport, promoted_at: datetime, now: datetime) -> None:
        probations.record_outcome(self.store, report, promoted_at, now)

    def probation_outcome(self, version: ModelVersion) -> ProbationReport | None:
        return probations.outcome_of(self.store, version)


@dataclass(frozen=True)
class PostgresDecisions:
    """Decisions in the hash chain and as files (`DecisionRepository`)."""

    store: Store
    data_dir: Path

    def record(self, decision: Decision) -> Decision:
        return decision_log.record_decision(self.store, self.data_dir, decision)

    def find(self, decision_id: str) -> Decision | None:
        return decisions.find(self.store, decision_id)

    def newest(self, limit: int, actions: Collection[Action] = ()) -> list[Decision]:
        return decisions.recent(self.store, limit=limit, actions=actions)

    def newest_declarations(self) -> Sequence[Decision]:
        return decisions.newest_declarations(self.store)

    def attempts_of(self, episode_id: str, actions: Collection[Action]) -> list[Decision]:
        return decisions.attempts_of(self.store, episode_id, actions=actions)

    def verdicts_on(self, champion_version: int | None, since: datetime) -> list[Decision]:
        return decisions.verdicts_on(self.store, champion_version, since)

    def newest_verdict(self, champion_version: int, since: datetime) -> Decision | None:
        return decisions.newest_verdict(self.store, champion_version, since)

    def record_training_failure(self, decision_id: str, reason: str, now: datetime) -> None:
        training_failures.record_training_failure(self.store, decision_id, reason, now)

    def failed_trainings(self, decision_ids: Collection[str]) -> set[str]:
        return training_failures.failed_trainings(self.store, decision_ids)

    def write_missing_files(self) -> None:
        decision_log.write_missing_files(self.store, self.data_dir)


@dataclass(frozen=True)
class PostgresTicks:
    """Monitoring ticks (`TickRepository`)."""

    store: Store

    def record(
        self, proxy: ProxyMetrics, drift: DriftReport, performance: PerformanceReport, triage: Triage, now: datetime
    ) -> bool:
        return ticks.record_tick(self.store, proxy, drift, performance, triage, now)

    def latest(self, model_version: int, min_predictions: int = 0) -> Row[Any] | None:
        return ticks.latest_tick(self.store, model_version, min_predictions)

    def season_memory(self, model_version: int) -> SeasonMemory | None:
        return season_memories.season_memory(self.store, model_version)


@dataclass(frozen=True)
class PostgresAlerts:
    """Alerts (`AlertRepository`)."""

    store: Store

    def sync(self, triage: Triage, now: datetime) -> list[Alert]:
        return alerts.sync_alerts(self.store, triage, now)

    def open_or_update(self, source: str, model_version: int | None, alert: Alert, now: datetime) -> bool:
        return alerts.open_or_update_alert(self.store, source, model_version, alert, now)

    def resolve(self, source: str, kind: str, now: datetime) -> bool:
        return alerts.resolve_alert(self.store, source, kind, now)

    def open_alerts(self) -> Sequence[Row[Any]]:
        return alerts.list_alerts(self.store, only_open=True)
