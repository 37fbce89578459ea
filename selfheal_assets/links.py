"""Where a person goes on from an asset: the dashboard, a page of a report, a training run in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from selfheal.supervise import addresses

if TYPE_CHECKING:
    from selfheal.platform import Platform
    from selfheal.settings import Settings


def dashboard(settings: Settings) -> dg.UrlMetadataValue:
    """The first page of the API."""
    return dg.MetadataValue.url(f"{_api(settings)}/")


def report_page(settings: Settings, file_name: str) -> dg.UrlMetadataValue:
    """A page of a report, as the API serves it."""
    return dg.MetadataValue.url(f"{_api(settings)}/monitoring/reports/{file_name}")


def mlflow_run(platform: Platform, run_id: str) -> dg.UrlMetadataValue:
    """A training run, on the tracking server or where `selfheal up` shows it."""
    settings = platform.settings
    base = settings.mlflow_tracking_uri or ""
    shown_at = base.rstrip("/") if base.startswith("http") else f"http://127.0.0.1:{settings.mlflow_port}"
    return dg.MetadataValue.url(shown_at + platform.registry.run_url_path(run_id))


def _api(settings: Settings) -> str:
    return next(address.url for address in addresses(settings) if address.setting == "API_PORT")
