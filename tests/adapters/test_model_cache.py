"""The cache of model files: what it gives is what was asked for, and what was served last is never thrown away."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from selfheal.adapters.model_cache import CACHED_FILES, SERVED_FILE, ModelCache
from selfheal.domain.records import ModelVersion
from selfheal.kit.errors import IntegrityError, ModelRefusedError
from tests import builders
from tests.at_once import at_once
from tests.times import T0

DATA = b"a model"
DIGEST = hashlib.sha256(DATA).hexdigest()
HOUR = timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> ModelCache:
    return ModelCache(folder, max_bytes=1_000)


def nobody() -> bytes:
    raise AssertionError("nothing is to be downloaded")


def version(number: int, content: bytes = DATA) -> ModelVersion:
    return builders.model_version(version=number, artifact_sha256=hashlib.sha256(content).hexdigest())


def remembered(cache: ModelCache) -> list[int]:
    return [one.version.version for one in cache.remembered()]


def test_what_was_fetched_once_is_not_downloaded_again(cache: ModelCache) -> None:
    assert cache.fetch(DIGEST, "skops", "here", lambda: DATA) == DATA
    assert cache.fetch(DIGEST, "skops", "here", nobody) == DATA


def test_a_download_with_another_digest_is_refused_and_not_kept(cache: ModelCache, folder: Path) -> None:
    with pytest.raises(IntegrityError, match=f"here has changed: expected sha256 {DIGEST}, found "):
        cache.fetch(DIGEST, "skops", "here", lambda: b"another")
    assert not folder.exists()


def test_a_damaged_file_is_downloaded_anew(cache: ModelCache, folder: Path) -> None:
    cache.fetch(DIGEST, "skops", "here", lambda: DATA)
    (folder / f"{DIGEST}.skops").write_bytes(b"rust")
    assert cache.fetch(DIGEST, "skops", "here", lambda: DATA) == DATA
    assert cache.fetch(DIGEST, "skops", "here", nobody) == DATA


def test_a_file_that_is_too_large_is_not_read(cache: ModelCache, folder: Path) -> None:
    folder.mkdir()
    (folder / f"{DIGEST}.skops").write_bytes(bytes(1_001))
    with pytest.raises(ModelRefusedError, match="MAX_MODEL_MB"):
        cache.fetch(DIGEST, "skops", "here", nobody)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "0" * 63, "G" * 64, f"{DIGEST}\n"])
def test_what_is_no_digest_is_no_path(cache: ModelCache, digest: str) -> None:
    with pytest.raises(IntegrityError, match="is no sha256"):
        cache.fetch(digest, "skops", "here", nobody)


def test_a_cache_that_cannot_be_written_still_gives_what_was_downloaded(
    cache: ModelCache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.touch()  # a file where the folder should be: nobody can write below it, root included
    assert cache.fetch(DIGEST, "skops", "here", lambda: DATA) == DATA
    assert "in this machine's model cache" in caplog.text
    with pytest.raises(OSError):
        cache.remember(version(1), T0)


def test_the_last_two_served_versions_are_remembered_the_latest_first(cache: ModelCache) -> None:
    assert remembered(cache) == []
    for hour, number in enumerate((1, 2, 3)):
        cache.remember(version(number), T0 + hour * HOUR)
    (latest, before) = cache.remembered()
    assert (latest.version, latest.served_since) == (version(3), T0 + 2 * HOUR)
    assert (before.version, before.served_since) == (version(2), T0 + HOUR)
    cache.remember(version(2), T0 + 3 * HOUR)
    assert remembered(cache) == [2, 3]


def test_a_version_has_answered_if_its_file_was_served_here_with_the_libraries_of_today(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not cache.has_answered(version(1))
    cache.remember(version(1), T0)
    assert cache.has_answered(version(1))
    assert not cache.has_answered(version(1, b"another file"))
    assert not cache.has_answered(replace(version(1), contract_hash="f" * 64))
    monkeypatch.setattr("selfheal.adapters.model_cache.model_requirements", lambda: ("scikit-learn==99",))
    assert not cache.has_answered(version(1))


def test_what_was_served_before_libraries_were_written_down_has_not_answered(cache: ModelCache, folder: Path) -> None:
    cache.remember(version(1), T0)
    record = json.loads((folder / SERVED_FILE).read_bytes())
    del record["served"][0]["libraries"]
    (folder / SERVED_FILE).write_bytes(json.dumps(record).encode())
    assert remembered(cache) == [1]
    assert not cache.has_answered(version(1))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"served": [{"version": {"version": 1}}]}', b"\xff", b"[" * 100_000],
    ids=["empty", "torn", "list", "lacking", "bytes", "deep"],
)
def test_a_damaged_record_is_no_record_and_is_logged(
    cache: ModelCache, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache.remember(version(1), T0)
    (folder / SERVED_FILE).write_bytes(content)
    assert cache.remembered() == ()
    assert f"{SERVED_FILE} is damaged" in caplog.text
    cache.remember(version(2), T0)
    assert remembered(cache) == [2]


def test_a_record_of_other_fields_than_a_version_has_is_damaged(cache: ModelCache, folder: Path) -> None:
    cache.remember(version(1), T0)
    record = json.loads((folder / SERVED_FILE).read_bytes())
    record["served"][0]["version"]["threshold"] = "high"
    (folder / SERVED_FILE).write_bytes(json.dumps(record).encode())
    assert cache.remembered() == ()


def test_the_files_of_the_served_versions_are_never_pruned(cache: ModelCache, folder: Path) -> None:
    contents = [f"model {number}".encode() for number in range(CACHED_FILES + 10)]
    for number in (0, 1):
        cache.fetch(version(number, contents[number]).artifact_sha256, "skops", "here", lambda n=number: contents[n])
        cache.remember(version(number, contents[number]), T0)
    for age, path in enumerate(folder.iterdir()):
        old = (T0 - timedelta(days=1_000 + age)).timestamp()
        os.utime(path, (old, old))
    for content in contents[2:]:
        cache.fetch(hashlib.sha256(content).hexdigest(), "skops", "here", lambda c=content: c)
    assert len(list(folder.iterdir())) == CACHED_FILES
    assert remembered(cache) == [1, 0]
    for content in contents[:2]:
        assert cache.fetch(hashlib.sha256(content).hexdigest(), "skops", "here", nobody) == content
    assert cache.fetch(hashlib.sha256(contents[2]).hexdigest(), "skops", "here", lambda: contents[2]), "was pruned"


def test_processes_that_remember_at_once_leave_a_whole_record(cache: ModelCache, folder: Path) -> None:
    at_once([partial(cache.remember, version(number), T0) for number in range(1, 9)])
    assert 1 <= len(remembered(cache)) <= 2
    assert [path.name for path in folder.iterdir()] == [SERVED_FILE], "no temporary file is left"
