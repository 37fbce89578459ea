"""JSON Lines file of results: one line per result, appended by many processes, whole even if one of them is killed.

Belongs here: the file. Does not belong here: what a line says. A line is appended in one write under a lock and is on disk when
`append_line` returns, so that a run that is killed loses only what was under way. What a killed run left of its last line is
dropped by the next reader and never joined with the next line.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selfheal.kit.errors import InvalidDataError


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append one line durably; other processes may do the same. Folders that are missing are made."""
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if _ends_torn(path):
            data = b"\n" + data  # what a killed run left of its last line stays apart
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path, first_key: str, what: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file, none if there is no such file; a line that a killed run left incomplete is skipped.

    Args:
        first_key: the key that every line begins with.
        what: what a line is, for the error.

    Raises:
        InvalidDataError: if a line, other than a torn one, is something else.
    """
    if not path.exists():
        return
    start = b'{"' + first_key.encode() + b'"'
    for number, text in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:
            if text[: len(start)] == start[: len(text)]:
                continue
            line = None
        if not isinstance(line, dict) or first_key not in line:
            raise InvalidDataError(
                f"{path}, line {number}: no {what} ({text[:60]!r}); name another file for the results, or delete this one"
            )
        yield line


def count_lines(path: Path) -> int:
    """Return the number of whole lines; 0 if there is no such file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
