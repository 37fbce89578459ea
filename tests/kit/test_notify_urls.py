"""Rules of notification addresses: what is none is refused by its place, and an address is never shown."""

from __future__ import annotations

import pytest

from selfheal.kit.errors import ConfigurationError
from selfheal.kit.notify_urls import Channel
from selfheal.settings import load_settings

ALL = "json://127.0.0.1:1/all"


@pytest.mark.parametrize("name", ["notify_urls", "notify_urls_critical", "notify_urls_warning", "notify_urls_info"])
def test_what_is_no_address_stops_every_command_with_its_place_and_without_its_text(name: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(**{name: f"{ALL},nonsense-with-a-s3cr3t"})
    assert f"{name.upper()}=***" in str(refusal.value)
    assert "address 2 of 2" in str(refusal.value)
    assert "s3cr3t" not in str(refusal.value)


def test_a_channel_shows_no_address() -> None:
    assert "s3cr3t" not in repr(Channel("json://h/s3cr3t"))
    assert "s3cr3t" not in Channel("json://h/s3cr3t").key
