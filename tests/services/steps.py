"""The stages strung together as the jobs do it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text

from selfheal.domain.records import Decision, GateVerdict, Triage, Trigger
from selfheal.services.platform import Platform
from selfheal.services.retraining import decide_retraining, gather_training_set, judge, train_shadow
from selfheal.services.tick import collect, compare, conclude, measure
from tests import builders


def tick(platform: Platform, now: datetime, **drift: Any) -> Triage:
    """A look at the traffic whose drift report says what the test wants (default: nothing drifted)."""
    proxy = collect(platform, now)
    assert proxy is not None, "there is no traffic to look at"
    report = builders.drift_report(window=proxy.window, **drift)
    return conclude(platform, proxy, report, measure(platform, proxy.window), now)[0]


def whole_tick(platform: Platform, now: datetime) -> Triage:
    """A tick that compares the window's columns itself."""
    proxy = collect(platform, now)
    assert proxy is not None, "there is no traffic to look at"
    drift = compare(platform, proxy.window)
    return conclude(platform, proxy, drift, measure(platform, proxy.window), now)[0]


def decide(platform: Platform, trigger: Trigger, now: datetime, episode_id: str | None = None) -> Decision:
    return decide_retraining(platform, trigger, episode_id=episode_id, actor="test", reason="asked", now=now)


def retrain(platform: Platform, decision: Decision, now: datetime) -> GateVerdict:
    rows = gather_training_set(platform, decision, None, decision.created_at)
    return judge(platform, train_shadow(platform, rows, now), rows, now)


def unmet(decision: Decision) -> set[str]:
    return {condition.name for condition in decision.conditions if not condition.is_met}


def rows_of(platform: Platform, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    with platform.store.engine.connect() as connection:
        return {table: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))] for table in tables}


# The whole loop
