"""Back-off: pauses double up to a limit, however long an outage lasts."""

from __future__ import annotations

import pytest

from selfheal.kit.backoff import Backoff

BACKOFF = Backoff(initial_seconds=0.25, max_seconds=10.0)


def test_a_pause_is_twice_the_one_before_until_the_limit() -> None:
    pauses = [BACKOFF.seconds(n_failures) for n_failures in range(1, 9)]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_an_outage_of_any_length_pauses_for_the_limit() -> None:
    assert BACKOFF.seconds(100_000) == 10.0


@pytest.mark.parametrize("n_failures", [0, -1])
def test_without_a_failure_there_is_no_pause(n_failures: int) -> None:
    with pytest.raises(ValueError, match=f"at least one failure, not {n_failures}"):
        BACKOFF.seconds(n_failures)
