"""The place of an archive is an absolute path that all test processes of a machine share."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.compatibility import restoring
from tests.compatibility.restoring import MARKER, restored

MAX_BYTES = 3_000_000


def archive_for(root: Path, folder: Path) -> Path:
    """An archive that says that it was made in `root`, and holds nothing else."""
    manifest = json.dumps({"commit": "0000000", "root": str(root)}).encode()
    path = folder / "archive.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        info = tarfile.TarInfo("fixture.json")
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
    return path


def test_a_folder_that_no_test_has_made_is_named_and_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "place"
    root.mkdir()
    (root / "precious").write_text("kept")
    with pytest.raises(RuntimeError, match=f"{root} exists"), restored(archive_for(root, tmp_path)):
        pass
    assert (root / "precious").read_text() == "kept"
    assert not root.with_name("place.lock").exists()


def test_a_second_test_process_waits_and_then_says_who_is_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "LOCK_TIMEOUT_SECONDS", 0.5)
    root = tmp_path / "place"
    with (
        restoring.only_one(root.with_name("place.lock")),
        pytest.raises(RuntimeError, match=r"another process .*place\.lock"),
        restored(archive_for(root, tmp_path)),
    ):
        pass
    assert not root.exists()


def test_what_a_killed_test_left_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "place"
    root.mkdir()
    (root / MARKER).touch()
    (root / "data").mkdir()
    with pytest.raises(FileNotFoundError, match=r"answers\.json"), restored(archive_for(root, tmp_path)):
        pass
    assert not root.exists()


@pytest.mark.parametrize("archive", sorted(Path(__file__).parent.glob("*.tar.xz")), ids=lambda path: path.name)
def test_an_archive_is_small_enough_for_the_repository(archive: Path) -> None:
    assert archive.stat().st_size <= MAX_BYTES
