"""Finished pieces in a file: a run that is stopped goes on from there, and a full one may be done in several sittings.

Belongs here: what a result depends on, and the file's lines. A result counts only for the same code, rows, seed and arguments.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks import gates, probation
from benchmarks.trust.worlds import Given, Piece
from selfheal.kit.code_version import code_version, digest_of_code
from selfheal.kit.json_lines import append_line, read_lines


@dataclass(frozen=True)
class Done:
    """A finished piece: what it returned, and the CPU seconds it took."""

    found: Any
    cpu_s: float


def code_of_worlds() -> str:
    """Return what every result depends on: a digest of the platform's code, and one of this benchmark's."""
    ours = hashlib.sha256(digest_of_code(Path(__file__).parent).encode())
    for module in (gates, probation):
        assert module.__file__ is not None, "they are files"
        ours.update(Path(module.__file__).read_bytes())
    return f"{code_version()}+{ours.hexdigest()[:12]}"


class Results:
    """The results of a file, those of other code, rows or seeds apart.

    Args:
        path: None keeps nothing beyond this run.
        given: what the run was given.
        code: what else every result depends on.

    Raises:
        InvalidDataError: if the file holds something else.
    """

    def __init__(self, path: Path | None, given: Given, code: str) -> None:
        self._path = path
        files = [_digest(file) for file in (given.data, *given.streams)]
        self._about = (code, *files, given.is_quick, given.seed)
        lines = () if path is None else read_lines(path, "fingerprint", "result of a piece")
        self._done = {line["fingerprint"]: Done(line["found"], line["cpu_s"]) for line in lines}

    def find(self, world: str, piece: Piece) -> Done | None:
        """Return the result of a piece; None if it is still to be done."""
        return self._done.get(self._fingerprint(world, piece))

    def keep(self, world: str, piece: Piece, done: Done) -> None:
        """Keep a result, on disk when this returns."""
        fingerprint = self._fingerprint(world, piece)
        self._done[fingerprint] = done
        if self._path is not None:
            line = {"fingerprint": fingerprint, "world": world, "piece": piece.name}
            append_line(self._path, line | {"cpu_s": round(done.cpu_s, 3), "found": done.found})

    def _fingerprint(self, world: str, piece: Piece) -> str:
        work = f"{piece.work.__module__}.{piece.work.__qualname__}"
        text = json.dumps([*self._about, world, piece.name, work, repr(piece.arguments)])
        return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=16)
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
