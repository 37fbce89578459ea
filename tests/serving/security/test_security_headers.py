"""What browsers and caches are told."""

from __future__ import annotations

import pytest

from tests.serving.running import Api


@pytest.mark.parametrize("path", ["/health", "/model/info", "/nothing", "/predict", "/docs"])
def test_every_page_is_taken_for_what_it_says_it_is_and_framed_by_nobody(shared_api: Api, path: str) -> None:
    headers = shared_api.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "frame-ancestors 'self'"


@pytest.mark.parametrize("path", ["/health", "/model/info", "/nothing", "/predict"])
def test_no_cache_keeps_a_state_or_a_refusal(shared_api: Api, path: str) -> None:
    assert shared_api.client.get(path).headers["cache-control"] == "no-store"
