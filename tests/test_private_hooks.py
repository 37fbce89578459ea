"""Private parts of other packages that this project uses are there; a test names each when a release removes it.

`pyproject.toml` bounds these packages from above. Who raises a bound runs this first, then the tests of the modules
named here.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess

import pytest
from pydantic import BaseModel
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from selfheal.adapters.postgres import programs


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ["_start_asgi_task", "_should_upgrade", "_unset_keepalive_if_required"])
def test_uvicorns_http_protocol_has_and_calls(name: str) -> None:
    """`serving.scoring.http_fast_path` and `serving.security.http_protocol` override or call it."""
    assert hasattr(HttpToolsProtocol, name)
    callers = [caller for caller in vars(HttpToolsProtocol).values() if inspect.isfunction(caller)]
    assert any(name in caller.__code__.co_names for caller in callers), f"uvicorn no longer calls {name}"


@pytest.mark.parametrize(
    "name", ["connections", "pipeline", "headers", "timeout_keep_alive_task", "timeout_keep_alive"]
)
def test_uvicorns_http_protocol_keeps(name: str) -> None:
    """`serving.security.http_protocol` reads it to know which connections are idle."""
    assert f"self.{name}" in inspect.getsource(HttpToolsProtocol.__init__)


def test_mlflow_asks_one_function_for_its_application() -> None:
    """`selfheal.adapters.mlflow_pages` replaces it."""
    from mlflow import server

    assert "_find_app(app_name)" in inspect.getsource(server._run_server)


def test_uvicorn_starts_a_task_with_the_cycle_and_the_application() -> None:
    assert parameters(HttpToolsProtocol._start_asgi_task) == ["self", "cycle", "app"]


@pytest.mark.parametrize(
    "name",
    [
        "scope",
        "body",
        "more_body",
        "default_headers",
        "keep_alive",
        "disconnected",
        "response_started",
        "response_complete",
        "waiting_for_100_continue",
        "message_event",
    ],
)
def test_uvicorns_request_has(name: str) -> None:
    """`serving.scoring.http_fast_path` or `serving.security.http_protocol` reads or sets it."""
    assert f"self.{name}" in inspect.getsource(RequestResponseCycle.__init__)


def test_uvicorns_supervisor_asks_its_workers_over_a_pipe_that_can_be_closed() -> None:
    """`serving.__main__.Supervisor` closes it, so that the death of a worker is seen at once."""
    assert callable(Multiprocess.keep_subprocess_alive)
    assert "child_conn" in inspect.getsource(Process.__init__)


@pytest.mark.parametrize("program", ["initdb", "pg_ctl", "postgres", "psql", "pg_dump", "pg_restore"])
def test_pgservers_wheel_brings_postgres_programs_where_we_look_for_them(program: str) -> None:
    """`selfheal.adapters.postgres.programs` uses nothing else of it."""
    path = programs.bin_folder() / program
    assert path.is_file()
    assert os.access(path, os.X_OK)
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    assert f" {programs.MAJOR_VERSION}." in said


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("dagster._serdes", "ConfigurableClassData"),  # selfheal_assets.storage
        ("dagster._daemon.controller", "create_daemons_from_instance"),  # selfheal_assets.daemon
        ("dagster._daemon.controller", "daemon_controller_from_instance"),
        ("dagster._utils.interrupts", "setup_interrupt_handlers"),
        ("dagster._core.workspace.context", "WorkspaceProcessContext"),  # selfheal_assets.webserver
        ("dagster._core.workspace.load_target", "WorkspaceFileTarget"),
        ("dagster._core.launcher.base", "CheckRunHealthResult"),  # selfheal_assets.pod_launcher
        ("dagster._core.launcher.base", "WorkerStatus"),
        ("dagster._core.scheduler.instigation", "InstigatorStatus"),  # selfheal_assets.sensors.housekeeping
    ],
)
def test_dagsters_private_modules_are_there(module: str, name: str | None) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{module} is gone"
    if name is not None:
        assert hasattr(importlib.import_module(module), name)


def test_pydantics_models_validate_json_without_making_a_model_first() -> None:
    """`serving.schemas.reading` uses it to save a layer of calls."""

    class Model(BaseModel):
        number: int

    assert Model.__pydantic_validator__.validate_json(b'{"number": 1}') == Model(number=1)
