"""Decisions, ticks and alerts of a replay.

Belongs here: the rules of `selfheal.adapters.postgres.decisions`, `.ticks` and `.alerts` that the loop depends on, on lists.
Alerts are only kept as far as somebody would see them: nobody is notified.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from selfheal.adapters.postgres.alerts import MONITORING
from selfheal.domain.records import (
    JUDGED,
    Action,
    Alert,
    Decision,
    DriftReport,
    PerformanceReport,
    ProxyMetrics,
    SeasonMemory,
    Triage,
    Verdict,
)


class MemoryDecisions:
    """Decisions of a replay, in their order (`DecisionRepository`)."""

    def __init__(self) -> None:
        self._decisions: dict[str, Decision] = {}
        self._failed: dict[str, str] = {}

    @property
    def all(self) -> tuple[Decision, ...]:
        """Return all decisions, oldest first."""
        return tuple(self._decisions.values())

    def record(self, decision: Decision) -> Decision:
        return self._decisions.setdefault(decision.decision_id, decision)

    def find(self, decision_id: str) -> Decision | None:
        return self._decisions.get(decision_id)

    def newest(self, limit: int, actions: Collection[Action] = ()) -> list[Decision]:
        found = [one for one in reversed(self._decisions.values()) if not actions or one.action in actions]
        return found[:limit]

    def newest_declarations(self) -> list[Decision]:
        declared = [one for one in self._decisions.values() if one.declared is not None]
        newest = {(one.declared or "").removeprefix("not_"): number for number, one in enumerate(declared)}
        return [declared[number] for number in sorted(newest.values(), reverse=True)]

    def attempts_of(self, episode_id: str, actions: Collection[Action]) -> list[Decision]:
        return [one for one in self._decisions.values() if one.episode_id == episode_id and one.action in actions]

    def verdicts_on(self, champion_version: int | None, since: datetime) -> list[Decision]:
        return [
            one
            for one in self._decisions.values()
            if one.champion_version == champion_version and one.action in JUDGED and one.created_at >= since
        ]

    def newest_verdict(self, champion_version: int, since: datetime) -> Decision | None:
        return next(reversed(self.verdicts_on(champion_version, since)), None)

    def record_training_failure(self, decision_id: str, reason: str, now: datetime) -> None:  # noqa: ARG002
        self._failed.setdefault(decision_id, reason)

    def failed_trainings(self, decision_ids: Collection[str]) -> set[str]:
        return {one for one in decision_ids if one in self._failed}

    def write_missing_files(self) -> None:
        """Do nothing: a replay's decisions have no files."""


@dataclass(frozen=True, slots=True)
class MemoryTick:
    """What the loop needs of a tick (`TickRow`)."""

    tick_id: str
    verdict: str
    episode_id: str | None
    window_end: datetime
    num_drifted_features: int
    n_predictions: int


class MemoryTicks:
    """Monitoring ticks of a replay (`TickRepository`), by version."""

    def __init__(self) -> None:
        self._ticks: dict[int, dict[str, MemoryTick]] = {}
        self._seasons: dict[int, SeasonMemory] = {}

    @property
    def all(self) -> tuple[MemoryTick, ...]:
        """Return all ticks: those of one version after those of another, oldest first."""
        return tuple(tick for of_version in self._ticks.values() for tick in of_version.values())

    def record(
        self,
        proxy: ProxyMetrics,  # noqa: ARG002
        drift: DriftReport,
        performance: PerformanceReport,  # noqa: ARG002
        triage: Triage,
        now: datetime,  # noqa: ARG002
    ) -> bool:
        window = triage.window
        ticks = self._ticks.setdefault(window.model_version, {})
        if window.tick_id in ticks:
            return False
        if drift.seasons is not None:
            known = self._seasons.get(window.model_version)
            if known is None or known.tick_id == drift.seasons.tick_id:
                self._seasons[window.model_version] = replace(drift.seasons, tick_id=window.tick_id)
        ticks[window.tick_id] = MemoryTick(
            window.tick_id,
            triage.verdict.value,
            triage.episode_id,
            window.end,
            len(drift.drifted_features),
            window.n_predictions,
        )
        return True

    def latest(self, model_version: int, min_predictions: int = 0) -> MemoryTick | None:
        ticks = self._ticks.get(model_version, {})
        return next((tick for tick in reversed(ticks.values()) if tick.n_predictions >= min_predictions), None)

    def season_memory(self, model_version: int) -> SeasonMemory | None:
        return self._seasons.get(model_version)


@dataclass(frozen=True, slots=True)
class MemoryAlert:
    """An open alert (`AlertRow`)."""

    source: str
    model_version: int | None
    alert: Alert
    episode_id: str | None
    created_at: datetime
    acknowledged_at: None = None

    @property
    def kind(self) -> str:
        """Return the kind of the alert."""
        return self.alert.kind

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Return the numbers of the alert."""
        return self.alert.metrics


class MemoryAlerts:
    """Open alerts of a replay (`AlertRepository`)."""

    def __init__(self) -> None:
        self._open: list[MemoryAlert] = []

    def sync(self, triage: Triage, now: datetime) -> list[Alert]:
        current = {alert.kind: alert for alert in triage.alerts}
        version = triage.window.model_version
        kept: list[MemoryAlert] = []
        going_on: set[str] = set()
        for row in self._open:
            if row.source != MONITORING:
                kept.append(row)
                continue
            is_about_this = row.model_version == version and (
                row.episode_id is None or triage.episode_id is None or row.episode_id == triage.episode_id
            )
            alert = current.get(row.kind) if is_about_this else None
            if alert is not None:
                kept.append(replace(row, alert=alert, episode_id=row.episode_id or triage.episode_id))
                going_on.add(row.kind)
            elif is_about_this and triage.verdict is Verdict.INSUFFICIENT:
                kept.append(row)
        opened = [alert for kind, alert in current.items() if kind not in going_on]
        self._open = kept + [MemoryAlert(MONITORING, version, alert, triage.episode_id, now) for alert in opened]
        return opened

    def open_or_update(self, source: str, model_version: int | None, alert: Alert, now: datetime) -> bool:
        for number, row in enumerate(self._open):
            if (row.source, row.kind, row.model_version) == (source, alert.kind, model_version):
                self._open[number] = replace(row, alert=alert)
                return False
        self._open.append(MemoryAlert(source, model_version, alert, None, now))
        return True

    def resolve(self, source: str, kind: str, now: datetime) -> bool:  # noqa: ARG002
        n_before = len(self._open)
        self._open = [row for row in self._open if (row.source, row.kind) != (source, kind)]
        return len(self._open) < n_before

    def open_alerts(self) -> list[MemoryAlert]:
        return self._open[::-1]
