"""Owners are addresses or teams; what is neither is refused before Dagster loads."""

from __future__ import annotations

import pytest

from selfheal.kit.errors import ConfigurationError
from selfheal.kit.owners import parse_owners
from selfheal.settings import load_settings


def test_no_owners_are_an_empty_list() -> None:
    assert parse_owners("") == parse_owners(" , ") == []


def test_addresses_and_teams_keep_their_order() -> None:
    assert parse_owners("team:risk,ada@mail.example.org") == ["team:risk", "ada@mail.example.org"]


@pytest.mark.parametrize(
    "wrong", ["ada", "ada@host", "team:", "team:two words", "ada@@example.org", "ada@example.organisation"]
)
def test_anything_else_is_refused_by_its_setting_and_its_value(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ASSET_OWNERS=.*neither an e-mail address nor of the form team:name"):
        load_settings(asset_owners=f"team:risk,{wrong}")
