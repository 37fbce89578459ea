"""What counts as the same number, to the bit and to a tolerance."""

from __future__ import annotations

import math
from typing import Any

import pytest

from selfheal.kit.same_numbers import is_same

ROUNDED = math.nextafter(0.3, 1.0)


@pytest.mark.parametrize(
    ("one", "other", "to_the_bit", "to_a_tolerance"),
    [
        (0.3, 0.3, True, True),
        (0.3, ROUNDED, False, True),
        (0.0, 1e-12, False, True),
        (1e12, math.nextafter(1e12, 0.0), False, True),
        (0.3, 0.31, False, False),
        (math.nan, math.nan, True, True),
        (math.nan, 0.0, False, False),
        (math.inf, 1e308, False, False),
        (3, 4, False, False),
        ("0.3", "0.30", False, False),
        (None, 0.0, False, False),
        (None, None, True, True),
        ({"a": [0.3, 1]}, {"a": [ROUNDED, 1]}, False, True),
        ({"a": [0.3, 1]}, {"a": [0.3, 2]}, False, False),
        ({"a": 0.3}, {"b": 0.3}, False, False),
        ([0.3], [0.3, 0.3], False, False),
        ((0.3,), [ROUNDED], False, True),
    ],
)
def test_numbers_are_the_same_to_the_bit_or_to_a_tolerance_and_all_else_is_equal_or_not(
    one: Any, other: Any, *, to_the_bit: bool, to_a_tolerance: bool
) -> None:
    assert is_same(one, other, 0.0) is is_same(other, one, 0.0) is to_the_bit
    assert is_same(one, other, 1e-9) is is_same(other, one, 1e-9) is to_a_tolerance
