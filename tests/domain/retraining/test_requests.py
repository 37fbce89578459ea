"""When a retraining that failed outside of the model is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from selfheal.domain.retraining.requests import next_try_at
from tests.times import T0

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("n_failures", "waits"), [(1, 60 * SECOND), (2, 120 * SECOND), (3, 240 * SECOND), (7, HOUR), (1_000, HOUR)]
)
def test_each_failure_in_a_row_doubles_the_wait_up_to_an_hour(n_failures: int, waits: timedelta) -> None:
    assert next_try_at(n_failures, T0, T0) == T0 + waits
    assert next_try_at(n_failures, T0, T0 + waits - SECOND) == T0 + waits
    assert next_try_at(n_failures, T0, T0 + waits) is None


def test_what_has_not_failed_waits_for_nothing() -> None:
    assert next_try_at(0, None, T0) is None


def test_a_failure_before_the_clock_was_set_back_holds_nothing_up() -> None:
    assert next_try_at(1, T0 + 48 * HOUR, T0) is None
