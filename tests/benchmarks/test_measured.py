"""A benchmark that measured something else ends with an error, which names what it counted."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

from benchmarks.measured import MeasuredOtherwiseError, at_least, exactly, within
from tests.processes import REPOSITORY


def test_what_was_set_out_to_be_measured_is_let_through() -> None:
    exactly("rows in the window", 10_000, 10_000)
    at_least("requests answered", 3, 3)
    within("rows of traffic", 99.5, 90, 110)


def test_anything_else_is_an_error_with_both_numbers() -> None:
    with pytest.raises(
        MeasuredOtherwiseError, match=r"rows in the window: 14, not 10,000; the figures would be of some"
    ):
        exactly("rows in the window", 14, 10_000)
    with pytest.raises(MeasuredOtherwiseError, match="requests answered: 0, not at least 1"):
        at_least("requests answered", 0, 1)
    with pytest.raises(MeasuredOtherwiseError, match="rows of traffic: 120, not within 90 and 110"):
        within("rows of traffic", 120, 90, 110)


def test_what_is_no_number_is_no_measurement() -> None:
    with pytest.raises(MeasuredOtherwiseError):
        exactly("rows", math.nan, math.nan)
    with pytest.raises(MeasuredOtherwiseError):
        at_least("rows", math.nan, 0)
    with pytest.raises(MeasuredOtherwiseError):
        within("rows", math.nan, 0, 1)


COUNT_BY_TARGET = {"crash", "soak"}
"""What was done to the service is itself what these report, with targets of their own."""


def benchmarks() -> list[Path]:
    folder = REPOSITORY / "benchmarks"
    return [path for path in sorted(folder.glob("*.py")) if "typer.run(main)" in path.read_text()]


@pytest.mark.parametrize("path", benchmarks(), ids=lambda path: path.stem)
def test_every_benchmark_asserts_what_it_measured(path: Path) -> None:
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    names = {function.id for function in calls if isinstance(function, ast.Name)}
    assert names & {"exactly", "at_least", "within"} or path.stem in COUNT_BY_TARGET
