"""`python deploy/monitoring/dashboards.py`: writes Grafana's dashboards from the panels below; a test holds the files against it.

Grafana's own editor writes hundreds of lines for a panel. Here a panel is a title, a unit, and what is drawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "grafana" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24
"""Columns of Grafana's grid."""

HEIGHT = 7
RATE = "$__rate_interval"
OF = 'instance=~"$instance"'


@dataclass(frozen=True)
class Panel:
    """One panel: `queries` are legend and expression; `limit` colours what is above it red, or below it if `is_floor`."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    limit: float | None = None
    is_floor: bool = False


API = (
    Panel("Ready", "1 if predictions can be acknowledged.", "short", (("{{instance}}", f"min by (instance) (selfheal_ready{{{OF}}})"),), "stat", 6, 1, True),
    Panel("Version that serves", "It should be the same everywhere.", "none", (("{{instance}}", f"max by (instance) (selfheal_model_version{{{OF}}})"),), "stat", 6),
    Panel("Follows production", "1 if the version in production is the one that scores.", "short", (("{{instance}}", f"min by (instance) (selfheal_model_followed{{{OF}}})"),), "stat", 6, 1, True),
    Panel("Answers", "1 if Prometheus reaches the API.", "short", (("{{instance}}", f'up{{job="selfheal",{OF}}}'),), "stat", 6, 1, True),
    Panel("Predictions by version", "Acknowledged predictions.", "reqps", (("version {{model_version}}", f"sum by (model_version) (rate(selfheal_predictions_total{{{OF}}}[{RATE}]))"),), width=12),
    Panel("Predictions by outcome", "A sudden change of the mix is drift, or a broken feed.", "reqps", (("{{prediction}}", f"sum by (prediction) (rate(selfheal_predictions_total{{{OF}}}[{RATE}]))"),), width=12),
    Panel("Latency", "From a request's arrival to its acknowledgement.", "s", tuple((f"p{round(100 * q)}", f"histogram_quantile({q}, sum by (le) (rate(selfheal_scoring_latency_seconds_bucket{{{OF}}}[{RATE}])))") for q in (0.5, 0.95, 0.99)), limit=0.5),
    Panel("Waiting rows", "They grow if the service is overloaded.", "short", (("{{instance}}", f"sum by (instance) (selfheal_waiting_rows{{{OF}}})"),)),
    Panel("Refused requests", "invalid_request after a client's release; overloaded: too many wait.", "reqps", (("{{kind}}", f"sum by (kind) (rate(selfheal_refused_requests_total{{{OF}}}[{RATE}]))"),)),
    Panel("Journal lag", "Seconds since the whole journal was in Postgres. Monitoring sees nothing newer.", "s", (("{{instance}}", f"max by (instance) (selfheal_journal_lag_seconds{{{OF}}})"),), limit=60),
    Panel("Journal not yet copied", "Absent while Postgres is away.", "bytes", (("{{instance}}", f"max by (instance) (selfheal_journal_lag_bytes{{{OF}}})"),)),
    Panel("Rows copied to Postgres", "It stands still under traffic if copying does.", "wps", (("{{instance}}", f"sum by (instance) (rate(selfheal_journal_copied_rows_total{{{OF}}}[{RATE}]))"),)),
    Panel("Labels", "By outcome; without labels nothing can be proved.", "reqps", (("{{outcome}}", f"sum by (outcome) (rate(selfheal_labels_total{{{OF}}}[{RATE}]))"),)),
    Panel("Damage and conflicts", "Damaged lines, torn files (one per crash is normal), labels that contradict another.", "short", tuple((legend, f"sum(increase({name}{{{OF}}}[1h]))") for legend, name in (("damaged lines", "selfheal_journal_damaged_lines_total"), ("torn files", "selfheal_journal_torn_files_total"), ("label conflicts", "selfheal_label_conflicts_total"))), limit=1),
    Panel("Other protocols", "Requests of the Open Inference Protocol and of MLflow's clients: answered, or the kind of problem.", "reqps", (("{{protocol}} {{outcome}}", f"sum by (protocol, outcome) (rate(selfheal_protocol_requests_total{{{OF}}}[{RATE}]))"),)),
    Panel("Unknown keys", "An expired key, or someone is guessing.", "reqps", (("{{instance}}", f"sum by (instance) (rate(selfheal_wrong_keys_total{{{OF}}}[{RATE}]))"),)),
    Panel("Memory", "Of each process; 300 MB are usual.", "bytes", (("{{instance}} {{worker}}", f'process_resident_memory_bytes{{job="selfheal",{OF}}}'),), width=12, limit=1.5e9),
    Panel("CPU", "Cores, of each process.", "short", (("{{instance}} {{worker}}", f'rate(process_cpu_seconds_total{{job="selfheal",{OF}}}[{RATE}])'),), width=12),
)  # fmt: skip


def dashboard(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """Return a dashboard in Grafana's JSON model."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["selfheal"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "timezone": "utc",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_instance_variable()]},
        "panels": _laid_out(panels),
    }


def _instance_variable() -> dict[str, Any]:
    query = "label_values(selfheal_ready, instance)"
    return {
        "name": "instance",
        "label": "API",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "instance"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _laid_out(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Return the panels from left to right, row by row."""
    laid_out, x, y = [], 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        laid_out.append(_panel(number, panel) | {"gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT}})
        x += panel.width
    return laid_out


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "red" if panel.is_floor else "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "green" if panel.is_floor else "red", "value": panel.limit})
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for place, (legend, expression) in enumerate(panel.queries)
        ],
    }


def dashboards() -> dict[str, str]:
    """Return the text of each dashboard's file, by its name."""
    made = {"selfheal-api.json": dashboard("selfheal-api", "selfheal: the API", API)}
    return {name: json.dumps(content, indent=2) + "\n" for name, content in made.items()}


if __name__ == "__main__":
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text)
