"""A run is resumed where it was: finished cells are not replayed again, torn and foreign lines are told apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from selfheal.kit.errors import ConfigurationError, InvalidDataError
from selfheal.simulate.replay.deployment import Deployment
from selfheal.simulate.replay.runs import Cell, Run, finished, run_cells
from tests.processes import REPOSITORY
from tests.simulate.replay.small import CALM, CHANGED, deployment
from tests.waiting import eventually

CELLS = [
    Cell(world, seed, policy) for world in ("calm", "changed") for seed in (1, 2) for policy in ("never", "weekly")
]


@dataclass(frozen=True)
class SmallBuilder:
    """Builds the small worlds; each build is noted in a file, so that other processes' builds count too."""

    log: Path
    version: str = "1"

    def build(self, name: str, seed: int) -> Deployment:
        with self.log.open("a") as file:
            file.write(f"{name} {seed}\n")
        return deployment(CALM if name == "calm" else CHANGED, seed)

    def fingerprint(self, name: str) -> str:
        return f"{name} {self.version}"

    def built(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def a_run(folder: Path) -> Run:
    return Run(SmallBuilder(folder / "builds.txt"), folder / "results.jsonl")


def test_each_cell_is_one_line_and_each_deployment_is_built_once(tmp_path: Path) -> None:
    run, seen = a_run(tmp_path), []
    found = run_cells(run, CELLS, processes=0, on_progress=lambda n, total: seen.append((n, total)))
    assert set(found) == set(CELLS)
    assert len(run.results.read_text().splitlines()) == len(CELLS)
    assert sorted(run.builder.built()) == ["calm 1", "calm 2", "changed 1", "changed 2"]  # type: ignore[attr-defined]
    assert seen == [(n, 8) for n in range(9)]
    assert found[CELLS[0]]["promotions"] == 0


def test_a_killed_run_goes_on_with_the_cells_it_lacks(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    whole = run_cells(run, CELLS, processes=0)
    lines = run.results.read_bytes().splitlines(keepends=True)
    for kept, torn in ((5, lines[5][:40]), (3, lines[3][:5]), (6, b"")):
        run.results.write_bytes(b"".join(lines[:kept]) + torn)
        assert len(finished(run, CELLS)) == kept
        again = run_cells(run, CELLS, processes=0)
        assert {cell: without_time(line) for cell, line in again.items()} == {
            cell: without_time(line) for cell, line in whole.items()
        }


def without_time(line: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in line.items() if name != "cpu_seconds"}


def test_results_of_another_declaration_interval_or_seed_are_not_taken_over(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run_cells(run, CELLS[:1], processes=0)
    assert len(finished(run, CELLS)) == 1
    for other in (
        replace(run, interval=timedelta(hours=1)),
        replace(run, builder=SmallBuilder(tmp_path / "builds.txt", version="2")),
    ):
        assert finished(other, CELLS) == {}


def test_a_finished_run_builds_nothing(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run_cells(run, CELLS, processes=0)
    n_builds = len(run.builder.built())  # type: ignore[attr-defined]
    run_cells(run, CELLS, processes=0)
    assert len(run.builder.built()) == n_builds  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", ["worlds: none\n", json.dumps({"tick": 1}) + "\n"])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: str) -> None:
    run = a_run(tmp_path)
    run.results.write_text(content)
    with pytest.raises(InvalidDataError, match=r"results\.jsonl, line 1: no result of a replay"):
        run_cells(run, CELLS, processes=0)


def test_an_unknown_policy_stops_a_run_before_anything_is_built(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with pytest.raises(ConfigurationError, match="no policy 'hope'"):
        run_cells(run, [Cell("calm", 1, "hope")], processes=0)
    assert run.builder.built() == []  # type: ignore[attr-defined]


@dataclass(frozen=True)
class SleepingBuilder(SmallBuilder):
    """Notes its process and never finishes."""

    def build(self, name: str, seed: int) -> Deployment:
        self.log.write_text(str(os.getpid()))
        time.sleep(120)
        raise AssertionError("it should have been ended")


KILLED = """
from pathlib import Path
from tests.simulate.replay.test_runs import CELLS, SleepingBuilder
from selfheal.simulate.replay.runs import Run, run_cells
if __name__ == "__main__":
    folder = Path("FOLDER")
    run_cells(Run(SleepingBuilder(folder / "pid"), folder / "results.jsonl"), CELLS[:1], processes=1)
"""


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    script, pid_file = tmp_path / "run.py", tmp_path / "pid"
    script.write_text(KILLED.replace("FOLDER", str(tmp_path)))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, str(script)], cwd=REPOSITORY, env=environment) as process:
        try:
            eventually(lambda: pid_file.exists() and pid_file.read_text(), "a worker builds", 60.0)
        finally:
            process.kill()
    worker = int(pid_file.read_text())
    eventually(lambda: not psutil.pid_exists(worker), "the worker has ended")


def test_another_process_writes_the_same_results(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    apart = run_cells(run, CELLS[:3], processes=1)
    here = run_cells(replace(run, results=tmp_path / "here.jsonl"), CELLS[:3], processes=0)
    assert {cell: without_time(line) for cell, line in apart.items()} == {
        cell: without_time(line) for cell, line in here.items()
    }
