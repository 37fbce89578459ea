"""MLflow's settings, which it reads from the environment: our defaults, and what it exports itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

EXPORTED = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")

REQUEST_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""For a tracking server that does not answer. With MLflow's defaults a call takes up to 20 minutes, in which the API
would not follow a rollback."""

CONNECTION_LIMITS = {"MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE": "60"}
"""For its store in Postgres: after a failover its pool leaves the demoted server within so many seconds."""

DEFAULTS = (
    {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    | REQUEST_LIMITS
    | CONNECTION_LIMITS
)
"""What is in force in our processes unless the environment says otherwise."""


@contextmanager
def unchanged_environment() -> Iterator[None]:
    """Undo what MLflow exports (address, experiment): our own settings, and child processes, would take it for theirs."""
    before = {name: os.environ.get(name) for name in EXPORTED}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
