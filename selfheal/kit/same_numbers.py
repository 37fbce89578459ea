"""Comparison of numbers that were computed twice, perhaps by two machines: equal to the bit, or to a tolerance.

Another processor, BLAS or C library rounds otherwise in the last digits. What is only copied is compared to the bit;
what is computed anew, and may be elsewhere, is compared with a tolerance, and whoever reports it names that tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def is_same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two plain values are the same, numbers to a relative and absolute `tolerance`, NaN being NaN.

    Plain values are what JSON knows, nested as they may be: keys, lengths, texts and whole numbers must be equal.

    >>> is_same({"f1": 0.3}, {"f1": 0.1 + 0.2}, 1e-9), is_same({"f1": 0.3}, {"f1": 0.1 + 0.2}, 0.0)
    (True, False)
    """
    if isinstance(one, float) and isinstance(other, float):
        both_unknown = math.isnan(one) and math.isnan(other)
        return both_unknown or math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same(one[name], other[name], tolerance) for name in one)
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(is_same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
