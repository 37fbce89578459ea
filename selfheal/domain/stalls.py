"""Stalls: the states in which the loop cannot go on by itself, each with the kind of its alert. Pure.

`STALL_STATES` is the whole list. Alerts whose cause is seen elsewhere (a tick, the API, a run, a probation) are raised there;
the others are raised from here by `selfheal.services.stalls`. `selfheal status` has a line for each state that applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from selfheal.domain.monitoring.label_sanity import LABELS_SUSPECT
from selfheal.domain.monitoring.silence import LONGEST_GRACE, MONITOR_SILENT, TRAFFIC_SILENT
from selfheal.domain.monitoring.triage import LABELS_SELECTED
from selfheal.domain.monitoring.window import WindowLimits, filled_at
from selfheal.domain.probation import CANNOT_COMPARE, NO_EVIDENCE, ROLLBACK_FAILED, UNDECIDED
from selfheal.domain.records import Alert, Condition, Severity
from selfheal.kit.durations import span

NO_VERSION, SENSOR_STOPPED, WINDOW_NOT_FILLED, LABELS_SILENT, RETRAINING_WAITS, RETRAINING_BLOCKED = (
    "no_production_version",
    "sensor_stopped",
    "window_not_filled",
    "labels_silent",
    "retraining_waits",
    "retraining_blocked",
)
"""Kinds of alerts that are raised from here."""

BOOTSTRAP_GRACE = timedelta(minutes=15)
"""Time after a start in which the first version is trained; only then is its absence an alert."""

RATE_PERIOD = timedelta(days=7)
"""Time over which the present rate of labels is measured: a week has every hour and weekday in it."""


@dataclass(frozen=True, slots=True)
class StallState:
    """One state in which the loop cannot go on by itself: its name, and the kind of its alert.

    `condition` is the condition of a retraining that is not met in this state.
    """

    name: str
    alert_kind: str
    condition: str | None = None


STALL_STATES = (
    StallState("no version in production", NO_VERSION),
    StallState("bootstrap fails", "bootstrap_job_failed"),
    StallState("no traffic", TRAFFIC_SILENT),
    StallState("journal not copied", "journal_lag"),
    StallState("monitor stopped", MONITOR_SILENT),
    StallState("ticks fail", "monitoring_job_failed"),
    StallState("sensor stopped", SENSOR_STOPPED),
    StallState("window not filled", WINDOW_NOT_FILLED),
    StallState("no labels", LABELS_SILENT),
    StallState("broken feed", "broken_feed"),
    StallState("suspect labels", LABELS_SUSPECT),
    StallState("selected labels", LABELS_SELECTED),
    StallState("cooldown", RETRAINING_WAITS, "cooldown"),
    StallState("too few labels", RETRAINING_WAITS, "labelled_samples"),
    StallState("too few matured labels", RETRAINING_WAITS, "matured_samples"),
    StallState("too few labels of a class", RETRAINING_WAITS, "class_counts"),
    StallState("label coverage too low", RETRAINING_WAITS, "label_coverage"),
    StallState("feed not checked", RETRAINING_WAITS, "sound_feed"),
    StallState("labels withheld", RETRAINING_WAITS, "sound_labels"),
    StallState("back-off", RETRAINING_WAITS, "back_off"),
    StallState("attempts used up", RETRAINING_BLOCKED, "attempts"),
    StallState("another contract", RETRAINING_BLOCKED, "champion"),
    StallState("training fails", "retraining_job_failed"),
    StallState("promotion refused", "promotion_refused"),
    StallState("version not in MLflow", "registry_out_of_sync"),
    StallState("version not served", "model_refused"),
    StallState("probation not compared", CANNOT_COMPARE),
    StallState("probation undecided", UNDECIDED),
    StallState("probation without evidence", NO_EVIDENCE),
    StallState("probation fails", "probation_job_failed"),
    StallState("rollback failed", ROLLBACK_FAILED),
)

BY_CONDITION = {state.condition: state for state in STALL_STATES if state.condition is not None}
RAISED_HERE = (NO_VERSION, SENSOR_STOPPED, WINDOW_NOT_FILLED, LABELS_SILENT, RETRAINING_WAITS, RETRAINING_BLOCKED)
BROKEN_FEED = "sound_feed", "broken_feed"
"""An unmet condition, and the alert that a tick raises for the same cause."""


@dataclass(frozen=True, slots=True)
class Stall:
    """One state that applies, and what is known of it: what is missing, how much is there, by when."""

    state: str
    alert_kind: str
    sentence: str


@dataclass(frozen=True, slots=True)
class WindowFill:
    """How many rows the longest possible window has, and how long these took to come."""

    n_rows: int
    watched_for: timedelta


@dataclass(frozen=True, slots=True)
class LabelArrival:
    """When the newest label arrived (None: never), and since when and until when predictions were made."""

    newest_label_at: datetime | None
    first_prediction_at: datetime
    newest_prediction_at: datetime


@dataclass(frozen=True, slots=True)
class BlockedRetraining:
    """A retraining that is called for, and the conditions that are not met.

    `n_missing_labels` more labels are wanted for them; None: no number of labels is known to suffice. `labels_per_day` is the
    present rate.
    """

    reason: str
    unmet: tuple[Condition, ...]
    n_missing_labels: int | None
    labels_per_day: float
    is_feed_broken: bool = False


@dataclass(frozen=True, slots=True)
class LoopSignals:
    """What is known of the loop. None: unknown, or there is nothing of the kind."""

    champion_version: int | None
    why_no_version: str = ""
    window: WindowFill | None = None
    labels: LabelArrival | None = None
    retraining: BlockedRetraining | None = None
    stopped_sensors: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """Limits of waiting: of the window, and how long no label may come while predictions do."""

    window: WindowLimits
    label_silence: timedelta


def stalls_of(signals: LoopSignals, limits: LoopLimits, now: datetime) -> tuple[Stall, ...]:
    """Return the stalls that are seen here, in the order of `STALL_STATES`."""
    if signals.champion_version is None:
        return (
            *_stall("no version in production", f"{signals.why_no_version}; run `selfheal bootstrap`"),
            *_stopped(signals),
        )
    return (
        *_stopped(signals),
        *_unfilled(signals, limits, now),
        *_unlabelled(signals, limits),
        *_blocked(signals, now),
    )


def stall_of_alert(kind: str, message: str) -> Stall | None:
    """Return the stall that an open alert is about; None if it stops nothing, or if the store shows it (`stalls_of`)."""
    if kind in RAISED_HERE and kind != SENSOR_STOPPED:
        return None
    state = next((state for state in STALL_STATES if state.alert_kind == kind), None)
    return None if state is None else Stall(state.name, kind, message)


def alerts_of(stalls: Sequence[Stall]) -> tuple[Alert, ...]:
    """Return one alert for each kind that is raised here, with all that it is about."""
    of_kind = {kind: "; ".join(one.sentence for one in stalls if one.alert_kind == kind) for kind in RAISED_HERE}
    made = {kind: _alert(kind, text) for kind, text in of_kind.items() if text}
    return tuple(made.values())


def is_due(alert: Alert, awake_for: timedelta) -> bool:
    """Return whether an alert may be opened: after a start, clients come back first, and a first version is trained."""
    if alert.kind == NO_VERSION:
        return awake_for > BOOTSTRAP_GRACE
    return alert.kind != LABELS_SILENT or awake_for > LONGEST_GRACE


def _alert(kind: str, text: str) -> Alert:
    if kind == NO_VERSION:
        return Alert(NO_VERSION, Severity.CRITICAL, f"No version is in production: {text}.")
    if kind == SENSOR_STOPPED:
        return Alert(SENSOR_STOPPED, Severity.WARNING, f"The loop stands still: {text}.")
    if kind == WINDOW_NOT_FILLED:
        return Alert(WINDOW_NOT_FILLED, Severity.WARNING, f"The traffic is too slow to be judged: {text}.")
    if kind == LABELS_SILENT:
        return Alert(LABELS_SILENT, Severity.WARNING, f"No labels arrive: {text}.")
    if kind == RETRAINING_WAITS:
        return Alert(RETRAINING_WAITS, Severity.WARNING, f"A retraining is called for and waits: {text}.")
    return Alert(RETRAINING_BLOCKED, Severity.CRITICAL, f"A retraining is called for and will not start: {text}.")


def _stall(name: str, sentence: str) -> tuple[Stall, ...]:
    state = next(state for state in STALL_STATES if state.name == name)
    return (Stall(name, state.alert_kind, sentence),)


def _stopped(signals: LoopSignals) -> tuple[Stall, ...]:
    if not signals.stopped_sensors:
        return ()
    names = ", ".join(signals.stopped_sensors)
    return _stall("sensor stopped", f"somebody has stopped {names} in Dagster; start it on the page of automations")


def _unfilled(signals: LoopSignals, limits: LoopLimits, now: datetime) -> tuple[Stall, ...]:
    """Return the stall of a window that has too few rows although the look-back has passed."""
    fill, want = signals.window, limits.window
    if fill is None or fill.n_rows >= want.min_rows or fill.watched_for < want.lookback:
        return ()
    at = filled_at(fill.n_rows, fill.watched_for, want, now)
    per_day = fill.n_rows / (fill.watched_for / timedelta(days=1))
    outlook = f"there are {want.min_rows:,} on {at:%Y-%m-%d}" if at is not None else "it never has as many"
    remedy = "" if at is not None else "; raise MONITORING_MAX_LOOKBACK or lower MIN_DRIFT_ROWS"
    return _stall(
        "window not filled",
        f"the window of at most {span(want.max_lookback)} has {fill.n_rows:,} predictions, {want.min_rows:,} are wanted; at "
        f"the present rate of {per_day:.1f} a day {outlook}{remedy}",
    )


def _unlabelled(signals: LoopSignals, limits: LoopLimits) -> tuple[Stall, ...]:
    """Return the stall of labels that do not come, measured by the predictions that do."""
    labels = signals.labels
    if labels is None:
        return ()
    since = labels.newest_label_at or labels.first_prediction_at
    if labels.newest_prediction_at - since <= limits.label_silence:
        return ()
    last = "there was never one" if labels.newest_label_at is None else f"the last one came {since:%Y-%m-%d %H:%M} UTC"
    return _stall(
        "no labels",
        f"{last}, and predictions go on; without labels no loss is proved and nothing is trained. Send outcomes to "
        "`POST /labels`, or raise LABEL_SILENCE_HOURS if they take longer",
    )


def _blocked(signals: LoopSignals, now: datetime) -> tuple[Stall, ...]:
    blocked = signals.retraining
    if blocked is None:
        return ()
    seen = [one for one in blocked.unmet if not (blocked.is_feed_broken and one.name == BROKEN_FEED[0])]
    outlook = _outlook(blocked, now)
    last_of_labels = next((one.name for one in reversed(seen) if one.name in COUNTED_IN_LABELS), None)
    return tuple(
        stall
        for one in seen
        for stall in _stall(
            BY_CONDITION[one.name].name, one.reason + (f"; {outlook}" if one.name == last_of_labels else "")
        )
    )


COUNTED_IN_LABELS = ("labelled_samples", "matured_samples", "class_counts", "back_off")
"""Conditions that more labels meet."""


def _outlook(blocked: BlockedRetraining, now: datetime) -> str:
    """Say by when the missing labels are there at the present rate."""
    rate = f"at the present rate of {blocked.labels_per_day:,.1f} labels a day"
    if blocked.labels_per_day == 0:
        return f"no label has come in {span(RATE_PERIOD)}"
    if blocked.n_missing_labels is None:
        return f"{rate} it is not known when, since there is none of a class"
    days = blocked.n_missing_labels / blocked.labels_per_day
    if days > MAX_DAYS:
        return f"{rate} it takes more than {MAX_DAYS // 365} years"
    return f"{rate} the {blocked.n_missing_labels:,} missing ones are there on {now + timedelta(days=days):%Y-%m-%d}"


MAX_DAYS = 10 * 365
"""The longest wait that is given as a date."""
