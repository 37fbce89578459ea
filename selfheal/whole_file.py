"""Writing a file whole or not at all: whoever reads it sees what was there before or what is there now, never a part."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex


def write_whole(path: Path, data: bytes) -> Path:
    """Writes the file, and its folder if need be. Several processes may write the same one; the last stays.

    For what can be written again: after a power failure the file may be missing.

    Raises:
        OSError: if that failed; then nothing has changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return path
