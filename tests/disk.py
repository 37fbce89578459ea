"""A disk that is full or fails when a test says so, below everything in this process that writes to one folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest


class Disk:
    """Stands in for the operating system's `write`, `fdatasync` and `fsync` on files below `folder`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._folder = str(folder.resolve())
        self._write, self._fdatasync, self._fsync = os.write, os.fdatasync, os.fsync
        self.write_fails_with: int | None = None
        self.sync_fails_with: int | None = None
        self.room_bytes: int | None = None
        """To what size a file may grow on a full disk; None: it is not full."""
        self.synced: list[str] = []
        """The path of each file that `fdatasync` was called on, once a call."""
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)
        monkeypatch.setattr(os, "fsync", self.fsync)

    def is_here(self, descriptor: int) -> bool:
        return self._path(descriptor).startswith(self._folder)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if self.is_here(descriptor):
            _fail(self.write_fails_with)
            if self.room_bytes is not None:
                data = data[: max(0, self.room_bytes - os.fstat(descriptor).st_size)]
                _fail(errno.ENOSPC if not data else None)
        return self._write(descriptor, data)

    def fdatasync(self, descriptor: int) -> None:
        if self.is_here(descriptor):
            self.synced.append(self._path(descriptor))
            _fail(self.sync_fails_with)
        self._fdatasync(descriptor)

    def fsync(self, descriptor: int) -> None:
        if self.is_here(descriptor):
            _fail(self.sync_fails_with)
        self._fsync(descriptor)

    @staticmethod
    def _path(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _fail(error: int | None) -> None:
    if error is not None:
        raise OSError(error, os.strerror(error))
