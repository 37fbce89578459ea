"""Backup and restore of a whole platform, online: its databases, then its files.

In this order the journal is at least as new as the tables, and copying its rest closes the gap. A backup is one folder:
`backup.json` with the digest of everything in it, `databases/` with a dump each, `data/` with the files of DATA_DIR. It
appears under its name once it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.adapters.journal import LABEL_JOURNAL, compressed_path, file_key, prediction_journal, text_size
from selfheal.adapters.mlflow_store import artifact_folder, follow_folder, mlflow_database_url
from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.client_tools import environment_for, program_for
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.journal_seals import seal_finished
from selfheal.adapters.postgres.migrate import database_exists, ensure_database, table_names
from selfheal.adapters.postgres.store import DAGSTER_DATABASE, MLFLOW_DATABASE, server_url
from selfheal.kit.atomic_file import sync_folder, write_atomic
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import ConfigurationError, IntegrityError, ServiceUnavailableError
from selfheal.kit.parent_death import end_with_parent
from selfheal.kit.serialization import from_dict, to_json
from selfheal.services.platform import RESTORING, Platform, open_platform

if TYPE_CHECKING:
    from selfheal.settings import Settings

MANIFEST, DATABASES, DATA = "backup.json", "databases", "data"

PLATFORM_DATABASE = "selfheal"
"""The platform's database within a backup, whatever MLOPS_DB_NAME calls it."""

LEFT_OUT = frozenset({"cache", "logs", "run"})
"""Folders of DATA_DIR that can be made again."""

CLUSTER = "postgres"
"""The embedded server's folder, which a dump contains. `postgres.*` and `.postgres.*` beside it are of the server too: its
locks, a cluster that is being made, one that a first start left half made."""

LEFT_OUT_FILES = frozenset({".up.lock", ".sink.lock", ".sink.done", RESTORING})

PIECE_BYTES = 1_000_000

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """What a backup contains: sha256 by path within the backup's folder, and what it was made from.

    `chain_head` was the head of the hash chain when the backup began: it is in the chain that a restore brings back.
    """

    created_at: datetime
    code_version: str
    contract_name: str
    contract_hash: str
    chain_head: str
    databases: tuple[str, ...]
    files: dict[str, str]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a restore is: of which backup (digest of its manifest), and which databases are loaded."""

    backup: str
    databases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did. `n_kept` files were there already and stayed; the rest of the journal gave the new rows."""

    manifest: BackupManifest
    n_files: int
    n_kept: int
    n_new_predictions: int
    n_new_labels: int
    damaged_lines: tuple[str, ...]


def back_up(platform: Platform, folder: Path, on_step: OnStep) -> BackupManifest:
    """Write a backup of the platform, which may be running, to a folder that does not exist yet.

    Raises:
        ConfigurationError: if there is something in the folder, or it is a part of DATA_DIR.
        ServiceUnavailableError: if a database cannot be dumped; nothing is left in the folder.
    """
    folder, settings = folder.expanduser().resolve(), platform.settings
    _refuse_bad_place(folder, settings)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a backup that was killed
    partial.mkdir(parents=True, mode=0o700)
    try:
        head = decisions.chain_head(platform.store)
        existing = {name: url for name, url in _databases(settings).items() if database_exists(url)}
        for name, url in existing.items():
            on_step(f"database {name}")
            _dump(url, settings, partial / DATABASES / f"{name}.dump")
        on_step("files")
        files = {f"{DATABASES}/{name}.dump": _digest(partial / DATABASES / f"{name}.dump") for name in existing}
        files |= _copy_files(settings.data_dir.expanduser().resolve(), partial / DATA)
        manifest = BackupManifest(
            created_at=datetime.now(UTC),
            code_version=code_version(),
            contract_name=platform.contract.name,
            contract_hash=platform.contract.hash,
            chain_head=head,
            databases=tuple(existing),
            files=files,
            n_bytes=sum((partial / path).stat().st_size for path in files),
        )
        write_atomic(partial / MANIFEST, to_json(manifest), is_durable=True)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def restore(settings: Settings, folder: Path, on_step: OnStep, *, files_only: bool = False) -> RestoreReport:
    """Bring back what is missing: databases into an empty server, files that are not in DATA_DIR; then copy the journal.

    Files that are there stay: a journal that survived is newer than the backup's. The platform must not run. A restore
    that was killed goes on where it was.

    Args:
        files_only: the databases survived and are newer than the backup: they stay as they are.

    Raises:
        IntegrityError: if the folder is not a whole backup, or something in it has changed; nothing was restored.
        ConfigurationError: if a database is not empty, or the backup is of another use case; nothing was restored.
        ServiceUnavailableError: if a dump cannot be restored.
    """
    from selfheal.domain.contract import load_contract

    folder = folder.expanduser().resolve()
    manifest = read_manifest(folder)
    contract = load_contract(settings.use_case)
    if manifest.contract_name != contract.name:
        raise ConfigurationError(
            f"{folder} is a backup of the use case {manifest.contract_name}, USE_CASE={settings.use_case} is "
            f"{contract.name}; set USE_CASE to that of the backup"
        )
    on_step("digests of the backup")
    _check_digests(folder, manifest)
    data_dir = settings.data_dir.expanduser().resolve()
    marker = data_dir / RESTORING
    progress = _progress(marker, _digest(folder / MANIFEST))
    wanted = () if files_only else manifest.databases
    urls = {name: url for name, url in _databases(settings).items() if name in wanted}
    for name, url in urls.items():
        if name not in progress.databases:
            _refuse_tables(url, settings)
    write_atomic(marker, to_json(progress), is_durable=True)
    on_step("files")
    n_files, n_kept = _bring_back_files(folder, manifest, data_dir)
    for name, url in urls.items():
        on_step(f"database {name}")
        ensure_database(url)
        if not table_names(url):  # else a restore that was killed has loaded it
            _load(folder / DATABASES / f"{name}.dump", url, settings)
        progress = replace(progress, databases=(*progress.databases, name))
        write_atomic(marker, to_json(progress), is_durable=True)
    mlflow_url, artifacts = mlflow_database_url(settings), artifact_folder(settings)
    if mlflow_url is not None and artifacts is not None:
        follow_folder(mlflow_url, artifacts, is_own=True)
    on_step("journal")
    report = _copy_journal(settings, manifest, n_files, n_kept)
    marker.unlink()
    return report


def read_manifest(folder: Path) -> BackupManifest:
    """Return what a backup says about itself.

    Raises:
        IntegrityError: if the folder is not a complete backup.
    """
    try:
        return from_dict(BackupManifest, json.loads((folder / MANIFEST).read_bytes()))
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{folder} is not a complete backup: {MANIFEST} cannot be read ({type(error).__name__}); "
            "`selfheal backup FOLDER` writes one"
        ) from error


def _progress(marker: Path, backup: str) -> RestoreProgress:
    """Return how far a restore of this backup is that was killed; that of a new one if there was none."""
    try:
        found = from_dict(RestoreProgress, json.loads(marker.read_bytes()))
    except (OSError, ValueError):
        return RestoreProgress(backup)
    return found if found.backup == backup else RestoreProgress(backup)


def _refuse_bad_place(folder: Path, settings: Settings) -> None:
    data_dir = settings.data_dir.expanduser().resolve()
    if folder == data_dir or data_dir in folder.parents:
        raise ConfigurationError(f"{folder} is in DATA_DIR={data_dir}; choose a folder outside of it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} exists and is not empty; choose another folder for the backup")


def _databases(settings: Settings) -> dict[str, str]:
    """Return the URL of each database of the platform, by its name in a backup, in the order of dumping.

    MLflow follows the platform's, so what the platform knows of is there; a tracking server has its own backup.
    """
    found = {PLATFORM_DATABASE: server_url(settings, settings.mlops_db_name)}
    mlflow = mlflow_database_url(settings)
    if mlflow is not None:
        found[MLFLOW_DATABASE] = mlflow
    return found | {DAGSTER_DATABASE: server_url(settings, DAGSTER_DATABASE)}


def _dump(url: str, settings: Settings, path: Path) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    _run("pg_dump", ["--format", "custom", "--file", str(path)], url, settings)
    path.chmod(0o600)


def _load(dump: Path, url: str, settings: Settings) -> None:
    """Restore a dump into an empty database, wholly or not at all."""
    name = environment_for(settings, url)["PGDATABASE"]
    options = ["--exit-on-error", "--no-owner", "--no-privileges", "--single-transaction", "--dbname", name]
    _run("pg_restore", [*options, str(dump)], url, settings)


def _run(program: str, arguments: list[str], url: str, settings: Settings) -> None:
    """Run one of Postgres' programs, which ends with this process: it would write on in a backup that nobody finishes.

    Raises:
        ConfigurationError: if there is none that is new enough for the server.
        ServiceUnavailableError: if it fails, with the end of what it said.
    """
    environment = environment_for(settings, url)
    command = [program_for(program, environment, url), *arguments]
    ends = partial(end_with_parent, os.getpid())
    done = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, check=False, preexec_fn=ends
    )
    if done.returncode:
        said = " ".join(done.stderr.split())[-500:]
        raise ServiceUnavailableError(f"{program} of database {environment.get('PGDATABASE')} failed: {said}")


def _refuse_tables(url: str, settings: Settings) -> None:
    if database_exists(url) and table_names(url):
        name = environment_for(settings, url)["PGDATABASE"]
        remedy = (
            "set another MLOPS_DB_NAME, or drop the database"
            if settings.has_external_database
            else f"stop the platform and move {settings.data_dir / 'postgres'} away"
        )
        raise ConfigurationError(f"database {name} is not empty, and a restore overwrites nothing; {remedy}")


def _copy_files(data_dir: Path, target: Path) -> dict[str, str]:
    """Copy the files that cannot be made again; return their digests by path within the backup.

    Twice: a journal file that is compressed meanwhile changes its name.
    """
    target.mkdir(mode=0o700)
    digests: dict[str, str] = {}
    for _ in range(2):
        for path in _files(data_dir):
            relative = path.relative_to(data_dir)
            name = f"{DATA}/{relative.as_posix()}"
            if name in digests or f"{DATA}/{_plain(relative).as_posix()}" in digests:
                continue
            try:
                digests[name] = _copy(path, target / relative)
            except FileNotFoundError:
                continue  # compressed, or deleted by maintenance
    return digests


def _plain(path: Path) -> Path:
    """Return a path by its name before it was compressed."""
    return path.with_name(file_key(path))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below DATA_DIR that belong to a backup."""
    for root, folders, names in os.walk(folder):
        here = Path(root)
        if here == folder:
            folders[:] = [name for name in folders if name not in LEFT_OUT and not _is_of_the_server(name)]
        folders.sort()
        for name in sorted(names):
            path = here / name
            is_left_out = (
                name in LEFT_OUT_FILES or name.endswith(".tmp") or (here == folder and _is_of_the_server(name))
            )
            if not is_left_out and path.is_file() and not path.is_symlink():
                yield path


def _is_of_the_server(name: str) -> bool:
    return name.removeprefix(".").partition(".")[0] == CLUSTER


def _copy(source: Path, target: Path) -> str:
    """Copy a file, readable for its owner alone, and bring it to disk; return its sha256."""
    digest = hashlib.sha256()
    with source.open("rb") as file:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                copy.write(piece)
            copy.flush()
            os.fsync(copy.fileno())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_digests(folder: Path, manifest: BackupManifest) -> None:
    """Check that every file of the backup is as it was written.

    Raises:
        IntegrityError: naming the first one that is not.
    """
    for name, expected in manifest.files.items():
        try:
            found = _digest(folder / name)
        except OSError as error:
            raise IntegrityError(f"{folder / name} cannot be read: {error.strerror}; use another backup") from error
        if found != expected:
            raise IntegrityError(
                f"{folder / name} has changed: expected sha256 {expected}, found {found}; use another backup"
            )


def _bring_back_files(folder: Path, manifest: BackupManifest, data_dir: Path) -> tuple[int, int]:
    """Copy the files that DATA_DIR lacks; return how many were copied, and how many were there."""
    n_copied = n_kept = 0
    for name in manifest.files:
        place = Path(name)
        if place.parts[0] != DATA:
            continue
        source, target = folder / name, data_dir.joinpath(*place.parts[1:])
        if _is_there(source, target, is_journal=place.parts[1:2] == ("audit",)):
            n_kept += 1
            continue
        part = target.with_name(f".{target.name}.restored.tmp")
        part.unlink(missing_ok=True)
        _copy(source, part)
        part.replace(target)
        n_copied += 1
    return n_copied, n_kept


def _is_there(source: Path, target: Path, *, is_journal: bool) -> bool:
    """Return whether DATA_DIR has the file; of the journal, whether it has as much of it, compressed or not."""
    if not is_journal or ".csv" not in target.suffixes:
        return target.exists()
    plain = _plain(target)
    here = [path for path in (plain, compressed_path(plain)) if path.exists()]
    return any(text_size(path) >= text_size(source) for path in here)


def _copy_journal(settings: Settings, manifest: BackupManifest, n_files: int, n_kept: int) -> RestoreReport:
    """Copy what the journal has and the restored tables lack."""
    platform = open_platform(settings, may_be_half_restored=True)
    try:
        kinds = (prediction_journal(platform.contract), LABEL_JOURNAL)
        predictions, labels = (ingest(platform.store, kind, settings.data_dir) for kind in kinds)
        for kind in kinds:
            seal_finished(platform.store, kind, settings.data_dir)
    finally:
        platform.close()
    return RestoreReport(
        manifest, n_files, n_kept, predictions.n_new, labels.n_new, (*predictions.corrupt, *labels.corrupt)
    )
