"""A gate that is added by the recipe of CONTRIBUTING, one file, is a gate everywhere; verdicts from before stay verifiable.

The packages are copied to a temporary folder, the recipe's file is put among them, and the loop runs there in a process of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfheal.domain.records import Action
from selfheal.domain.retraining.gates import GATES
from selfheal.kit.errors import PermanentError
from selfheal.services.platform import open_platform
from selfheal.services.verification.verdicts import newest_verdicts, verdict_differences
from selfheal.settings import Settings
from selfheal.simulate.demo import settings_environment
from tests.docs.pages import text_of
from tests.processes import REPOSITORY

PAGE, GATES_FOLDER = "CONTRIBUTING.md", "selfheal/domain/retraining/gates"
GATE, SETTING = "positive_rate", "max_positive_rate"
NAMES = [gate.name for gate in GATES]
WITH_GATE = [*NAMES[:6], GATE, *NAMES[6:]]


def recipe() -> tuple[str, str]:
    """Where the page says the file belongs, and the file."""
    section = text_of(PAGE).partition("### A gate\n")[2].partition("\n### ")[0]
    (name,) = re.findall(r"as `(\w+\.py)` there", " ".join(section.split()))
    (text,) = re.findall(r"```python\n(.+?)```", section, re.DOTALL)
    return f"{GATES_FOLDER}/{name}", text


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The packages with the recipe's file; the tests that the process uses are those of here."""
    folder = tmp_path / "with_gate"
    for package in ("selfheal", "selfheal_assets", "serving"):
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").symlink_to(REPOSITORY / "tests")
    path, text = recipe()
    assert not (folder / path).exists()
    (folder / path).write_text(text)
    return folder


def run_with_gate(tree: Path, settings: Settings, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.services.with_added_gate", GATE, SETTING],
        cwd=tree,
        env={**settings_environment(settings), "PYTHONPATH": str(tree), "DAGSTER_HOME": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["packages"] == str(tree / "selfheal")
    return found


def test_a_gate_added_by_the_recipe_blocks_promotes_and_is_verified_and_so_are_verdicts_from_before(
    tree: Path, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings()
    found = run_with_gate(tree, settings, MAX_POSITIVE_RATE="0.01")

    blocked, promoted = found["blocked"], found["promoted"]
    assert (blocked["action"], blocked["failed"], blocked["champion"]) == (Action.REJECT, [GATE], 1)
    assert blocked["reason"].endswith("% of the rows called positive, 1 % allowed")
    assert (blocked["limits"][SETTING], found["source"]) == (0.01, "environment")
    assert (promoted["action"], promoted["failed"], promoted["champion"]) == (Action.PROMOTE, [], 2)
    assert promoted["limits"][SETTING] == 1.0
    assert blocked["gates"] == promoted["gates"] == WITH_GATE
    assert {name: found["checks"][name] for name in WITH_GATE} == dict.fromkeys(WITH_GATE, True)
    assert {name: found["view"][name] for name in ("direction", "unit", "is_counted", "threshold")} == {
        "direction": "at_most",
        "unit": None,
        "is_counted": True,
        "threshold": 1.0,
    }
    assert found["verified"] == [{"gates": n, "differences": []} for n in (9, 9, 8)], "the first knew no such gate"

    platform = open_platform(settings)  # without the gate
    *with_gate, first = newest_verdicts(platform, 10)
    assert verdict_differences(platform, first) == []
    for verdict in with_gate:
        with pytest.raises(PermanentError, match=f"there is no gate {GATE} here"):
            verdict_differences(platform, verdict)
    platform.close()


def test_the_recipe_passes_the_rules_for_code() -> None:
    path, text = recipe()
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", path, "-"],
            cwd=REPOSITORY,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
