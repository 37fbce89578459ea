"""Evidently's page of a comparison, with a note at its top: which figures decide, and which columns it leaves out.

Evidently renders with our test and each column's threshold. Nothing else imports it: `selfheal.domain.monitoring.drift`
decides without it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from selfheal.domain.levels import is_text, numbers
from selfheal.domain.monitoring.drift import DATASET_DRIFT_SHARE, METHOD
from selfheal.domain.monitoring.prepared_rows import sample_of
from selfheal.domain.monitoring.shift import column_shift

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.records import DriftReport

METHOD_TITLE = "smaller of Kolmogorov-Smirnov and rank-sum p-value, or of those of levels, doubled"

BODY = re.compile(r"<body\b[^>]*>", re.IGNORECASE)

STYLE = (
    "margin:12px auto;max-width:1200px;padding:10px 14px;border:1px solid #8a6d00;border-radius:8px;background:#fdf6e3;"
    "color:#1c2733;font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere"
)


def evidently_page(report: DriftReport, current: pd.DataFrame, reference: pd.DataFrame, overview: str) -> str | None:
    """Return the page (4 MB); None if no column has values on both sides.

    Args:
        report: what the comparison found: its columns and their thresholds are shown.
        current: the window's rows.
        reference: the version's frozen reference; a column that it lacks is named as left out.
        overview: the file name of our own page.
    """
    names = [column.column for column in report.columns]
    levels = {name for name in names if name in current and is_text(current[name].dtype)}
    types = {name: "object" if name in levels else "float64" for name in names}
    now, then = (_without_markup(rows.reindex(columns=names).astype(types), levels) for rows in (current, reference))
    shown = [name for name in names if now[name].notna().any() and then[name].notna().any()]
    if not shown:
        return None
    thresholds = {column.column: column.threshold for column in report.columns if column.column in shown}
    html: str = run_evidently(now[shown], then[shown], thresholds).get_html_str(as_iframe=False)
    return with_note(html, [name for name in names if name not in shown], overview)


def _without_markup(rows: pd.DataFrame, levels: Collection[str]) -> pd.DataFrame:
    """Return the rows with levels that are no markup: Evidently writes them into a script as they are, and clients choose them."""
    return rows.assign(**{name: rows[name].map(partial(escape, quote=False), na_action="ignore") for name in levels})


def run_evidently(current: pd.DataFrame, reference: pd.DataFrame, thresholds: Mapping[str, float]) -> Any:
    """Run Evidently's drift preset with our test and each column's threshold; return its snapshot.

    Args:
        current: float64 columns, or objects of texts for categories, each with a value: Evidently (0.7) refuses empty columns, fails on nullable and boolean ones,
            and finds no numbers in unsigned ones unless they are declared.
        reference: the same columns.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    _register_method()
    names = list(current.columns)
    categories = [name for name in names if is_text(current[name].dtype)]
    numeric = [name for name in names if name not in categories]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categories)
    preset = DataDriftPreset(
        columns=names,
        drift_share=DATASET_DRIFT_SHARE,
        per_column_method=dict.fromkeys(names, METHOD),
        per_column_threshold=dict(thresholds),
    )
    return Report([preset]).run(
        Dataset.from_pandas(current, data_definition=definition),
        Dataset.from_pandas(reference, data_definition=definition),
    )


def _register_method() -> None:
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def test(reference: pd.Series, current: pd.Series, _: Any, threshold: float) -> tuple[float, bool]:
        now, then = (sample_of(side, numbers(side)) for side in (current, reference))
        p_value = column_shift(now, then).p_value
        return p_value, p_value < threshold

    register_stattest(StatTest(METHOD, METHOD_TITLE, [ColumnType.Numerical, ColumnType.Categorical]), default_impl=test)


def with_note(html: str, left_out: Sequence[str], overview: str) -> str:
    """Return the page with the note.

    Args:
        left_out: columns that were judged and are not on the page.
        overview: the file name of our own page.
    """
    note = _note(left_out, overview)
    body = BODY.search(html)
    return note + html if body is None else html[: body.end()] + note + html[body.end() :]


def _note(left_out: Sequence[str], overview: str) -> str:
    missing = ""
    if left_out:
        names = escape(", ".join(left_out))
        missing = f"<br><b>Not on this page:</b> {names}. The overview shows what is known."
    return (
        f'<div id="selfheal-note" style="{STYLE}"><b>This page decides nothing.</b> The verdict rests on the figures of the '
        f'<a href="{escape(overview)}">overview</a>: a column has drifted if its shift is significant and material. Evidently '
        "judges significance alone, and spreads its bars over the whole range of a column, so that a single extreme row can "
        f"hide a shift in its charts.{missing}</div>"
    )
