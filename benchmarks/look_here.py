"""Judge windows with the build on PYTHONPATH, and print records and CPU times as JSON: a process of `benchmarks.look`.

Belongs here: what adapts to builds with other names. It is run as a file, because another build does not have it.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import selfheal
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.monitoring.drift import RECENT_ROWS, DriftLimits, detect_drift
from selfheal.domain.monitoring.estimation import estimate_performance
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.multivariate import domain_check
from selfheal.domain.monitoring.performance import performance_report, score_metrics
from selfheal.domain.monitoring.triage import HarmLimits, triage
from selfheal.domain.records import Window
from selfheal.kit.serialization import to_dict

try:
    from selfheal.domain.monitoring.prepared_rows import PreparedRows
except ImportError:  # a build before it

    def PreparedRows(rows: Any) -> Any:  # type: ignore[no-redef]  # noqa: N802
        """Return the rows as they are."""
        return rows


try:
    from selfheal.domain.monitoring.relation import relation_p_value
except ImportError:  # a build before it
    from selfheal.domain.monitoring.estimation import relation_p_value  # type: ignore[attr-defined, no-redef]

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
LIMITS = DriftLimits(n_ticks=90 * 288.0, min_effect=0.05, min_rows=200)
HARM_LIMITS = HarmLimits(min_brier_excess=0.01, min_auc=0.72)
THRESHOLD, SEED = 0.3, 1
INPUTS = list(contract.input_names)


class Look:
    """One look after the other, with the CPU time of each part."""

    def __init__(self, references: list[Any]) -> None:
        self.cpu_ms: dict[str, list[float]] = defaultdict(list)
        self.references = [PreparedRows(rows) for rows in references]
        self.champions = [
            score_metrics(rows[TRUE_LABEL].to_numpy(), rows["probability"].to_numpy(), THRESHOLD) for rows in references
        ]

    def timed(self, part: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function and add its CPU time to a part."""
        began = time.process_time()
        result = function(*arguments, **named)
        self.cpu_ms[part].append(1e3 * (time.process_time() - began))
        return result

    def record(self, window: dict[str, Any], *, is_whole: bool) -> dict[str, Any]:
        """Judge a window; return what a tick records of it."""
        kind = f"{'whole' if is_whole else 'deciding'}, in all"
        drift, performance, outcome = self.timed(kind, self.judge, window, is_whole=is_whole)
        if window["is_calm_day"]:
            self.cpu_ms[f"{kind}, a calm day"].append(self.cpu_ms[kind][-1])
        return {"drift": to_dict(drift), "performance": to_dict(performance), "triage": to_dict(outcome)}

    def inner_parts(self, window: dict[str, Any]) -> None:
        """Time by themselves the three parts that cost most."""
        rows, reference = window["rows"], self.references[window["reference"]]
        if len(rows) >= LIMITS.min_rows:
            self.timed("of it, domain_check", domain_check, rows, reference, contract.feature_names, SEED)
        self.timed("of it, estimate_performance", estimate_performance, rows, reference, INPUTS, THRESHOLD, SEED)
        self.timed("of it, relation_p_value", relation_p_value, window["labelled"], reference, INPUTS)

    def judge(self, window: dict[str, Any], *, is_whole: bool) -> tuple[Any, Any, Any]:
        """Return the records of drift and performance, and the verdict."""
        kind = "whole" if is_whole else "deciding"
        rows, labelled, number = window["rows"], window["labelled"], window["reference"]
        reference = self.references[number]
        seen = Window("m", 1, NOW - timedelta(days=1), NOW, len(rows), len(labelled))
        recent = PreparedRows(rows.tail(RECENT_ROWS).reset_index(drop=True))
        problems = self.timed(f"{kind}, feed_problems", feed_problems, recent, reference, contract)
        drift = self.timed(
            f"{kind}, detect_drift",
            detect_drift,
            seen,
            rows,
            reference,
            features=contract.feature_names,
            reference_version=1,
            limits=LIMITS,
            recent=recent,
            baseline=self.references[0] if is_whole else None,
            feed_problems=problems,
            seed=SEED,
        )
        drift = getattr(drift, "report", drift)
        performance = self.timed(
            f"{kind}, performance_report",
            performance_report,
            seen,
            rows,
            labelled,
            self.champions[number],
            THRESHOLD,
            calibration_rows=reference,
            inputs=INPUTS,
            label_delay=None,
            matured=seen if window["is_matured"] else None,
            seed=SEED,
            **({} if is_whole else {"decides_at_auc": HARM_LIMITS.min_auc}),
        )
        outcome = self.timed(f"{kind}, triage", triage, drift, performance, HARM_LIMITS, None)
        return drift, performance, outcome


def main(file: Path) -> None:
    """Judge the windows of a file."""
    references, windows = pickle.loads(file.read_bytes())  # noqa: S301  (written by `benchmarks.look`)
    warm = Look(references)
    for window in windows[: min(8, len(windows))]:  # imports, and what is prepared once
        warm.judge(window, is_whole=True)
    look = Look(references)
    records = [look.record(window, is_whole=True) for window in windows]
    for window in windows:
        look.inner_parts(window)
    n_different = 0
    if "decides_at_auc" in (performance_report.__kwdefaults__ or {}):
        deciding = [look.record(window, is_whole=False) for window in windows]
        n_different = sum(one["triage"] != all_["triage"] for one, all_ in zip(deciding, records, strict=True))
    found = {
        "code": selfheal.__file__,
        "cpu_ms": {part: sum(times) / len(times) for part, times in look.cpu_ms.items()},
        "records": records,
        "decisions_that_differ": n_different,
    }
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
