"""Archives stay small."""

from __future__ import annotations

from pathlib import Path

import pytest

MAX_BYTES = 3_000_000


@pytest.mark.parametrize("archive", sorted(Path(__file__).parent.glob("*.tar.xz")), ids=lambda path: path.name)
def test_an_archive_is_small_enough_for_the_repository(archive: Path) -> None:
    assert archive.stat().st_size <= MAX_BYTES
