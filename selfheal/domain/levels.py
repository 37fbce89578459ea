"""Levels of a category: how two texts are compared, and the number that stands for one in a matrix.

Rows and frames have a level as the text that was sent; matrices are of float64. The number is a hash of the text in Unicode's normal
form C: no process needs another's dictionary, a level that nobody has seen has one too, and it does not change with the contract.
Its order means nothing. A text that is not encoded cannot become a number by accident: numpy refuses it.

Belongs here: texts and codes. What a category's declaration says is in `selfheal.domain.features`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

FloatArray: TypeAlias = npt.NDArray[np.float64]
TextArray: TypeAlias = npt.NDArray[np.object_]
"""Levels as texts, None where missing."""

MAX_LEVEL_CHARACTERS = 128
"""Longest text of a level. What is longer is prose or an accident, and every row would carry it."""

MAX_DECLARED_LEVELS = 1_000

CODE_BITS = 53
"""Whole numbers of so many bits are exact in float64. Of 50,000 levels two share a code with a chance of 1 in 7 million."""

MAX_KNOWN_CODES = 65_536
"""Codes that a process remembers: 10 MB."""

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def level_problem(text: str) -> str | None:
    """Return why a text cannot be a level, with the remedy; None if it can.

    >>> level_problem("web"), level_problem("  ")
    (None, 'is blank: leave out what is missing, or send null')
    """
    if not text.strip():
        return "is blank: leave out what is missing, or send null"
    if len(text) > MAX_LEVEL_CHARACTERS:
        return f"has {len(text):,} characters: send a name of at most {MAX_LEVEL_CHARACTERS}"
    return "has a control character: remove it" if UNPRINTABLE.search(text) else None


def is_level(value: object) -> bool:
    """Return whether a value is a text that can be a level."""
    return isinstance(value, str) and level_problem(value) is None


def normal(text: str) -> str:
    """Return the text in the form in which levels are compared (NFC: an accent is one character, however it was typed)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spelling(text: str) -> str:
    """Return what is left of a level without regard to case, width, blanks and punctuation.

    >>> spelling("Month-to-month ") == spelling("MONTH TO MONTH")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or folded.strip()


@lru_cache(MAX_KNOWN_CODES)
def code_of(text: str) -> float:
    """Return the number that stands for a level in a matrix: a whole number below 2**53.

    >>> code_of("web") == code_of("web"), code_of("web") == code_of("Web")
    (True, False)
    """
    digest = hashlib.blake2b(normal(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return float(int.from_bytes(digest, "big") >> (64 - CODE_BITS))


def codes_of(texts: Iterable[object]) -> FloatArray:
    """Return the code of each level, NaN where there is none; a number stays as it is."""
    return np.array([code_of(one) if isinstance(one, str) else _number(one) for one in texts], dtype=np.float64)


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def texts_of(values: Iterable[object]) -> TextArray:
    """Return levels as texts, None where one is missing, for a derivation: those that compare as equal are equal."""
    return as_texts([normal(value) if isinstance(value, str) else None for value in values])


def as_texts(values: Iterable[object]) -> TextArray:
    """Return levels as they came, None where one is missing."""
    texts = [value if isinstance(value, str) else None for value in values]
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found


def derived_levels(name: str, values: Iterable[object]) -> TextArray:
    """Return what a derivation gives for a category.

    Raises:
        ValueError: if a value is no text that can be a level; the API then refuses the row.
    """
    found = list(values)
    for value in found:
        is_missing = value is None or (isinstance(value, float) and np.isnan(value))
        if not is_missing and not is_level(value):
            raise ValueError(f"derive gives {value!r:.60} for the category {name!r}; give a short text, or None")
    return texts_of(found)


def numbers(column: pd.Series) -> FloatArray:
    """Return a column of a frame as it is in a matrix: a category's texts as codes."""
    return codes_of(column.tolist()) if is_text(column.dtype) else column.to_numpy(dtype=np.float64)


def is_text(dtype: Any) -> bool:
    """Return whether a frame's column of this type has levels rather than numbers."""
    return bool(dtype.kind == "O")


def matrix(frame: pd.DataFrame, names: Sequence[str]) -> FloatArray:
    """Return columns of a frame as a matrix, shape (rows, columns)."""
    columns = frame[list(names)]
    if not any(map(is_text, columns.dtypes)):
        return columns.to_numpy(dtype=np.float64)
    return np.column_stack([numbers(columns[name]) for name in names]).reshape(len(frame), len(names))


# In a line of the journal

ESCAPES = {"%": "%25", ",": "%2C", '"': "%22", "\\": "%5C"}
"""What a field of the journal cannot hold as it is. `%` comes first and is undone last."""

UNSAFE = re.compile(f"[{re.escape(''.join(ESCAPES))}]")


def escaped(text: str) -> str:
    r"""Return a level as a field of the journal.

    >>> escaped("Fibre, 50%"), unescaped(escaped("Fibre, 50%"))
    ('Fibre%2C 50%25', 'Fibre, 50%')
    """
    return UNSAFE.sub(lambda found: ESCAPES[found[0]], text) if UNSAFE.search(text) else text


def unescaped(text: str) -> str:
    """Return the level that a field of the journal is."""
    if "%" in text:
        for plain, escape in reversed(ESCAPES.items()):
            text = text.replace(escape, plain)
    return text
