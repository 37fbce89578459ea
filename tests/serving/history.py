"""A platform's past for the reading endpoints, written by the functions with which the loop writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from selfheal.adapters.decision_log import record_decision
from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import model_versions, ticks
from selfheal.domain.records import (
    Action,
    Alert,
    Condition,
    Decision,
    GateResult,
    GateStatus,
    ProxyMetrics,
    Severity,
    Stage,
    TickRecord,
    Triage,
    Verdict,
    Window,
)
from selfheal.kit.api_keys import ALL_SCOPES, hashed_entry, new_api_key
from selfheal.kit.api_keys import Scope as ApiScope
from selfheal.services.platform import Platform, open_platform
from selfheal.services.reports.files import results_folder, save_tick
from selfheal.settings import Settings
from tests import builders

ADA, READER, SCORER = new_api_key(), new_api_key(), new_api_key()
API_KEYS = ",".join(
    hashed_entry(name, scopes, key)
    for name, scopes, key in (
        ("ada", ALL_SCOPES, ADA),
        ("reader", frozenset({ApiScope.READ}), READER),
        ("scorer", frozenset({ApiScope.SCORE}), SCORER),
    )
)

COLUMNS = (
    builders.column_drift("load_ratio", effect=0.2, is_drifted=True),
    builders.column_drift("temperature_c", effect=0.6, is_drifted=True),
    builders.column_drift("restarts"),
    builders.column_drift("probability", effect=0.4, is_drifted=True),
)


@contextmanager
def platform_of(settings: Settings) -> Iterator[Platform]:
    platform = open_platform(settings)
    try:
        yield platform
    finally:
        platform.close()


def write_past(platform: Platform, now: datetime) -> None:
    """Version 1 in production, 2 staged, 3 archived; ticks of versions 3 and 1; two open alerts and a resolved one; decisions."""
    add_version(platform, 2)
    add_version(
        platform, 3, stage=Stage.ARCHIVED, promoted_at=now - timedelta(days=5), archived_at=now - timedelta(days=4)
    )
    add_tick(platform, now - timedelta(days=4), model_version=3, verdict=Verdict.STABLE)
    add_tick(platform, now - timedelta(hours=3), alerts=[alert("dataset_drift")], has_file=False)
    add_tick(platform, now - timedelta(hours=2), verdict=Verdict.STABLE)
    add_tick(platform, now - timedelta(minutes=10), alerts=[alert("harmful_shift"), alert("feature_drift")])
    for number in range(5):
        action = Action.REJECT if number % 2 else Action.SKIP
        add_decision(platform, f"past-{number}", action)


def window_ending(at: datetime, model_version: int = 1) -> Window:
    return builders.window(model_version=model_version, start=at - timedelta(hours=24), end=at)


def add_tick(
    platform: Platform,
    at: datetime,
    *,
    model_version: int = 1,
    verdict: Verdict = Verdict.HARMFUL_SHIFT,
    alerts: Sequence[Alert] = (),
    has_file: bool = True,
) -> Triage:
    """One look of the monitor at `at`, at a window that ended then: two features drifted, AUC not estimated."""
    seen = window_ending(at, model_version)
    proxy = ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9)
    drift = builders.drift_report(
        window=seen, columns=COLUMNS, feature_drift_ratio=0.5, baseline_drifted_features=("restarts",)
    )
    performance = builders.performance(window=seen, realised=builders.score(f1=0.59), estimated_auc_roc=None)
    triage = Triage(seen, verdict, ("losing", "load_ratio drifted"), tuple(alerts), "episode")
    ticks.record_tick(platform.store, proxy, drift, performance, triage, at)
    alert_queries.sync_alerts(platform.store, triage, at)
    if has_file:
        save_tick(TickRecord(triage, proxy, drift, performance), results_folder(platform.settings.data_dir))
    return triage


def alert(kind: str, message: str = "losing") -> Alert:
    return Alert(kind, Severity.CRITICAL, message, {"brier_excess": 0.1, "estimated_auc_roc": None})


def add_version(platform: Platform, version: int, **changes: Any) -> None:
    values: dict[str, Any] = {
        "version": version,
        "stage": Stage.STAGING,
        "promoted_at": None,
        "mlflow_run_id": f"{version}",
    }
    model_versions.register_staging(platform.store, builders.model_version(**(values | changes)))


def add_decision(platform: Platform, decision_id: str, action: Action, **changes: Any) -> Decision:
    """A decision of now, with a condition and two gates."""
    values: dict[str, Any] = {
        "decision_id": decision_id,
        "created_at": datetime.now(UTC),
        "action": action,
        "champion_version": 1,
        "conditions": (Condition("cooldown", True, "no promotion in 7 days"),),
        "gates": (
            GateResult("f1_improvement", GateStatus.FAIL, 0.5, 2.0, "F1 rises by 0.5 %", -0.5, 1.5),
            GateResult("brier", GateStatus.PASS, 0.001, 0.01, "Brier is as good"),
        ),
        "data_sha256": "d" * 64,
    }
    decision = builders.decision(**(values | changes))
    return record_decision(platform.store, platform.settings.data_dir, decision)
