"""Comparison of two skops files: fitted parameters to the bit, without the times and object ids of each write.

Nothing of a file is executed or turned into objects; `selfheal.domain.model.file` is where a model is opened.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from selfheal.domain.model.file import SCHEMA, ZIP_START

OBJECT_ID, FILE = "__id__", "file"
MAX_SHOWN_CHARACTERS = 80


def canonical_content(data: bytes) -> dict[str, str]:
    """Each value of the file by its path in the schema: a text in JSON, or of a member (an array) its sha256.

    Object ids are numbered in the order in which they appear; names of members are replaced by what is in them.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read(SCHEMA))
        digests = {name: _digest(archive.read(name)) for name in archive.namelist() if name != SCHEMA}
    numbers: dict[Any, int] = {}
    return dict(_leaves(schema, "", digests, numbers))


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Every path at which two contents differ, a sentence each; empty: they are the same."""
    found = []
    for path in sorted(one.keys() | other.keys()):
        left, right = (content.get(path, "nothing")[:MAX_SHOWN_CHARACTERS] for content in (one, other))
        if one.get(path) != other.get(path):
            found.append(f"{path.strip('.')}: {left} and {right}")
    return found


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
    """Of a member that is a zip itself (a sparse matrix), by what is in it."""
    if not member.startswith(ZIP_START):
        return hashlib.sha256(member).hexdigest()
    with zipfile.ZipFile(io.BytesIO(member)) as inner:
        parts = {name: hashlib.sha256(inner.read(name)).hexdigest() for name in inner.namelist()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
