"""Layout of `selfheal status`: the dashboard's first screen for a terminal of 80 columns, with or without colour.

`selfheal.services.status` provides the words. A tone is a word as well as a colour, for pipes and colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from selfheal.cli.printing import printable
from selfheal.domain.records import Tone
from selfheal.kit.durations import span
from selfheal.services.status import TONE_WORDS

TONE_STYLES = {Tone.GOOD: "bold green", Tone.WARNING: "bold yellow", Tone.BAD: "bold red", Tone.UNKNOWN: "bold dim"}
SEVERITY_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
STATUS_STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "NOT_APPLICABLE": "dim"}
METRIC_NAMES = {
    "f1": "F1",
    "recall": "recall",
    "precision": "precision",
    "auc_roc": "AUC-ROC",
    "brier": "Brier (less is better)",
}


def status_screen(found: dict[str, Any], *, is_old: bool = False) -> RenderableType:
    """Lay out the result of `selfheal.services.status.overview`. `is_old`: Postgres is unavailable, so it is not current."""
    parts: list[RenderableType] = [_headline(found)]
    if is_old:
        parts = [Text("Postgres does not answer. This is what was seen last:", style="bold red"), *parts]
    if found["model"] is not None:
        parts += ["", _facts(found), "", _quality(found["quality"])]
    if found["stalls"]:
        parts += ["", *_stalls(found["stalls"])]
    parts += ["", *_alerts(found["open_alerts"], found["at"])]
    if found["latest_verdict"] is not None:
        parts += ["", *_verdict(found["latest_verdict"], found["at"])]
    parts += ["", _decisions(found["decisions"], found["at"])]
    return Group(*parts)


def _headline(found: dict[str, Any]) -> Text:
    tone = Tone(found["tone"])
    return Text.assemble((TONE_WORDS[tone].upper(), TONE_STYLES[tone]), "  ", (found["sentence"], "bold"))


def _facts(found: dict[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in _rows(found):
        grid.add_row(name, Text(printable(text)))
    return grid


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    model, traffic, tick, at = found["model"], found["traffic"], found["latest_tick"], found["at"]
    replaced = "" if model["replaced_version"] is None else f", in place of version {model['replaced_version']}"
    yield (
        "serving",
        f"{model['name']} version {model['version']}, for {span(at - model['in_production_since'])}"
        f"{replaced} (trigger: {model['trigger']})",
    )
    yield "probation", model["probation"]
    newest = traffic["newest_prediction_at"]
    latest = "no prediction yet" if newest is None else f"the newest prediction is {span(at - newest)} old"
    yield "traffic", f"{traffic['predictions_per_second']:.1f} predictions a second in the last minute; {latest}"
    if tick is None:
        yield "verdict", "none yet"
        return
    yield "verdict", f"{_words(tick['verdict'])}, {_ago(tick['at'], at)}: {tick['reasons']}"
    ratio = tick["feature_drift_ratio"]
    drifted = "unknown: too few rows" if ratio is None else f"{ratio:.0%} of the features: {tick['drifted_features']}"
    yield "drift", drifted
    coverage = tick["label_coverage_pct"]
    share = "" if coverage is None else f" ({coverage:.0f} %)"
    yield (
        "window",
        f"{tick['predictions']:,} predictions in {span(timedelta(hours=tick['window_hours']))}, {tick['labels']:,} of them "
        f"labelled{share}",
    )
    yield "labels", found["labels"]


def _quality(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title="Quality, with 95 % intervals", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for name in ("", "realised", "estimated", "when judged"):
        table.add_column(name, header_style="dim")
    for row in rows:
        table.add_row(
            METRIC_NAMES[row["metric"]],
            _figure(row["realised"], row["realised_interval"]),
            _figure(row["estimated"], row["estimated_interval"]),
            _figure(row["in_evaluation"], None),
        )
    return table


def _figure(value: float | None, interval: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + ("" if interval is None else f" ({interval['low']:.3f} to {interval['high']:.3f})")


def _stalls(stalls: list[dict[str, str]]) -> Iterator[RenderableType]:
    yield Text("What the loop waits for:", style="bold yellow")
    for stall in stalls:
        yield Text.assemble((f"  {stall['state']}", "bold"), f": {printable(stall['sentence'])}")


def _alerts(alerts: list[dict[str, Any]], at: datetime) -> Iterator[RenderableType]:
    if not alerts:
        yield Text("No alert is open.", style="bold")
        return
    yield Text(f"Open alerts: {len(alerts)}", style="bold")
    for alert in alerts:
        seen = "not acknowledged" if alert["acknowledged_by"] is None else f"seen by {alert['acknowledged_by']}"
        yield Text.assemble(
            (alert["severity"], SEVERITY_STYLES.get(alert["severity"], "")),
            f" {_words(alert['kind'])}, {_ago(alert['created_at'], at)}, {seen}",
        )
        yield Text(f"  {printable(alert['message'])}")
        yield Text(f"  selfheal alerts acknowledge {alert['alert_id']}", style="dim")


def _verdict(decision: dict[str, Any], at: datetime) -> Iterator[RenderableType]:
    who = f"{_ago(decision['created_at'], at)}, {decision['trigger_reason']} by {decision['actor']}"
    yield Text.assemble(
        ("Latest verdict of the gates: ", "bold"),
        (_words(decision["action"]), "bold"),
        printable(f" ({who}): {decision['reason']}"),
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for gate in decision["gates"]:
        status = Text(_words(gate["status"]).lower(), style=STATUS_STYLES.get(gate["status"], ""))
        table.add_row(f"  {_words(gate['name'])}", status, Text(printable(gate["sentence"])))
    yield table


def _decisions(decisions: list[dict[str, Any]], at: datetime) -> RenderableType:
    if not decisions:
        return Text("Nothing has been decided yet.", style="bold")
    table = Table.grid(padding=(0, 2))
    table.title, table.title_justify, table.title_style = "Latest decisions", "left", "bold"
    for decision in decisions:
        why = printable(f"{decision['reason']} ({decision['actor']})")
        table.add_row(f"  {_ago(decision['created_at'], at)}", _words(decision["action"]), Text(why))
    return table


def _ago(moment: datetime, at: datetime) -> str:
    return f"{span(at - moment)} ago"


def _words(name: str) -> str:
    return name.replace("_", " ")
