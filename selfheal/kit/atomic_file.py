"""Writing a file whole or not at all: whoever reads it sees what was there before or what is there now, never a part."""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex


def write_atomic(path: Path, data: bytes, *, is_durable: bool = False) -> Path:
    """Writes the file, and its folder if need be. Several processes may write the same one; the last stays.

    Args:
        is_durable: it is on disk when this returns. Without, for what can be written again: after a power failure the file
            may be missing.

    Raises:
        OSError: if that failed; then nothing has changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if is_durable:
        _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    """Makes sure that the folder's entries are on disk: a file that was synced may be lost with its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
