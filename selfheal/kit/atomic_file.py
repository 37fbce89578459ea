"""Atomic file writes: a reader sees the complete old file or the complete new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

READ_WRITE_FOR_ALL = 0o666
"""Default permissions of a new file, before the process's umask."""


def write_atomic(path: Path, data: bytes, *, is_durable: bool = False) -> Path:
    """Write the file, and create its folder if necessary. If several processes write the same file, the last one wins.

    Args:
        is_durable: whether the file is on disk on return. If False, it may be missing after a power failure.

    Raises:
        OSError: if the write failed; then nothing has changed.
    """
    with atomic_file(path, is_durable=is_durable) as file:
        file.write(data)
    return path


@contextmanager
def atomic_file(path: Path, *, is_durable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends, as `write_atomic` does.

    If the block raises, the temporary file is deleted and `path` is unchanged.

    Raises:
        OSError: as `write_atomic`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            yield file
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_folder(path.parent)


def write_once(path: Path, data: bytes, *, mode: int = READ_WRITE_FOR_ALL) -> bytes:
    """Write the file durably unless it exists; return its content. Of several processes the first one wins.

    Args:
        mode: permissions of the file from its creation on (`umask` applies).

    Raises:
        OSError: if the write failed; then nothing has changed.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a power failure must not leave the name of an empty file
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return path.read_bytes()


def temporary_name(path: Path) -> Path:
    """Return a unique name beside `path`. Maintenance deletes files that a crash leaves under such names."""
    return path.with_name(f".{path.name}.{token_hex(4)}.tmp")


def sync_folder(folder: Path) -> None:
    """Sync the folder's entries to disk; without it, a power failure may lose the name of a synced file.

    Raises:
        OSError: if the sync failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
