"""`python -m selfheal.adapters.mlflow_pages`: `mlflow server`, behind the rules of our API.

MLflow's own server refuses most foreign origins, but not other ports of this host, and asks for no key. Here it runs
behind `PageGuard`. MLflow's clients send a key as MLFLOW_TRACKING_TOKEN. `selfheal up` gives it API_KEYS and
MLFLOW_PUBLIC_URL in the environment.
"""

from __future__ import annotations

import os
import sys

from selfheal.kit.api_keys import parse_api_keys
from selfheal.kit.page_guard import AsgiApp, PageGuard

APP_NAME = "selfheal"
OPEN_PATHS = ("/health", "/version")


def create_app() -> AsgiApp:
    """Return MLflow's web application, guarded; uvicorn calls this in each worker."""
    from mlflow.server.fastapi_app import app

    keys = parse_api_keys(os.environ.get("API_KEYS", ""))
    return PageGuard(app, keys, public_url=os.environ.get("MLFLOW_PUBLIC_URL") or None, open_paths=OPEN_PATHS)


def main(arguments: list[str]) -> None:
    """Run `mlflow server` with these arguments and our application."""
    import click
    from mlflow import cli, server

    # MLflow knows the entry points of installed packages; if it ever asks elsewhere, it finds no such application.
    option = next(option for option in cli.server.params if option.name == "app_name")
    option.type = click.STRING
    server._find_app = {APP_NAME: "selfheal.adapters.mlflow_pages:create_app"}.__getitem__
    cli.cli(["server", "--app-name", APP_NAME, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
