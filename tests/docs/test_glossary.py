"""docs/glossary.md names files and names that exist, and a search for a term of the field finds where it is."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import codes, resolved, tables_by_heading
from tests.processes import REPOSITORY

PAGE = "docs/glossary.md"
ROWS = [row for rows in tables_by_heading(PAGE).values() for row in rows]
PLACE = re.compile(r"\[`(\w+)`\]\(([^)]+)\)")
EXPECTED = (
    "circuit breaker", "mutex", "outbox", "idempotency", "micro-batch", "watchdog", "reconciliation", "bulkhead", "latch",
    "group commit", "champion", "challenger", "shadow model", "episode", "probation", "gate", "verdict", "tick", "window",
    "reference", "baseline", "label delay", "cbpe", "alpha spending",
)  # fmt: skip
FOUND_BY_SEARCH = ("circuit breaker", "mutex", "outbox", "idempotency", "micro-batch", "watchdog", "reconciliation")
"""Patterns of which the module's name or the first line of its docstring must speak."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_term_is_where_the_glossary_says(row: list[str]) -> None:
    places = PLACE.findall(row[2])
    assert places
    for name, link in places:
        path = resolved(PAGE, link)
        assert path.exists(), link
        stem = path.parent.name if path.name == "__init__.py" else path.stem
        assert name == stem or name in names_in(path.read_text()), f"{link} has no {name}"


def names_in(source: str) -> set[str]:
    """What a module defines, and the names of the tables it declares."""
    tree = ast.parse(source)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return defined | set(re.findall(r'Table\(\s*"(\w+)"', source))


@pytest.mark.parametrize("term", EXPECTED)
def test_a_term_of_the_field_is_explained(term: str) -> None:
    assert [row for row in ROWS if term in row[0].lower()]


@pytest.mark.parametrize("term", FOUND_BY_SEARCH)
def test_a_search_for_the_term_finds_its_module(term: str) -> None:
    (row,) = [row for row in ROWS if row[0].lower().startswith(term)]
    path = resolved(PAGE, PLACE.findall(row[2])[0][1])
    first_line = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    spoken = re.sub(r"[-_ ]", "", f"{path.stem} {first_line}".lower())
    assert re.sub(r"[-_ ]", "", term) in spoken, f"{path.relative_to(REPOSITORY)}: {first_line}"


def test_settings_in_the_glossary_exist() -> None:
    from selfheal.settings import Settings

    named = {code for row in ROWS for code in codes(row[1]) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", code)}
    assert len(named) >= 5
    assert {name for name in named if name.lower() not in Settings.model_fields} == set()
