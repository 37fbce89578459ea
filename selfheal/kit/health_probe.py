"""`selfheal-probe NAME`, and `selfheal probe NAME` where there is no `.env`: a health check of one process of the platform, for containers and service managers.

Fast because it imports next to nothing and reads no settings but their variables: ports from API_PORT and the like, the folder
from DATA_DIR. Exit 0: it works; 1: it does not, or that is unknown; 2: the question was wrong. Each is one line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfheal.kit.heartbeat import heartbeat_problem, is_available
from selfheal.kit.wildcard_hosts import reached_host

TIMEOUT_SECONDS = 3.0
"""For the whole answer; an idle process takes milliseconds."""

MAX_BEAT_AGE_SECONDS = 30.0
"""A heartbeat is written every 5 s."""

MAX_PART_AGE_SECONDS = 150.0
"""A part of Dagster's daemon reports every 30 s, in Postgres first; so this is also how long Postgres may be away."""

MAX_BODY_BYTES = 65_536
GRPC_CHECK = "/grpc.health.v1.Health/Check"
GRPC_REQUEST = b"\n\nDagsterApi"
"""A `HealthCheckRequest` for the service of Dagster's code servers, as protobuf writes it."""

GRPC_SERVING = b"\x08\x01"
"""The `HealthCheckResponse` that says SERVING."""


@dataclass(frozen=True)
class Target:
    """A process: the variable that has its port, the port without it, and the check, which gets host, port and timeout."""

    port_variable: str
    default_port: int
    problem: Callable[[str, int, float], str | None]


def main(arguments: list[str] | None = None, program: str = "selfheal-probe") -> int:
    """Run the check that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog=program, description="Check one process of the platform.")
    parser.add_argument("name", choices=sorted(NAMES), help="which process")
    parser.add_argument("--host", help="where it listens; default: this machine, or API_HOST")
    parser.add_argument("--port", type=int, help="default: its setting")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_SECONDS, help="seconds")
    given = parser.parse_args(arguments)
    try:
        found = problem(given.name, host=given.host, port=given.port, timeout_seconds=given.timeout)
    except ValueError as error:
        print(f"{program}: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        return 2
    if found is not None:
        print(f"{program}: {given.name}: {found}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{given.name}: works")  # noqa: T201
    return 0


def problem(
    name: str,
    *,
    host: str | None = None,
    port: int | None = None,
    data_dir: Path | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> str | None:
    """Return what is wrong with a process; None only if it is known to work.

    Args:
        host: where it listens; None: this machine, or API_HOST.
        port: None: its variable, what `selfheal up` has found, or the default.
        data_dir: None: DATA_DIR of the environment.

    Raises:
        ValueError: if a variable that says where it listens is wrong.
    """
    folder = data_dir or Path(os.environ.get("DATA_DIR") or "data").expanduser()
    if name in BEATING:
        return _beat_problem(heartbeat_path(folder, name))
    target = LISTENING[name]
    if host is None:
        host = os.environ.get("API_HOST") if name == "api" else None
    address = reached_host(host or "127.0.0.1")
    if port is None:
        given = os.environ.get(target.port_variable) or str(_published_port(folder, target) or target.default_port)
        if not given.isdecimal():
            raise ValueError(f"{target.port_variable}={given} is not a port")
        port = int(given)
    return target.problem(address, port, timeout_seconds)


def heartbeat_path(data_dir: Path, name: str) -> Path:
    """Return the file in which a process that listens nowhere writes that it works."""
    return data_dir / "run" / f"{name}.heartbeat"


def _beat_problem(path: Path) -> str | None:
    if not is_available():
        return "unknown: heartbeats are written on Linux only"
    return heartbeat_problem(path, max_age_seconds=MAX_BEAT_AGE_SECONDS, max_part_age_seconds=MAX_PART_AGE_SECONDS)


def _published_port(folder: Path, target: Target) -> int | None:
    """Return the port that `selfheal up` has found for itself (`selfheal.cli.ports`)."""
    try:
        ports = json.loads((folder / ".up.ports.json").read_bytes())
        return int(ports[target.port_variable.lower()])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _answers_at(path: str) -> Callable[[str, int, float], str | None]:
    """Return a check that asks for a page, and expects 200."""

    def check(host: str, port: int, timeout_seconds: float) -> str | None:
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection(host, port, timeout=timeout_seconds)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(MAX_BODY_BYTES)
        except (OSError, HTTPException) as error:
            return f"does not answer at {host}:{port} ({error or type(error).__name__})"
        finally:
            connection.close()
        return None if answer.status == 200 else f"answers {answer.status} at {path}{_reasons(body)}"

    return check


def _reasons(body: bytes) -> str:
    """Return what the API says in the body of a refusal."""
    try:
        reasons = json.loads(body)["reasons"]
        return ": " + "; ".join(" ".join(str(reason).split()) for reason in reasons)
    except (ValueError, KeyError, TypeError):
        return ""


def _serves_grpc(host: str, port: int, timeout_seconds: float) -> str | None:
    """Ask a code server for its health as gRPC defines it. It serves once its definitions are loaded."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the sentence below is all that is to be read
    import grpc

    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(GRPC_CHECK)
        try:
            answer = check(GRPC_REQUEST, timeout=timeout_seconds)
        except grpc.RpcError as error:
            return f"does not answer at {where} ({error.code().name}: {' '.join(str(error.details()).split())})"
    return None if answer == GRPC_SERVING else f"answers at {where}, but does not serve"


LISTENING = {
    "api": Target("API_PORT", 8000, _answers_at("/health/ready")),
    "code-server": Target("CODE_SERVER_PORT", 4000, _serves_grpc),
    "mlflow": Target("MLFLOW_PORT", 5000, _answers_at("/health")),
    "webserver": Target("DAGSTER_PORT", 3000, _answers_at("/server_info")),
}
BEATING = frozenset({"daemon", "trainer"})
NAMES = LISTENING.keys() | BEATING

if __name__ == "__main__":
    sys.exit(main())
