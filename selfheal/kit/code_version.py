"""Code version: the installed release and a digest of the Python files in use, as recorded in decisions."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
"""The folder of `selfheal`: all of its code may affect decisions, not only this subpackage."""


@cache
def code_version() -> str:
    """Return the version and the sha256 (12 digits) of all Python files of `selfheal`, as `1.2.0+0123456789ab`."""
    return f"{version('selfheal')}+{digest_of_code(PACKAGE)[:12]}"


def digest_of_code(folder: Path) -> str:
    """Return the sha256 (hex) over path and content of every Python file below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
