"""What `selfheal up` listens on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal.kit.wildcard_hosts import reached_host

if TYPE_CHECKING:
    from selfheal.settings import Settings


@dataclass(frozen=True)
class Address:
    """One address that a person can open: its name, host and port, and a path that responds once it is ready."""

    name: str
    setting: str
    host: str
    port: int
    ready_path: str
    note: str

    @property
    def url(self) -> str:
        """Where a browser on this machine reaches it."""
        return http_url(self.host, self.port)


def http_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on this host.

    >>> http_url("::", 8000), http_url("0.0.0.0", 8000), http_url("::1", 8000)
    ('http://[::1]:8000', 'http://127.0.0.1:8000', 'http://[::1]:8000')
    """
    reached = reached_host(host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def addresses(settings: Settings) -> tuple[Address, ...]:
    """Return what `up` listens on. A tracking server that runs elsewhere is not among it."""
    api = Address("API", "API_PORT", settings.api_host, settings.api_port, "/health", "its documentation is /docs")
    dagster = Address(
        "Dagster", "DAGSTER_PORT", "127.0.0.1", settings.dagster_port, "/server_info", "assets, runs, sensors"
    )
    if settings.has_tracking_server:
        return api, dagster
    mlflow = Address(
        "MLflow", "MLFLOW_PORT", "127.0.0.1", settings.mlflow_port, "/health", "training runs, model versions"
    )
    return api, dagster, mlflow


def code_server(settings: Settings) -> Address:
    """Return where Dagster's own processes find its code; no person opens it, and it speaks gRPC."""
    return Address("Dagster's code server", "CODE_SERVER_PORT", "127.0.0.1", settings.code_server_port, "", "")
