"""The overview page of a report: HTML with the figures as data, drawn in the browser by the plotly.js beside the page.

Belongs here: the content of the page and its order. `selfheal.services.reports.figures` makes the figures,
`selfheal.services.reports.files` the files. Pure: records, rows and arrays in, text out. All external text (messages, names)
is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from selfheal.domain.monitoring.histogram import Distribution, bars_of
from selfheal.domain.records import ColumnDrift
from selfheal.services.reports.figures import (
    BLUE,
    LAYOUT,
    RED,
    PastTick,
    distribution_figure,
    effects_figure,
    metric_figure,
    missing_figure,
    ratio_figure,
    thinned,
    with_missing,
    words,
)

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.features import Kind
    from selfheal.domain.records import TickRecord

TEMPLATE = Path(__file__).with_name("page.html")

METRICS = {
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "auc_roc": "AUC-ROC",
    "brier": "Brier score (less is better)",
}
PLOTTED_METRICS = ("auc_roc", "f1", "brier")
MAX_CHANGES = 12


@dataclass(frozen=True)
class OpenAlert:
    """An open alert, for the top of the page."""

    severity: str
    message: str
    created_at: datetime
    acknowledged_by: str | None


@dataclass(frozen=True)
class PageInput:
    """The content of the page. `reference` and `current` have the columns of the tick's drift report, if known."""

    tick: TickRecord
    sentence: str
    history: Sequence[PastTick]
    alerts: Sequence[OpenAlert]
    reference: pd.DataFrame
    current: pd.DataFrame
    min_effect: float
    written_at: datetime
    library: str
    drawing: str
    evidently: str | None
    kinds: Mapping[str, Kind] = field(default_factory=dict)


def overview_page(page: PageInput) -> str:
    """Return the page as HTML."""
    tick, drift = page.tick, page.tick.drift
    columns = sorted(drift.columns, key=lambda c: (not (c.is_drifted or c.is_missing_rate_drifted), -c.effect))
    history = sorted(page.history, key=lambda past: past.at)
    shown = _distributions(columns or _unjudged_columns(page), page)
    figures = [
        ratio_figure(thinned(history)),
        effects_figure(columns, page.min_effect),
        missing_figure(columns),
        *(metric_figure(name, thinned(history), tick) for name in PLOTTED_METRICS),
        *(distribution_figure(number, distribution) for number, (_, distribution) in enumerate(shown)),
    ]
    verdict = tick.triage.verdict
    return Template(TEMPLATE.read_text()).substitute(
        title=escape(f"{tick.triage.window.model_name}: {words(verdict)}"),
        name=escape(tick.triage.window.model_name),
        version=tick.triage.window.model_version,
        verdict=verdict.value,
        verdict_text=words(verdict),
        sentence=escape(page.sentence),
        reasons="".join(f"<li>{escape(reason)}</li>" for reason in tick.triage.reasons),
        facts=_facts(page),
        links=_links(page),
        alerts=_alerts(page.alerts),
        changes=_changes(history),
        quality=_quality_table(tick),
        quality_plots="".join(_card(METRICS[name], f"metric-{name}") for name in PLOTTED_METRICS),
        effect_note=_effect_note(drift.is_sufficient, page.min_effect),
        effects_height=60 + 21 * len(columns),
        missing=_missing_place(columns),
        distributions="".join(_distribution_card(number, column) for number, (column, _) in enumerate(shown)),
        figures=_embedded({"figures": figures, "layout": LAYOUT}),
        library=escape(page.library),
        drawing=escape(page.drawing),
    )


def _distributions(
    columns: Sequence[ColumnDrift | str], page: PageInput
) -> list[tuple[ColumnDrift | str, Distribution]]:
    found: list[tuple[ColumnDrift | str, Distribution]] = []
    for column in columns:
        name = column if isinstance(column, str) else column.column
        if name in page.current and name in page.reference:
            bars = bars_of(page.current[name], page.reference[name], page.kinds.get(name, "float"))
            if bars is not None:
                found.append((column, bars))
    return found


def _unjudged_columns(page: PageInput) -> list[str]:
    """Return the columns that are shown although there were too few rows to judge them."""
    return [name for name in page.reference.columns if name in page.current]


# Parts of the page


def _facts(page: PageInput) -> str:
    tick, drift = page.tick, page.tick.drift
    window = tick.triage.window
    coverage = tick.performance.label_coverage_pct
    facts = {
        "predictions": f"{window.n_predictions:,}",
        "labels": f"{window.n_labels:,}" + ("" if coverage is None else f" ({coverage:.0f} %)"),
        "predicted positive": "unknown"
        if tick.proxy.positive_rate is None
        else f"{100 * tick.proxy.positive_rate:.1f} %",
        "drifted features": "unknown" if not drift.is_sufficient else f"{len(drift.drifted_features)}",
        "rows compared": f"{drift.n_current:,} with {drift.n_reference:,}",
        "window": f"{window.start:%d %b %H:%M} to {window.end:%d %b %H:%M} UTC",
    }
    return "".join(
        f"<div><b>{escape(value)}</b><span class='soft'>{name}</span></div>" for name, value in facts.items()
    )


def _links(page: PageInput) -> str:
    parts = [
        f"Written {page.written_at:%Y-%m-%d %H:%M:%S} UTC",
        f"reference of version {page.tick.drift.reference_version}",
    ]
    if page.tick.triage.episode_id is not None:
        parts.append(f"episode {escape(page.tick.triage.episode_id)}")
    if page.evidently is not None:
        parts.append(f'<a href="{escape(page.evidently)}">Evidently\'s report</a>, which decides nothing')
    return " · ".join(parts)


def _alerts(alerts: Sequence[OpenAlert]) -> str:
    if not alerts:
        return ""
    rows = "".join(
        f"<tr><td><span class='badge {escape(alert.severity)}'>{escape(alert.severity)}</span></td>"
        f"<td>{escape(alert.message)}</td><td class='when'>{alert.created_at:%d %b %H:%M}</td>"
        f"<td>{escape(alert.acknowledged_by or 'nobody yet')}</td></tr>"
        for alert in alerts
    )
    head = "<tr><th></th><th>What</th><th>Since (UTC)</th><th>Seen by</th></tr>"
    return f"<h2>Open alerts</h2><div class='card wide'><table class='stacked'>{head}{rows}</table></div>"


def _changes(history: Sequence[PastTick]) -> str:
    """Return the latest changes of the verdict with their reasons: the hover texts in readable form."""
    changes = [
        past for place, past in enumerate(history) if not place or past.verdict is not history[place - 1].verdict
    ][-MAX_CHANGES:]
    if not changes:
        return ""
    rows = "".join(
        f"<tr><td class='when'>{past.at:%d %b %H:%M}</td><td><span class='badge {past.verdict}'>{words(past.verdict)}</span></td>"
        f"<td>{escape('; '.join(past.reasons))}</td></tr>"
        for past in reversed(changes)
    )
    head = "<tr><th>From (UTC)</th><th>Verdict</th><th>Reasons</th></tr>"
    return f"<div class='card wide' style='margin-top:12px'><table class='stacked'>{head}{rows}</table></div>"


def _quality_table(tick: TickRecord) -> str:
    performance = tick.performance
    realised = realised_values(performance)
    estimated = estimated_values(performance)
    rows = "".join(
        f"<tr><td>{title}</td><td class='number'>{_with_interval(name, *realised)}</td>"
        f"<td class='number'>{_with_interval(name, *estimated)}</td>"
        f"<td class='number'>{_number(getattr(performance.reference, name))}</td></tr>"
        for name, title in METRICS.items()
    )
    notes = "".join(f"<p class='soft'>{escape(note)}</p>" for note in _quality_notes(performance))
    head = "<tr><th></th><th>Realised (labels)</th><th>Estimated (no labels)</th><th>In evaluation</th></tr>"
    return (
        f"<table>{head}{rows}</table>{notes}<p class='soft'>In brackets: 95 % intervals, where they are known. In the charts: "
        f"<b style='color:{RED}'>realised</b>, <b style='color:{BLUE}'>estimated</b>, dotted: in evaluation.</p>"
    )


def realised_values(performance: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the realised values and the intervals (objects with `low` and `high`) by metric, as far as known."""
    realised = performance.realised
    values = {} if realised is None else {name: getattr(realised, name) for name in METRICS}
    return values, getattr(performance, "realised_intervals", None) or {}


def estimated_values(performance: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the same as `realised_values` for the metrics estimated without labels."""
    estimate = getattr(performance, "estimate", None)
    if estimate is not None:
        return estimate.values, estimate.intervals
    return {name: getattr(performance, f"estimated_{name}", None) for name in METRICS}, {}


def _quality_notes(performance: Any) -> list[str]:
    notes: list[str] = []
    if performance.realised is None:
        notes.append("There are too few labels for realised metrics.")
    estimate = getattr(performance, "estimate", None)
    if estimate is not None:
        notes.append(f"Estimate: {estimate.reason}")
    concept = getattr(performance, "concept_drift", None)
    if concept is not None:
        notes.append(f"Concept drift (a changed relation of inputs and outcome): {str(concept).replace('_', ' ')}.")
    regret = getattr(performance, "regret", None)
    if regret is not None:
        notes += [
            f"Of these inputs the reference lets expect {title} {loss.expected:.3f}: realised {loss.realised:.3f} "
            f"(p = {loss.p_value:.1g})."
            for title, loss in (("F1", regret.f1), ("AUC-ROC", regret.auc_roc))
            if loss is not None
        ]
    return notes


def _effect_note(is_sufficient: bool, min_effect: float) -> str:
    if not is_sufficient:
        return "Too few rows to judge any column."
    return f"0 to 1; material from {min_effect:g} on (dotted). Red: drifted, that is material and significant."


def _missing_place(columns: Sequence[ColumnDrift]) -> str:
    n_columns = len(with_missing(columns))
    if not n_columns:
        return f"<p class='soft'>{'No value is missing in any column.' if columns else 'Not judged.'}</p>"
    return f"<div id='missing' class='plot' style='height:{90 + 34 * n_columns}px'></div>"


def _distribution_card(number: int, column: ColumnDrift | str) -> str:
    place = f"distribution-{number}"
    if isinstance(column, str):
        return _card(column, place)
    what = [f"shift {column.effect:.2f}"] if column.is_drifted else []
    if column.is_drifted and column.levels:
        what.append(escape(column.levels[0].sentence))
    if column.is_missing_rate_drifted:
        what.append(f"{column.current_missing_pct:.0f} % missing")
    tag = f"<span class='tag drifted'>{', '.join(what)}</span>" if what else "<span class='tag steady'>as before</span>"
    return _card(column.column, place, tag)


def _card(title: str, place: str, tag: str = "") -> str:
    return f"<div class='card'><div class='head'><h3>{escape(title)}</h3>{tag}</div><div id='{place}' class='plot small'></div></div>"


# Values


def _with_interval(name: str, values: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    value, interval = values.get(name), intervals.get(name)
    if value is None or interval is None:
        return _number(value)
    return f"{_number(value)} <span class='soft'>({_number(interval.low)} to {_number(interval.high)})</span>"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _embedded(value: object) -> str:
    """Return JSON that is safe inside a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
