"""One monitoring tick: `collect` the window, `compare` for drift, `measure` performance, `conclude` with a verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from selfheal.adapters.postgres import alerts
from selfheal.domain.clusters import ENTITY, row_clusters
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.monitoring.declared_moves import followers
from selfheal.domain.monitoring.drift import PROBABILITY, RECENT_ROWS, DriftLimits, detect_drift
from selfheal.domain.monitoring.feed import MIN_ROWS as MIN_FEED_ROWS
from selfheal.domain.monitoring.feed import FeedCheck, check_feed, spoiled_period
from selfheal.domain.monitoring.label_delay import matured_period, observed_until
from selfheal.domain.monitoring.label_sanity import MAX_LABELS, check_labels
from selfheal.domain.monitoring.performance import performance_report
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.seasons import Calm, unlearned
from selfheal.domain.monitoring.silence import TRAFFIC_SILENT, Pulse, traffic_alert, traffic_pulse
from selfheal.domain.monitoring.triage import HarmLimits, harmed_period, triage
from selfheal.domain.monitoring.unusable_values import UNUSABLE_VALUES, left_out_of_window
from selfheal.domain.monitoring.window import HOUR, WindowLimits, longer_start, window_start
from selfheal.domain.records import (
    Alert,
    DriftReport,
    LabelCheck,
    ModelVersion,
    PerformanceReport,
    ProxyMetrics,
    ScoreMetrics,
    SeasonMemory,
    Triage,
    Verdict,
    Window,
)
from selfheal.domain.retraining.requests import LatestTick
from selfheal.kit.errors import NoProductionModelError
from selfheal.kit.serialization import from_dict
from selfheal.services.declarations import accept_periods, declarations
from selfheal.services.label_maturity import delay_of_labels

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.monitoring.declarations import Declarations
    from selfheal.services.repositories import LoopPlatform, TickRow
    from selfheal.settings import Settings


def collect(platform: LoopPlatform, now: datetime) -> ProxyMetrics | None:
    """Collect the window of the champion's newest traffic and its proxy metrics; None if it has served nothing yet."""
    window = _current_window(platform, platform.versions.champion(), now)
    return None if window is None else platform.traffic.proxy_metrics(window)


def compare(platform: LoopPlatform, window: Window) -> DriftReport:
    """Compare the window's rows with the champion's reference and the first baseline (`detect_drift`)."""
    champion = _champion_of_window(platform, window)
    reference = _reference(platform, champion)
    max_rows = platform.settings.monitoring_max_rows
    sampled = platform.traffic.window_rows(window, max_rows, usable_only=False)
    current, unusable = platform.contract.without_unusable(sampled)
    newest = platform.traffic.newest_rows(window, RECENT_ROWS)
    recent = PreparedRows(newest, row_clusters(newest, platform.contract))
    baseline = platform.traffic.baseline()
    declared = declarations(platform)
    feed = check_feed(recent, reference, platform.contract, declared.sound)
    found = detect_drift(
        window,
        PreparedRows(current.reset_index(drop=True), row_clusters(current, platform.contract)),
        reference,
        features=platform.contract.feature_names,
        reference_version=champion.version,
        limits=drift_limits(platform.settings),
        recent=recent,
        baseline=None if baseline is None else _usable_features(platform, baseline),
        feed_problems=feed.problems,
        feed_checked_since=recent.rows["created_at"].iloc[0].to_pydatetime() if len(recent) >= MIN_FEED_ROWS else None,
        seed=platform.settings.random_seed,
        calm=_calm(platform, window, declared),
    )
    explained = (*found.explained, *feed.accepted)
    return replace(found, unusable_rows=unusable, explained=explained, feed_columns=feed.columns)


def measure(platform: LoopPlatform, window: Window, *, is_for_verdict_only: bool = False) -> PerformanceReport:
    """Measure the champion's realised and estimated quality in the window (`performance_report`).

    Args:
        is_for_verdict_only: leave out the intervals that cannot change the verdict.
    """
    champion = _champion_of_window(platform, window)
    max_rows = platform.settings.monitoring_max_rows
    delay = delay_of_labels(
        platform, window.model_version, champion.promoted_at or window.start, observed_until(window)
    )
    period = matured_period(window, delay, champion.promoted_at)
    since, until = period or (window.start, window.end)
    matured = None if period is None else platform.traffic.window_of(window.model_version, since, until)
    check = _check_labels(platform, window)
    current = platform.traffic.window_rows(window, max_rows)
    labelled = platform.traffic.labelled_rows(
        since=since,
        until=until,
        model_version=window.model_version,
        max_rows=max_rows,
        received_before=min((one.started_at for one in check.changed if one.is_open), default=None),
    )
    policy = platform.contract.label_policy
    return performance_report(
        window,
        current,
        labelled,
        from_dict(ScoreMetrics, champion.metrics),
        champion.threshold,
        calibration_rows=_reference(platform, champion),
        inputs=platform.contract.input_names,
        label_delay=delay,
        matured=matured,
        seed=platform.settings.random_seed,
        decides_at_auc=platform.settings.harm_min_auc if is_for_verdict_only else None,
        label_check=check,
        clusters=row_clusters(current, platform.contract),
        labelled_clusters=row_clusters(labelled, platform.contract),
        weights=None if policy is None else policy.weights(labelled["prediction"].to_numpy(dtype=np.int64)),
    )


def assess(platform: LoopPlatform, drift: DriftReport, performance: PerformanceReport) -> Triage:
    """Decide the verdict (`triage`); record nothing."""
    return _assess(platform, drift, performance, platform.ticks.latest(drift.window.model_version))


def conclude(
    platform: LoopPlatform, proxy: ProxyMetrics, drift: DriftReport, performance: PerformanceReport, now: datetime
) -> tuple[Triage, list[Alert]]:
    """Decide the verdict (`assess`), record the tick and its alerts; also return the newly opened alerts."""
    version = drift.window.model_version
    outcome = _assess(platform, drift, performance, platform.ticks.latest(version))
    drift, outcome = _without_harmful_seasons(platform, drift, performance, outcome)
    spoiled = spoiled_period(drift, last_feed_check(platform, version))
    if spoiled is not None:  # before the tick, so that a recorded tick implies that its consequences are recorded
        platform.traffic.record_spoiled_period(outcome.window.tick_id, spoiled)
        _accept_declared(platform, version)
    if performance.label_check is not None and not drift.feed_problems:
        for quarantine in performance.label_check.changed:
            platform.traffic.record_label_quarantine(quarantine)
    platform.ticks.record(proxy, drift, performance, outcome, now)
    _sync_unusable(platform, drift.unusable_rows, now)
    return outcome, platform.alerts.sync(outcome, now)


def last_feed_check(platform: LoopPlatform, model_version: int) -> FeedCheck | None:
    """Return the last tick's finding on a version's feed; None if no tick has had enough rows."""
    row = platform.ticks.latest(model_version, min_predictions=MIN_FEED_ROWS)
    return None if row is None else FeedCheck(row.verdict == Verdict.BROKEN_FEED, row.window_end)


def check_traffic(platform: LoopPlatform, awake_since: datetime, now: datetime) -> Pulse:
    """Open, update or resolve the alert that no traffic arrives (`traffic_pulse`).

    Args:
        awake_since: when the caller's process started.
    """
    newest, _ = platform.traffic.latest_activity(now)
    limit = timedelta(hours=platform.settings.traffic_silence_hours)
    state = traffic_pulse(newest, awake_since, limit, now)
    if state is Pulse.BEATING:
        platform.alerts.resolve(alerts.TRAFFIC, TRAFFIC_SILENT, now)
    elif state is Pulse.SILENT and newest is not None:
        platform.alerts.open_or_update(alerts.TRAFFIC, None, traffic_alert(newest, limit, now), now)
    return state


def latest_tick(platform: LoopPlatform) -> LatestTick | None:
    """Return the verdict of the champion's newest tick; None before the first."""
    champion = platform.versions.production()
    row = None if champion is None else platform.ticks.latest(champion.version)
    if row is None:
        return None
    return LatestTick(row.tick_id, Verdict(row.verdict), row.episode_id, row.num_drifted_features)


def drift_limits(settings: Settings) -> DriftLimits:
    """Return the limits of drift detection from the settings."""
    return DriftLimits(settings.ticks_per_budget(), settings.min_drift_effect, settings.min_drift_rows)


def window_limits(settings: Settings) -> WindowLimits:
    """Return how far a window reaches back, from the settings."""
    lookback = settings.monitoring_lookback * HOUR
    return WindowLimits(lookback, max(lookback, settings.monitoring_max_lookback * HOUR), settings.min_drift_rows)


def harm_limits(settings: Settings) -> HarmLimits:
    """Return the limits of harm; they are separate settings, so that loosening a gate does not affect the monitor."""
    return HarmLimits(settings.harm_min_brier_excess, settings.harm_min_auc, settings.harm_min_loss_pct)


def _assess(
    platform: LoopPlatform, drift: DriftReport, performance: PerformanceReport, previous: TickRow | None
) -> Triage:
    previous_episode = None if previous is None else previous.episode_id
    return triage(drift, performance, harm_limits(platform.settings), previous_episode)


def _accept_declared(platform: LoopPlatform, model_version: int) -> None:
    """Accept the period that was just recorded if it has been declared sound since its rows were compared."""
    declared = declarations(platform)
    if declared.sound:
        accept_periods(platform, model_version, declared)


def _without_harmful_seasons(
    platform: LoopPlatform, drift: DriftReport, performance: PerformanceReport, outcome: Triage
) -> tuple[DriftReport, Triage]:
    """Take back what was learned of seasons while labels, however late, prove harm; say so in the reasons."""
    harmed = harmed_period(performance, harm_limits(platform.settings))
    if harmed is None or drift.seasons is None:
        return drift, outcome
    memory, sentence = unlearned(drift.seasons, *harmed)
    reasons = (*outcome.reasons, sentence) if sentence else outcome.reasons
    return replace(drift, seasons=memory), replace(outcome, reasons=reasons)


def _check_labels(platform: LoopPlatform, window: Window) -> LabelCheck:
    """Judge the version's newest labels, as far as the window's tick knows them."""
    version, last = window.model_version, last_feed_check(platform, window.model_version)
    return check_labels(
        platform.traffic.newest_labels(version, observed_until(window), MAX_LABELS),
        platform.traffic.label_quarantines(version),
        version,
        is_feed_broken=last is not None and last.is_broken,
    )


def _current_window(platform: LoopPlatform, champion: ModelVersion, now: datetime) -> Window | None:
    newest, _ = platform.traffic.latest_activity(now)
    if newest is None:
        return None
    limits = window_limits(platform.settings)
    start = window_start(champion, newest, limits.lookback)
    window = platform.traffic.window_of(champion.version, start, newest)
    if window is not None and window.n_predictions >= limits.min_rows:
        return window
    earliest = window_start(champion, newest, limits.max_lookback)
    nth = platform.traffic.time_of_nth_newest(champion.version, earliest, newest, limits.min_rows)
    longer = platform.traffic.window_of(champion.version, longer_start(champion, newest, limits, nth), newest)
    has_more = longer is not None and (window is None or longer.n_predictions > window.n_predictions)
    return replace(longer, lookback_start=start) if longer is not None and has_more else window


def _reference(platform: LoopPlatform, champion: ModelVersion) -> PreparedRows:
    """Return the champion's frozen reference. A feature that its contract did not have is missing in every row."""
    columns = [*platform.contract.feature_names, PROBABILITY, TRUE_LABEL]
    if platform.contract.has_entity_key:
        columns.append(ENTITY)
    return platform.prepared_references.get(
        champion.reference_sha256,
        lambda: platform.registry.reference(champion).reindex(columns=columns),
        lambda rows: row_clusters(rows, platform.contract),
    )


def _calm(platform: LoopPlatform, window: Window, declared: Declarations) -> Calm:
    """Return what is known of the version's traffic before this window's tick."""
    memory = platform.ticks.season_memory(window.model_version) or SeasonMemory(window.end)
    previous = platform.ticks.latest(window.model_version)
    return Calm(
        memory,
        None if previous is None else Verdict(previous.verdict),
        declared.seasonal,
        followers(platform.contract, declared.seasonal),
    )


def _usable_features(platform: LoopPlatform, inputs: pd.DataFrame) -> pd.DataFrame:
    usable, _ = platform.contract.without_unusable(platform.contract.feature_frame(inputs))
    return usable


def _sync_unusable(platform: LoopPlatform, found: str, now: datetime) -> None:
    """Open, update or resolve the alert about rows of the window that are left out."""
    if found:
        platform.alerts.open_or_update(alerts.VALUES, None, left_out_of_window(found), now)
    else:
        platform.alerts.resolve(alerts.VALUES, UNUSABLE_VALUES, now)


def _champion_of_window(platform: LoopPlatform, window: Window) -> ModelVersion:
    version = platform.versions.find(window.model_version)
    if version is None:
        raise NoProductionModelError(f"the window is of version {window.model_version}, which is not registered")
    return version
