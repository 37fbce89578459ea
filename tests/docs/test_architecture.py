"""The diagrams and tables of docs/architecture.md name what exists, and all that matters."""

from __future__ import annotations

import importlib.util
import re

import pytest

from selfheal.adapters.postgres.tables import build_tables
from selfheal.credit_risk import contract
from selfheal.domain import records
from selfheal.services.promotion.going_live import PROMOTION_STEPS
from selfheal_assets.definitions import defs
from tests.docs.pages import codes, fenced, table
from tests.processes import REPOSITORY

PAGE = "docs/architecture.md"
TABLES = set(build_tables(contract).metadata.tables)
DAGSTERS = {
    *(job.name for job in defs.get_repository_def().get_all_jobs()),
    *(sensor.name for sensor in defs.get_repository_def().sensor_defs),
    *(schedule.name for schedule in defs.get_repository_def().schedule_defs),
    *(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()),
}
NAMES_OF_OTHERS = {"sequenceDiagram", "FastAPI", "MLflow", "MONITORING_INTERVAL", "API_WORKERS", "gRPC"}
DOTTED = re.compile(r"\b[a-z_]+(?:\.[a-z_]+)+\b")
SNAKE = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
CAMEL = re.compile(r"\b[A-Z][a-z]+(?:[A-Z]\w*)+\b|\b\w*[a-z][A-Z]\w*\b")


def is_module(name: str) -> bool:
    """A module of ours, by its full name or, within `selfheal`, without that."""
    for full in (name, f"selfheal.{name}"):
        path = REPOSITORY / full.replace(".", "/")
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            return True
    return False


@pytest.mark.parametrize("number", range(4))
def test_a_diagram_names_only_modules_tables_records_and_steps_that_exist(number: int) -> None:
    diagram = fenced(PAGE, "mermaid")[number]
    assert {name for name in DOTTED.findall(diagram) if not is_module(name)} == set()
    without_modules = DOTTED.sub("", diagram)
    known = TABLES | DAGSTERS | set(PROMOTION_STEPS) | {"selfheal_assets"}
    assert set(SNAKE.findall(without_modules)) - known == set()
    named = set(CAMEL.findall(without_modules)) - NAMES_OF_OTHERS
    assert {name for name in named if not hasattr(records, name)} == set()


def test_all_diagrams_are_looked_at() -> None:
    assert len(fenced(PAGE, "mermaid")) == 4


def test_the_way_of_the_data_passes_every_table_but_two_that_stand_still() -> None:
    way = fenced(PAGE, "mermaid")[1]
    assert {name for name in TABLES if name not in way} == {"reference_data", "journal_positions"}


def test_going_live_is_drawn_step_by_step_as_the_code_takes_them() -> None:
    drawn = [step for step in SNAKE.findall(fenced(PAGE, "mermaid")[2]) if step in PROMOTION_STEPS]
    single_words = {"register", "validate", "commit"}
    steps = re.findall(r": (\w+)", fenced(PAGE, "mermaid")[2])
    assert [step for step in steps if step in PROMOTION_STEPS] == list(PROMOTION_STEPS)
    assert set(drawn) | single_words == set(PROMOTION_STEPS)


def test_the_table_of_jobs_lists_every_job_and_the_page_every_sensor_and_schedule() -> None:
    listed = {name for row in table(PAGE, "job") for name in codes(row[0])}
    repository = defs.get_repository_def()
    assert listed == {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    text = (REPOSITORY / PAGE).read_text()
    for definition in (*repository.sensor_defs, *repository.schedule_defs):
        assert f"`{definition.name}`" in text


def test_the_table_of_the_tree_names_packages_that_exist_and_leaves_none_out() -> None:
    rows = table(PAGE, "")
    named = {
        name for row in rows for name in codes(f"{row[0]} {row[1]}") if "." in name or name in {"serving", "selfheal"}
    }
    assert {name for name in named if importlib.util.find_spec(name) is None} == set()
    packages = {
        f"{top}.{path.parent.name}"
        for top in ("selfheal", "serving")
        for path in (REPOSITORY / top).glob("*/__init__.py")
        if not path.parent.name.startswith("dashboard")
    }
    assert packages - named == set()
