"""Model cache: model files on this machine's disk, by digest, and the versions that were served here last.

With both, the API starts and serves while Postgres and MLflow are down. Nothing read from the cache is trusted: a file is
checked against the requested digest, a record is validated. `selfheal.domain.model.file` opens model files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from selfheal.domain.model.file import check_size
from selfheal.domain.model.requirements import model_requirements
from selfheal.domain.records import ModelVersion
from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.errors import IntegrityError
from selfheal.kit.serialization import from_dict, to_json

logger = logging.getLogger(__name__)

CACHED_FILES = 20
"""Number of model and reference files that are retained: enough for production, its predecessor and the newest candidates."""

REMEMBERED_VERSIONS = 2
SERVED_FILE = "served.json"
MODEL_SUFFIX = "skops"
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version that this machine served: its record in Postgres at that time, since when, and with which libraries."""

    version: ModelVersion
    served_since: datetime
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedVersions:
    """The content of `served.json`: the latest version first."""

    served: tuple[ServedVersion, ...] = ()


class ModelCache:
    """One folder; several processes may use it at once. Every write is atomic and on disk when it returns.

    Args:
        max_bytes: a larger file is not read.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def fetch(self, sha256: str, suffix: str, origin: str, download: Callable[[], bytes]) -> bytes:
        """Return the content with this digest from the cache, or else download it from `origin`, check it and store it.

        Raises:
            IntegrityError: if the download has another digest; it is not stored.
            ModelRefusedError: if the cached file exceeds the limit.
        """
        path = self._path(sha256, suffix)
        found = self._read(path)
        if found is not None and _digest(found) == sha256:
            return found
        data = download()
        if _digest(data) != sha256:
            raise IntegrityError(f"{origin} has changed: expected sha256 {sha256}, found {_digest(data)}")
        self._store(path, data)
        return data

    def remember(self, version: ModelVersion, now: datetime) -> None:
        """Record that this version is served here from now on; its file is retained until two other versions were served.

        Raises:
            OSError: if the record could not be written; the earlier one is unchanged.
        """
        others = [one for one in self.remembered() if one.version.version != version.version]
        latest = (ServedVersion(version, now, model_requirements()), *others)[:REMEMBERED_VERSIONS]
        write_atomic(self._folder / SERVED_FILE, to_json(ServedVersions(latest)), is_durable=True)

    def remembered(self) -> tuple[ServedVersion, ...]:
        """Return the versions served here last, latest first; none if the record is damaged, which is logged."""
        path = self._folder / SERVED_FILE
        try:
            return from_dict(ServedVersions, json.loads(path.read_bytes())).served[:REMEMBERED_VERSIONS]
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, RecursionError) as error:  # a pydantic.ValidationError is a ValueError
            logger.error("%s is damaged, so no version is available for offline starts: %s", path, error)
            return ()

    def has_answered(self, version: ModelVersion) -> bool:
        """Return whether this very file was served here with the currently installed libraries."""
        return any(
            one.version.artifact_sha256 == version.artifact_sha256
            and one.version.contract_hash == version.contract_hash
            and one.libraries == model_requirements()
            for one in self.remembered()
        )

    def _path(self, sha256: str, suffix: str) -> Path:
        if not SHA256.fullmatch(sha256):
            raise IntegrityError(f"{sha256[:80]!r} is no sha256; the record of the version is damaged")
        return self._folder / f"{sha256}.{suffix}"

    def _read(self, path: Path) -> bytes | None:
        try:
            check_size(path.stat().st_size, path.name, self._max_bytes)
            data = path.read_bytes()
        except OSError:  # missing or unreadable: download it
            return None
        with contextlib.suppress(OSError):  # the folder may be read-only
            path.touch()  # mark as used, so that it is not pruned next
        return data

    def _store(self, path: Path, data: bytes) -> None:
        try:
            write_atomic(path, data, is_durable=True)
            self._prune()
        except OSError as error:  # a full disk: the model can be served nevertheless
            logger.warning("could not store %s in this machine's model cache: %s", path, error)

    def _prune(self) -> None:
        pinned = {self._path(one.version.artifact_sha256, MODEL_SUFFIX) for one in self.remembered()}
        pinned.add(self._folder / SERVED_FILE)
        files = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        others = sorted((path for path in files if path not in pinned), key=_modified_at)
        for path in others[: max(0, len(files) - CACHED_FILES)]:
            path.unlink(missing_ok=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process has pruned it
        return 0.0
