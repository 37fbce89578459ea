"""A file is written whole or not at all, by however many processes."""

from __future__ import annotations

import errno
import threading
from functools import partial
from pathlib import Path

import pytest

from selfheal.kit.atomic_file import atomic_file, write_atomic, write_once
from tests.at_once import at_once
from tests.disk import Disk


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.json"
    for data in (b"old", b"new"):
        assert write_atomic(path, data).read_bytes() == data
    assert names_in(path.parent) == ["file.json"]


def test_a_write_that_is_cut_short_leaves_what_was_there(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "file.json", b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old", "nobody sees a part"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file.json"]


def test_a_durable_write_fails_if_the_disk_does_not_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomic(tmp_path / "file.json", b"old")
    disk = Disk(monkeypatch, tmp_path)
    disk.sync_fails_with = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(path, b"new", is_durable=True)
    with pytest.raises(OSError, match="Input/output error"):
        write_once(tmp_path / "secret", b"secret")
    assert (path.read_bytes(), names_in(tmp_path)) == (b"old", ["file.json"])
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new", "what can be written again does not wait for the disk"


def test_of_several_who_write_once_one_wins_and_all_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run" / "secret"
    together = threading.Barrier(8)

    def write(number: int) -> bytes:
        together.wait()
        return write_once(path, bytes([number]) * 32, mode=0o600)

    read = at_once([partial(write, number) for number in range(8)])
    assert set(read) == {path.read_bytes()}
    assert write_once(path, b"late") == path.read_bytes()
    assert (path.stat().st_mode & 0o777, names_in(path.parent)) == (0o600, ["secret"])
