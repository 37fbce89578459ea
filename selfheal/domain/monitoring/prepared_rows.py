"""Rows that are compared more than once, prepared once: a version's frozen reference above all.

Belongs here: what of a comparison depends on one side alone is computed at the first comparison and remembered. How it is
computed belongs to the module that compares.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from selfheal.domain.clusters import Clusters, copies_effect
from selfheal.domain.levels import code_of, is_text, numbers
from selfheal.domain.monitoring.category_shift import CategoryDistances
from selfheal.domain.monitoring.shift import Distances, Sample, distances

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray

T = TypeVar("T")


MAX_REMEMBERED, MAX_REMEMBERED_PER_COLUMN = 256, 8
"""Results that are remembered, whichever is more: of each column its values, sample, design effects and distances, and a few of
all. Beyond, the oldest are computed again; with fewer than a wide table has, each would be gone before it is asked for."""

NOTHING = object()


def sample_of(column: pd.Series, values: FloatArray, copies: float = 1.0) -> Sample:
    """Return a column of a frame sorted, with the texts of its levels if it is a category.

    Args:
        values: the column as numbers.
    """
    found = Sample.of(values, copies)
    if not is_text(column.dtype):
        return found
    texts = {code_of(text): text for text in column.dropna().unique().tolist()}
    return found._replace(levels=tuple(texts[code] for code in found.values.tolist()))


class PreparedRows:
    """Rows that must not be changed, because results on them are remembered.

    Args:
        rows: in chronological order.
        clusters: the entity of each row; None if every row is its own.
    """

    def __init__(self, rows: pd.DataFrame, clusters: Clusters = None) -> None:
        self.rows, self.clusters = rows, clusters
        self._limit = max(MAX_REMEMBERED, MAX_REMEMBERED_PER_COLUMN * len(rows.columns))
        self._remembered: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, rows: pd.DataFrame | PreparedRows) -> PreparedRows:
        """Return the rows, with nothing remembered yet; return prepared rows as they are."""
        return rows if isinstance(rows, PreparedRows) else cls(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: str) -> bool:
        return name in self.rows.columns

    def values(self, name: str) -> FloatArray:
        """Return a column as float64, whatever type a derivation gave it; levels as codes."""
        return self.once(("values", name), lambda: numbers(self.rows[name]))

    def matrix(self, names: Sequence[str]) -> FloatArray:
        """Return columns as float64, shape (rows, columns)."""
        return self.once(("matrix", *names), lambda: np.column_stack([self.values(name) for name in names]))

    def sample(self, name: str) -> Sample:
        """Return a column sorted; rows of one entity count as copies of each other."""
        return self.once(("sample", name), lambda: sample_of(self.rows[name], self.values(name), self.copies))

    def is_category(self, name: str) -> bool:
        """Return whether a column has levels rather than numbers."""
        return is_text(self.rows[name].dtype)

    @property
    def copies(self) -> float:
        """Return the design effect of rows that recur, as if those of one entity were copies of each other."""
        clusters = self.clusters
        return 1.0 if clusters is None else self.once(("copies",), lambda: copies_effect(clusters))

    def newest_of_each_entity(self) -> PreparedRows:
        """Return one row of each entity, its newest; these rows themselves if each is its own."""
        if self.clusters is None:
            return self
        clusters = self.clusters

        def compute() -> PreparedRows:
            from_end = np.unique(clusters[::-1], return_index=True)[1]
            return PreparedRows(self.rows.iloc[np.sort(len(clusters) - 1 - from_end)])

        return self.once(("newest of each entity",), compute)

    def distances(self, name: str, reference: PreparedRows) -> Distances | CategoryDistances:
        """Return how far a column is from the same column of a reference."""
        return self.once(("distances", name, reference), lambda: distances(self.sample(name), reference.sample(name)))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what `compute` gave for this key the first time.

        Args:
            key: names the computation and all its arguments beside the rows.
        """
        known: Any = self._remembered.get(key, NOTHING)  # in one step: another thread may be forgetting it
        if known is not NOTHING:
            remembered: T = known
            return remembered
        found = compute()
        while len(self._remembered) >= self._limit:
            self._remembered.pop(next(iter(self._remembered)), None)
        self._remembered[key] = found
        return found
