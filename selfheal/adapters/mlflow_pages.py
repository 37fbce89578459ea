"""`python -m selfheal.adapters.mlflow_pages`: `mlflow server`, behind the rules of our API.

MLflow's own server refuses most foreign origins, but not other ports of this host, and asks for no key. Here it runs
behind `PageGuard`. MLflow's clients send a key as MLFLOW_TRACKING_TOKEN. `selfheal up` gives it API_KEYS and
MLFLOW_PUBLIC_URL in the environment; nothing is read from `.env` here, so without API_KEYS, which may be empty, it does not
start: the pages would be open although there are keys.
"""

from __future__ import annotations

import os
import sys

from selfheal.kit.api_keys import ApiKey, parse_api_keys
from selfheal.kit.errors import ConfigurationError
from selfheal.kit.page_guard import AsgiApp, PageGuard

APP_NAME = "selfheal"
OPEN_PATHS = ("/health", "/version")


def create_app() -> AsgiApp:
    """Return MLflow's web application, guarded; uvicorn calls this in each worker."""
    from mlflow.server.fastapi_app import app

    return PageGuard(app, _keys(), public_url=os.environ.get("MLFLOW_PUBLIC_URL") or None, open_paths=OPEN_PATHS)


def _keys() -> tuple[ApiKey, ...]:
    """Return the keys in the environment.

    Raises:
        ConfigurationError: if API_KEYS is not set there, not even to nothing.
    """
    if "API_KEYS" not in os.environ:
        raise ConfigurationError(
            "API_KEYS is not in the environment, so MLflow's pages do not know whom to let in; start them with `selfheal up`, "
            "or set API_KEYS (to nothing for pages without keys)"
        )
    return parse_api_keys(os.environ["API_KEYS"])


def main(arguments: list[str]) -> None:
    """Run `mlflow server` with these arguments and our application.

    Raises:
        SystemExit: with the code of a wrong setting, if API_KEYS is not in the environment.
    """
    try:
        _keys()
    except ConfigurationError as error:
        print(f"selfheal: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        sys.exit(2)
    import click
    from mlflow import cli, server

    # MLflow knows the entry points of installed packages; if it ever asks elsewhere, it finds no such application.
    option = next(option for option in cli.server.params if option.name == "app_name")
    option.type = click.STRING
    server._find_app = {APP_NAME: "selfheal.adapters.mlflow_pages:create_app"}.__getitem__
    cli.cli(["server", "--app-name", APP_NAME, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
