"""Tensors: every datatype in JSON and in binary, and what is refused because it is not what its tensor declares."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.protocols.tensors import (
    NUMPY_TYPES,
    TensorError,
    bytes_of_values,
    values_of_bytes,
    values_of_json,
)

INTEGERS = [name for name in NUMPY_TYPES if "INT" in name]


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_a_tensor_has_the_same_values_in_json_and_in_binary(datatype: str) -> None:
    values: list[Any] = [True, False] if datatype == "BOOL" else [0, 1] if datatype in INTEGERS else [0.5, 2.0]
    packed = np.array(values, NUMPY_TYPES[datatype]).tobytes()
    for found in (values_of_bytes(memoryview(packed), datatype, 2), values_of_json(values, datatype, 2)):
        assert found == values
        assert list(map(type, found)) == list(map(type, values))


@given(st.lists(st.text()))
def test_texts_come_back_from_binary_as_they_were(texts: list[str]) -> None:
    packed = bytes_of_values(texts, "BYTES")
    assert values_of_bytes(memoryview(packed), "BYTES", len(texts)) == texts


@given(st.lists(st.floats(allow_nan=False)))
def test_numbers_come_back_from_binary_to_the_bit(values: list[float]) -> None:
    found = values_of_bytes(memoryview(bytes_of_values(values, "FP64")), "FP64", len(values))
    assert list(map(float.hex, found)) == list(map(float.hex, values))


def test_a_binary_fp32_is_the_number_that_it_is_and_a_json_number_the_one_that_is_written() -> None:
    packed = struct.pack("<f", 0.1)
    assert values_of_bytes(memoryview(packed), "FP32", 1) == [0.10000000149011612]
    assert values_of_json([0.1], "FP32", 1) == [0.1]


def test_data_is_read_flat_and_nested_and_null_is_missing() -> None:
    assert values_of_json([[1.0, None], [2, 3]], "FP64", 4) == [1.0, None, 2, 3]
    assert values_of_json([None, True], "BOOL", 2) == [None, True]


@pytest.mark.parametrize(
    ("data", "datatype", "message"),
    [
        ([1, 2, 3], "INT64", "data has 3 elements, and the shape 2; make them agree"),
        ([1, 1.5], "INT64", "data has 1.5, which is no INT64; declare FP64, or send other values"),
        ([1, True], "INT32", "data has true, which is no INT32; declare BOOL, or send other values"),
        ([0, 1], "BOOL", "data has 0, which is no BOOL; declare INT64, or send other values"),
        (["a", 1], "BYTES", "data has 1, which is no BYTES; declare INT64, or send other values"),
        ([1.0, "2"], "FP64", "data has '2', which is no FP64; declare BYTES, or send other values"),
        ([1.0, {}], "FP64", "data has {}, which is no FP64; send plain values"),
        ([1.0, [2.0]], "FP64", "data mixes lists and values; send it flat, or nested as the shape is"),
        ([[[[1.0, 2.0]]]], "FP64", "data is nested more than 2 deep; send it flat, or nested as the shape is"),
    ],
)
def test_data_that_is_not_as_declared_is_refused_with_the_remedy(data: Any, datatype: str, message: str) -> None:
    with pytest.raises(TensorError) as caught:
        values_of_json(data, datatype, 2)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("data", "datatype", "message"),
    [
        (b"\0" * 15, "FP64", "binary_data_size is 15, and 2 elements of FP64 have 16 bytes"),
        (b"\1\0\0\0a", "BYTES", "the bytes are not those of 2 texts"),
        (b"\1\0\0\0a\1\0\0\0b\1\0\0\0c", "BYTES", "the bytes are not those of 2 texts"),
        (b"\1\0\0\0a\xff\xff\xff\xffb", "BYTES", "the bytes are not those of 2 texts"),
        (b"\1\0\0\0a\1\0", "BYTES", "the bytes are not those of 2 texts"),
        (b"\1\0\0\0a\1\0\0\0\xff", "BYTES", "text 1 is not UTF-8; encode texts as UTF-8"),
    ],
)
def test_bytes_that_are_not_as_declared_are_refused(data: bytes, datatype: str, message: str) -> None:
    with pytest.raises(TensorError) as caught:
        values_of_bytes(memoryview(data), datatype, 2)
    assert message in str(caught.value)
