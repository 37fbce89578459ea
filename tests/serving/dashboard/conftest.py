"""An API with 30 days of a monitor's past, two versions and keys."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from benchmarks.monitored_past import write_monitored_past
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.services.platform import Platform
from selfheal.services.reports.files import ensure_scripts, reports_folder, save_overview
from tests.browser import browser
from tests.conftest import WITH_MLFLOW
from tests.serving.conftest import TWO_VERSIONS, clone
from tests.serving.history import ADA, API_KEYS, platform_of
from tests.serving.running import Api, api_in_thread
from tests.traffic import serve, toy_rows

__all__ = ["browser"]

REPORT = "20260302T120000-v1"
PAGE = "<!doctype html><title>overview</title><p id='drawn'></p><script src='{script}'></script>"


def write_past(platform: Platform, now: datetime) -> None:
    """A look every two hours for 30 days, the last a minute ago; traffic of the last day, all of it seen; a report."""
    last = now - timedelta(minutes=1)
    write_monitored_past(platform, last, every=timedelta(hours=2))
    step = timedelta(seconds=90)
    serve(platform, toy_rows(900, scenario="overheating"), start=last - 900 * step, step=step, labelled_share=0.4)
    folder = reports_folder(platform.settings.data_dir)
    _, drawing = ensure_scripts(folder)
    save_overview(PAGE.format(script=drawing), folder, REPORT)


@pytest.fixture(scope="module")
def keyed_api(
    server: EmbeddedServer, two_versions_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """One API for the tests of a module, with keys. Its client sends the key of `ada`, who may do everything."""
    data_dir = tmp_path_factory.mktemp("keyed_api") / "data"
    settings = clone(server, TWO_VERSIONS, two_versions_template, "dashboard", data_dir, WITH_MLFLOW)
    with_keys = settings.model_copy(update={"api_keys": SecretStr(API_KEYS)})
    with platform_of(with_keys) as platform:
        write_past(platform, datetime.now(UTC))
    with api_in_thread(with_keys) as running:
        running.client.headers["X-API-Key"] = ADA
        yield running
