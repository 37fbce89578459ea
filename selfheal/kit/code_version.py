"""Which code decided: the installed version and a digest of what really runs."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).parent


@cache
def code_version() -> str:
    """Version and sha256 (12 digits) of all of this package's Python files, as `1.2.0+0123456789ab`."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return f"{version('selfheal')}+{digest.hexdigest()[:12]}"
