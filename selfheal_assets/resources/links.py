"""Links from an asset to the dashboard, a page of a report, a training run in MLflow, or a run in Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from selfheal.services.addresses import addresses

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from selfheal.settings import Settings


def dashboard(settings: Settings) -> dg.UrlMetadataValue:
    """Return the link to the first page of the API."""
    return dg.MetadataValue.url(f"{_api(settings)}/")


def report_page(settings: Settings, file_name: str) -> dg.UrlMetadataValue:
    """Return the link to a page of a report, as the API serves it.

    If the API requires keys, which a link cannot carry, the link leads to the dashboard's list of reports.
    """
    if settings.api_keys.get_secret_value():
        return dg.MetadataValue.url(f"{_api(settings)}/#reports")
    return dg.MetadataValue.url(f"{_api(settings)}/monitoring/reports/{file_name}")


def mlflow_run(platform: Platform, run_id: str) -> dg.UrlMetadataValue:
    """Return the link to a training run: at `MLFLOW_PUBLIC_URL`, on the tracking server, or at the UI of `selfheal up`."""
    settings = platform.settings
    own = settings.mlflow_tracking_uri if settings.has_tracking_server else _listening(settings, "MLFLOW_PORT")
    base = str(settings.mlflow_public_url or own).rstrip("/")
    return dg.MetadataValue.url(base + platform.registry.run_url_path(run_id))


def dagster_run(settings: Settings, run_id: str) -> dg.UrlMetadataValue:
    """Return the link to a run in Dagster: at `DAGSTER_PUBLIC_URL`, or at the UI of `selfheal up`."""
    base = str(settings.dagster_public_url or _listening(settings, "DAGSTER_PORT")).rstrip("/")
    return dg.MetadataValue.url(f"{base}/runs/{run_id}")


def _api(settings: Settings) -> str:
    return str(settings.api_public_url or _listening(settings, "API_PORT")).rstrip("/")


def _listening(settings: Settings, setting: str) -> str:
    return next(address.url for address in addresses(settings) if address.setting == setting)
