"""A server that listens on every address is reached at loopback, any other where it listens."""

from __future__ import annotations

import pytest

from selfheal.kit.wildcard_hosts import EVERYWHERE, reached_host


@pytest.mark.parametrize(("host", "loopback"), EVERYWHERE.items())
def test_what_listens_everywhere_is_reached_at_loopback(host: str, loopback: str) -> None:
    assert reached_host(host) == loopback
    assert reached_host(loopback) == loopback
