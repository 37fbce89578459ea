"""The ASGI application as uvicorn serves it: in one process or in each of several workers."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import sys
from typing import TYPE_CHECKING

from selfheal.kit.errors import SelfhealError
from selfheal.kit.parent_death import end_with_parent
from selfheal.settings import load_settings
from serving.app import create_app
from serving.scoring.fast_path import FastPath
from serving.security.connection_limits import max_connections, open_files_limit

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class AsgiApplication:
    """ASGI application around the framework's. `serving.scoring.http_fast_path` uses its `fast_path`."""

    def __init__(self, framework: FastAPI) -> None:
        assert isinstance(framework.middleware_stack, FastPath)
        self.fast_path = framework.middleware_stack
        self._framework = framework

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to the framework."""
        await self._framework(scope, receive, _starting(send) if scope["type"] == "lifespan" else send)


def served() -> AsgiApplication:
    """Return the application for the settings in the environment; uvicorn calls this in each worker."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:  # one of several workers: without their parent nobody stops them
        end_with_parent(parent.pid)
    settings = load_settings()
    log_to_stderr(settings.log_level)
    logger.info("up to %d clients at once: %d files may be open (ulimit -n)", max_connections(), open_files_limit())
    return AsgiApplication(create_app(settings))


def log_to_stderr(level: str) -> None:
    """Log this project's messages from `level` on, those of others from WARNING on; uvicorn configures its own."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("selfheal", "serving"):
        logging.getLogger(name).setLevel(level)


def _starting(send: Send) -> Send:
    """Report a start that fails for a known reason in one line instead of Starlette's whole traceback."""

    async def send_with_reason(message: Message) -> None:
        error = sys.exception()  # Starlette sends the failure while it handles the error
        if message["type"] == "lifespan.startup.failed" and isinstance(error, SelfhealError):
            message = {**message, "message": " ".join(str(error).split())}
        if message["type"] == "lifespan.startup.complete":
            gc.collect()
            gc.freeze()  # loaded objects stay in use: collecting them repeatedly would delay requests
        await send(message)

    return send_with_reason
