"""Comparison of two skops files: fitted parameters, to the bit or to a tolerance, without the times and object ids of each write.

Nothing in a file is executed or turned into objects; `selfheal.domain.model.file` opens models.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfheal.domain.model.file import SCHEMA, ZIP_START
from selfheal.kit.same_numbers import is_same

OBJECT_ID, FILE = "__id__", "file"
MAX_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Content:
    """What a file says.

    `leaves` has each value by its path in the schema: a text in JSON, or of a member (an array) its sha256, under which
    `members` has its bytes. Object ids are numbered in the order in which they appear; names of members are left out.
    """

    leaves: dict[str, str]
    members: dict[str, bytes]


def canonical_content(data: bytes) -> Content:
    """Return the content of a skops file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read(SCHEMA))
        members = {name: archive.read(name) for name in archive.namelist() if name != SCHEMA}
    digests = {name: _digest(member) for name, member in members.items()}
    numbers: dict[Any, int] = {}
    leaves = dict(_leaves(schema, "", digests, numbers))
    return Content(leaves, {digests[name]: member for name, member in members.items()})


def differences(one: Content, other: Content, tolerance: float = 0.0) -> list[str]:
    """Return every path at which two contents differ, a sentence each; empty: they are the same.

    Args:
        tolerance: how far two floating-point numbers may lie apart, relatively and absolutely; 0: to the bit.
    """
    found = []
    for path in sorted(one.leaves.keys() | other.leaves.keys()):
        texts = [content.leaves.get(path, "nothing") for content in (one, other)]
        if texts[0] != texts[1] and not (tolerance and _is_close(one, other, texts, tolerance)):
            left, right = (text[:MAX_SHOWN_CHARACTERS] for text in texts)
            found.append(f"{path.strip('.')}: {left} and {right}")
    return found


def _is_close(one: Content, other: Content, texts: list[str], tolerance: float) -> bool:
    left, right = (content.members.get(text) for content, text in zip((one, other), texts, strict=True))
    if left is not None and right is not None:
        return _are_close_arrays(left, right, tolerance)
    try:
        return is_same(_plain(texts[0]), _plain(texts[1]), tolerance)
    except ValueError:  # a digest, or nothing
        return False


def _plain(text: str) -> Any:
    """Return the value of a leaf. skops writes a plain value as JSON, as a text of its schema, which is JSON."""
    value = json.loads(text)
    return json.loads(value) if isinstance(value, str) else value


def _are_close_arrays(left: bytes, right: bytes, tolerance: float) -> bool:
    """Whether two members are arrays of the same floating-point type and shape whose numbers are close."""
    try:
        a, b = (np.load(io.BytesIO(member), allow_pickle=False) for member in (left, right))
    except (ValueError, OSError, EOFError):  # no array
        return False
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape)):
        return False  # a sparse matrix is an archive of arrays
    return bool(a.dtype.kind == "f" and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def _leaves(node: Any, path: str, digests: dict[str, str], numbers: dict[Any, int]) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            if name == OBJECT_ID:
                yield f"{path}.{name}", str(numbers.setdefault(value, len(numbers)))
            elif name == FILE and value in digests:
                yield f"{path}.{name}", digests[value]
            else:
                yield from _leaves(value, f"{path}.{name}", digests, numbers)
    elif isinstance(node, list) and node:
        for position, value in enumerate(node):
            yield from _leaves(value, f"{path}[{position}]", digests, numbers)
    else:
        yield path, json.dumps(node)


def _digest(member: bytes) -> str:
    """Return the sha256 of a member; of one that is itself a zip (a sparse matrix), the digest of its content."""
    if not member.startswith(ZIP_START):
        return hashlib.sha256(member).hexdigest()
    with zipfile.ZipFile(io.BytesIO(member)) as inner:
        parts = {name: hashlib.sha256(inner.read(name)).hexdigest() for name in inner.namelist()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
