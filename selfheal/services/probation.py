"""Probation of a promoted version: `watch_probation` evaluates and acts; `due_evaluation` returns when to do so."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from selfheal.adapters.postgres import probations
from selfheal.domain.clusters import row_clusters
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.monitoring.drift import PROBABILITY
from selfheal.domain.monitoring.label_delay import matured_period, observed_until
from selfheal.domain.probation import (
    BACK_TO_VERSION,
    CANNOT_COMPARE,
    MAX_ROWS,
    UNDECIDED,
    OpenAlert,
    PairedScores,
    ProbationLimits,
    alert_of,
    evaluation_number,
    is_settled,
    judge_probation,
    labels_of_next_evaluation,
    may_have_ended,
    not_on_probation,
    rollback_alert,
    rolled_back_alert,
)
from selfheal.domain.records import ModelVersion, ProbationReport, Trigger
from selfheal.domain.retraining.paired_gain import Costs
from selfheal.kit.errors import IntegrityError, ModelRefusedError, PermanentError, UnknownVersionError
from selfheal.services.label_maturity import delay_for_judging
from selfheal.services.promotion.going_live import rollback
from selfheal.services.scoring import try_scores

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.services.repositories import LoopPlatform
    from selfheal.settings import Settings

NOTHING = np.empty(0)


def watch_probation(platform: LoopPlatform, now: datetime) -> ProbationReport:
    """Compare the champion with its predecessor on the rows it has served (`judge_probation`); roll back if it is worse.

    May be repeated: an ended probation is not judged again, and an interrupted rollback is resumed.
    """
    champion = platform.versions.champion()
    if champion.promoted_at is None or champion.probation_until is None:
        return not_on_probation(champion)
    ended = platform.versions.probation_outcome(champion)
    if ended is not None and not ended.is_harmful:
        return ended
    report = ended or judge_probation(
        champion, _paired_scores(platform, champion), probation_limits(platform.settings), now
    )
    _sync_alert(platform, report, may_have_ended(champion, now), now)
    if report.outcome is not None:  # recorded after the alert, so that a process that dies in between evaluates again
        platform.versions.record_probation(report, champion.promoted_at, now)
    if report.is_harmful:
        _go_back(platform, report, now)
    return report


def probation_of(platform: LoopPlatform, version: int, now: datetime) -> ProbationReport:
    """Return a version's probation: evaluate the champion (`watch_probation`), read an earlier version's record.

    Raises:
        NoProductionModelError: if nothing is in production.
        UnknownVersionError: if there is no such version.
    """
    if platform.versions.champion().version == version:
        return watch_probation(platform, now)
    earlier = platform.versions.find(version)
    if earlier is None:
        raise UnknownVersionError(f"there is no version {version}; `selfheal history` lists them")
    return platform.versions.probation_outcome(earlier) or not_on_probation(earlier)


def due_evaluation(platform: LoopPlatform, now: datetime) -> tuple[str | None, str]:
    """Return the name of the evaluation that is due, or None, and the state in a sentence.

    The name stays the same until the next evaluation is due.
    """
    champion = platform.versions.production()
    if champion is None or champion.probation_until is None or champion.promoted_at is None:
        return None, "No version is on probation."
    name = f"v{champion.version} since {champion.promoted_at.isoformat()}"
    hour = f"{now:%Y-%m-%d %H} h"
    ended = platform.versions.probation_outcome(champion)
    if ended is not None and not ended.is_harmful:
        return None, f"The probation of version {champion.version} has ended: {ended.reason}."
    if ended is not None:
        return f"{name} rollback {hour}", f"Version {champion.version} failed its probation and is still in production."
    window = platform.traffic.window_of(champion.version, champion.promoted_at)
    n_labels = 0 if window is None else window.n_labels
    number = evaluation_number(n_labels, platform.settings.min_probation_labels)
    following = labels_of_next_evaluation(n_labels, platform.settings.min_probation_labels)
    sentence = f"Version {champion.version} has {n_labels:,} labels; the next evaluation is at {following:,}."
    if may_have_ended(champion, now):
        return f"{name} look {number} {hour}", sentence
    return (None if number is None else f"{name} look {number}"), sentence


def resolve_finished_alerts(platform: LoopPlatform, now: datetime) -> None:
    """Resolve the alerts of probation that are over (`is_settled`)."""
    champion = platform.versions.production()
    for row in platform.alerts.open_alerts():
        if row.source == probations.ALERT_SOURCE:
            back_to = row.metrics.get(BACK_TO_VERSION)
            alert = OpenAlert(row.kind, row.model_version, row.created_at, row.acknowledged_at is not None, back_to)
            if is_settled(alert, champion):
                platform.alerts.resolve(probations.ALERT_SOURCE, row.kind, now)


def probation_limits(settings: Settings) -> ProbationLimits:
    """Return the limits of probation from the settings."""
    return ProbationLimits(
        settings.min_probation_labels,
        timedelta(hours=settings.probation_max_hours),
        settings.primary_metric,
        Costs(settings.cost_of_false_alarm, settings.cost_of_miss),
    )


def _paired_scores(platform: LoopPlatform, champion: ModelVersion) -> PairedScores:
    """Return the champion's matured, sound, labelled rows with both versions' probabilities."""
    rows, reason = _matured_rows(platform, champion)
    if rows is None:
        return PairedScores(NOTHING.astype(np.int64), NOTHING, None, reason)
    labels = rows[TRUE_LABEL].to_numpy(dtype=np.int64)
    probabilities = rows[PROBABILITY].to_numpy(dtype=np.float64)
    if rows.empty:
        return PairedScores(labels, probabilities, probabilities)
    assert champion.previous_version is not None, "a version on probation has replaced one"
    previous = platform.versions.find(champion.previous_version)
    try:
        if previous is None:
            raise ModelRefusedError("it is not registered")
        scores = try_scores(platform, previous, rows)
        if scores.problem is not None:
            raise ModelRefusedError(scores.problem)
    except (ModelRefusedError, IntegrityError) as error:
        problem = f"version {champion.previous_version} cannot score these rows: {error}"
        return PairedScores(labels, probabilities, None, problem, is_blind=True)
    return PairedScores(
        labels,
        probabilities,
        scores.probabilities,
        clusters=row_clusters(rows, platform.contract),
        thresholds=(champion.threshold, previous.threshold),
    )


def _matured_rows(platform: LoopPlatform, champion: ModelVersion) -> tuple[pd.DataFrame | None, str]:
    """Return the labelled rows that have matured; None and the reason if the age of maturity is unknown.

    Early labels may be of one class, and a version that is better on that class alone would look better at first.
    """
    assert champion.promoted_at is not None, "it is in production"
    since = champion.promoted_at
    window = platform.traffic.window_of(champion.version, since)
    if window is None:
        return None, "it has served nothing yet"
    delay = delay_for_judging(platform, champion.version, since, observed_until(window))
    period = matured_period(window, delay, since)
    if period is None:
        return None, f"{window.n_labels:,} labels so far; when rows have matured is {delay.reason}"
    rows = platform.traffic.labelled_rows(
        since=period[0],
        until=period[1],
        model_version=champion.version,
        max_rows=MAX_ROWS,
        sound_only=True,
    )
    return rows, ""


def _sync_alert(platform: LoopPlatform, report: ProbationReport, is_overdue: bool, now: datetime) -> None:
    alert = alert_of(report, is_overdue)
    for kind in (CANNOT_COMPARE, UNDECIDED):
        if alert is None or alert.kind != kind:
            platform.alerts.resolve(probations.ALERT_SOURCE, kind, now)
    if alert is not None:
        platform.alerts.open_or_update(probations.ALERT_SOURCE, report.version, alert, now)


def _go_back(platform: LoopPlatform, report: ProbationReport, now: datetime) -> None:
    """Roll back to the previous version. A permanent failure raises an alert, not an error, because a retry would fail too."""
    try:
        rollback(
            platform,
            to_version=report.previous_version,
            from_version=report.version,
            reason=report.reason,
            actor=Trigger.PROBATION.value,
            now=now,
        )
    except PermanentError as error:
        alert = rollback_alert(report, str(error))
    else:
        alert = rolled_back_alert(report)
    platform.alerts.open_or_update(probations.ALERT_SOURCE, report.version, alert, now)
