"""The benchmarks find the processes of `selfheal up` and the tables of the platform by name: the names are today's."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from benchmarks.running_platform import ROLES
from benchmarks.soak.kept import EVIDENCE_TABLES, PARTLY_EVIDENCE, PLATFORM_DATABASE
from selfheal.adapters.postgres.tables import Tables
from selfheal.cli import supervisor
from selfheal.settings import load_settings
from selfheal_assets import run_launcher


def test_each_program_of_up_has_the_words_of_one_role(tmp_path: Path) -> None:
    commands = [
        " ".join(program.command)
        for program in supervisor.programs(load_settings(data_dir=tmp_path), "postgresql://nowhere")
    ]
    roles = [[role for role, words in ROLES.items() if any(word in line for word in words)] for line in commands]
    assert sorted(roles) == [[role] for role in sorted(ROLES.keys() - {"run_worker"})]


def test_the_words_of_a_run_worker_are_in_its_launchers_command() -> None:
    (words,) = ROLES["run_worker"]
    assert f'"{words}"' in inspect.getsource(run_launcher.ProcessRunLauncher.launch_run)


OF_PLATFORM = EVIDENCE_TABLES | {table for database, table in PARTLY_EVIDENCE if database == PLATFORM_DATABASE}


@pytest.mark.parametrize("table", sorted(OF_PLATFORM))
def test_each_table_that_is_counted_as_evidence_exists(table: str) -> None:
    assert table in Tables.__annotations__
