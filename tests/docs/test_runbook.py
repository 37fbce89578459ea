"""docs/runbook.md knows every alert that the code can raise."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator

from selfheal.domain.records import Severity
from selfheal_assets.jobs import all_jobs
from selfheal_assets.sensors.run_alerts import alert_kind
from tests.docs.pages import codes, table, text_of
from tests.processes import REPOSITORY

PAGE = "docs/runbook.md"
PACKAGES = ("selfheal", "selfheal_assets", "serving")
ONE_EACH_JOB = "alert_kind"


def alerts_in_code() -> Iterator[tuple[str, ast.Call]]:
    """Each place that makes an `Alert`, with the name of its module."""
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Alert":
                    yield module, node


def kinds_of(module: str, call: ast.Call) -> set[str]:
    kind = call.args[0]
    if isinstance(kind, ast.Constant):
        return {str(kind.value)}
    if isinstance(kind, ast.Name):
        return {getattr(importlib.import_module(module), kind.id)}
    assert isinstance(kind, ast.Call)
    assert isinstance(kind.func, ast.Name)
    assert kind.func.id == ONE_EACH_JOB, f"{module} raises alerts of kinds that this test cannot tell"
    return {alert_kind(job.name) for job in all_jobs(training_timeout_seconds=1)}


def test_every_kind_of_alert_is_in_the_table_with_its_severity() -> None:
    listed = {codes(row[0])[0]: row[1] for row in table(PAGE, "kind")}
    in_code = {kind: call for module, call in alerts_in_code() for kind in kinds_of(module, call)}
    assert set(listed) == set(in_code)
    for kind, call in in_code.items():
        severity = call.args[1]
        if isinstance(severity, ast.Attribute):
            assert listed[kind] == Severity[severity.attr].value, kind


def test_every_kind_has_a_section_with_meaning_check_and_action() -> None:
    sections = dict(zip(*[iter(re.split(r"^### (.+)$", text_of(PAGE), flags=re.MULTILINE)[1:])] * 2, strict=True))
    with_section = {kind for heading in sections for kind in codes(heading)}
    assert with_section == {codes(row[0])[0] for row in table(PAGE, "kind")}
    for heading, body in sections.items():
        assert [word for word in ("Means", "Check", "Do") if f"- **{word}**" not in body] == [], heading
