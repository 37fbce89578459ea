"""What the other columns say where one column alone cannot tell a faulty sender from a slice of the population.

A column that has become constant, and two flags whose shares have exchanged, look the same whether the sender broke or only some
of the customers come today. The rest of the row differs: a slice keeps the relation of that column to the others as the reference
has it, a fault loses it or hands it to another column.

Belongs here: both tests of a relation. `selfheal.domain.monitoring.feed` decides when one is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.shift import column_shift, standardised_ranks

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray

MAX_RELATION_ROWS = 8_000
"""Rows of the reference that are used, taken evenly over time: every other one to learn from, the rest to compare with."""

MIN_SLICE_ROWS = 50
"""Smallest number of rows of the reference that show what a slice of it is like."""

NO_SLICE_LEVEL = 1e-4
"""Level at which the rows are no slice of the reference; they must also be more than twice as close to the whole of it."""

SWAPPED_ERRORS = 3.7
"""Standard errors by which two columns' relations must be exchanged: a level of 1e-4, for pairs whose shapes match already."""


def keeps_no_relation(
    current: PreparedRows, reference: PreparedRows, stuck: Mapping[str, float], names: Sequence[str]
) -> bool:
    """Return whether the other columns contradict that these rows are the reference's slice with `stuck` values.

    By Neyman and Pearson's lemma, the chance of belonging to the slice given the other columns separates best "a slice" (the
    chance is as in the slice) from "all customers, with the column filled in" (the chance is as in the whole reference). The
    rows are called no slice only if they differ from it for sure and are more than twice as close to the whole.

    Args:
        stuck: the columns that are constant in `current`, each with its value; the reference has at least `MIN_SLICE_ROWS` such
            rows.
        names: all inputs; what is derived from them would follow a filled-in value.
    """
    others = [name for name in names if name not in stuck and _varies(current, name) and _varies(reference, name)]
    if not others:
        return False
    model, chances, is_slice = reference.once(
        ("slice", *stuck.items(), *others), lambda: _chance_of_slice(reference, stuck, others)
    )
    if is_slice.sum() < MIN_SLICE_ROWS // 2:
        return False
    now = model.predict_proba(current.matrix(others))[:, 1]
    of_slice, of_whole = column_shift(now, chances[is_slice]), column_shift(now, chances)
    return of_slice.p_value < NO_SLICE_LEVEL and of_whole.effect < of_slice.effect / 2


def slice_size(reference: PreparedRows, values: Mapping[str, float]) -> int:
    """Return how many rows of the reference have all of these values."""
    return int(_is_slice(reference, values).sum())


def have_exchanged_relations(
    current: PreparedRows, reference: PreparedRows, pair: tuple[str, str], names: Sequence[str]
) -> bool:
    """Return whether each of two columns is related to the others as the other one is in the reference.

    The reference teaches what the other columns predict of each. If z, the correlation of the difference of the two columns with
    the difference of their predictions over its standard error, is far below 0, then the columns were swapped. It is above 0 while
    each has kept its relation, and around 0 if they are related to nothing.
    """
    others = [name for name in names if name not in pair and _varies(reference, name)]
    if not others:
        return False
    models = [_expected(reference, name, others) for name in pair]
    values = np.column_stack([current.values(name) for name in pair])
    is_known = ~np.isnan(values).any(axis=1)
    if is_known.sum() < MIN_SLICE_ROWS:
        return False
    rows = current.matrix(others)[is_known]
    seen = np.subtract(*(standardised_ranks(column) for column in values[is_known].T))
    predicted = np.subtract(*(standardised_ranks(model.predict(rows)) for model in models))
    products = (seen - seen.mean()) * (predicted - predicted.mean())
    error = float(products.std()) / math.sqrt(len(products))
    return error > 0 and float(products.mean()) / error < -SWAPPED_ERRORS


def _varies(rows: PreparedRows, name: str) -> bool:
    return len(rows.sample(name).values) > 1


def _is_slice(reference: PreparedRows, values: Mapping[str, float]) -> FloatArray:
    return np.asarray(np.logical_and.reduce([reference.values(name) == value for name, value in values.items()]))


def _thinned(n_rows: int) -> FloatArray:
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, MAX_RELATION_ROWS)).astype(np.int64))


def _chance_of_slice(
    reference: PreparedRows, stuck: Mapping[str, float], others: Sequence[str]
) -> tuple[Any, FloatArray, FloatArray]:
    """Learn on every other row whether it is in the slice; return the model, and the rest's chances and membership."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    taken = _thinned(len(reference))
    rows, is_slice = reference.matrix(others)[taken], _is_slice(reference, stuck)[taken]
    model = HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=0
    ).fit(rows[::2], is_slice[::2])
    if len(model.classes_) < 2:
        return model, np.zeros(0), np.zeros(0, dtype=np.bool_)
    return model, model.predict_proba(rows[1::2])[:, 1], is_slice[1::2]


def _expected(reference: PreparedRows, name: str, others: Sequence[str]) -> Any:
    """Return a model of the column's standardised rank given the others, learned from the reference."""

    def compute() -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor

        taken = _thinned(len(reference))
        values, rows = reference.values(name)[taken], reference.matrix(others)[taken]
        is_known = ~np.isnan(values)
        model = HistGradientBoostingRegressor(
            max_iter=30, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=0
        )
        return model.fit(rows[is_known], standardised_ranks(values[is_known]))

    return reference.once(("expected", name, *others), compute)
