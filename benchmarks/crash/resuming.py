"""Crash points that earlier runs of the same code have tried: 10,000 take hours, and a run may be stopped at any time.

Belongs here: the file, one JSON line a point. A line is appended in one write as soon as its point is done, so that a run which is
stopped loses the points under way alone; a torn last line is dropped. Points of other code are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.crash.trying import Point, Tried
from selfheal.kit.code_version import code_version, digest_of_code
from selfheal.kit.errors import InvalidDataError

LINE_START = b'{"code":'
"""What every line begins with, and so what a torn one is the beginning of."""


def code_of_points() -> str:
    """Return what the points depend on: a digest of the platform's code and of this benchmark's."""
    return f"{code_version()}+{digest_of_code(Path(__file__).parent)[:12]}"


class PointsFile:
    """The points of a file, those of other code apart.

    Raises:
        InvalidDataError: if the file holds something else.
    """

    def __init__(self, path: Path, code: str) -> None:
        self._path, self._code = path, code
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.exists() else b""
        *lines, last = text.split(b"\n")
        is_torn = last[: len(LINE_START)] == LINE_START[: len(last)]
        self.points = list(self._points(lines if is_torn else [*lines, last]))
        if last:  # a torn one
            path.write_bytes(text[: len(text) - len(last)])

    def append(self, tried: Tried) -> None:
        """Append a point that was reached."""
        line = {"code": self._code, "point": asdict(tried.point), "findings": tried.findings, "seconds": tried.seconds}
        with self._path.open("ab") as file:
            file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def _points(self, lines: list[bytes]) -> Iterator[Tried]:
        for number, text in enumerate(lines, start=1):
            try:
                line = json.loads(text)
                if line["code"] == self._code:
                    yield Tried(Point(**line["point"]), True, line["findings"], seconds=line["seconds"])
            except (ValueError, KeyError, TypeError):
                raise InvalidDataError(
                    f"{self._path}, line {number}: no crash point ({text[:60]!r}); name another file, or delete this one"
                ) from None
