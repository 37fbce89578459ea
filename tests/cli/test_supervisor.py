"""What must hold before the platform's processes start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfheal.cli import supervisor
from selfheal.cli.supervisor import JobEvent
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.settings import load_settings


def test_a_second_up_in_the_same_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with (
        supervisor.only_one(tmp_path),
        pytest.raises(ConfigurationError, match=f"already up .*process {os.getpid()}"),
        supervisor.only_one(tmp_path),
    ):
        pass
    with supervisor.only_one(tmp_path):
        pass


@pytest.mark.parametrize("folder", ["file/data", "/proc/selfheal-data"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    settings = load_settings(data_dir=tmp_path / folder)
    with pytest.raises(ConfigurationError, match=r"DATA_DIR=.*cannot be written"):
        supervisor.prepare_data_dir(settings)


def test_dagster_home_has_the_shipped_instance_configuration(tmp_path: Path) -> None:
    home = supervisor.dagster_home(load_settings(data_dir=tmp_path))
    text = (home / "dagster.yaml").read_text()
    assert "SelfhealPostgresStorage" in text
    assert "run_monitoring" in text


def test_a_job_that_cannot_start_says_why_and_where_its_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(data_dir=tmp_path)
    monkeypatch.setenv("API_PORT", "0")
    with pytest.raises(ServiceUnavailableError, match=r"maintenance_job failed: .*API_PORT=0.*maintenance_job\.log"):
        supervisor.run_job(settings, "maintenance_job", pytest.fail)


def test_a_line_of_a_run_is_an_event() -> None:
    assert supervisor.job_event('{"type": "PLAN", "steps": ["one", "two"]}') == JobEvent("PLAN", steps=("one", "two"))
    said = '{"type": "LOG", "time": "now", "step": "one", "level": "INFO", "message": "3 of 16 fits"}'
    assert supervisor.job_event(said) == JobEvent("LOG", "one", "INFO", "3 of 16 fits")
    failed = '{"type": "STEP_FAILURE", "step": "one", "level": "ERROR", "message": "failed", "error": "no room"}'
    assert supervisor.job_event(failed).error == "no room"
    of_the_run = '{"type": "RUN_SUCCESS", "step": null, "level": "DEBUG", "message": null}'
    assert supervisor.job_event(of_the_run) == JobEvent("RUN_SUCCESS", level="DEBUG")
