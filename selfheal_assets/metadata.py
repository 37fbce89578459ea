"""Metadata as Dagster can write it: everything that assets, checks and jobs show goes through `plain`.

Dagster (1.13) accepts a `numpy.float64` when metadata are made, since it is a float, and refuses it when they are written, after
all the work of the step. NaN and the infinities it writes as words that are no JSON, which a page cannot read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import dagster as dg

Value: TypeAlias = "dg.MetadataValue | str | float | int | bool"

Metadata: TypeAlias = "dict[str, Value]"
"""Metadata by name."""

Facts: TypeAlias = "dict[str, object]"
"""Metadata before `plain`; None: not known."""


def plain(metadata: Mapping[str, object]) -> Metadata:
    """Return metadata with Python's own numbers, without those that are not known: None, NaN and the infinities.

    Dagster plots numbers, and an unknown one must not appear as 0.

    >>> import numpy as np
    >>> plain({"f1": np.float64(0.5), "rows": np.int64(3), "auc_roc": float("nan"), "brier": None})
    {'f1': 0.5, 'rows': 3}
    """
    known = {name: _value(value) for name, value in metadata.items()}
    return {name: value for name, value in known.items() if value is not None}


def table(rows: Iterable[Mapping[Any, object]], schema: dg.TableSchema | None = None) -> dg.TableMetadataValue:
    """Return a table of these rows; what is not known is an empty cell."""
    records = [dg.TableRecord({str(name): _cell(value) for name, value in row.items()}) for row in rows]
    return dg.MetadataValue.table(records, schema=schema)


def document(content: Mapping[str, object]) -> dg.JsonMetadataValue:
    """Return a document of JSON types, as deep as it may be; what is not known in it is null."""
    return dg.MetadataValue.json({str(name): _json(value) for name, value in content.items()})


def _value(value: object) -> Value | None:
    return value if isinstance(value, dg.MetadataValue) else _cell(value)


def _cell(value: Any) -> str | float | int | bool | None:
    """Return a single value with a type of Python's own; None if it is not known.

    Raises:
        TypeError: if it is not a single value.
    """
    if hasattr(value, "dtype"):
        value = value.item()  # of numpy or pandas
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} is no single value")


def _json(value: object) -> dict[str, object] | list[object] | str | float | int | bool | None:
    if isinstance(value, Mapping):
        return {str(name): _json(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json(one) for one in value]
    return _cell(value)
