"""Evidently's page: rendered with our test and thresholds, with a note on which figures decide and what is not shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring.drift import METHOD
from selfheal.domain.monitoring.shift import column_shift
from selfheal.services.reports.evidently_page import evidently_page, run_evidently, with_note
from tests import builders

PAGE = '<!doctype html><html><head></head><body class="light"><div id="root"></div></body></html>'


def test_the_note_is_the_first_thing_on_the_page() -> None:
    html = with_note(PAGE, (), "x-overview.html")
    assert html.startswith('<!doctype html><html><head></head><body class="light"><div id="selfheal-note"')
    assert '<a href="x-overview.html">overview</a>' in html
    assert html.endswith('<div id="root"></div></body></html>')
    assert "Not on this page" not in html


def test_a_column_that_is_not_on_the_page_is_named_there() -> None:
    assert "<b>Not on this page:</b> load_ratio, &lt;b&gt;." in with_note(
        PAGE, ("load_ratio", "<b>"), "x-overview.html"
    )


@pytest.mark.parametrize("page", ["", "<div>no body</div>"])
def test_a_page_of_another_form_has_the_note_all_the_same(page: str) -> None:
    html = with_note(page, ("load_ratio",), "x-overview.html")
    assert html.startswith('<div id="selfheal-note"')
    assert html.endswith(page)


THRESHOLDS = {"load_ratio": 1e-5, "restarts": 1e-7}


def rows(n_rows: int, seed: int) -> pd.DataFrame:
    """Continuous values, some missing, and counts."""
    rng = np.random.default_rng(seed)
    loads = np.where(rng.random(n_rows) < 0.1, np.nan, rng.gamma(2.0, size=n_rows) * (1 + 0.1 * seed))
    return pd.DataFrame({"load_ratio": loads, "restarts": rng.poisson(1.0, n_rows).astype(np.float64)})


def test_evidently_is_given_our_test_and_threshold_for_each_column() -> None:
    current, reference = rows(600, seed=1), rows(4_000, seed=0)
    snapshot = run_evidently(current, reference, THRESHOLDS)
    shown = {
        metric["config"]["column"]: (metric["config"]["method"], metric["config"]["threshold"], float(metric["value"]))
        for metric in snapshot.dict()["metrics"]
        if "column" in metric["config"]
    }
    assert shown == {
        name: (METHOD, threshold, column_shift(current[name].to_numpy(), reference[name].to_numpy()).p_value)
        for name, threshold in THRESHOLDS.items()
    }


# Evidently fails on nullable and boolean columns, finds no numbers in unsigned ones, and gives some names a meaning.
TYPES = {
    "target": "boolean",
    "id": "bool",
    "datetime": "uint8",
    "index": "uint64",
    "prediction": "Int64",
    "x": "Float64",
}


def test_a_column_is_shown_whatever_its_type_and_name_and_named_where_it_has_no_value() -> None:
    def typed(n_rows: int, seed: int) -> pd.DataFrame:
        flags = np.random.default_rng(seed).random(n_rows) < 0.4
        return pd.DataFrame({name: pd.Series(flags).astype(kind) for name, kind in TYPES.items()})

    names = [*TYPES, "restarts", "unknown"]
    report = builders.drift_report(columns=tuple(builders.column_drift(name) for name in names))
    current = typed(300, 1).assign(restarts=np.nan)  # and the reference lacks the last column
    html = evidently_page(report, current.assign(unknown=1.0), typed(500, 2).assign(restarts=1.0), "x-overview.html")
    assert html is not None
    assert html.lstrip().startswith("<")
    assert "<b>Not on this page:</b> restarts, unknown." in html
    assert '<a href="x-overview.html">overview</a>' in html
    assert all(f'"column_name": "{name}"' in html for name in TYPES)


def test_there_is_no_page_where_no_column_has_values_on_both_sides() -> None:
    report = builders.drift_report(columns=(builders.column_drift("restarts"),))
    known, missing = pd.DataFrame({"restarts": [1.0, 2.0]}), pd.DataFrame({"restarts": [np.nan, np.nan]})
    assert evidently_page(report, missing, known, "x-overview.html") is None
    assert evidently_page(report, known, missing, "x-overview.html") is None
    assert evidently_page(report, known, pd.DataFrame({"other": [1.0]}), "x-overview.html") is None


def test_a_category_is_shown_as_one_by_our_test_of_levels() -> None:
    rng = np.random.default_rng(0)
    current, reference = (
        rows(n, seed=0).assign(plan=rng.choice(np.array(names, dtype=object), n))
        for n, names in ((600, ["a", "b", "new"]), (4_000, ["a", "b", "gone"]))
    )
    snapshot = run_evidently(current, reference, THRESHOLDS | {"plan": 1e-6})
    shown = {one["config"]["column"]: one for one in snapshot.dict()["metrics"] if "column" in one["config"]}
    assert shown["plan"]["config"]["method"] == METHOD
    assert float(shown["plan"]["value"]) < 1e-50


def test_a_level_that_a_client_sent_is_no_markup_on_the_page() -> None:
    injected = "</script><script>alert(1)</script>"
    levels = np.array(["a", injected, None], dtype=object)
    current, reference = (rows(n, seed=0).assign(plan=np.resize(levels, n)) for n in (60, 90))
    columns = tuple(builders.column_drift(column=name) for name in (*THRESHOLDS, "plan"))
    page = evidently_page(builders.drift_report(columns=columns), current, reference, "x-overview.html")
    assert page is not None
    assert injected not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
