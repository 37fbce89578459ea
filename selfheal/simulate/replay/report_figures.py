"""The picture of a world in plotly.js's format: what happened to the loss, and what each policy did. Pure: lines of results in, data out."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import cycle, islice
from typing import Any

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.simulate.replay.comparison import Line, WorldResult
from selfheal.simulate.replay.engine import What
from selfheal.simulate.replay.policies import NEVER, ORACLE, OURS
from selfheal.simulate.replay.policy_spec import short_names

MAX_POINTS = 300
"""Points of a line: a phone shows as many."""

SMOOTHED_DAYS = 7
"""The loss of a day is mostly chance: each point is the mean over the rows of so many days until then."""

HOURS_PER_DAY = 24.0

COLOURS = {
    NEVER: "#8b98a5",
    "weekly": "#b8860b",
    "evidently": "#d2562f",
    "adwin": "#a35fc9",
    "nannyml": "#2a9d8f",
    ORACLE: "#5a9e4b",
    OURS: "#2f7fd1",
}
"""Readable on white and on near black; never and the oracle are dashed besides."""

MORE_COLOURS = ("#2f7fd1", "#d2562f", "#2a9d8f", "#a35fc9", "#b8860b", "#c2477f", "#5a9e4b", "#7d6ce0")
"""Of further policies, such as the variants of a sweep, in turn."""

DASHED = {NEVER: "dot", ORACLE: "dash"}

MARKS = {
    What.ALARM: ("alarm", "triangle-up", "#c98a00"),
    What.TRAINED: ("training", "circle-open", "#2f7fd1"),
    What.PROMOTED: ("promotion", "diamond", "#3f9a5f"),
    What.ROLLED_BACK: ("rollback", "x", "#d0453a"),
    What.TRAINING_FAILED: ("failed training", "triangle-down-open", "#8b98a5"),
}
"""What the strip of a picture shows: name, symbol, colour."""

SIZES = {What.TRAINED: 12}
"""Pixels of a mark, where not 8: a training is a ring around the promotion that follows at the same moment."""

LIFTED = {What.ALARM: 0.3}
"""Rows by which a mark stands above its row's line: an alarm would be hidden by the training that it causes."""

GRID = "rgba(128,128,128,.22)"
LAYOUT: dict[str, Any] = {
    "margin": {"l": 96, "r": 10, "t": 24, "b": 40},
    "font": {"family": "system-ui, sans-serif", "size": 11, "color": "#1c2733"},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "showlegend": False,
    "hoverlabel": {"align": "left"},
}
DARK_INK = "#dfe6ee"
LOSS_PIXELS, STRIP_PIXELS, MARGIN_PIXELS = 210, 20, 100


def colours_of(policies: Sequence[str]) -> dict[str, str]:
    """Return a colour per policy."""
    others = [policy for policy in policies if policy not in COLOURS]
    return COLOURS | dict(zip(others, islice(cycle(MORE_COLOURS), len(others)), strict=True))


def world_height(result: WorldResult) -> int:
    """Return the height of a world's picture in pixels."""
    return LOSS_PIXELS + STRIP_PIXELS * len(result.lines) + MARGIN_PIXELS


def world_figure(result: WorldResult, place: str) -> dict[str, Any]:
    """Draw a world: the true loss of each policy over time, and below it, on the same days, what each policy did.

    The loss is pooled over the seeds; the marks are of the first seed, since each deployment has its own.
    """
    policies = list(result.lines)
    colours = colours_of(policies)
    names = {policy: escape(name) for policy, name in short_names(policies).items()}  # plotly reads some tags
    loss = [
        _loss(list(by_seed.values()), names[policy], colours[policy], DASHED.get(policy, "solid"))
        for policy, by_seed in result.lines.items()
    ]
    strip = STRIP_PIXELS * len(policies) / (LOSS_PIXELS + STRIP_PIXELS * len(policies))
    change = change_day(next(iter(next(iter(result.lines.values())).values())))
    return {
        "id": place,
        "data": [
            *loss,
            *_strip([next(iter(by_seed.values())) for by_seed in result.lines.values()]),
        ],
        "layout": {
            "xaxis": {
                "title": {
                    "text": "days since the change" if change is not None else "days since the start",
                    "standoff": 4,
                },
                "anchor": "y2",
                "gridcolor": GRID,
                "zeroline": False,
                "nticks": 7,
                "tickangle": 0,
            },
            "yaxis": {"domain": [strip + 0.05, 1], "gridcolor": GRID, "zeroline": False, "nticks": 5},
            "yaxis2": {
                "domain": [0, strip],
                "tickvals": list(range(len(policies))),
                "ticktext": [names[policy] for policy in reversed(policies)],
                "range": [-0.6, len(policies) - 0.4],
                "gridcolor": GRID,
                "zeroline": False,
                "fixedrange": True,
            },
            "shapes": [] if change is None else [_change_line()],
            "annotations": [_title(), *([] if change is None else [_change_words()])],
        },
    }


def change_day(line: Line) -> float | None:
    """Return the days from the start to the change; None if nobody knows of one.

    Results of a release that did not record it have the hours after the change alone.
    """
    hours = line.get("change_h")
    if hours is None and "change_h" not in line:
        before = line["days"] * HOURS_PER_DAY - line["hours_after"]
        hours = before if before > 0 else None
    return None if hours is None else hours / HOURS_PER_DAY


def smoothed_loss(lines: Sequence[Line]) -> tuple[float, int, list[float | None]]:
    """Return the first day, the days between two points, and the mean Brier score of the rows of `SMOOTHED_DAYS` until each.

    Days are since the change, else since the start; rows of all lines count alike.
    """
    squares, rows = (_pooled([line["by_day"][key] for line in lines]) for key in ("brier", "n_rows"))
    n_days = len(squares)
    first = np.maximum(np.arange(1, n_days + 1) - SMOOTHED_DAYS, 0)
    sums, counts = (np.concatenate([[0.0], np.cumsum(values)]) for values in (squares, rows))
    step = max(1, -(-n_days // MAX_POINTS))
    chosen = np.arange((n_days - 1) % step, n_days, step)
    n_rows = counts[chosen + 1] - counts[first[chosen]]
    means = (sums[chosen + 1] - sums[first[chosen]]) / np.maximum(n_rows, 1)
    values = [round(float(mean), 4) if n else None for mean, n in zip(means, n_rows, strict=True)]
    return float(chosen[0] + 1 - (change_day(lines[0]) or 0.0)), step, values


def _pooled(periods: Sequence[Sequence[float]]) -> FloatArray:
    total = np.zeros(max(len(period) for period in periods))
    for period in periods:
        total[: len(period)] += period
    return total


def _loss(lines: Sequence[Line], name: str, colour: str, dash: str) -> dict[str, Any]:
    first, step, values = smoothed_loss(lines)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x0": round(first, 3),
        "dx": step,
        "y": values,
        "line": {"color": colour, "width": 2.2 if name.startswith(OURS) else 1.6, "dash": dash},
        "hovertemplate": f"{name}: %{{y:.4f}}, day %{{x:.0f}}<extra></extra>",
    }


def _strip(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Draw the marks of each kind of event, one row per policy, the first at the top."""
    traces = []
    for what, (word, symbol, colour) in MARKS.items():
        found = [
            (round(hours / HOURS_PER_DAY - (change_day(line) or 0.0), 2), len(lines) - 1 - place)
            for place, line in enumerate(lines)
            for hours, kind, _ in line.get("events", ())
            if kind == what.value
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "yaxis": "y2",
                "name": word,
                "x": [day for day, _ in found],
                "y": [round(row + LIFTED.get(what, 0.0), 1) for _, row in found],
                "marker": {"symbol": symbol, "color": colour, "size": SIZES.get(what, 8)},
                "hovertemplate": f"{word}, day %{{x:.1f}}<extra></extra>",
            }
        )
    return traces


def _change_line() -> dict[str, Any]:
    return {
        "type": "line",
        "yref": "paper",
        "x0": 0,
        "x1": 0,
        "y0": 0,
        "y1": 1,
        "line": {"color": "#8b98a5", "width": 1.4, "dash": "dash"},
    }


def _change_words() -> dict[str, Any]:
    words = {"text": "change", "x": 0, "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "top", "xshift": 4}
    return words | {"showarrow": False}


def _title() -> dict[str, Any]:
    text = {"text": f"true Brier score, {SMOOTHED_DAYS} days", "x": 0, "y": 1}
    place = {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    return text | place
