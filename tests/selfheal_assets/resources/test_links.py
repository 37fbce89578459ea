"""Links from assets lead where a person's browser can go: never to a listening address, a store's URL or a file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfheal.services.platform import Platform
from selfheal.settings import load_settings
from selfheal_assets.resources import links


def test_a_service_that_listens_everywhere_is_reached_on_this_machine() -> None:
    everywhere = load_settings(api_host="0.0.0.0", api_port=8123)
    assert links.dashboard(everywhere).value == "http://127.0.0.1:8123/"
    page = links.report_page(everywhere, "20260302T120000-v1.html")
    assert page.value == "http://127.0.0.1:8123/monitoring/reports/20260302T120000-v1.html"


def test_where_keys_are_asked_for_a_report_is_opened_from_the_dashboard() -> None:
    settings = load_settings(api_keys="selfheal_a-plain-key-may-do-everything")
    assert links.report_page(settings, "r.html").value == "http://127.0.0.1:8000/#reports"


def test_links_lead_to_the_public_addresses_if_there_are_some(platform: Platform) -> None:
    settings = load_settings(api_public_url="https://risk.example/heal/", mlflow_public_url="https://runs.example")
    assert links.dashboard(settings).value == "https://risk.example/heal/"
    assert links.report_page(settings, "r.html").value == "https://risk.example/heal/monitoring/reports/r.html"
    run = links.mlflow_run(replace(platform, settings=settings), "abc").value
    assert run is not None
    assert run.startswith("https://runs.example/#/experiments/")


@pytest.mark.parametrize(
    ("uri", "shown_at"),
    [
        ("http://mlflow.example:5000/", "http://mlflow.example:5000/#/experiments/"),
        ("postgresql://secret@host/mlflow", "http://127.0.0.1:5000/#/experiments/"),
        (None, "http://127.0.0.1:5000/#/experiments/"),
    ],
)
def test_a_run_is_shown_by_the_tracking_server_or_by_ours(platform: Platform, uri: str | None, shown_at: str) -> None:
    settings = platform.settings.model_copy(update={"mlflow_tracking_uri": uri})
    link = links.mlflow_run(replace(platform, settings=settings), "abc").value
    assert link is not None
    assert link.startswith(shown_at)
    assert link.endswith("/runs/abc")
    assert "secret" not in link
