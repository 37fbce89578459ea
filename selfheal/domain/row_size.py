"""How much fits into one row of Postgres: the table of predictions has a column for each feature.

A row has at most 1,600 columns *and* must fit into one page, since numbers are never stored outside of it. CREATE TABLE
checks only the first; the second would be an error of the first prediction. Hence a contract is checked when it is
loaded. What the columns beside the features are, a test compares with the declared table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_COLUMNS = 1_600
"""Postgres's MaxHeapAttributeNumber."""

MAX_ROW_BYTES = 8_160
"""Postgres's MaxHeapTupleSize: a page of 8,192 bytes without its header and the pointer to the row."""

HEADER_BYTES = 23
"""Fixed part of a row's header; the bitmap of nulls follows, a bit per column."""

ALIGNMENT = 8


class ColumnSize(NamedTuple):
    """Bytes of a column's value, and the multiple at which it starts."""

    n_bytes: int
    alignment: int


FLOAT, INT = ColumnSize(8, 8), ColumnSize(4, 4)
FLAG = ColumnSize(1, 1)
LEVEL = ColumnSize(24, 1)
"""Of a category: a longer text is stored outside of the row, with a pointer in it."""

SIZES = {"float": FLOAT, "int": INT, "bool": FLAG, "category": LEVEL}

OWN_COLUMNS = (
    ColumnSize(16, 1),  # prediction_id
    FLOAT,  # created_at
    INT,  # model_version
    ColumnSize(2, 2),  # prediction
    FLOAT,  # probability
    FLOAT,  # threshold
    ColumnSize(65, 1),  # request_source: 64 characters and their length
    FLOAT,  # latency_ms
    INT,  # journal_segment
)
"""The columns of `prediction_logs` that every row has beside the features."""

ENTITY_COLUMN = ColumnSize(33, 1)
"""`_entity`: 32 characters and their length, where the contract declares a key; else null, which takes no room."""

NULL = ColumnSize(0, 1)


def row_bytes(columns: Sequence[ColumnSize]) -> int:
    """Return the bytes of a row in which no value is missing but some other one might be.

    >>> row_bytes([FLOAT, INT, FLOAT])
    48
    """
    end = _aligned(HEADER_BYTES + -(-len(columns) // 8), ALIGNMENT)
    for column in columns:
        end = _aligned(end, column.alignment) + column.n_bytes
    return _aligned(end, ALIGNMENT)


def row_problem(kinds: Sequence[str], *, has_entity_key: bool = False) -> str | None:
    """Return why a row of features of these kinds does not fit, with counts and remedy; None if it does."""
    own = [*OWN_COLUMNS, ENTITY_COLUMN] if has_entity_key else list(OWN_COLUMNS)
    columns = [*own, *(SIZES[kind] for kind in kinds if kind in SIZES)]
    stored = columns if has_entity_key else [*columns, NULL]
    n_bytes = row_bytes(stored)
    if len(stored) <= MAX_COLUMNS and n_bytes <= MAX_ROW_BYTES:
        return None
    room = MAX_ROW_BYTES - row_bytes(own)
    return (
        f"its {len(kinds):,} features need {len(columns):,} columns and {n_bytes:,} bytes in a row of Postgres, which holds "
        f"{MAX_COLUMNS:,} columns and {MAX_ROW_BYTES:,} bytes (a float takes 8, an int 4, a bool 1, a category {LEVEL.n_bytes}, our own {len(own)} columns "
        f"{MAX_ROW_BYTES - room:,}): leave out or combine features, some {room * 8 // 65:,} floats fit"
    )


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
