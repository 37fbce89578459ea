"""What is not known is never shown as a number, and a rounded zero has no sign."""

from __future__ import annotations

import pytest

from selfheal.simulate.replay.summary import NO_FIGURE
from selfheal.simulate.replay.wording import cost_text, count_text, days_text, score_text, share_text


@pytest.mark.parametrize(
    "form", [cost_text, share_text, count_text, score_text, lambda bounds: days_text(bounds, None)]
)
def test_what_is_not_known_is_a_dash(form) -> None:  # type: ignore[no-untyped-def]
    assert form(NO_FIGURE) == "-"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (cost_text((-0.04, -0.001, 0.04)), "0.0"),
        (cost_text((-0.2, -0.001, 0.1)), "0.0 (-0.2 to 0.1)"),
        (cost_text((None, -1_234.5, None)), "-1,234"),
        (share_text((-0.3, -0.002, 0.3)), "0 % (-30 to 30)"),
        (share_text((0.5, 1.0, 1.5)), "100 % (50 to 150)"),
        (days_text((24.0, 48.0, 72.0), 1.0), "2.0 d (1.0 to 3.0)"),
        (days_text((None, 48.0, None), 0.5), "2.0 d, in 50 %"),
        (days_text((None, 1_440.0, None), 0.0), "never"),
        (count_text((None, 2.0, None)), "2"),
        (count_text((1.0, 2.5, 4.0)), "2.5"),
    ],
)
def test_a_figure_reads_well(shown: str, expected: str) -> None:
    assert shown == expected
