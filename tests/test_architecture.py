"""The house's rules that no linter of ours checks: what importing costs, and who may name a credit feature."""

from __future__ import annotations

import subprocess
import sys

import pytest

from selfheal.credit_risk import contract
from tests.processes import REPOSITORY

HEAVY = ("dagster", "evidently", "mlflow", "sklearn", "pandas", "pandera")


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return set(done.stdout.split())


def test_the_api_is_imported_without_dagster_evidently_and_other_heavy_libraries() -> None:
    assert modules_after("import serving.app").isdisjoint(HEAVY)


def test_the_code_location_is_imported_without_the_libraries_that_its_runs_need() -> None:
    assert modules_after("import selfheal_assets.definitions").isdisjoint(set(HEAVY) - {"dagster"})


def test_the_command_line_starts_without_heavy_libraries() -> None:
    assert modules_after("import selfheal.cli").isdisjoint({*HEAVY, "numpy", "sqlalchemy"})


def test_loading_the_settings_imports_no_heavy_library_for_the_limits_of_gates() -> None:
    loading = "from selfheal.settings import load_settings; load_settings()"
    assert modules_after(loading).isdisjoint({*HEAVY, "numpy", "scipy", "sqlalchemy"})


@pytest.mark.parametrize("package", ["selfheal", "selfheal_assets", "serving"])
def test_nothing_outside_the_use_case_names_a_credit_feature(package: str) -> None:
    names = {*contract.input_names, *contract.feature_names} - {"age"}  # a word of its own
    for path in (REPOSITORY / package).rglob("*.py"):
        if "credit_risk" in path.parts:
            continue
        text = path.read_text()
        named = {name for name in names if name in text}
        assert not named, f"{path} names {sorted(named)}"
