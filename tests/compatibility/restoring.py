"""An archive of `make_fixture`, restored at the absolute path where it was made, and gone again at the end.

Belongs here: the place, the lock on it, files and databases. What an older platform's past must still be good for is
said by the tests beside this module.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from selfheal.adapters.postgres.client_tools import client_environment
from selfheal.adapters.postgres.embedded import ensure_running, release
from selfheal.settings import Settings, load_settings

MARKER = "restored-by-a-test-of-selfheal"
"""A file that says that the folder may be deleted."""

LOCK_TIMEOUT_SECONDS = 200.0
"""How long a second test process waits for the first: longer than the tests take, shorter than pytest's timeout."""


@dataclass(frozen=True)
class OlderPlatform:
    """A platform's data folder and databases as an older commit left them. Nothing of ours has touched them yet."""

    settings: Settings
    commit: str
    answers: dict[str, Any]
    """`GET` path -> what the older API answered."""

    history: list[dict[str, Any]]
    """What the older `selfheal history --json` printed."""

    verification: dict[str, Any]
    """What the older `selfheal verify --json` printed."""


@contextmanager
def restored(archive: Path) -> Iterator[OlderPlatform]:
    """The archive's platform, on the embedded server of its own data folder.

    Raises:
        RuntimeError: if the folder exists and is not a test's, or another test process has it for too long.
    """
    with tarfile.open(archive) as tar:
        manifest = _read(tar, "fixture.json")
        root = Path(manifest["root"])
        with only_one(root.with_name(f"{root.name}.lock")):
            _remove(root)
            root.mkdir(mode=0o755)
            (root / MARKER).touch()
            try:
                tar.extractall(root, filter="data")
                answers = json.loads((root / "answers.json").read_text())
                settings = load_settings(data_dir=root / "data")
                _restore_databases(settings, root / "dumps")
                yield OlderPlatform(
                    settings,
                    manifest["commit"],
                    answers["api"],
                    answers["history"],
                    answers["verify"],
                )
            finally:
                _remove(root)


def _read(tar: tarfile.TarFile, name: str) -> Any:
    member = tar.extractfile(name)
    assert member is not None, f"{name} is a file"
    return json.loads(member.read())


def _restore_databases(settings: Settings, dumps: Path) -> None:
    """As docs/runbook.md restores a backup."""
    server = ensure_running(settings.data_dir / "postgres")
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # nobody needs it after a crash of the machine
        connection.execute("SELECT pg_reload_conf()")
    environment = client_environment(settings)
    program = shutil.which("pg_restore", path=environment["PATH"])
    assert program is not None, "the embedded server's wheel brings it"
    for dump in sorted(dumps.glob("*.dump")):
        command = [program, "--create", "--exit-on-error", "--dbname", "postgres", str(dump)]
        subprocess.run(command, env=environment, check=True)


def _remove(root: Path) -> None:
    """Stops the folder's server, which a killed test may have left running, and deletes the folder."""
    if not root.exists():
        return
    if not (root / MARKER).exists():
        raise RuntimeError(f"{root} exists and no test has made it: move it away, the archive has to be restored there")
    postgres = root / "data" / "postgres"
    if postgres.exists():
        ensure_running(postgres)
        release(postgres)
    shutil.rmtree(root)


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """A mutex between test processes of this machine; the file is gone at the end.

    Raises:
        RuntimeError: if another process holds it for too long.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        lock = path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            if time.monotonic() > deadline:
                raise RuntimeError(f"another process has held {path} for {LOCK_TIMEOUT_SECONDS:.0f} s") from None
            time.sleep(0.25)
            continue
        if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
            break
        lock.close()  # its last holder has deleted it in the meantime
    try:
        yield
    finally:
        path.unlink()
        lock.close()
