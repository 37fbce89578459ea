"""Dagster's daemon as a process of ours: it works as Dagster's own does, and says so in its heartbeat."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from selfheal.kit import health_probe
from selfheal.kit.heartbeat import heartbeat_problem
from selfheal_assets.daemon import Beats
from tests.waiting import eventually


class Thread:
    """What is read of one of Dagster's daemons."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last_heartbeat_time: datetime | None = None

    def daemon_type(self) -> str:
        return self._name


def test_a_thread_of_the_daemon_works_while_its_reports_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("selfheal_assets.daemon.seconds_since_boot", lambda: now)
    monkeypatch.setattr("selfheal.kit.heartbeat.seconds_since_boot", lambda: now)
    sensor, scheduler, beats = Thread("SENSOR"), Thread("SCHEDULER"), Beats()
    threads: Any = [sensor, scheduler]

    def problem() -> str | None:
        beats.write(tmp_path / "heartbeat", threads)
        return heartbeat_problem(tmp_path / "heartbeat", max_age_seconds=30, max_part_age_seconds=150)

    sensor._last_heartbeat_time = datetime(2026, 1, 1, tzinfo=UTC)
    assert problem() == "SCHEDULER has not worked yet"
    scheduler._last_heartbeat_time = datetime(2026, 1, 1, tzinfo=UTC)
    assert problem() is None
    now += 160
    scheduler._last_heartbeat_time = datetime(2025, 1, 1, tzinfo=UTC)  # a clock that was set back
    assert problem() == "SENSOR has not worked for 160 s; allowed are 150 s"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path), "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "selfheal_assets.daemon", "-w", str(tmp_path / "workspace.yaml")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.integration
def test_the_daemon_passes_its_check_while_it_runs_and_ends_on_sigterm(
    daemon: subprocess.Popen[str], tmp_path: Path
) -> None:
    eventually(lambda: health_probe.problem("daemon", data_dir=tmp_path) is None, "the daemon works", 60)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(40) == 0
    assert "has ended" in str(health_probe.problem("daemon", data_dir=tmp_path))
