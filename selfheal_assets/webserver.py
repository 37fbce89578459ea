"""`python -m selfheal_assets.webserver`: Dagster's pages, behind the rules of our API.

Dagster's own webserver answers any page that a browser on this machine has open: one of another origin could launch
`promote_job`. Here it runs behind `PageGuard`, and asks for a key where the API does.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.cli import (
    DEFAULT_DB_STATEMENT_TIMEOUT,
    DEFAULT_POOL_MAX_OVERFLOW,
    DEFAULT_POOL_RECYCLE,
)

from selfheal.kit.api_keys import parse_api_keys
from selfheal.kit.errors import SelfhealError
from selfheal.kit.page_guard import PageGuard
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selfheal.kit.page_guard import AsgiApp, Message, Receive, Send
    from selfheal.settings import Settings

HOST = "127.0.0.1"
OPEN_PATHS = ("/server_info",)
"""Versions of Dagster, and whether it runs."""

GRACE_SECONDS = 5


def main(arguments: list[str] | None = None) -> int:
    """Serve Dagster's pages on DAGSTER_PORT until stopped."""
    parser = argparse.ArgumentParser(prog="python -m selfheal_assets.webserver", description=__doc__)
    parser.add_argument("-w", "--workspace", required=True, help="workspace.yaml")
    parser.add_argument("--host", default=HOST, help="the address to listen on")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings()
        with dagster_pages(settings, given.workspace) as app:
            uvicorn.run(
                app,
                host=given.host,
                port=settings.dagster_port,
                log_level="warning",
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
    except SelfhealError as error:
        print(f"selfheal: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        return 2
    return 0


@contextmanager
def dagster_pages(settings: Settings, workspace: str) -> Iterator[AsgiApp]:
    """Return Dagster's web application for a workspace, guarded. The instance is that of DAGSTER_HOME."""
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW)
        with WorkspaceProcessContext(instance, workspace_load_target=WorkspaceFileTarget([workspace])) as context:
            yield guarded(create_app_from_workspace_process_context(context), settings)


def guarded(app: AsgiApp, settings: Settings) -> AsgiApp:
    """Return Dagster's web application behind the rules of our API."""
    public_url = None if settings.dagster_public_url is None else str(settings.dagster_public_url)
    keys = parse_api_keys(settings.api_keys.get_secret_value())
    return PageGuard(_QueriesByPost(app), keys, public_url=public_url, open_paths=OPEN_PATHS)


class _QueriesByPost:
    """ASGI middleware: no GET runs a query, which may be a mutation; an image or a link could send it."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] != "POST"
            and scope["path"].rstrip("/").endswith("/graphql")
            and b"query" in parse_qs(scope["query_string"], keep_blank_values=True)
            and b"text/html" not in dict(scope["headers"]).get(b"accept", b"")  # the page to try queries on
        ):
            body = b"send queries by POST"
            headers = [(b"allow", b"POST"), (b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 405, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)


if __name__ == "__main__":
    sys.exit(main())
