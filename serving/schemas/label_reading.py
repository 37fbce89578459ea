"""Reads the body of `POST /labels`: one label, or many as `labels`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from serving.schemas.problems import invalid_request
from serving.schemas.reading import WHITESPACE, ObjectReader, Refused
from serving.schemas.requests import MAX_LABELS, Label

BATCH = re.compile(rb'%b\{%b"labels"%b:' % (*[WHITESPACE] * 3,))

_reader = ObjectReader(Label)


def read_labels(body: bytes) -> Iterator[list[Label]]:
    """Yield the labels of a body, piece by piece. All or none are to be accepted, so the first wrong one ends it.

    Raises:
        ProblemError: 422, naming each wrong field of the first wrong label.
    """
    if BATCH.match(body) is None:
        yield [_reader.one(body)]
        return
    n_read = 0
    for piece in _reader.many("labels", body, MAX_LABELS):
        labels: list[Label] = []
        for label in piece:
            if isinstance(label, Refused):
                where = f"labels.{n_read + len(labels)}"
                raise invalid_request([one | {"field": _place(where, one["field"])} for one in label.problems])
            labels.append(label)
        n_read += len(labels)
        yield labels


def _place(label: str, field: str) -> str:
    return label if field == "body" else f"{label}.{field}"
