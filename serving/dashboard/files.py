"""The dashboard's files, read and compressed once, under paths that change with their content."""

from __future__ import annotations

import gzip
import hashlib
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Template

from selfheal.services.reports.files import plotly_script, script_names

STATIC = Path(__file__).with_name("static")
INDEX = "index.html"

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

PLOTLY = "plotly.min.js"
PLOTLY_LEVEL = 6
"""Compression level of Plotly's bundle: 1.4 MB in 0.3 s. The highest level saves 1 % and takes three times as long."""


@dataclass(frozen=True)
class PackedFile:
    """A file, plain and compressed, with its media type."""

    plain: bytes
    packed: bytes
    media_type: str

    @cached_property
    def etag(self) -> str:
        """Return the entity tag, which changes with the content."""
        return f'"{hashlib.sha256(self.plain).hexdigest()[:20]}"'


def pack(plain: bytes, suffix: str, level: int = 9) -> PackedFile:
    """Compress a file; its suffix decides the media type."""
    return PackedFile(plain, gzip.compress(plain, level, mtime=0), MEDIA_TYPES[suffix])


class DashboardFiles:
    """The files of `static/`. One instance per app; Plotly's bundle is read with the first request for it."""

    def __init__(self, *, asks_for_keys: bool) -> None:
        """Read and compress the files. `asks_for_keys` is embedded in the page, so that it asks for a key at once."""
        self._asks_for_keys = asks_for_keys
        paths = sorted(path for path in STATIC.rglob("*") if path.suffix in MEDIA_TYPES and path.name != INDEX)
        contents = {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in paths}
        self.digest = _digest(contents)
        """Digest of all files except the page: the name of the folder under which browsers request and cache them."""
        self._files = {name: pack(content, Path(name).suffix) for name, content in contents.items()}
        self.index = pack(self._index(contents).encode(), ".html")
        self._plotly: PackedFile | None = None
        self._lock = threading.Lock()

    def find(self, folder: str, name: str) -> PackedFile | None:
        """Return the file of this path; None if this release has none. Plotly's bundle takes 0.3 s the first time."""
        if (folder, name) == (_plotly_folder(), PLOTLY):
            return self._packed_plotly()
        return self._files.get(name) if folder == self.digest else None

    def _index(self, contents: dict[str, bytes]) -> str:
        """Return the page with the files' paths. It lists all modules, so that browsers fetch them at once."""
        modules = sorted(name for name in contents if name.endswith(".js"))
        preloads = "\n".join(f'<link rel="modulepreload" href="/dashboard/{self.digest}/{name}">' for name in modules)
        return Template((STATIC / INDEX).read_text(encoding="utf-8")).substitute(
            files=f"/dashboard/{self.digest}",
            plotly=f"/dashboard/{_plotly_folder()}/{PLOTLY}",
            preloads=preloads,
            asks_for_keys=str(self._asks_for_keys).lower(),
        )

    def _packed_plotly(self) -> PackedFile:
        with self._lock:
            if self._plotly is None:
                self._plotly = pack(plotly_script().read_bytes(), ".js", PLOTLY_LEVEL)
            return self._plotly


def _plotly_folder() -> str:
    """Return a folder with the version in its name: another release of Plotly has another path."""
    return script_names()[0].removesuffix(".min.js")


def _digest(contents: dict[str, bytes]) -> str:
    everything = hashlib.sha256()
    for name, content in contents.items():
        everything.update(f"{name}\0{len(content)}\0".encode() + content)
    return everything.hexdigest()[:16]
