"""What `selfheal up` listens on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfheal.settings import Settings


@dataclass(frozen=True)
class Address:
    """One thing a person can open: what it is, where, and a path that answers once it is ready."""

    name: str
    setting: str
    host: str
    port: int
    ready_path: str
    note: str

    @property
    def url(self) -> str:
        """Where a browser on this machine reaches it."""
        return f"http://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}"  # noqa: S104  (compared)


def addresses(settings: Settings) -> tuple[Address, ...]:
    """Return what `up` listens on."""
    return (
        Address("API", "API_PORT", settings.api_host, settings.api_port, "/health", "its documentation is /docs"),
        Address("Dagster", "DAGSTER_PORT", "127.0.0.1", settings.dagster_port, "/server_info", "assets, runs, sensors"),
        Address("MLflow", "MLFLOW_PORT", "127.0.0.1", settings.mlflow_port, "/health", "training runs, model versions"),
    )
