"""The alert about unusable derived values says what was found, what became of it, and what to do; never to check the disk."""

from __future__ import annotations

import pytest

from selfheal.domain.monitoring.unusable_values import UNUSABLE_VALUES, left_out_of_copy, left_out_of_window
from selfheal.domain.records import Alert, Severity


@pytest.mark.parametrize(
    ("alert", "found", "effect"),
    [
        (
            left_out_of_copy(3, "a.csv: byte 7 (fee = 2,700,000,000)"),
            "the last one from a.csv: byte 7 (fee = 2,700,000,000)",
            "their labels are not orphans",
        ),
        (left_out_of_window("cover is infinite in 2"), "left out: cover is infinite in 2", "They are not compared"),
    ],
)
def test_it_says_what_was_found_its_effect_and_the_remedy(alert: Alert, found: str, effect: str) -> None:
    assert (alert.kind, alert.severity) == (UNUSABLE_VALUES, Severity.WARNING)
    assert found in alert.message
    assert effect in alert.message
    assert "No training uses them" in alert.message or "no training uses them" in alert.message
    assert alert.message.endswith("Bound them there, or narrow the limits of its inputs in the contract.")
