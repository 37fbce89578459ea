"""What `derive` makes of a row: the values that a column and an estimator can hold, checked as inputs are.

Belongs here: the rule, vectorised, and its sentences. Does not belong here: who asks. Serving refuses such a row before
it is acknowledged; training and monitoring leave it out and count it (`ModelContract.without_unusable`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from selfheal.domain.features import DerivedFeature

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

MAX_INT = 2**31 - 1
"""Whole numbers are stored in 32 bits."""

MAX_FLOAT = float(np.finfo(np.float32).max)
"""Largest float: scikit-learn's trees compare in 32 bits and refuse a row with more."""


class DerivedValues:
    """Checks the derived features of one contract. Values have the shape (derived features, n), in the contract's order."""

    def __init__(self, derived: Sequence[DerivedFeature]) -> None:
        self._derived = tuple(derived)
        self._limits = np.array([[_limit(feature)] for feature in derived])
        kinds = [feature.kind for feature in derived]
        self._whole = np.array([place for place, kind in enumerate(kinds) if kind in {"int", "bool"}], dtype=np.intp)
        self._flags = np.array([place for place, kind in enumerate(kinds) if kind == "bool"], dtype=np.intp)
        self._may_be_missing = np.array([[feature.is_nullable] for feature in derived])

    def are_usable(self, values: FloatArray) -> bool:
        """Return whether every row is usable. It is called for each group of requests: microseconds count."""
        if not self._derived:
            return True
        n_beyond = values.size - np.count_nonzero(np.abs(values) <= self._limits)  # missing values are among them
        if n_beyond and n_beyond != np.count_nonzero(np.isnan(values) & self._may_be_missing):
            return False
        if not self._whole.size:
            return True
        if self._flags.size and (values.take(self._flags, axis=0) < 0).any():
            return False
        whole = values.take(self._whole, axis=0)
        n_broken = np.count_nonzero(np.rint(whole) != whole)
        return not n_broken or bool(n_broken == np.count_nonzero(np.isnan(whole)))

    def usable(self, values: FloatArray) -> BoolArray:
        """Return which rows are usable, shape (n,)."""
        if not self._derived:
            return np.ones(values.shape[1], dtype=np.bool_)
        is_missing = np.isnan(values)
        is_usable = (np.abs(values) <= self._limits) | (is_missing & self._may_be_missing)
        whole = values[self._whole]
        is_usable[self._whole] &= is_missing[self._whole] | (np.rint(whole) == whole)
        is_usable[self._flags] &= ~(values[self._flags] < 0)
        usable: BoolArray = is_usable.all(axis=0)
        return usable

    def problems(self, row: FloatArray) -> list[dict[str, str]]:
        """Return `field` and `message` of each derived feature of one row, shape (derived features,), that is unusable."""
        return [
            {
                "field": feature.name,
                "message": f"computed from this row ({feature.formula or 'by derive'}) it is {_shown(value, what)}; "
                f"{_needed(feature)}: correct the inputs, or narrow their limits in the contract",
            }
            for feature, value, what in self._unusable(row)
        ]

    def summary(self, values: FloatArray) -> str:
        """Return what is unusable, feature by feature; empty if nothing is."""
        counts: dict[str, int] = {}
        for row in values.T[~self.usable(values)]:
            for feature, _, what in self._unusable(row):
                said = f"{feature.name} is {what}"
                counts[said] = counts.get(said, 0) + 1
        return ", ".join(f"{said} in {n:,}" for said, n in counts.items())

    def _unusable(self, row: FloatArray) -> Iterator[tuple[DerivedFeature, float, str]]:
        for feature, value in zip(self._derived, row.tolist(), strict=True):
            what = unusable(feature, value)
            if what is not None:
                yield feature, value, what


def unusable(feature: DerivedFeature, value: float) -> str | None:
    """Return what makes a value of a derived feature unusable; None if nothing does."""
    if np.isnan(value):
        return None if feature.is_nullable else "missing"
    if feature.kind == "bool":
        return None if value in {0.0, 1.0} else "neither 1 nor 0"
    if np.isinf(value):
        return "infinite"
    if abs(value) > _limit(feature):
        return "too large"
    return "no whole number" if feature.kind == "int" and value % 1 else None


def _limit(feature: DerivedFeature) -> float:
    return {"bool": 1.0, "int": float(MAX_INT)}.get(feature.kind, MAX_FLOAT)


def _needed(feature: DerivedFeature) -> str:
    needed = {
        "bool": "1 for true or 0 for false",
        "int": f"a whole number within ±{MAX_INT:,}",
        "float": f"a number within ±{MAX_FLOAT:.1e}",
        "category": "a text",
    }
    return f"{needed[feature.kind]} is needed"


def _shown(value: float, what: str) -> str:
    return f"{value:,.12g}, {what}" if np.isfinite(value) else what
