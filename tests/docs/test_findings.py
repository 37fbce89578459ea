"""Findings have the form that their README states. Their scripts are run by hand: they install packages and take minutes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import links, table
from tests.processes import REPOSITORY

PAGE = "findings/README.md"
SCRIPTS = sorted((REPOSITORY / "findings").glob("*.sh"))
REQUIREMENT = re.compile(r"[\w.\[\]-]+==[\w.$]+")


def header_of(script: Path) -> str:
    """Return the comment between the first line and the first command, as one line."""
    comment = re.match(r"#!/usr/bin/env bash\n((?:#.*\n)+)", script.read_text())
    assert comment is not None, f"{script.name} has no header"
    return " ".join(line.removeprefix("#").strip() for line in comment[1].splitlines())


def test_the_table_has_a_row_for_each_finding_and_no_other() -> None:
    assert sorted(link for link in links(PAGE) if link.endswith(".sh")) == [script.name for script in SCRIPTS]
    assert len(table(PAGE, "finding")) == len(SCRIPTS) > 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_header_states_expectation_observation_versions_and_the_day_of_the_run(script: Path) -> None:
    header = header_of(script)
    parts = re.search(r"Expected: .+ Seen.*: .+ Versions: .+ Run on \d{4}-\d{2}-\d{2} .+printed: .+", header)
    assert parts is not None, header


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_runs_in_a_temporary_folder_with_pinned_packages_and_without_our_code(script: Path) -> None:
    text = script.read_text()
    assert re.search(r"^set -euo pipefail\nfolder=|^set -euo pipefail\ngrep .+\nfolder=", text, re.MULTILINE)
    assert re.search(r"^trap .*rm -rf \"\$folder\".* EXIT$", text, re.MULTILINE)
    installs = re.findall(r"install -qq ((?:.+\\\n)*.+)", text)
    assert installs
    for words in (install.replace("\\\n", " ").split() for install in installs):
        assert [word for word in words if not REQUIREMENT.fullmatch(word.strip("\"'"))] == []
    assert not re.search(r"\b(?:import|from) (?:selfheal|serving|selfheal_assets|tests|benchmarks)\b", text)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_is_executable_and_valid_shell(script: Path) -> None:
    assert os.access(script, os.X_OK)
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
