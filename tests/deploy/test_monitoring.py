"""Rules of alerts and dashboards: each alert is tried both ways and leads to the runbook; each query is one that Prometheus reads."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.deploy.tools import PROMTOOL
from tests.docs.pages import anchors, codes, table
from tests.processes import REPOSITORY

FOLDER = REPOSITORY / "deploy/monitoring"
RUNBOOK = "docs/runbook.md"
METRIC = re.compile(r"\b(?:selfheal|process)_\w+")
SUFFIXES = ("_bucket",)
OTHERS = {
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_cpu_seconds_total",
}
"""Metrics of the process, which prometheus_client adds."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]]


def dashboards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", FOLDER / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["dashboards"] = module
    spec.loader.exec_module(module)
    return module


def boards() -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in (FOLDER / "grafana/dashboards").glob("*.json")}


def queries() -> list[str]:
    """Every query of the dashboards, as Grafana sends it."""
    found = [target["expr"] for board in boards().values() for panel in board["panels"] for target in panel["targets"]]
    return [query.replace("$__rate_interval", "5m").replace("$instance", ".+") for query in found]


def known_metrics() -> set[str]:
    return {codes(row[0])[0] for row in table(RUNBOOK, "metric")} | OTHERS


def promtool(*arguments: str) -> str:
    done = subprocess.run([PROMTOOL.found(), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_and_how_bad_and_leads_to_its_place_in_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert page == RUNBOOK
    assert anchor in anchors(page)


def test_the_runbook_lists_every_alert_with_its_severity() -> None:
    listed = {codes(row[0])[0]: row[1] for row in table(RUNBOOK, "alert")}
    assert listed == {rule["alert"]: rule["labels"]["severity"] for rule in rules()}


def test_each_alert_is_tried_with_series_that_fire_it_and_with_series_that_do_not() -> None:
    tests = yaml.safe_load((FOLDER / "rules.test.yml").read_text())["tests"]
    tried = [(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]]
    assert sorted(tried) == sorted((rule["alert"], fires) for rule in rules() for fires in (False, True))


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in rules()), *queries()])
def test_only_metrics_that_the_service_has_are_asked_for(expression: str) -> None:
    named = {name.removesuffix("_bucket") for name in METRIC.findall(expression)}
    assert named - known_metrics() == set()


def test_every_metric_of_the_service_is_in_an_alert_or_on_a_dashboard() -> None:
    asked = " ".join([*(rule["expr"] for rule in rules()), *queries()])
    assert {name for name in known_metrics() if name not in asked} == set()


def test_the_dashboards_are_what_their_script_makes() -> None:
    made = dashboards().dashboards()
    assert made == {path.name: path.read_text() for path in (FOLDER / "grafana/dashboards").glob("*.json")}, (
        "run python deploy/monitoring/dashboards.py"
    )


def test_the_panels_of_a_dashboard_do_not_overlap_and_have_a_description() -> None:
    for board in boards().values():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            cells = {(x, y) for x in columns for y in lines}
            assert not cells & taken, panel["title"]
            assert max(columns) < 24
            assert panel["description"]
            taken |= cells
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@PROMTOOL.needed
def test_prometheus_reads_the_rules_and_every_alert_fires_when_it_should_and_only_then() -> None:
    promtool("check", "rules", "rules.yml")
    assert "SUCCESS" in promtool("test", "rules", "rules.test.yml")


@PROMTOOL.needed
def test_prometheus_reads_every_query_of_the_dashboards(tmp_path: Path) -> None:
    recorded = [{"record": f"query:{place}", "expr": query} for place, query in enumerate(queries())]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool("check", "rules", str(path))


@PROMTOOL.needed
def test_prometheus_reads_the_configuration(tmp_path: Path) -> None:
    text = (FOLDER / "prometheus.yml").read_text().replace("/run/secrets/api_key", str(tmp_path / "key"))
    (tmp_path / "key").write_text("key")
    (tmp_path / "prometheus.yml").write_text(text)
    shutil.copy(FOLDER / "rules.yml", tmp_path)
    promtool("check", "config", str(tmp_path / "prometheus.yml"))
