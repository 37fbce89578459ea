"""Reading bodies: the same objects however they are cut, each name once, and no more time and memory than they deserve."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.schemas import reading
from serving.schemas.label_reading import read_labels
from serving.schemas.problems import ProblemError
from serving.schemas.reading import (
    MAX_ERRORS_PER_ITEM,
    MAX_ERRORS_PER_LIST,
    MAX_ITEM_BYTES,
    ObjectReader,
    Refused,
    refuse_repeated_names,
)
from serving.schemas.requests import RowBase, row_model
from serving.scoring.request_parser import RequestParser
from tests.processes import REPOSITORY
from tests.serving.running import bodies
from tests.toy_use_case import contract

MODEL = row_model(contract)
READER = ObjectReader(MODEL)
GOOD = {"temperature_c": 61.5, "load_ratio": 0.7, "restarts": 1}
MAX_ITEMS = 50


def refusal(read: Callable[[], Any]) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        read()
    return caught.value


def fields_of(error: ProblemError) -> list[str]:
    return [one["field"] for one in error.extra["errors"]]


def read_all(body: bytes, max_items: int = MAX_ITEMS) -> list[RowBase | Refused]:
    return [item for piece in READER.many("instances", body, max_items) for item in piece]


# The same as the model alone, however long the pieces are

texts = st.text(st.sampled_from('ab,:{}[]"\\ é\n'), max_size=6)
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(0, 2) | texts
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
rows = st.fixed_dictionaries(
    {"load_ratio": st.floats(0, 5), "restarts": st.integers(0, 9)},
    optional={"temperature_c": st.floats(0, 90), "request_source": st.just("a:b") | texts, "explain": st.booleans()},
)
items = (
    rows
    | rows
    | st.dictionaries(st.sampled_from(["load_ratio", "restarts", "colour"]) | texts, nested, max_size=4)
    | nested
)


def as_the_model_says(item: Any) -> Any:
    try:
        return MODEL.model_validate_json(json.dumps(item)).__dict__
    except ValidationError:
        return Refused


@settings(max_examples=300, deadline=None)
@given(st.lists(items, min_size=1, max_size=8), st.integers(1, 200), st.booleans(), st.booleans())
def test_a_list_is_read_as_its_objects_are_wherever_it_is_cut(
    objects: list[Any], piece_bytes: int, is_wide: bool, is_ascii: bool
) -> None:
    body = json.dumps({"instances": objects}, indent=1 if is_wide else None, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "PIECE_BYTES", piece_bytes)
        found = read_all(body)
    read = [Refused if isinstance(one, Refused) else one.__dict__ for one in found]
    assert read == [as_the_model_says(one) for one in objects]
    assert all(one.problems for one in found if isinstance(one, Refused))


@given(items)
def test_one_object_is_read_as_its_model_says(item: Any) -> None:
    body = json.dumps(item).encode()
    expected = as_the_model_says(item)
    if expected is Refused:
        assert refusal(lambda: READER.one(body)).status == 422
    else:
        assert READER.one(body).__dict__ == expected


@pytest.mark.parametrize("piece_bytes", [1, 30, 65_536])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"instances": 5}',
        b'{"instances": []}',
        b'{"instances": [{}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1}]',
        b'{"instances": [{"load_ratio": 1, "restarts": 1},]}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1},,{"load_ratio": 1, "restarts": 1}]}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1} {"load_ratio": 1, "restarts": 1}]}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1}}]}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1}]]}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1}]}}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1}], "colour": 1}',
        b'{"colour": 1, "instances": [{"load_ratio": 1, "restarts": 1}]}',
        b'{"instances": [{"load_ratio": 1, "restarts": 1}], "instances": [{"load_ratio": 1, "restarts": 1}]}',
        b'{"instances": [{"load_ratio": 1, "restarts": \xff}]}',
    ],
)
def test_what_is_no_list_of_objects_is_refused_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, body: bytes, piece_bytes: int
) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", piece_bytes)
    assert refusal(lambda: read_all(body)).status == 422


def test_a_list_has_at_most_so_many_items_whatever_they_are() -> None:
    for item in (GOOD, {}, 5, [[]], {"colour": 1}):
        assert len(read_all(json.dumps({"instances": [item] * MAX_ITEMS}).encode())) == MAX_ITEMS
        assert fields_of(refusal(lambda: read_all(json.dumps({"instances": [item] * (MAX_ITEMS + 1)}).encode()))) == [  # noqa: B023
            "instances"
        ]


# Each name once

TWICE = [
    b'{"load_ratio": 99, "load_ratio": 0.7, "restarts": 1}',
    b'{"load_ratio": 0.7, "restarts": 1, "load_ratio": 0.7}',
    b'{"load_ratio": 0.7, "restarts": 1, "\\u006coad_ratio": 0.7}',
    b'{"load_ratio": 0.7, "restarts": 1, "request_source": "a", "request_source": "a"}',
]


@pytest.mark.parametrize("row", TWICE)
def test_a_field_that_is_given_twice_is_refused(row: bytes) -> None:
    named = "request_source" if b"source" in row else "load_ratio"
    assert refusal(lambda: READER.one(row)).extra["errors"] == [{"field": named, "message": "given more than once"}]
    good = json.dumps(GOOD).encode()
    first, refused, last = read_all(b'{"instances": [%b, %b, %b]}' % (good, row, good))
    assert first == last == READER.one(good)
    assert isinstance(refused, Refused)
    assert [one["field"] for one in refused.problems] == [named]


def test_a_field_under_two_of_its_names_is_refused() -> None:
    assert "Temp-C" in fields_of(refusal(lambda: READER.one(json.dumps(GOOD | {"Temp-C": 61.5}).encode())))


def test_other_documents_have_each_name_once_too() -> None:
    refuse_repeated_names(b'{"a": {"b": 1}, "c": [{"b": 1}, {"b": 2}]}')
    refuse_repeated_names(b"no JSON")
    assert fields_of(refusal(lambda: refuse_repeated_names(b'{"a": [{"b": 1, "c": 2, "b": 3}]}'))) == ["b"]


# What is wrong is described, but not without end


def unknown(n_fields: int) -> bytes:
    return b"{%b}" % b", ".join(b'"f%d": %d' % (n, n) for n in range(n_fields))


def test_of_many_unknown_fields_the_first_are_named_and_the_rest_is_not_read() -> None:
    for body in (unknown(100), unknown(100_000), b" " * 200_000 + unknown(100)):
        fields = fields_of(refusal(lambda: READER.one(body)))  # noqa: B023
        assert fields[:3] == ["f0", "f1", "f2"]
        assert len(fields) <= MAX_ERRORS_PER_ITEM + 1


def test_an_object_of_a_list_with_too_many_fields_is_refused_alone_unless_it_is_huge() -> None:
    good = json.dumps(GOOD).encode()
    first, refused, last = read_all(b'{"instances": [%b, %b, %b]}' % (good, unknown(500), good))
    assert first == last == READER.one(good)
    assert isinstance(refused, Refused)
    assert refused.problems[0]["field"] == "f0"
    huge = unknown(20_000)
    assert len(huge) > MAX_ITEM_BYTES
    fields = fields_of(refusal(lambda: read_all(b'{"instances": [%b, %b, %b]}' % (good, huge, good))))
    assert fields[0] == "f0"
    assert fields[-1].startswith("instances")


def test_the_errors_of_a_list_are_counted_and_the_first_of_them_described() -> None:
    body = json.dumps({"instances": [{name + "x": 1 for name in GOOD}] * 5_000}).encode()
    found = read_all(body, 10_000)
    assert len(found) == 5_000
    assert all(isinstance(one, Refused) for one in found)
    described = [one for one in found if isinstance(one, Refused) and one.problems]
    assert described == found[: len(described)]
    n_errors = sum(len(one.problems) for one in described)
    assert MAX_ERRORS_PER_LIST <= n_errors < MAX_ERRORS_PER_LIST + MAX_ERRORS_PER_ITEM


def test_the_first_wrong_label_ends_the_reading_and_is_named() -> None:
    label = {"prediction_id": "0198f0f0-5c1e-7000-8000-000000000000", "true_label": 1}
    when = {"labelled_at": "2026-01-31T12:00:00+01:00", "label_source": "a:b"}
    good = [label, label | when] * 700
    read = [one for piece in read_labels(json.dumps({"labels": good}).encode()) for one in piece]
    assert [one.true_label for one in read] == [1] * len(good)
    wrong = json.dumps({"labels": [*good, label | {"true_label": 7, "colour": 1}, 5]}).encode()
    assert fields_of(refusal(lambda: list(read_labels(wrong)))) == [
        f"labels.{len(good)}.true_label",
        f"labels.{len(good)}.colour",
    ]
    assert fields_of(refusal(lambda: list(read_labels(b'{"labels": [5]}')))) == ["labels.0"]
    assert fields_of(refusal(lambda: list(read_labels(b'{"true_label": 1}')))) == ["prediction_id"]


# Time and memory


def cpu_seconds(work: Callable[[], Any]) -> float:
    """The least of three."""
    took = []
    for _ in range(3):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return min(took)


PARSER = RequestParser(contract)
N_ROWS = 5_000


def batch_seconds(instances: list[Any]) -> float:
    body = json.dumps({"instances": instances}).encode()
    return cpu_seconds(lambda: list(PARSER.batch(body)))


def test_to_read_a_batch_of_misspelt_rows_costs_a_few_times_a_good_one() -> None:
    """To score a row costs more than to refuse it, so that the whole request costs less than a good one."""
    good = bodies(N_ROWS)
    misspelt = [{re.sub("^", "x", name): value for name, value in row.items()} for row in good]
    assert batch_seconds(misspelt) < 6 * batch_seconds(good)


def test_an_object_of_many_unknown_fields_costs_less_than_a_batch_of_its_size() -> None:
    good = bodies(N_ROWS)
    body = unknown(len(json.dumps(good)) // 14)
    assert cpu_seconds(lambda: refusal(lambda: PARSER.row(body))) < batch_seconds(good) / 10


def test_to_find_repeated_names_takes_time_in_proportion_to_their_number() -> None:
    """Counted name by name, 10,000 of them took as long as 150,000 counted in one pass."""

    def repeated(n_names: int) -> bytes:
        return b"{%b}" % b", ".join(b'"f%d": 1, "f%d": 2' % (n, n) for n in range(n_names))

    def seconds(n_names: int, n_bodies: int) -> float:
        body = repeated(n_names)
        return cpu_seconds(lambda: [refusal(lambda: refuse_repeated_names(body)) for _ in range(n_bodies)])

    assert seconds(10_000, 1) < 5 * seconds(100, 100)


def test_a_large_body_is_read_in_pieces_so_that_others_have_their_turn() -> None:
    good = json.dumps({"instances": bodies(N_ROWS)}).encode()
    odd = json.dumps({"instances": [[5, {"a": "}"}]] * N_ROWS}).encode()
    for body in (good, odd):
        pieces = [len(piece) for piece in PARSER.batch(body)]
        assert sum(pieces) == N_ROWS
        assert len(pieces) > 2
        assert max(pieces) < N_ROWS / 2


MEMORY = """
import resource, sys
from serving.schemas.problems import ProblemError
from serving.scoring.request_parser import RequestParser
from tests.toy_use_case import contract
parser = RequestParser(contract)
def unknown(n):
    return b"{%b}" % b", ".join(b'"f%07d": 1' % n for n in range(n))
def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def read(body):
    for way in (parser.row, lambda body: sum(len(piece) for piece in parser.batch(body))):
        try:
            way(body)
        except ProblemError:
            pass
read(unknown(10))
bodies = [unknown(1_100_000)]
bodies += [b'{"instances": [%b]}' % body for body in (bodies[0], b"[],".join([b""] * 4_000_000) + b"1", b"1," * 7_000_000 + b"1")]
before = peak_bytes()
for body in bodies:
    read(body)
print((peak_bytes() - before) / len(bodies[0]))
"""


def test_reading_takes_a_small_multiple_of_a_bodys_size_in_memory() -> None:
    """Of 15 MB, with 1.1 million unknown fields, 4 million empty lists, 7 million numbers; the body itself not counted."""
    done = subprocess.run([sys.executable, "-c", MEMORY], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.5
