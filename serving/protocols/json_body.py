"""Reading of a JSON body as a whole, for protocols whose bodies are not lists of flat objects. Pure."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from serving.schemas.problems import ProblemError, unreadable_body
from serving.schemas.reading import refuse_repeated_names

MAX_JSON_BYTES = 4_000_000
"""Read in 20 ms, during which nobody else is answered: 10,000 rows of the shipped use case in their longest form."""


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text; `NaN` and `Infinity` are read too, since Python's clients send them.

    Raises:
        ProblemError: 413 if the text is too long; 422 if it is not JSON, or an object in it has a name twice.
    """
    if len(body) > MAX_JSON_BYTES:
        remedy = "send several batches, or in /v2 binary tensors"
        raise ProblemError(413, "too_large", f"the JSON of this request may have {MAX_JSON_BYTES:,} bytes; {remedy}")
    try:
        value = from_json(body)
    except ValueError as error:
        raise unreadable_body(str(error)) from None
    if body.count(b":") != _n_names(value):  # a name was given twice, or there is a colon in a text
        refuse_repeated_names(body)
    return value


def _n_names(value: Any) -> int:
    """Return the number of names in all objects of a value."""
    if isinstance(value, dict):
        return len(value) + sum(map(_n_names, value.values()))
    if isinstance(value, list) and not {dict, list}.isdisjoint(map(type, value)):
        return sum(map(_n_names, value))
    return 0
