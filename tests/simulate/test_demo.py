"""Rules of the demo's preparation: how rows are divided, and a platform that touches nothing of the user's."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from selfheal.adapters.datasets import Dataset
from selfheal.cli import app
from selfheal.domain.contract import TRUE_LABEL, Scenario
from selfheal.kit.api_keys import Scope, hashed_entry
from selfheal.kit.errors import InvalidDataError, ServiceUnavailableError
from selfheal.settings import load_settings
from selfheal.simulate import demo
from selfheal.simulate.demo import (
    CALM_ROWS,
    MAX_BOOTSTRAP_ROWS,
    MIN_ROWS,
    DemoOptions,
    demo_settings,
    divide,
    free_ports,
    settings_environment,
    wait_until_ready,
)
from tests.environment import forget_settings
from tests.toy_use_case import contract

KEY = "selfheal_a-plain-key-may-do-everything"
OPTIONS = DemoOptions(
    data=None,
    json_file=None,
    leave_running=False,
    scenario="overheating",
    rate_per_second=50.0,
    interval_seconds=10,
    seed=4,
)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_settings(monkeypatch)


def resampled(
    inputs: pd.DataFrame, labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    rows = rng.integers(0, len(inputs), len(inputs))
    return inputs.iloc[rows].set_axis(inputs.index), labels[rows]


RESAMPLING = dataclasses.replace(contract, scenarios=(Scenario("resampled", "", resampled), *contract.scenarios))


def numbered(n_rows: int) -> Dataset:
    """Rows that can be told apart: the restarts are the row's number."""
    frame = contract.synthesize(n_rows, 1).assign(restarts=np.arange(n_rows, dtype=np.float64))
    return Dataset(frame, "synthetic", "numbered rows", "digest")


def numbers(frame: pd.DataFrame) -> list[int]:
    return frame["restarts"].astype(int).tolist()


@pytest.mark.parametrize("n_rows", [MIN_ROWS, 9_001, 30_000])
def test_the_rows_are_divided_in_order_and_none_is_used_twice(n_rows: int) -> None:
    rows = divide(numbered(n_rows), contract, OPTIONS)
    used = [*range(rows.n_bootstrap), *numbers(rows.calm), *numbers(rows.drifted), *numbers(rows.evaluation)]
    assert used == list(range(n_rows))
    assert len(rows.calm) == CALM_ROWS
    assert rows.n_bootstrap <= MAX_BOOTSTRAP_ROWS
    assert min(len(rows.drifted), len(rows.evaluation)) >= 900


def test_calm_rows_are_as_they_were_and_the_others_as_the_scenario_has_them() -> None:
    dataset = numbered(MIN_ROWS)
    rows = divide(dataset, contract, OPTIONS)
    before = dataset.frame["temperature_c"]
    pd.testing.assert_frame_equal(rows.calm, dataset.frame.iloc[rows.n_bootstrap : rows.n_bootstrap + CALM_ROWS])
    for part in (rows.drifted, rows.evaluation):
        np.testing.assert_allclose(part["temperature_c"], before.iloc[numbers(part)] + 25.0)
        assert set(part[TRUE_LABEL]) == {0, 1}


def test_no_evaluation_row_was_sent_before_even_if_the_scenario_draws_its_rows_anew() -> None:
    rows = divide(numbered(MIN_ROWS), RESAMPLING, dataclasses.replace(OPTIONS, scenario="resampled"))
    assert max(numbers(rows.drifted)) < min(numbers(rows.evaluation))


def test_the_same_seed_divides_the_same_way() -> None:
    first, second = (divide(numbered(MIN_ROWS), contract, OPTIONS) for _ in range(2))
    pd.testing.assert_frame_equal(first.drifted, second.drifted)
    pd.testing.assert_frame_equal(first.evaluation, second.evaluation)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InvalidDataError, match="at least 6,000 rows, numbered rows has 5,999"):
        divide(numbered(MIN_ROWS - 1), contract, OPTIONS)


# Settings


def settings_of(tmp_path: Path, **overrides: Any) -> tuple[Any, Any]:
    base = load_settings(use_case="tests.toy_use_case:contract", data_dir=tmp_path / "data", **overrides)
    return base, demo_settings(base, OPTIONS, tmp_path / "data" / "demo", 3_600)


def test_the_demo_uses_no_database_store_or_port_of_the_users(tmp_path: Path) -> None:
    base, settings = settings_of(
        tmp_path, database_url="postgresql://h/d", postgres_host="h", mlflow_tracking_uri="http://mlflow"
    )
    assert not settings.has_external_database
    assert settings.mlflow_tracking_uri is None
    assert settings.data_dir == tmp_path / "data" / "demo"
    ports = {"api_port", "dagster_port", "code_server_port", "mlflow_port"}
    assert len({getattr(settings, name) for name in ports}) == 4
    assert not {getattr(settings, name) for name in ports} & {getattr(base, name) for name in ports}
    assert settings.api_host == "127.0.0.1"


def test_the_demo_lowers_nothing_but_interval_and_cooldown(tmp_path: Path) -> None:
    base, settings = settings_of(tmp_path)
    own = {"data_dir", "data_rows", "random_seed", "api_port", "dagster_port", "code_server_port", "mlflow_port"}
    changed = {name for name in type(base).model_fields if getattr(base, name) != getattr(settings, name)}
    assert changed - own == {"monitoring_interval", "promotion_cooldown_days"}
    assert (settings.monitoring_interval, settings.data_rows, settings.random_seed) == (10, 3_600, 4)


def test_the_demo_asks_for_the_users_keys_only_if_it_has_one_to_send(tmp_path: Path) -> None:
    hashed = hashed_entry("ada", frozenset(Scope), f"another-{KEY}")
    for keys, own in ((f"{hashed},{KEY}", KEY), (KEY, KEY), (hashed, None), ("", None)):
        _, settings = settings_of(tmp_path, api_keys=keys)
        assert settings.own_api_key == own
        assert bool(settings.api_keys.get_secret_value()) is (own is not None), "or its own traffic would be refused"


@pytest.mark.parametrize("where", ["option", "setting", "data folder"])
def test_the_platform_finds_the_data_from_another_folder(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` runs in a folder of its own, and people give relative paths."""
    monkeypatch.chdir(tmp_path)
    path = Path("data") / contract.default_csv if where == "data folder" else Path("mine.csv")
    path.parent.mkdir(exist_ok=True)
    path.touch()
    base = load_settings(use_case="tests.toy_use_case:contract", **({"data": path} if where == "setting" else {}))
    options = dataclasses.replace(OPTIONS, data=path) if where == "option" else OPTIONS
    assert demo_settings(base, options, tmp_path / "demo", 3_600).data == tmp_path / path


def test_another_process_loads_the_very_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://the-users/own")
    _, settings = settings_of(tmp_path, notify_urls="json://h/s3cr3t", api_keys="k1,k2")
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(4)
    assert len(set(ports)) == 4
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_a_platform_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log, port = tmp_path / "up.log", free_ports(1)[0]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit('no room\\nset DATA_DIR')"], stderr=output)
    process.wait()

    async def wait() -> int:
        async with httpx.AsyncClient() as client:
            address = f"http://127.0.0.1:{port}"
            return await wait_until_ready(client, address, address, process, log)

    with pytest.raises(
        ServiceUnavailableError, match=r"stopped while starting; the end of .*up\.log:\nno room\nset DATA_DIR"
    ):
        asyncio.run(wait())


def test_a_demo_on_a_platform_that_runs_starts_and_stops_nothing_and_keeps_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    async def live_through(*arguments: Any) -> None:
        seen.extend((arguments[1], arguments[-1]))

    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("USE_CASE", "tests.toy_use_case:contract")
    monkeypatch.setattr(demo, "_live_through", live_through)
    monkeypatch.setattr(demo, "start_platform", lambda _: pytest.fail("started a platform"))
    running = demo.RunningPlatform("http://api:8000", "http://webserver:3000")
    assert asyncio.run(demo.run_demo(dataclasses.replace(OPTIONS, running=running), Console(quiet=True))) == 1
    assert (seen[0].data_dir, seen[1]) == (tmp_path, running)
    assert running.poll() is None
    assert list(tmp_path.iterdir()) == []


def test_api_and_dagster_of_a_platform_that_runs_are_named_together() -> None:
    result = CliRunner().invoke(app, ["demo", "--api", "http://api:8000"])
    assert result.exit_code == 2
