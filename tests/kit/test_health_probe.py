"""Rules of the health checks: what works passes, everything else fails with one line, and all of it is fast."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from selfheal.cli import app
from selfheal.kit import health_probe
from selfheal.kit.heartbeat import seconds_since_boot, write_heartbeat
from selfheal.settings import Settings
from tests.environment import forget_settings
from tests.processes import REPOSITORY

MAX_CPU_SECONDS = 0.3
"""Of the whole process. Time on the wall depends on what else the machine does."""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forget_settings(monkeypatch)


@contextmanager
def web_server(answers: dict[str, tuple[int, str]]) -> Iterator[int]:
    """A server with these pages; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def code_server(status: int | None) -> Iterator[int]:
    """A gRPC server that gives `DagsterApi` this status; yields its port."""
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if status is not None:
        servicer.set("DagsterApi", status)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextmanager
def silent_server() -> Iterator[int]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "path"), [("api", "/health/ready"), ("mlflow", "/health"), ("webserver", "/server_info")]
)
def test_a_web_server_works_if_its_page_answers_200(name: str, path: str) -> None:
    with web_server({path: (200, "{}")}) as port:
        assert health_probe.problem(name, port=port) is None
    assert "does not answer" in str(health_probe.problem(name, port=port))
    with web_server({path: (500, "no")}) as port:
        assert health_probe.problem(name, port=port) == f"answers 500 at {path}"
    with silent_server() as port:
        assert "timed out" in str(health_probe.problem(name, port=port, timeout_seconds=0.2))


def test_the_reasons_of_an_api_that_is_not_ready_are_in_the_line() -> None:
    body = json.dumps({"status": "not_ready", "reasons": ["no model is\nloaded yet"]})
    with web_server({"/health/ready": (503, body)}) as port:
        assert health_probe.problem("api", port=port) == "answers 503 at /health/ready: no model is loaded yet"


def test_a_code_server_works_only_if_it_serves() -> None:
    with code_server(health_pb2.HealthCheckResponse.SERVING) as port:
        assert health_probe.problem("code-server", port=port) is None
    with code_server(health_pb2.HealthCheckResponse.NOT_SERVING) as port:
        assert "does not serve" in str(health_probe.problem("code-server", port=port))
    with code_server(None) as port:  # another gRPC server
        assert "NOT_FOUND" in str(health_probe.problem("code-server", port=port))
    assert "UNAVAILABLE" in str(health_probe.problem("code-server", port=port))
    with silent_server() as port:
        assert "DEADLINE_EXCEEDED" in str(health_probe.problem("code-server", port=port, timeout_seconds=0.2))


@pytest.mark.parametrize("name", sorted(health_probe.BEATING))
def test_what_listens_nowhere_works_if_its_heartbeat_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert "no heartbeat yet" in str(health_probe.problem(name))
    write_heartbeat(health_probe.heartbeat_path(tmp_path, name), {"SENSOR": seconds_since_boot()})
    assert health_probe.problem(name) is None
    monkeypatch.setattr(health_probe, "is_available", lambda: False)
    assert "unknown" in str(health_probe.problem(name)), "unknown is not healthy"


def test_the_port_is_that_of_the_variable_then_the_one_that_up_found_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert "127.0.0.1:1 " not in str(health_probe.problem("mlflow", timeout_seconds=0.1))
    (tmp_path / ".up.ports.json").write_text('{"mlflow_port": 1}')
    assert "127.0.0.1:1 " in str(health_probe.problem("mlflow"))
    monkeypatch.setenv("MLFLOW_PORT", "2")
    assert "127.0.0.1:2 " in str(health_probe.problem("mlflow"))


@pytest.mark.parametrize("name", sorted(health_probe.LISTENING))
def test_the_variable_and_the_default_are_those_of_the_settings(name: str) -> None:
    target = health_probe.LISTENING[name]
    assert Settings.model_fields[target.port_variable.lower()].default == target.default_port


def run(
    *arguments: str, command: Sequence[str] = ("selfheal.kit.health_probe",), **environment: str
) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *command, *arguments]
    return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_the_command_says_in_one_line_and_its_exit_code_how_it_is() -> None:
    with web_server({"/health": (200, "OK")}) as port:
        done = run("mlflow", MLFLOW_PORT=str(port))
    assert (done.returncode, done.stdout, done.stderr) == (0, "mlflow: works\n", "")
    done = run("mlflow", MLFLOW_PORT=str(port))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("selfheal-probe: mlflow: does not answer at 127.0.0.1:")
    done = run("mlflow", MLFLOW_PORT="many")
    assert (done.returncode, done.stderr) == (2, "selfheal-probe: MLFLOW_PORT=many is not a port\n")
    assert run("nothing").returncode == 2


@pytest.mark.parametrize("command", [["selfheal.kit.health_probe"], ["selfheal", "probe"]], ids=" ".join)
@pytest.mark.parametrize("name", sorted(health_probe.NAMES))
def test_a_check_is_fast(name: str, command: list[str], tmp_path: Path) -> None:
    for beating in health_probe.BEATING:
        write_heartbeat(health_probe.heartbeat_path(tmp_path, beating), {"SENSOR": seconds_since_boot()})
    pages = dict.fromkeys(("/health/ready", "/health", "/server_info"), (200, "{}"))
    with web_server(pages) as web, code_server(health_pb2.HealthCheckResponse.SERVING) as grpc_port:
        port = grpc_port if name == "code-server" else web
        variable = health_probe.LISTENING[name].port_variable if name in health_probe.LISTENING else "API_PORT"
        before = cpu_seconds()
        done = run(name, command=command, **{variable: str(port), "DATA_DIR": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        assert cpu_seconds() - before < MAX_CPU_SECONDS


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_check_imports_nothing_but_the_standard_library_and_a_few_small_modules() -> None:
    code = "import sys; before = set(sys.modules); import selfheal.kit.health_probe, http.client; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("selfheal")} == {
        "selfheal",
        "selfheal.kit.health_probe",
        "selfheal.kit",
        "selfheal.kit.atomic_file",
        "selfheal.kit.heartbeat",
        "selfheal.kit.wildcard_hosts",
    }
    assert {name.partition(".")[0] for name in loaded} - {"selfheal"} <= set(sys.stdlib_module_names)


def test_with_an_env_file_the_command_reads_it_and_without_one_it_imports_no_settings(tmp_path: Path) -> None:
    with web_server({"/health": (200, "OK")}) as port:
        assert run("mlflow", command=("selfheal", "probe"), MLFLOW_PORT=str(port)).stdout == "mlflow: works\n"
        (tmp_path / ".env").write_text(f"MLFLOW_PORT={port}\n")
        assert run("mlflow", command=("selfheal", "probe")).stdout == "mlflow: works\n"
        assert run("mlflow").returncode == 1, "it reads variables only"
    code = "import sys; sys.argv = ['selfheal', 'probe', 'mlflow']; import selfheal.__main__ as m\ntry: m.main()\nfinally: print(*sys.modules)"
    (tmp_path / ".env").unlink()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not {"selfheal.cli", "selfheal.settings", "typer", "pydantic"} & set(done.stdout.split())


def test_the_command_line_has_the_same_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server({"/health": (200, "OK")}) as port:
        monkeypatch.setenv("MLFLOW_PORT", str(port))
        done = CliRunner().invoke(app, ["probe", "mlflow"])
        assert (done.exit_code, done.stdout) == (0, "mlflow: works\n")
    done = CliRunner().invoke(app, ["probe", "mlflow"])
    assert done.exit_code == 1
    assert "mlflow: does not answer" in done.stderr
