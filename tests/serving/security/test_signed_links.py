"""Tickets for report pages: for a while, for nobody who made one up, and the same for all workers of a machine."""

from __future__ import annotations

import stat
from pathlib import Path

from serving.security.signed_links import LASTS_SECONDS, SignedLinks, _secret_in
from tests.at_once import at_once

NOW = 1_800_000_000.0


def test_a_ticket_is_valid_until_its_end_and_not_longer(tmp_path: Path) -> None:
    tickets = SignedLinks(tmp_path)
    ticket = tickets.issue(NOW)
    assert tickets.is_valid(ticket, NOW)
    assert tickets.is_valid(ticket, NOW + LASTS_SECONDS)
    assert not tickets.is_valid(ticket, NOW + LASTS_SECONDS + 1)


def test_the_end_cannot_be_put_off(tmp_path: Path) -> None:
    tickets = SignedLinks(tmp_path)
    end, signature = tickets.issue(NOW).split("-")
    assert not tickets.is_valid(f"{int(end) + 1}-{signature}", NOW)
    assert not tickets.is_valid(f"{end}-{signature}0", NOW)


def test_all_workers_of_a_machine_take_each_others_tickets_and_other_machines_do_not(tmp_path: Path) -> None:
    ticket = SignedLinks(tmp_path / "one").issue(NOW)
    assert SignedLinks(tmp_path / "one").is_valid(ticket, NOW)
    assert not SignedLinks(tmp_path / "other").is_valid(ticket, NOW)


def test_the_secret_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "run" / "secret"
    assert len(set(at_once([lambda: _secret_in(path)] * 8))) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["secret"]
