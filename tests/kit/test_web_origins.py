"""Which requests come from pages of other hosts, for every web server of the platform."""

from __future__ import annotations

import pytest

from selfheal.kit.web_origins import foreign_request

OWN = {"host": "127.0.0.1:3000"}
PUBLIC = "dagster.example:8443"


def kind(headers: dict[str, str], **rules: object) -> str | None:
    foreign = foreign_request(headers, **rules)  # type: ignore[arg-type]
    return None if foreign is None else foreign.kind


@pytest.mark.parametrize(
    "headers",
    [
        {},
        OWN,
        {"host": "localhost"},
        {"host": "[::1]:3000"},
        OWN | {"origin": "http://127.0.0.1:3000"},
    ],
    ids=str,
)
def test_programs_and_own_pages_are_let_in(headers: dict[str, str]) -> None:
    assert kind(headers) is None
    assert kind(headers, asks_for_keys=True) is None


@pytest.mark.parametrize(
    "headers",
    [
        OWN | {"origin": "https://evil.example"},
        OWN | {"origin": "http://127.0.0.1:8000"},
        OWN | {"origin": "http://localhost:3000"},
        OWN | {"origin": "null"},
        OWN | {"origin": ""},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        OWN | {"origin": "http://[::1"},
    ],
    ids=str,
)
def test_pages_of_other_origins_are_refused_with_keys_as_well(headers: dict[str, str]) -> None:
    for asks_for_keys in (False, True):
        assert kind(headers, asks_for_keys=asks_for_keys) == "foreign_origin"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", "[::1", "", "192.0.2.1"]
)
def test_without_keys_the_service_has_no_name_but_this_machines(host: str) -> None:
    assert kind({"host": host}) == "foreign_host"
    assert kind({"host": host}, asks_for_keys=True) is None


def test_a_proxy_may_show_the_service_under_the_name_that_is_configured() -> None:
    for host in (PUBLIC, "127.0.0.1:3000"):  # proxies pass the name on, or do not
        assert kind({"host": host, "origin": f"https://{PUBLIC}"}, public_host=PUBLIC) is None
        assert kind({"host": host, "origin": "https://evil.example"}, public_host=PUBLIC) == "foreign_origin"
    assert kind({"host": "evil.example"}, public_host=PUBLIC) == "foreign_host"
