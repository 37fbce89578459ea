"""Tensors of the Open Inference Protocol: from JSON or bytes to values as JSON has them, and back. Pure.

Bytes are those of the binary tensor data extension: little-endian and row by row; a text is its length in four bytes, then
its UTF-8. A JSON number counts as it is written, whatever float type is declared for it; a binary FP32 counts as the FP64
that equals it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

MAX_NESTING = 3
"""Deepest list of `data`: a matrix needs two."""

NUMBER_TYPES = {int, float}
BYTES_LENGTH = struct.Struct("<I")

NUMPY_TYPES = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""Types with elements of one size; `BYTES` has none."""

DATATYPE_OF_KIND = {"float": "FP64", "int": "INT64", "bool": "BOOL"}
"""The datatype of an input of each kind, as metadata says it; text for any other."""


@dataclass(frozen=True, slots=True)
class TensorError(Exception):
    """Data that is not what its tensor declares; the text says what is wrong and what to do."""

    message: str

    def __str__(self) -> str:
        return self.message


def values_of_json(data: Sequence[Any], datatype: str, n_elements: int) -> list[Any]:
    """Return the elements of `data`, flat; None where one is null.

    Raises:
        TensorError: if there are more or fewer elements, or one is not of the datatype.
    """
    values = _flat(data)
    if len(values) != n_elements:
        raise TensorError(f"data has {len(values):,} elements, and the shape {n_elements:,}; make them agree")
    types = set(map(type, values)) - {type(None)}
    if not types <= _json_types(datatype):
        stray = next(value for value in values if type(value) not in {*_json_types(datatype), type(None)})
        remedy = _remedy(stray)
        raise TensorError(f"data has {_shown(stray)}, which is no {datatype}; {remedy}")
    return values


def values_of_bytes(data: memoryview, datatype: str, n_elements: int) -> list[Any]:
    """Return the elements of a binary tensor, flat.

    Raises:
        TensorError: if the bytes are not those of so many elements.
    """
    if datatype == "BYTES":
        return _texts_of_bytes(data, n_elements)
    kind = np.dtype(NUMPY_TYPES[datatype])
    if len(data) != n_elements * kind.itemsize:
        wanted = f"{n_elements:,} elements of {datatype} have {n_elements * kind.itemsize:,} bytes"
        raise TensorError(f"binary_data_size is {len(data):,}, and {wanted}; make them agree")
    found: list[Any] = np.frombuffer(data, kind).tolist()
    return found


def bytes_of_values(values: Sequence[Any], datatype: str) -> bytes:
    """Return the values as a binary tensor."""
    if datatype == "BYTES":
        return b"".join(BYTES_LENGTH.pack(len(text)) + text for text in (str(value).encode() for value in values))
    return np.array(values, NUMPY_TYPES[datatype]).tobytes()


def _texts_of_bytes(data: memoryview, n_elements: int) -> list[Any]:
    texts: list[str] = []
    position = 0
    while position < len(data):
        start = position + BYTES_LENGTH.size
        if start > len(data) or len(texts) == n_elements:
            break
        position = start + BYTES_LENGTH.unpack_from(data, position)[0]
        if position > len(data):
            break
        try:
            texts.append(str(data[start:position], "utf-8"))
        except UnicodeDecodeError:
            raise TensorError(f"text {len(texts)} is not UTF-8; encode texts as UTF-8") from None
    if position != len(data) or len(texts) != n_elements:
        remedy = "each text is its length in four bytes, little-endian, and then its bytes"
        raise TensorError(f"the bytes are not those of {n_elements:,} texts; {remedy}")
    return texts


def _flat(data: Sequence[Any]) -> list[Any]:
    for _ in range(MAX_NESTING):
        if list not in set(map(type, data)):
            return list(data)
        if set(map(type, data)) != {list}:
            raise TensorError("data mixes lists and values; send it flat, or nested as the shape is")
        data = list(chain.from_iterable(data))
    raise TensorError(f"data is nested more than {MAX_NESTING - 1} deep; send it flat, or nested as the shape is")


def _json_types(datatype: str) -> set[type]:
    if datatype == "BOOL":
        return {bool}
    if datatype == "BYTES":
        return {str}
    return NUMBER_TYPES if datatype.startswith("FP") else {int}


def _remedy(stray: Any) -> str:
    datatype = {bool: "BOOL", str: "BYTES", float: "FP64", int: "INT64"}.get(type(stray))
    return "send plain values" if datatype is None else f"declare {datatype}, or send other values"


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 40 else f"{text[:37]}..."
