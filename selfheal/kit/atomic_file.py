"""Atomic file writes: a reader sees the whole old file or the whole new one, never a part of either."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

READ_WRITE_FOR_ALL = 0o666
"""As for any new file: what the process's umask takes away is taken away."""


def write_atomic(path: Path, data: bytes, *, is_durable: bool = False) -> Path:
    """Write the file, and its folder if need be. Several processes may write the same one; the last one stays.

    Args:
        is_durable: the file is on disk on return. Without, for what can be written again: after a power failure it may
            be missing.

    Raises:
        OSError: if that failed; then nothing has changed.
    """
    with atomic_file(path, is_durable=is_durable) as file:
        file.write(data)
    return path


@contextmanager
def atomic_file(path: Path, *, is_durable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` when the block ends, as `write_atomic` does.

    If the block raises, the temporary file is deleted and `path` is as it was.

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
    """Write the file unless it is there, durably; return what it holds. Of several processes the first one wins.

    Args:
        mode: permissions of the file from its first moment on (`umask` applies).

    Raises:
        OSError: if that failed; then nothing has changed.
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
    """Return a name beside `path` that nobody else has. What is left under one by a crash is deleted by maintenance."""
    return path.with_name(f".{path.name}.{token_hex(4)}.tmp")


def sync_folder(folder: Path) -> None:
    """Bring the folder's entries to disk: without, a power failure may lose a file that was synced, with its name.

    Raises:
        OSError: if the disk does not take them.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
