"""What the process writes is closed to others from then on, and what an earlier release left open is closed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfheal.kit.private_files import restrict_folders, restrict_new_files


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("before", "umask", "file", "folder"),
    [
        (0o022, 0o077, 0o600, 0o700),
        (0o022, 0o027, 0o640, 0o750),
        (0o077, 0o027, 0o600, 0o700),
        (0o000, 0o077, 0o600, 0o700),
    ],
    ids=["private", "for the group", "a stricter umask stays", "no umask at all"],
)
def test_new_files_and_folders_have_no_more_permissions_than_allowed(
    tmp_path: Path, before: int, umask: int, file: int, folder: int
) -> None:
    os.umask(before)
    restrict_new_files(umask)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert (permissions(tmp_path / "file"), permissions(tmp_path / "folder")) == (file, folder)


def test_folders_of_ours_that_are_open_are_closed_and_those_of_others_are_not(tmp_path: Path) -> None:
    for name in ("audit", "theirs"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "reports").symlink_to(tmp_path / "theirs")
    restrict_folders(tmp_path, ("audit", "reports", "missing"), 0o077)
    assert permissions(tmp_path / "audit") == 0o700
    assert permissions(tmp_path / "theirs") == 0o755
