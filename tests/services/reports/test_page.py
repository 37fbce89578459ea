"""Rules of the overview page: it shows what is known, says what is not, trusts no text, and asks no other host."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from selfheal.domain.records import ProxyMetrics, TickRecord, Triage, Verdict
from selfheal.services.reports.figures import MAX_POINTS, PastTick, thinned
from selfheal.services.reports.page import OpenAlert, PageInput, overview_page
from tests import builders
from tests.times import T0

HOSTILE = "</script><script>alert(1)</script>&<img src=x onerror=alert(2)>"


def past(minutes: float, verdict: Verdict = Verdict.STABLE, **changes: Any) -> PastTick:
    values: dict[str, Any] = {
        "at": T0 + timedelta(minutes=minutes),
        "verdict": verdict,
        "reasons": ("all is well",),
        "feature_drift_ratio": 0.25,
        "realised": {"f1": 0.6, "auc_roc": None},
        "estimated": {"f1": 0.61, "auc_roc": 0.8},
        "realised_intervals": {"f1": (0.5, 0.7)},
        "estimated_intervals": {},
    }
    return PastTick(**(values | changes))


def page(**changes: Any) -> str:
    columns = (
        builders.column_drift("load_ratio", effect=0.3, is_drifted=True, current_missing_pct=12.5),
        builders.column_drift("restarts"),
    )
    drift = changes.pop("drift", None) or builders.drift_report(columns=columns, feature_drift_ratio=0.25)
    reasons = changes.pop("reasons", ("load_ratio drifted",))
    performance = changes.pop("performance", None) or builders.performance(realised=None)
    seen = builders.window()
    frame = pd.DataFrame({"load_ratio": np.linspace(0, 1, 50), "restarts": np.arange(50.0) % 3})
    values: dict[str, Any] = {
        "tick": TickRecord(
            Triage(seen, Verdict.BENIGN_SHIFT, reasons, (), "e1"),
            ProxyMetrics(seen, None, None, None, None),
            drift,
            performance,
        ),
        "sentence": "The traffic has shifted.",
        "history": [past(0), past(5, Verdict.BENIGN_SHIFT)],
        "alerts": [],
        "reference": frame,
        "current": frame + 1,
        "min_effect": 0.05,
        "written_at": T0,
        "library": "plotly-1.min.js",
        "drawing": "page-1.js",
        "evidently": None,
    }
    return overview_page(PageInput(**(values | changes)))


def figures_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return {figure["id"]: figure for figure in json.loads(found.group(1))["figures"]}


def test_it_shows_columns_against_the_reference_and_the_time() -> None:
    html = page()
    figures = figures_of(html)
    assert set(figures) >= {"ratio", "effects", "missing", "metric-f1", "distribution-0", "distribution-1"}
    for name in figures:
        assert f"id='{name}'" in html or f'id="{name}"' in html, "each figure has its place"
    assert figures["effects"]["data"][0]["y"] == ["restarts", "load_ratio"], "the strongest on top"
    assert figures["effects"]["layout"]["shapes"][0]["x0"] == 0.05
    assert [trace["x"] for trace in figures["missing"]["data"]] == [[0.0], [12.5]]
    named = {trace.get("name") for trace in figures["ratio"]["data"]}
    assert {"stable", "benign shift"} <= named
    assert figures["metric-f1"]["data"][-1]["y"] == [0.6, 0.6]
    assert any(trace.get("fill") == "toself" for trace in figures["metric-f1"]["data"]), "the interval as an area"
    assert html.index("load_ratio</h3>") < html.index("restarts</h3>")


def test_what_is_not_known_is_called_unknown_and_never_0() -> None:
    html = page(drift=builders.drift_report(is_sufficient=False, feature_drift_ratio=None, columns=()))
    assert re.search(r"<b>unknown</b><span class='soft'>drifted features", html)
    assert re.search(r"<b>unknown</b><span class='soft'>predicted positive", html)
    assert "Too few rows to judge" in html
    assert "too few labels" in html
    assert "<td>F1</td><td class='number'>unknown</td>" in html
    assert "distribution-0" in figures_of(html), "the rows are shown though they are not judged"


def test_text_from_outside_stays_text() -> None:
    html = page(
        reasons=(HOSTILE,),
        history=[past(0, reasons=(HOSTILE,))],
        alerts=[OpenAlert("critical", HOSTILE, T0, HOSTILE)],
        drift=builders.drift_report(columns=(builders.column_drift(HOSTILE),)),
        reference=pd.DataFrame({HOSTILE: [1.0]}),
        current=pd.DataFrame({HOSTILE: [2.0]}),
    )
    assert "<img" not in html
    assert "alert(1)</script>" not in html
    assert html.count("<script") == 3, "the data and the two scripts beside the page"
    assert figures_of(html)["effects"]["data"][0]["y"] == [HOSTILE]


def test_it_asks_nothing_of_another_host() -> None:
    assert "//" not in re.sub(r'<script type="application/json".*?</script>', "", page(), flags=re.DOTALL)
    assert 'src="plotly-1.min.js"' in page()


def test_evidentlys_page_is_linked_where_there_is_one() -> None:
    assert 'href="x.html"' in page(evidently="x.html")
    assert "Evidently" not in page()


def test_a_long_history_is_thinned_but_no_change_of_the_verdict_is_lost() -> None:
    verdicts = [Verdict.BROKEN_FEED if number == 777 else Verdict.STABLE for number in range(5_000)]
    kept = thinned([past(number, verdict) for number, verdict in enumerate(verdicts)])
    assert len(kept) <= MAX_POINTS + 3
    assert [p.at for p in kept if p.verdict is Verdict.BROKEN_FEED] == [T0 + timedelta(minutes=777)]
    assert kept[-1].at == T0 + timedelta(minutes=4_999)
