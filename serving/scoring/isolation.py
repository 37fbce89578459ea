"""Isolation of rows on which a computation fails: by halving, so that a few among many are found in few calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray


@dataclass(frozen=True)
class Isolated:
    """The results of the rows that did not fail, by place in order, and the errors of the others."""

    results: dict[int, Any]
    failures: dict[int, Exception]


def isolate(compute: Callable[[slice], FloatArray], n_rows: int) -> Isolated:
    """Compute `n_rows` rows, piece by piece where need be: at most twice as many calls as there are rows.

    Args:
        compute: returns one result for each row of a slice. Rows do not depend on each other.
    """
    found = Isolated({}, {})
    pieces = [slice(0, n_rows)]
    while pieces:
        piece = pieces.pop()
        try:
            results = compute(piece)
        except Exception as error:  # a contract's own code may raise anything
            if piece.stop - piece.start == 1:
                found.failures[piece.start] = error
            else:
                middle = (piece.start + piece.stop) // 2
                pieces += [slice(middle, piece.stop), slice(piece.start, middle)]
        else:
            found.results.update(enumerate(results, start=piece.start))
    return found
