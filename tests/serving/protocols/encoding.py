"""The same rows in the form of each protocol, as its clients write them."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JsonRow = Mapping[str, Any]

INFER = "/v2/models/machine_failure/infer"


@dataclass(frozen=True)
class Encoded:
    """A request: where it goes, its body and headers."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})

    @property
    def json_bytes(self) -> int | None:
        length = self.headers.get("inference-header-content-length")
        return None if length is None else int(length)


def columns_of(rows: Sequence[JsonRow]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def datatype_of(values: Sequence[Any]) -> str:
    return "BYTES" if any(isinstance(value, str) for value in values) else "FP64"


def packed(values: Sequence[Any]) -> bytes:
    if datatype_of(values) == "FP64":
        return struct.pack(f"<{len(values)}d", *(float("nan") if value is None else value for value in values))
    return b"".join(struct.pack("<I", len(value.encode())) + value.encode() for value in values)


def tensors(rows: Sequence[JsonRow]) -> Encoded:
    """A tensor for each column, in JSON."""
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": datatype_of(values), "data": values}
        for name, values in columns_of(rows).items()
    ]
    return Encoded(INFER, json.dumps({"inputs": inputs}).encode())


def binary_tensors(rows: Sequence[JsonRow]) -> Encoded:
    """A tensor for each column, in binary."""
    parts = {name: packed(values) for name, values in columns_of(rows).items()}
    inputs = [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": datatype_of(columns_of(rows)[name]),
            "parameters": {"binary_data_size": len(part)},
        }
        for name, part in parts.items()
    ]
    return with_parts({"inputs": inputs}, *parts.values())


def with_parts(request: Any, *parts: bytes) -> Encoded:
    head = json.dumps(request).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    return Encoded(INFER, b"".join([head, *parts]), headers)


def matrix(rows: Sequence[JsonRow]) -> Encoded:
    """One tensor of all inputs in another order, with their names; what is no number is a tensor of its own."""
    columns = columns_of(rows)
    numbers = [name for name, values in columns.items() if datatype_of(values) == "FP64"][::-1]
    flat = [value for each in zip(*(columns[name] for name in numbers), strict=True) for value in each]
    named = {"columns": ",".join(numbers)}
    inputs = [{"name": "x", "shape": [len(rows), len(numbers)], "datatype": "FP64", "data": flat, "parameters": named}]
    inputs += [
        {"name": name, "shape": [len(rows)], "datatype": "BYTES", "data": values}
        for name, values in columns.items()
        if name not in numbers
    ]
    return Encoded(INFER, json.dumps({"inputs": inputs}).encode())


def dataframe_split(rows: Sequence[JsonRow]) -> Encoded:
    """As `DataFrame.to_dict(orient="split")` and Python's json have it: NaN where a value is missing."""
    data = [[float("nan") if row[name] is None else row[name] for name in rows[0]] for row in rows]
    frame = {"index": list(range(len(rows))), "columns": list(rows[0]), "data": data}
    return Encoded("/invocations", json.dumps({"dataframe_split": frame}).encode())


def dataframe_records(rows: Sequence[JsonRow]) -> Encoded:
    return Encoded("/invocations", json.dumps({"dataframe_records": list(rows)}).encode())


def inputs(rows: Sequence[JsonRow]) -> Encoded:
    return Encoded("/invocations", json.dumps({"inputs": columns_of(rows)}).encode())


def comma_separated(rows: Sequence[JsonRow]) -> Encoded:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return Encoded("/invocations", file.getvalue().encode(), {"content-type": "text/csv; charset=utf-8"})


WAYS = {
    "tensors": tensors,
    "binary_tensors": binary_tensors,
    "matrix": matrix,
    "dataframe_split": dataframe_split,
    "dataframe_records": dataframe_records,
    "inputs": inputs,
    "csv": comma_separated,
}
