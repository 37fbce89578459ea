"""Tickets for report pages: for a while, not to be made up, and the same for all workers of a machine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.security.signed_links import LIFETIME_SECONDS, SECRET_BYTES, SignedLinks, _read_or_create_secret
from tests.at_once import at_once

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> float:
        return self.seconds


def test_a_ticket_is_valid_until_its_end_and_not_longer(tmp_path: Path) -> None:
    clock = Clock()
    links = SignedLinks(tmp_path, clock)
    ticket = links.issue()
    assert links.is_valid(ticket)
    clock.seconds = NOW + LIFETIME_SECONDS
    assert links.is_valid(ticket)
    clock.seconds = NOW + LIFETIME_SECONDS + 1
    assert not links.is_valid(ticket)


def test_a_ticket_of_the_future_is_not_valid(tmp_path: Path) -> None:
    """As if the clock was set back: its end would be put off."""
    clock = Clock()
    links = SignedLinks(tmp_path, clock)
    ticket = links.issue()
    clock.seconds = NOW - 1
    assert not links.is_valid(ticket)


def test_the_issue_time_cannot_be_changed(tmp_path: Path) -> None:
    clock = Clock()
    links = SignedLinks(tmp_path, clock)
    purpose, moment, signature = links.issue().split(".")
    clock.seconds = NOW + 60
    later = links.issue().split(".")[1]
    assert later != moment
    for changed in (
        f"{purpose}.{later}.{signature}",
        f"others.{moment}.{signature}",
        f"{purpose}.{moment}.{signature}0",
    ):
        assert not links.is_valid(changed)


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> SignedLinks:
    return SignedLinks(tmp_path_factory.mktemp("links"))


@given(made_up=st.text(max_size=200) | st.from_regex(r"reports\.[\w-]{0,8}\.[\w-]{0,43}", fullmatch=True))
def test_nothing_made_up_is_valid_or_an_error(links: SignedLinks, made_up: str) -> None:
    assert not links.is_valid(made_up)


def test_a_ticket_can_be_a_part_of_a_path(tmp_path: Path) -> None:
    assert set(SignedLinks(tmp_path).issue()) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    )


def test_all_workers_of_a_machine_accept_each_others_tickets_and_other_machines_do_not(tmp_path: Path) -> None:
    ticket = SignedLinks(tmp_path / "one").issue()
    assert SignedLinks(tmp_path / "one").is_valid(ticket)
    assert not SignedLinks(tmp_path / "other").is_valid(ticket)


def test_the_secret_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "run" / "secret"
    (secret,) = set(at_once([lambda: _read_or_create_secret(path)] * 8))
    assert len(secret) == SECRET_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["secret"]
