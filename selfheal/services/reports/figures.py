"""Figures of a report's page in plotly.js's format. Pure: records in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from selfheal.domain.monitoring.histogram import MAX_VALUES, Distribution
from selfheal.domain.monitoring.triage import INSPECT_DRIFT_RATIO
from selfheal.domain.records import ColumnDrift, Verdict

if TYPE_CHECKING:
    from selfheal.domain.records import TickRecord

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


MAX_POINTS = 400


@dataclass(frozen=True)
class PastTick:
    """The plotted values of one tick. Intervals are by metric, each (low, high)."""

    at: datetime
    verdict: Verdict
    reasons: tuple[str, ...]
    feature_drift_ratio: float | None
    realised: Mapping[str, float | None]
    estimated: Mapping[str, float | None]
    realised_intervals: Mapping[str, tuple[float, float]]
    estimated_intervals: Mapping[str, tuple[float, float]]


def thinned(history: Sequence[PastTick]) -> list[PastTick]:
    """Return about `MAX_POINTS` ticks at most, evenly spaced, including every change of the verdict."""
    step = -(-len(history) // MAX_POINTS) if history else 1
    return [
        past
        for place, past in enumerate(history)
        if (len(history) - 1 - place) % step == 0 or (place and past.verdict is not history[place - 1].verdict)
    ]


def ratio_figure(history: Sequence[PastTick]) -> dict[str, Any]:
    """Draw the share of drifted features over time."""
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
    """Draw a verdict's marks; where the share is unknown, draw an open mark at 0."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": words(verdict),
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
    """Return an escaped hover text, because Plotly interprets some tags as markup."""
    shown = [escape(reason if len(reason) <= 90 else reason[:89] + "…") for reason in past.reasons[:4]]
    more = [f"and {len(past.reasons) - 4} more"] if len(past.reasons) > 4 else []
    return "<br>".join([f"<b>{words(past.verdict)}</b>", *shown, *more])


def effects_figure(columns: Sequence[ColumnDrift], min_effect: float) -> dict[str, Any]:
    """Draw the size of each column's shift."""
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
            "yaxis": {"type": "category", "automargin": True, "ticksuffix": " "},
            "shapes": [limit],
        },
    }


def missing_figure(columns: Sequence[ColumnDrift]) -> dict[str, Any]:
    """Draw each column's share of missing values beside the reference's."""
    upwards = sorted(with_missing(columns), key=lambda c: c.current_missing_pct)
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
            "yaxis": {"type": "category", "automargin": True, "ticksuffix": " "},
        },
    }


def metric_figure(name: str, history: Sequence[PastTick], tick: TickRecord) -> dict[str, Any]:
    """Draw one metric over time, estimated and realised, with intervals."""
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
    """Draw the area between the intervals' ends: forwards along the upper ends, back along the lower ones."""
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


def distribution_figure(number: int, bars: Distribution) -> dict[str, Any]:
    """Draw a column's distribution beside the reference's."""
    places = list(range(len(bars.labels)))
    labels = [escape(label) for label in bars.labels]  # a client may have sent them, and Plotly knows some HTML
    return {
        "id": f"distribution-{number}",
        "data": [
            {
                "type": "bar",
                "name": "reference",
                "x": places,
                "y": bars.reference_pct,
                "text": labels,
                "textposition": "none",
                "marker": {"color": GREY},
                "hovertemplate": "%{text}: %{y:.1f} % in the reference<extra></extra>",
            },
            {
                "type": "bar",
                "name": "this window",
                "x": places,
                "y": bars.current_pct,
                "text": labels,
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
                "ticktext": [escape(text) for _, text in bars.ticks],
                "range": [-0.6, len(places) - 0.4],
                "tickangle": 0,
            },
            "yaxis": {"rangemode": "tozero", "gridcolor": "#eef1f4", "nticks": 5},
        },
    }


def with_missing(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """Return the columns with missing values on either side."""
    return [c for c in columns if c.current_missing_pct or c.reference_missing_pct]


def _percent_of(ratio: float | None) -> float | None:
    return None if ratio is None else round(100 * ratio, 2)


def _short(value: float | None) -> float | None:
    """Round to four digits, more than a chart shows."""
    return None if value is None else float(f"{value:.4g}")


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def words(verdict: Verdict) -> str:
    """Return a verdict's name with spaces for underscores."""
    return verdict.value.replace("_", " ")
