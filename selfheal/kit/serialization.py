"""Records as JSON and back, and the digest of a record. A record is a frozen dataclass."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter


RecordT = TypeVar("RecordT")


def digest_of(*parts: object) -> str:
    """Return the sha256 (hex) of the parts' canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def to_json(record: object) -> bytes:
    """Return a record as JSON.

    Raises:
        ValueError: if it contains NaN or an infinity (an unknown value is None).
    """
    return json.dumps(to_dict(record), allow_nan=False, indent=1).encode()


def to_dict(record: object) -> dict[str, Any]:
    """Return a record as plain JSON types."""
    dumped: dict[str, Any] = _adapter(record.__class__).dump_python(record, mode="json", by_alias=True)
    return dumped


def from_dict(kind: type[RecordT], values: object) -> RecordT:
    """Return the record of `kind` from the values of its `to_dict`.

    Raises:
        pydantic.ValidationError: if the values do not form such a record.
    """
    record: RecordT = _adapter(kind).validate_python(values)
    return record


_adapters: dict[object, TypeAdapter[Any]] = {}
"""Cached adapters by kind of record, because building one takes milliseconds."""


def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]
