"""The overview page of a report: HTML with the figures as data, drawn in the browser by plotly.js that lies beside the page.

Belongs here: what is shown, and how. Pure: records, rows and arrays in, text out. Whatever comes from outside (messages,
names) is escaped. Files are `selfheal.monitoring.report`'s.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.monitoring.triage import INSPECT_DRIFT_RATIO
from selfheal.records import ColumnDrift, Verdict

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.contract import FloatArray
    from selfheal.records import TickRecord

TEMPLATE = Path(__file__).with_name("page.html")
COLOURS = {
    Verdict.STABLE: "#2f7d5b",
    Verdict.BENIGN_SHIFT: "#c29a00",
    Verdict.HARMFUL_SHIFT: "#b3261e",
    Verdict.BROKEN_FEED: "#6a1b9a",
    Verdict.INSUFFICIENT: "#8b98a5",
}
GREY, RED, BLUE, INK = "#b4bec8", "#c8502a", "#2d6a9f", "#1c2733"
LAYOUT: dict[str, Any] = {
    "margin": {"l": 42, "r": 10, "t": 8, "b": 30},
    "font": {"family": "system-ui, sans-serif", "size": 11, "color": INK},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "showlegend": False,
    "hoverlabel": {"align": "left"},
}
METRICS = {
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "auc_roc": "AUC-ROC",
    "brier": "Brier score (less is better)",
}
PLOTTED_METRICS = ("auc_roc", "f1", "brier")
MAX_POINTS = 400
MAX_CHANGES = 12
MAX_BINS, MAX_VALUES = 24, 12
SKEW = 50.0
"""Where the top is so many times the median, equal steps would put nearly all rows into one bar: the steps are ratios."""


@dataclass(frozen=True)
class PastTick:
    """One look at the traffic, as far as it is plotted. Intervals go by metric, each (low, high)."""

    at: datetime
    verdict: Verdict
    reasons: tuple[str, ...]
    feature_drift_ratio: float | None
    realised: Mapping[str, float | None]
    estimated: Mapping[str, float | None]
    realised_intervals: Mapping[str, tuple[float, float]]
    estimated_intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class OpenAlert:
    """An open alert, for the top of the page."""

    severity: str
    message: str
    created_at: datetime
    acknowledged_by: str | None


@dataclass(frozen=True)
class Distribution:
    """Percent of the known values in each bar, in the reference and now.

    `labels` name the bars, which stand at 0, 1, 2, ...; `ticks` are places and texts for the axis.
    """

    labels: tuple[str, ...]
    reference_pct: tuple[float, ...]
    current_pct: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class PageInput:
    """What the page is about. `reference` and `current` have the columns of the tick's drift report, where known."""

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


def overview_page(page: PageInput) -> str:
    """The page as HTML."""
    tick, drift = page.tick, page.tick.drift
    columns = sorted(drift.columns, key=lambda c: (not (c.is_drifted or c.is_missing_rate_drifted), -c.effect))
    history = sorted(page.history, key=lambda past: past.at)
    shown = _distributions(columns or _unjudged_columns(page), page)
    figures = [
        _ratio_figure(_thinned(history)),
        _effects_figure(columns, page.min_effect),
        _missing_figure(columns),
        *(_metric_figure(name, _thinned(history), tick) for name in PLOTTED_METRICS),
        *(_distribution_figure(number, distribution) for number, (_, distribution) in enumerate(shown)),
    ]
    verdict = tick.triage.verdict
    return Template(TEMPLATE.read_text()).substitute(
        title=escape(f"{tick.triage.window.model_name}: {_words(verdict)}"),
        name=escape(tick.triage.window.model_name),
        version=tick.triage.window.model_version,
        verdict=verdict.value,
        verdict_text=_words(verdict),
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


def distribution(current: FloatArray, reference: FloatArray) -> Distribution | None:
    """Both samples in the same bars; missing values are left out. None if neither has a value.

    A bar a value where there are few values. Else equal steps over the middle 98 % of each sample, or equal ratios where the
    sample is skewed; the outer bars hold the rest, so that each side sums to 100.
    """
    now, then = current[np.isfinite(current)], reference[np.isfinite(reference)]
    if not len(now) and not len(then):
        return None
    values = np.unique(np.concatenate([now, then]))
    if len(values) <= MAX_VALUES:
        labels = tuple(f"{value:g}" for value in values)
        bars = tuple(tuple(_percent([(side == value).sum() for value in values])) for side in (then, now))
        return Distribution(labels, bars[0], bars[1], _some(list(enumerate(_compact(value) for value in values)), 6))
    edges = _edges(now, then)
    inner = edges[1:-1]
    counts = [np.bincount(np.searchsorted(inner, side, side="right"), minlength=len(edges) - 1) for side in (then, now)]
    if (values == np.round(values)).all() and (np.diff(edges) == np.round(np.diff(edges))).all():
        wholes = [(int(np.ceil(low)), int(np.floor(high))) for low, high in itertools.pairwise(edges)]
        labels = tuple(f"{low}" if low == high else f"{low} to {high}" for low, high in wholes)
        ticks = [(float(place), _compact(low)) for place, (low, _) in enumerate(wholes)]
    else:
        labels = tuple(f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges))
        ticks = [(place - 0.5, _compact(edge)) for place, edge in enumerate(edges)]
    return Distribution(labels, tuple(_percent(counts[0])), tuple(_percent(counts[1])), _some(ticks, 5))


def _some(ticks: Sequence[tuple[float, str]], n_ticks: int) -> tuple[tuple[float, str], ...]:
    """So many of them, evenly."""
    places = sorted({round(place) for place in np.linspace(0, len(ticks) - 1, min(n_ticks, len(ticks)))})
    return tuple(ticks[place] for place in places)


def _edges(now: FloatArray, then: FloatArray) -> FloatArray:
    """Increasing; at least two."""
    sides = [side for side in (now, then) if len(side)]
    low = min(float(np.quantile(side, 0.01)) for side in sides)
    high = max(float(np.quantile(side, 0.99)) for side in sides)
    pooled = np.concatenate(sides)
    if low >= high:
        low, high = float(pooled.min()), float(pooled.max())
    median = float(np.median(pooled))
    positive = pooled[pooled > 0]
    if low >= 0 and len(positive) and high > SKEW * max(median, 1e-12):
        start = max(float(np.quantile(positive, 0.02)), high / 1e6)
        if start < high:
            return np.concatenate([[0.0], np.geomspace(start, high, MAX_BINS)])
    if (pooled == np.round(pooled)).all():
        step = -(-(round(high) - round(low) + 1) // MAX_BINS)  # whole numbers: each bar holds as many of them
        return np.arange(round(low) - 0.5, round(high) + step, step)
    return np.linspace(low, high, MAX_BINS + 1)


def _percent(counts: Iterable[Any]) -> list[float]:
    numbers = [int(count) for count in counts]
    total = max(1, sum(numbers))
    return [round(100 * number / total, 2) for number in numbers]


def _distributions(
    columns: Sequence[ColumnDrift | str], page: PageInput
) -> list[tuple[ColumnDrift | str, Distribution]]:
    found: list[tuple[ColumnDrift | str, Distribution]] = []
    for column in columns:
        name = column if isinstance(column, str) else column.column
        if name in page.current and name in page.reference:
            sides = (frame[name].to_numpy(dtype=np.float64) for frame in (page.current, page.reference))
            bars = distribution(*sides)
            if bars is not None:
                found.append((column, bars))
    return found


def _unjudged_columns(page: PageInput) -> list[str]:
    """Shown all the same where there were too few rows to judge them."""
    return [name for name in page.reference.columns if name in page.current]


def _thinned(history: Sequence[PastTick]) -> list[PastTick]:
    """At most about `MAX_POINTS`, evenly, with every change of the verdict."""
    step = -(-len(history) // MAX_POINTS) if history else 1
    return [
        past
        for place, past in enumerate(history)
        if (len(history) - 1 - place) % step == 0 or (place and past.verdict is not history[place - 1].verdict)
    ]


# Figures, as plotly.js wants them


def _ratio_figure(history: Sequence[PastTick]) -> dict[str, Any]:
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": [_time(past.at) for past in history],
        "y": [_percent_of(past.feature_drift_ratio) for past in history],
        "line": {"color": GREY, "width": 1.5},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    marks = [_verdict_marks(verdict, [p for p in history if p.verdict is verdict]) for verdict in Verdict]
    limit = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 100 * INSPECT_DRIFT_RATIO,
        "y1": 100 * INSPECT_DRIFT_RATIO,
        "line": {"color": INK, "width": 1, "dash": "dot"},
    }
    note = {
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": 100 * INSPECT_DRIFT_RATIO,
        "yanchor": "bottom",
        "text": f"inspect above {INSPECT_DRIFT_RATIO:.0%}",
        "showarrow": False,
        "font": {"size": 10},
    }
    return {
        "id": "ratio",
        "data": [line, *(mark for mark in marks if mark["x"])],
        "layout": {
            "showlegend": True,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "margin": {"l": 42, "r": 10, "t": 34, "b": 30},
            "xaxis": {"type": "date", "nticks": 7, "tickformat": "%H:%M\n%d %b"},
            "yaxis": {"range": [-5, 105], "ticksuffix": " %", "gridcolor": "#eef1f4", "zeroline": False},
            "shapes": [limit],
            "annotations": [note],
        },
    }


def _verdict_marks(verdict: Verdict, history: Sequence[PastTick]) -> dict[str, Any]:
    """Where the share is not known the mark is an open one on the ground line."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _words(verdict),
        "x": [_time(past.at) for past in history],
        "y": [_percent_of(past.feature_drift_ratio) or 0 for past in history],
        "text": [_hover(past) for past in history],
        "hovertemplate": "%{x}<br>%{text}<extra></extra>",
        "marker": {
            "color": COLOURS[verdict],
            "size": 7,
            "symbol": ["circle-open" if past.feature_drift_ratio is None else "circle" for past in history],
        },
    }


def _hover(past: PastTick) -> str:
    """Plotly takes some tags in hover texts for markup, so what is shown there is escaped too."""
    shown = [escape(reason if len(reason) <= 90 else reason[:89] + "…") for reason in past.reasons[:4]]
    more = [f"and {len(past.reasons) - 4} more"] if len(past.reasons) > 4 else []
    return "<br>".join([f"<b>{_words(past.verdict)}</b>", *shown, *more])


def _effects_figure(columns: Sequence[ColumnDrift], min_effect: float) -> dict[str, Any]:
    upwards = sorted(columns, key=lambda c: c.effect)
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [_short(c.effect) for c in upwards],
        "y": [c.column for c in upwards],
        "marker": {"color": [RED if c.is_drifted else GREY for c in upwards]},
        "text": [f"{c.method}: p {c.p_value:.2g}, drifted below {c.threshold:.2g} if material" for c in upwards],
        "textposition": "none",
        "hovertemplate": "%{y}: %{x:.3f}<br>%{text}<extra></extra>",
    }
    limit = {
        "type": "line",
        "yref": "paper",
        "x0": min_effect,
        "x1": min_effect,
        "y0": 0,
        "y1": 1,
        "line": {"color": INK, "width": 1, "dash": "dot"},
    }
    return {
        "id": "effects",
        "data": [bars],
        "layout": {
            "xaxis": {"rangemode": "tozero", "gridcolor": "#eef1f4"},
            "yaxis": {"automargin": True, "ticksuffix": " "},
            "shapes": [limit],
        },
    }


def _missing_figure(columns: Sequence[ColumnDrift]) -> dict[str, Any]:
    upwards = sorted(_with_missing(columns), key=lambda c: c.current_missing_pct)
    sides = (
        ("reference", GREY, [c.reference_missing_pct for c in upwards]),
        ("this window", RED, [c.current_missing_pct for c in upwards]),
    )
    return {
        "id": "missing",
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "x": [_short(value) for value in values],
                "y": [c.column for c in upwards],
                "marker": {"color": colour},
                "hovertemplate": f"%{{y}}: %{{x:.1f}} % in the {name}<extra></extra>",
            }
            for name, colour, values in sides
        ],
        "layout": {
            "barmode": "group",
            "showlegend": True,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
            "margin": {"l": 42, "r": 10, "t": 30, "b": 30},
            "xaxis": {"ticksuffix": " %", "rangemode": "tozero", "gridcolor": "#eef1f4"},
            "yaxis": {"automargin": True, "ticksuffix": " "},
        },
    }


def _metric_figure(name: str, history: Sequence[PastTick], tick: TickRecord) -> dict[str, Any]:
    sides = (
        ("estimated", BLUE, "rgba(45,106,159,.15)", [(p.at, p.estimated, p.estimated_intervals) for p in history]),
        ("realised", RED, "rgba(200,80,42,.15)", [(p.at, p.realised, p.realised_intervals) for p in history]),
    )
    data: list[dict[str, Any]] = []
    for title, colour, band_colour, points in sides:
        known = [(at, values[name], bands.get(name)) for at, values, bands in points if values.get(name) is not None]
        data.extend(_band([(at, band) for at, _, band in known if band is not None], band_colour))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(known) < 3 else "lines",
                "name": title,
                "x": [_time(at) for at, _, _ in known],
                "y": [_short(value) for _, value, _ in known],
                "line": {"color": colour, "width": 1.8},
                "hovertemplate": f"{title} %{{y:.3f}}<br>%{{x}}<extra></extra>",
            }
        )
    level = getattr(tick.performance.reference, name)
    shapes = (
        []
        if level is None
        else [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": level,
                "y1": level,
                "line": {"color": INK, "width": 1, "dash": "dot"},
            }
        ]
    )
    return {
        "id": f"metric-{name}",
        "data": data,
        "layout": {
            "shapes": shapes,
            "xaxis": {"type": "date", "nticks": 4, "tickformat": "%H:%M\n%d %b"},
            "yaxis": {"gridcolor": "#eef1f4", "zeroline": False},
        },
    }


def _band(points: Sequence[tuple[datetime, tuple[float, float]]], colour: str) -> list[dict[str, Any]]:
    """The area between the ends of the intervals: up along the upper ends, back along the lower."""
    if not points:
        return []
    there, back = [_time(at) for at, _ in points], [_time(at) for at, _ in reversed(points)]
    upper, lower = [_short(band[1]) for _, band in points], [_short(band[0]) for _, band in reversed(points)]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [*there, *back],
            "y": [*upper, *lower],
            "fill": "toself",
            "fillcolor": colour,
            "line": {"width": 0},
            "hoverinfo": "skip",
        }
    ]


def _distribution_figure(number: int, bars: Distribution) -> dict[str, Any]:
    places = list(range(len(bars.labels)))
    return {
        "id": f"distribution-{number}",
        "data": [
            {
                "type": "bar",
                "name": "reference",
                "x": places,
                "y": bars.reference_pct,
                "text": bars.labels,
                "textposition": "none",
                "marker": {"color": GREY},
                "hovertemplate": "%{text}: %{y:.1f} % in the reference<extra></extra>",
            },
            {
                "type": "bar",
                "name": "this window",
                "x": places,
                "y": bars.current_pct,
                "text": bars.labels,
                "textposition": "none",
                "marker": {"color": "rgba(200,80,42,.18)", "line": {"color": RED, "width": 1.3}},
                "hovertemplate": "%{text}: %{y:.1f} % now<extra></extra>",
            },
        ],
        "layout": {
            "barmode": "overlay",
            "bargap": 0.04 if len(places) > MAX_VALUES else 0.25,
            "margin": {"l": 34, "r": 6, "t": 6, "b": 24},
            "xaxis": {
                "tickvals": [place for place, _ in bars.ticks],
                "ticktext": [text for _, text in bars.ticks],
                "range": [-0.6, len(places) - 0.4],
                "tickangle": 0,
            },
            "yaxis": {"rangemode": "tozero", "gridcolor": "#eef1f4", "nticks": 5},
        },
    }


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
        parts.append(f'<a href="{escape(page.evidently)}">Evidently\'s report</a>')
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
    """The latest changes of the verdict with their reasons: what hovering would show, to be read."""
    changes = [
        past for place, past in enumerate(history) if not place or past.verdict is not history[place - 1].verdict
    ][-MAX_CHANGES:]
    if not changes:
        return ""
    rows = "".join(
        f"<tr><td class='when'>{past.at:%d %b %H:%M}</td><td><span class='badge {past.verdict}'>{_words(past.verdict)}</span></td>"
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
    """Metric -> value and metric -> interval (an object with `low` and `high`) as far as the report has them."""
    realised = performance.realised
    values = {} if realised is None else {name: getattr(realised, name) for name in METRICS}
    return values, getattr(performance, "realised_intervals", None) or {}


def estimated_values(performance: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """As `realised_values`, for what is estimated without labels."""
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
    return notes


def _effect_note(is_sufficient: bool, min_effect: float) -> str:
    if not is_sufficient:
        return "Too few rows to judge any column."
    return f"0 to 1; material from {min_effect:g} on (dotted). Red: drifted, that is material and significant."


def _missing_place(columns: Sequence[ColumnDrift]) -> str:
    n_columns = len(_with_missing(columns))
    if not n_columns:
        return f"<p class='soft'>{'No value is missing in any column.' if columns else 'Not judged.'}</p>"
    return f"<div id='missing' class='plot' style='height:{90 + 34 * n_columns}px'></div>"


def _with_missing(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    return [c for c in columns if c.current_missing_pct or c.reference_missing_pct]


def _distribution_card(number: int, column: ColumnDrift | str) -> str:
    place = f"distribution-{number}"
    if isinstance(column, str):
        return _card(column, place)
    what = [f"shift {column.effect:.2f}"] if column.is_drifted else []
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


def _compact(value: float) -> str:
    """For an axis: 6250 is 6.3k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.2g}{letter}" if abs(value) < 100 * size else f"{value / size:.0f}{letter}"
    return f"{value:.0f}" if abs(value) >= 10 or value == round(value) else f"{value:.2g}"


def _percent_of(ratio: float | None) -> float | None:
    return None if ratio is None else round(100 * ratio, 2)


def _short(value: float | None) -> float | None:
    """Four digits are more than a chart shows."""
    return None if value is None else float(f"{value:.4g}")


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _words(verdict: Verdict) -> str:
    return verdict.value.replace("_", " ")


def _embedded(value: object) -> str:
    """JSON for a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
