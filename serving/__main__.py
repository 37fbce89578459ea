"""`python -m serving`: the API under uvicorn, on API_HOST and API_PORT."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from selfheal.errors import ConfigurationError, SelfhealError
from selfheal.settings import Settings, load_settings
from serving.app import create_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

WRONG_SETTING = 2
STARTUP_FAILED = 3
"""Exit code if the service could not start, for example because Postgres is down; uvicorn's own."""

GRACE_SECONDS = 10
"""How long requests that are being answered may take once a stop was asked for."""


def main() -> int:
    """Runs until stopped. A wrong setting or a busy port is one line and exit code 2; a failed start is 3."""
    try:
        settings = load_settings()
        app = create_app(settings)
        listener = listen(settings)
    except SelfhealError as error:
        print(f"selfheal: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        return WRONG_SETTING
    log_to_stderr(settings.log_level)
    server = uvicorn.Server(
        uvicorn.Config(
            with_short_start_errors(app),
            log_level=settings.log_level.lower(),
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0 if server.started else STARTUP_FAILED


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Taken before anything is started, so that a busy port costs nothing.

    Raises:
        ConfigurationError: naming the address and the setting that chooses another.
    """
    host, port = settings.api_host, settings.api_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"the API cannot listen on {host}:{port} ({error.strerror}); stop what uses it, or set API_PORT to a free "
            "port (API_HOST chooses the address)"
        ) from error


def log_to_stderr(level: str) -> None:
    """Our own loggers at LOG_LEVEL, everybody else's from WARNING on; uvicorn configures its own."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("selfheal", "serving"):
        logging.getLogger(name).setLevel(level)


def with_short_start_errors(app: ASGIApp) -> ASGIApp:
    """Makes a start that fails on purpose say so in one line, where Starlette reports the whole traceback."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_short(message: Message) -> None:
            error = sys.exception()  # Starlette sends the failure while it handles the error
            if message["type"] == "lifespan.startup.failed" and isinstance(error, SelfhealError):
                message = {**message, "message": " ".join(str(error).split())}
            await send(message)

        await app(scope, receive, send_short if scope["type"] == "lifespan" else send)

    return wrapped


if __name__ == "__main__":
    sys.exit(main())
