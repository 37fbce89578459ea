"""The monitor's results over time, for charts: from Postgres and, for values that only they have, from the ticks' files."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from selfheal.adapters.postgres.decisions import onsets_since
from selfheal.adapters.postgres.promotions import promotions_since
from selfheal.adapters.postgres.tick_history import Step, step_for, steps_between
from selfheal.domain.monitoring.drift import PROBABILITY
from selfheal.domain.monitoring.label_sanity import sentence_of
from selfheal.services.reports.figures import PastTick
from selfheal.services.reports.files import read_tick_values, tick_of
from selfheal.services.reports.writer import past_tick
from selfheal.services.status import labels_sentence
from serving.schemas.dashboard import DriftRow, History, HistoryStep, LabelsOfClass, LabelState, MetricWithInterval
from serving.schemas.responses import OnsetInfo, PromotionInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from selfheal.adapters.postgres.store import Store
    from selfheal.domain.records import TickRecord

METRICS = ("auc_roc", "f1", "precision", "recall", "brier")
MAX_PROMOTIONS, MAX_CHANGES = 100, 20

TickValues = dict[str, Any]
"""A tick's file as plain values; empty if this host does not have it."""


def history(store: Store, now: datetime, period: timedelta, max_points: int, folder: Path) -> History:
    """Return the last `period` in at most about `max_points` steps. Reads one file per step."""
    step = step_for(period, max_points)
    steps = steps_between(store, now - period, now, step)
    tick_values = [_tick_values(folder, one) for one in steps]
    return History(
        since=now - period,
        until=now,
        first_evaluation_at=steps[0].first_at if steps else None,
        step_seconds=int(step.total_seconds()),
        steps=[_step(one, past_tick(one.newest, values)) for one, values in zip(steps, tick_values, strict=True)],
        drift=_drift_rows(store.contract.feature_names, steps, tick_values),
        promotions=[PromotionInfo.model_validate(row) for row in promotions_since(store, now - period, MAX_PROMOTIONS)],
        changes=[OnsetInfo.model_validate(onset) for onset in onsets_since(store, now - period, MAX_CHANGES)],
        labels=label_state(tick_of(tick_values[-1]) if steps else None),
    )


def label_state(tick: TickRecord | None) -> LabelState | None:
    """Return what a tick says of the labels; None if it is unknown."""
    if tick is None:
        return None
    delay, check = tick.performance.label_delay, tick.performance.label_check
    ages = {} if delay is None else delay.matured_after_by_class_s
    coverage = None if delay is None else delay.coverage
    shares = {} if coverage is None else {0: coverage.negative, 1: coverage.positive}
    suspect = () if check is None or not check.open else (sentence_of(check.open),)
    return LabelState(
        sentence=labels_sentence(tick),
        matured_after_seconds=None if delay is None else delay.matured_after_s,
        classes=[
            LabelsOfClass(
                label=label,
                mostly_after_seconds=ages.get(str(label)),
                labelled_pct=100 * shares[label] if label in shares else None,
            )
            for label in (0, 1)
        ],
        withheld=[*tick.performance.withheld, *suspect],
    )


def _tick_values(folder: Path, step: Step) -> TickValues:
    values = read_tick_values(folder, step.newest.window_end, step.newest.tick_id)
    return values if isinstance(values, dict) else {}


def _step(step: Step, newest: PastTick) -> HistoryStep:
    row = step.newest
    return HistoryStep(
        start=step.start,
        evaluated_at=row.created_at,
        n_ticks=step.n_ticks,
        verdict=step.verdict,
        max_drift_ratio=step.max_drift_ratio,
        model_version=row.model_version,
        n_predictions=row.n_predictions,
        n_labels=row.n_labels,
        label_coverage_pct=row.label_coverage_pct,
        positive_rate=row.positive_rate,
        probability_mean=row.probability_mean,
        probability_std=row.probability_std,
        entropy=row.entropy,
        estimated=_known(newest.estimated, newest.estimated_intervals),
        realised=_known(newest.realised, newest.realised_intervals),
    )


def _known(values: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]) -> dict[str, MetricWithInterval]:
    known: dict[str, MetricWithInterval] = {}
    for name in METRICS:
        value = values.get(name)
        if value is not None:
            low, high = intervals.get(name, (None, None))
            known[name] = MetricWithInterval(value=value, low=low, high=high)
    return known


def _drift_rows(features: Sequence[str], steps: Sequence[Step], tick_values: Sequence[TickValues]) -> list[DriftRow]:
    by_column = [_columns(values) for values in tick_values]
    rows = [
        DriftRow(
            column=name,
            drifted_share=[_share(step, name) for step in steps],
            effect=[_effect(columns.get(name)) for columns in by_column],
        )
        for name in features
    ]
    probability = [columns.get(PROBABILITY) for columns in by_column]
    shares = [None if column is None else float(bool(column.get("is_drifted"))) for column in probability]
    return [*rows, DriftRow(column=PROBABILITY, drifted_share=shares, effect=[_effect(one) for one in probability])]


def _columns(values: TickValues) -> dict[str, TickValues]:
    """Return each column's values in the tick's file; from a file of another release, only those in the known format."""
    drift = values.get("drift")
    columns = drift.get("columns") if isinstance(drift, dict) else None
    return {one["column"]: one for one in columns or () if isinstance(one, dict) and "column" in one}


def _share(step: Step, feature: str) -> float | None:
    return step.n_drifted.get(feature, 0) / step.n_compared if step.n_compared else None


def _effect(column: TickValues | None) -> float | None:
    effect = None if column is None else column.get("effect")
    return round(effect, 4) if isinstance(effect, float | int) else None
