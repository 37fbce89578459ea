"""An archive of `make_fixture`, restored elsewhere than where it was made.

Belongs here: files and databases. What an older platform's past must still be good for is said by the tests beside this
module; that its data folder may lie anywhere is said by each of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from selfheal.adapters.postgres.client_tools import client_environment
from selfheal.adapters.postgres.embedded import ensure_running, release
from selfheal.settings import Settings, load_settings


@dataclass(frozen=True)
class OlderPlatform:
    """A platform's data folder and databases as an older commit left them. Nothing of ours has touched them yet."""

    settings: Settings
    commit: str
    made_in: Path
    """Where its folder was. Nothing may be there now, nor come to be."""

    answers: dict[str, Any]
    """`GET` path -> what the older API answered."""

    history: list[dict[str, Any]]
    """What the older `selfheal history --json` printed."""

    verification: dict[str, Any]
    """What the older `selfheal verify --json` printed."""


@contextmanager
def restored(archive: Path, root: Path) -> Iterator[OlderPlatform]:
    """The archive's platform below the folder `root`, on the embedded server of its own data folder."""
    with tarfile.open(archive) as tar:
        manifest = _read(tar, "fixture.json")
        tar.extractall(root, filter="data")
    answers = json.loads((root / "answers.json").read_text())
    settings = load_settings(data_dir=root / "data")
    try:
        _restore_databases(settings, root / "dumps")
        yield OlderPlatform(
            settings,
            manifest["commit"],
            Path(manifest["root"]),
            answers["api"],
            answers["history"],
            answers["verify"],
        )
    finally:
        release(settings.data_dir / "postgres")


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
