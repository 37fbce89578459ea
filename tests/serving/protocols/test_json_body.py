"""A JSON body is read as Python's clients write it, in bounded time, and no name in it is overlooked."""

from __future__ import annotations

import math

import pytest

from serving.protocols.json_body import MAX_JSON_BYTES, read_json
from serving.schemas.problems import ProblemError


def test_nan_is_read_as_pythons_json_writes_it() -> None:
    nan, infinite = read_json(b'{"data": [NaN, -Infinity]}')["data"]
    assert math.isnan(nan)
    assert infinite == -math.inf


@pytest.mark.parametrize("body", [b'{"a": 1, "a": 2}', b'{"rows": [{"a": 1}, {"a": "x:y", "b": 1, "a": 2}]}'])
def test_a_name_that_is_given_twice_is_refused(body: bytes) -> None:
    with pytest.raises(ProblemError, match="a: given more than once"):
        read_json(body)


def test_a_colon_in_a_text_is_no_name() -> None:
    assert read_json(b'{"a": "12:30:00", "b": [{"c": ":"}]}') == {"a": "12:30:00", "b": [{"c": ":"}]}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1}x'])
def test_what_is_no_json_is_refused_with_the_parsers_reason(body: bytes) -> None:
    with pytest.raises(ProblemError, match="body: not JSON: ") as caught:
        read_json(body)
    assert caught.value.status == 422


def test_more_json_than_can_be_read_at_once_is_refused_with_the_remedy() -> None:
    with pytest.raises(ProblemError, match="send several batches, or in /v2 binary tensors") as caught:
        read_json(b" " * (MAX_JSON_BYTES + 1))
    assert caught.value.status == 413
