"""`python -m serving`: run the API under uvicorn, on API_HOST and API_PORT, in API_WORKERS processes."""

from __future__ import annotations

import contextlib
import socket
import sys

import uvicorn
from uvicorn.supervisors import Multiprocess

from selfheal.domain.contract import load_contract
from selfheal.kit.api_keys import parse_api_keys
from selfheal.kit.errors import ConfigurationError, SelfhealError
from selfheal.kit.private_files import restrict_new_files
from selfheal.settings import Settings, load_settings
from serving.security.auth import refuse_unauthenticated_public_host
from serving.security.connection_limits import max_connections

WRONG_SETTING = 2
STARTUP_FAILED = 3
"""Exit code if the service could not start; uvicorn's own."""

GRACE_SECONDS = 10
"""Time in which requests in progress may finish after a stop was requested."""

IDLE_CONNECTION_TIMEOUT_SECONDS = 75
"""Time-out of an idle connection: longer than that of clients (5 s in httpx) and load balancers (mostly 60 s). The sending
side must close first, because a request sent to a connection that is being closed is lost."""

WORKER_TIMEOUT_SECONDS = 30
"""Time after which a worker that does not respond to its supervisor is replaced; a worker that starts on a busy machine
responds late."""

STALLED_PEER_MS = 30_000
"""Time (ms) after which a connection whose peer reads nothing is closed; its buffers would occupy memory and delay a stop."""

MAX_CLIENT_MESSAGE_BYTES = 1_000
"""Largest message from a WebSocket client; `/live` only sends."""


class Supervisor(Multiprocess):
    """uvicorn's supervisor, which also detects at once that a worker died while it was being checked."""

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have died or do not respond. uvicorn defines the name."""
        for process in self.processes:
            process.child_conn.close()  # the worker has its own end; if ours stays open, its death looks like a delay
        super().keep_subprocess_alive()


def main() -> int:
    """Run the API until stopped. A wrong setting or busy port gives one line and exit code 2; a failed start gives 3."""
    try:
        settings = load_settings()
        restrict_new_files(settings.umask)
        refuse_unauthenticated_public_host(settings)
        parse_api_keys(settings.api_keys.get_secret_value())
        load_contract(settings.use_case)
        max_connections()
        listener = listen(settings)
    except SelfhealError as error:
        print(f"selfheal: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        return WRONG_SETTING
    config = uvicorn.Config(
        "serving.asgi:served",
        factory=True,
        workers=settings.api_workers,
        # The framework makes the traces, so with tracing no request takes the shortcut.
        http="serving.security.http_protocol:StrictHttpProtocol"
        if settings.otel_exporter_otlp_endpoint
        else "serving.scoring.http_fast_path:FastPathProtocol",
        log_level=settings.log_level.lower(),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=IDLE_CONNECTION_TIMEOUT_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=WORKER_TIMEOUT_SECONDS,
        ws_max_size=MAX_CLIENT_MESSAGE_BYTES,
        ws_per_message_deflate=False,
    )
    if settings.api_workers > 1:
        supervisor = Supervisor(config, sockets=[listener])
        supervisor.run()
        return STARTUP_FAILED if any(process.exitcode == STARTUP_FAILED for process in supervisor.processes) else 0
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0 if server.started else STARTUP_FAILED


def listen(settings: Settings) -> socket.socket:
    """Return the listening socket. Call this before anything is started, so that a busy port is found early.

    Raises:
        ConfigurationError: if the address is not available; the message names the setting to change.
    """
    host, port = settings.api_host, settings.api_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"the API cannot listen on {host}:{port} ({error.strerror}); stop the program that uses it, or set API_PORT to a "
            "free port (API_HOST chooses the address)"
        ) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_PEER_MS)
    return listener


if __name__ == "__main__":
    sys.exit(main())
