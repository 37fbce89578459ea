"""Private files (umask): what this process and those that it starts write is closed to other users of the machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


def restrict_new_files(umask: int) -> None:
    """Take these permissions (`0o077`: all of group and others) from whatever is written from now on.

    In the whole process and its children: libraries write, too. A umask that takes more already stays.
    """
    os.umask(os.umask(0o777) | umask)


def restrict_folders(parent: Path, names: Collection[str], umask: int) -> None:
    """Take these permissions from the named folders of `parent` that this user owns: an earlier release left them open.

    What lies deeper is closed with them. Links, and folders that are not there, are left alone.
    """
    for name in names:
        with suppress(FileNotFoundError):
            status = (parent / name).lstat()
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and mode & umask:
                (parent / name).chmod(mode & ~umask)
