"""A time of day that steps of the wall clock do not move."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from selfheal.kit import steady_clock
from selfheal.kit.steady_clock import SteadyClock, boot_id
from tests.times import T0


def test_it_goes_on_from_what_it_was_set_to_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: 1_000.0 + passed)
    clock = SteadyClock(T0)
    passed = 5.0
    assert clock.now() == T0 + timedelta(seconds=5)
    clock.set(T0 + timedelta(days=1))
    passed = 7.0
    assert clock.now() == T0 + timedelta(days=1, seconds=2)


def test_it_begins_with_the_wall_clock() -> None:
    before = datetime.now(UTC)
    assert before <= SteadyClock().now() <= datetime.now(UTC) + timedelta(seconds=1)


def test_an_operating_system_without_an_id_of_its_run_has_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    boot_id.cache_clear()
    monkeypatch.setattr(steady_clock, "BOOT_ID", steady_clock.BOOT_ID / "absent")
    assert boot_id() == ""
    boot_id.cache_clear()
