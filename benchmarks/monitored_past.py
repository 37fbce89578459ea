"""Synthetic history of the monitor: rows and files of ticks as the loop would have written them.

The last 30 days contain a calm time, an hour without enough traffic, a broken feed, a drift that becomes harmful, a rejected and
a promoted challenger, another calm time, and a benign shift that continues. The platform needs version 1 in production and
version 2 staged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import insert

from selfheal.adapters.decision_log import record_decision
from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import model_versions
from selfheal.adapters.postgres import ticks as tick_queries
from selfheal.domain.records import (
    Action,
    Alert,
    ColumnDrift,
    Condition,
    Decision,
    DriftReport,
    Estimate,
    GateResult,
    GateStatus,
    Interval,
    Onset,
    PerformanceReport,
    ProxyMetrics,
    ScoreMetrics,
    Severity,
    TickRecord,
    Triage,
    Verdict,
    Window,
)
from selfheal.services.reports.files import results_folder, save_tick

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract
    from selfheal.services.platform import Platform

DAYS = 30
LOOKBACK = timedelta(hours=24)
PROMOTED_DAYS_AGO, REJECTED_DAYS_AGO, CHANGED_DAYS_AGO = 9.0, 11.0, 14.0
THRESHOLD = 1e-6
ROWS_PER_INSERT = 1_000

GATES = (
    GateResult("f1_improvement", GateStatus.PASS, 7.9, 2.0, "F1 0.603 -> 0.651 (+7.9 %, 2 % wanted)", 2.1, 13.6, 612),
    GateResult("brier_degradation", GateStatus.PASS, -0.012, 0.01, "Brier score 0.1320 -> 0.1200", -0.017, -0.006, 612),
    GateResult(
        "labelled_samples", GateStatus.PASS, 612.0, 200.0, "612 labelled evaluation rows, 200 wanted", n_rows=612
    ),
    GateResult("label_coverage", GateStatus.PASS, 61.0, 30.0, "61 % of the predictions are labelled", n_rows=2_040),
    GateResult("recall", GateStatus.PASS, 0.71, 0.3, "recall 0.710 of 148 true events, 0.3 wanted", 0.63, 0.78, 148),
    GateResult("auc_roc", GateStatus.PASS, 0.871, 0.72, "AUC-ROC 0.871, 0.72 wanted", 0.84, 0.9, 612),
    GateResult("segments", GateStatus.NOT_APPLICABLE, -0.004, 0.0, "nowhere worse for certain", -0.03, 0.02, 612),
    GateResult("shadow_scoring", GateStatus.PASS, 0.94, None, "agrees on 94.0 % of live rows", 0.93, 0.95, 2_000),
)


@dataclass(frozen=True)
class Chapter:
    """A period that starts some days ago. The drift's `strength` changes over the period from the first value to the second."""

    days_ago: float
    verdict: Verdict
    strength: tuple[float, float] = (0.0, 0.0)


STORY = (
    Chapter(30.0, Verdict.STABLE),
    Chapter(25.0, Verdict.INSUFFICIENT),
    Chapter(24.8, Verdict.STABLE),
    Chapter(20.0, Verdict.BROKEN_FEED, (0.3, 0.3)),
    Chapter(19.7, Verdict.STABLE),
    Chapter(14.0, Verdict.BENIGN_SHIFT, (0.06, 0.25)),
    Chapter(11.5, Verdict.HARMFUL_SHIFT, (0.25, 0.55)),
    Chapter(PROMOTED_DAYS_AGO, Verdict.STABLE),
    Chapter(2.0, Verdict.BENIGN_SHIFT, (0.06, 0.3)),
)


def write_monitored_past(platform: Platform, now: datetime, every: timedelta) -> int:
    """Write 30 days of ticks, their files, decisions, version 2 live for 9 days, and three alerts; return the number of ticks."""
    folder = results_folder(platform.settings.data_dir)
    ticks = [_tick(platform.contract, days_ago, now) for days_ago in _moments(every)]
    values = [
        tick_queries.tick_values(tick.proxy, tick.drift, tick.performance, tick.triage, tick.triage.window.end)
        for tick in ticks
    ]
    with platform.store.engine.begin() as connection:
        for first in range(0, len(values), ROWS_PER_INSERT):
            connection.execute(
                insert(platform.store.tables.monitoring_metrics), values[first : first + ROWS_PER_INSERT]
            )
    for tick in ticks:
        save_tick(tick, folder)
    _decide(platform, now)
    _alert(platform, ticks, now)
    return len(ticks)


def _moments(every: timedelta) -> list[float]:
    """Return the ticks' ages in days, oldest first; the last one is 0."""
    step = every / timedelta(days=1)
    return [place * step for place in range(round(DAYS / step) - 1, -1, -1)]


def _chapter(days_ago: float) -> tuple[Chapter, float]:
    """Return the period at that time, and the drift's strength."""
    which = max(place for place, chapter in enumerate(STORY) if chapter.days_ago >= days_ago)
    chapter = STORY[which]
    end = STORY[which + 1].days_ago if which + 1 < len(STORY) else 0.0
    share = (chapter.days_ago - days_ago) / (chapter.days_ago - end)
    return chapter, chapter.strength[0] + share * (chapter.strength[1] - chapter.strength[0])


def _tick(contract: ModelContract, days_ago: float, now: datetime) -> TickRecord:
    chapter, strength = _chapter(days_ago)
    end = now - timedelta(days=days_ago)
    version = 1 if days_ago > PROMOTED_DAYS_AGO else 2
    rng = np.random.default_rng(round(days_ago * 288))
    is_sufficient = chapter.verdict is not Verdict.INSUFFICIENT
    window = Window(contract.name, version, end - LOOKBACK, end, 4_000 if is_sufficient else 40, 1_600)
    columns = _columns(contract, strength, rng) if is_sufficient else ()
    n_drifted = sum(column.is_drifted for column in columns if column.column != "probability")
    ratio = n_drifted / len(contract.feature_names) if is_sufficient else None
    drift = DriftReport(window, version, 5_000, 4_000, columns, ratio, strength > 0.4, is_sufficient)
    wave = 0.01 * math.sin(days_ago * 2) + 0.004 * float(rng.normal())
    proxy = ProxyMetrics(window, 0.2 + wave + strength / 4, 0.24 + wave + strength / 5, 0.19 + wave, 0.6 + wave)
    reasons = tuple(f"{name} drifted" for name in drift.drifted_features) or ("no column has drifted",)
    performance = _performance(window, strength, wave)
    episode = f"episode-{chapter.days_ago:g}" if chapter.verdict.is_shift else None
    return TickRecord(Triage(window, chapter.verdict, reasons, (), episode), proxy, drift, performance)


def _columns(contract: ModelContract, strength: float, rng: np.random.Generator) -> tuple[ColumnDrift, ...]:
    """Return columns of which the first, third, ... drift, each less than the one before."""
    names = [*contract.feature_names, "probability"]
    effects = [strength / (1 + place / 3) if place % 2 == 0 else 0.0 for place in range(len(names))]
    noisy = [effect + abs(float(rng.normal(0, 0.012))) for effect in effects]
    return tuple(
        ColumnDrift(name, "ks", 1e-12 if effect > 0.05 else 0.4, THRESHOLD, effect, effect > 0.05, 0.0, 0.0, False)
        for name, effect in zip(names, noisy, strict=True)
    )


def _performance(window: Window, strength: float, wave: float) -> PerformanceReport:
    loss = strength if window.model_version == 1 else 0.0
    values = {
        "f1": 0.62 - 0.25 * loss + wave,
        "auc_roc": 0.87 - 0.22 * loss + wave,
        "brier": 0.118 + 0.06 * loss - wave,
    }
    around = {name: Interval(value - 0.025, value + 0.025) for name, value in values.items()}
    estimated = {
        name: 0.4 * value + 0.6 * {"f1": 0.62, "auc_roc": 0.87, "brier": 0.118}[name] for name, value in values.items()
    }
    bands = {name: Interval(value - 0.04, value + 0.04) for name, value in estimated.items()}
    score = ScoreMetrics(1_600, 320, precision=0.6, recall=0.62, **values)
    return PerformanceReport(
        window=window,
        reference=score,
        realised=score,
        brier_excess=0.06 * loss,
        brier_excess_low=0.05 * loss - 0.01,
        estimated_f1=estimated["f1"],
        estimated_auc_roc=estimated["auc_roc"],
        estimated_brier=estimated["brier"],
        label_coverage_pct=40.0,
        realised_intervals=around,
        estimate=Estimate(estimated, bands, True, True, "on calibrated scores", 5_000),
    )


def _decide(platform: Platform, now: datetime) -> None:
    rejected = (
        GateResult("f1_improvement", GateStatus.FAIL, 0.6, 2.0, "F1 +0.6 %, 2 % wanted", -3.1, 4.2, 402),
        *GATES[1:],
    )
    store, data_dir = platform.store, platform.settings.data_dir
    at = now - timedelta(days=REJECTED_DAYS_AGO)
    reject = _decision(platform, "rejected", at, Action.REJECT, "failed: f1_improvement", gates=rejected, attempt=1)
    record_decision(store, data_dir, reject)
    at = now - timedelta(days=PROMOTED_DAYS_AGO)
    changed = now - timedelta(days=CHANGED_DAYS_AGO)
    promote = _decision(
        platform,
        "promoted",
        at,
        Action.PROMOTE,
        "all applicable gates passed",
        gates=GATES,
        attempt=2,
        onset=Onset(
            changed, changed - timedelta(hours=9), changed + timedelta(hours=14), 0.001, "load_ratio", 31_400, 2_040
        ),
    )
    model_versions.go_live(store, 2, replaces=1, decision=promote, now=at, probation_until=now + timedelta(days=1))
    skip = _decision(platform, "skipped", now - timedelta(days=1), Action.SKIP, "the shift does no harm so far")
    record_decision(store, data_dir, skip)


def _decision(
    platform: Platform,
    decision_id: str,
    at: datetime,
    action: Action,
    reason: str,
    gates: tuple[GateResult, ...] = (),
    attempt: int = 0,
    onset: Onset | None = None,
) -> Decision:
    return Decision(
        decision_id=decision_id,
        created_at=at,
        model_name=platform.contract.name,
        trigger_reason="drift",
        action=action,
        reason=reason,
        actor="drift_sensor",
        champion_version=1 if gates else 2,
        challenger_version=2 if gates else None,
        episode_id="episode-14" if gates else "episode-2",
        attempt=attempt,
        n_labels=2_040,
        conditions=(
            Condition("cooldown", True, "no promotion in 7 days"),
            Condition("labelled_samples", True, "2,040 labels, 200 wanted"),
        ),
        gates=gates,
        data_sha256="d" * 64,
        model_sha256="a" * 64,
        onset=onset,
    )


def _alert(platform: Platform, ticks: list[TickRecord], now: datetime) -> None:
    """Write two resolved alerts and an open one."""
    harmful = next(tick.triage for tick in ticks if tick.triage.verdict is Verdict.HARMFUL_SHIFT)
    calm = next(t.triage for t in ticks if t.triage.window.model_version == 2)
    alerts = (
        Alert("harmful_shift", Severity.CRITICAL, "realised Brier score is 0.028 worse than announced"),
        Alert("dataset_drift", Severity.WARNING, "half of the features have drifted"),
    )
    open_since, closed = harmful.window.end, calm.window.end
    alert_queries.sync_alerts(platform.store, _with_alerts(harmful, alerts), open_since)
    alert_queries.sync_alerts(platform.store, calm, closed)
    shift = Alert("feature_drift", Severity.WARNING, "the share of drifted features is above 20 %: look at the inputs")
    alert_queries.sync_alerts(platform.store, _with_alerts(ticks[-1].triage, (shift,)), now - timedelta(hours=7))


def _with_alerts(triage: Triage, alerts: tuple[Alert, ...]) -> Triage:
    return Triage(triage.window, triage.verdict, triage.reasons, alerts, triage.episode_id)
