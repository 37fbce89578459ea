"""The state for the dashboard's first screen, from Postgres, worded by `selfheal.services.status`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import model_versions, probations, ticks
from selfheal.domain.records import ProbationOutcome, Severity
from selfheal.services.status import facts_for, probation_sentence, state_of
from serving.schemas.dashboard import CallerInfo, Overview
from serving.schemas.responses import MonitoringStats, version_info

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store
    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform
    from serving.security.auth import Caller

MAX_ALERTS = 500


def overview(
    platform: Platform, stats: MonitoringStats, caller: Caller, *, asks_for_keys: bool, now: datetime
) -> Overview:
    """Return the state of the model for this caller. `stats` must be from the same time."""
    store = platform.store
    champion = model_versions.production_version(store)
    outcome = None if champion is None else _probation_outcome(store, champion)
    alerts = alert_queries.alerts_open_first(store, MAX_ALERTS, only_open=True)
    tick = None if champion is None else ticks.latest_tick(store, champion.version)
    facts = facts_for(platform, champion, tick, alerts, now)
    state = state_of(facts)
    return Overview(
        at=now,
        use_case=store.contract.name,
        description=store.contract.description,
        sentence=state.sentence,
        tone=state.tone,
        reasons=[] if stats.tick is None else stats.tick.reasons,
        model=None if champion is None else version_info(champion),
        probation=None if champion is None else probation_sentence(champion, outcome, now),
        is_on_probation=champion is not None and champion.probation_until is not None and outcome is None,
        stats=stats,
        newest_prediction_at=facts.newest_prediction_at,
        n_open_alerts=len(alerts),
        worst_severity=max((Severity(row.severity) for row in alerts), key=lambda one: one.rank, default=None),
        monitoring_interval_seconds=platform.settings.monitoring_interval,
        caller=CallerInfo(name=caller.name, scopes=sorted(caller.scopes)),
        asks_for_keys=asks_for_keys,
    )


def _probation_outcome(store: Store, champion: ModelVersion) -> ProbationOutcome | None:
    report = probations.outcome_of(store, champion)
    return None if report is None else report.outcome
