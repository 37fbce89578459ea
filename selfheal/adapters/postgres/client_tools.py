"""Client tools: Postgres' own programs (psql, pg_dump, pg_restore, ...) for the platform's server, embedded or not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.adapters.postgres.programs import bin_folder
from selfheal.adapters.postgres.store import server_url
from selfheal.kit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfheal.settings import Settings


def client_environment(settings: Settings) -> dict[str, str]:
    """Return an environment in which libpq programs find the server: PGHOST, PGUSER, PGDATABASE, ... and PATH.

    PGDATABASE is the platform's. Starts the embedded server if it is configured.
    """
    return environment_for(settings, server_url(settings, settings.mlops_db_name))


def environment_for(settings: Settings, url: str) -> dict[str, str]:
    """Return the same for the database of a `postgresql://` URL.

    The programs of the embedded server's wheel come first on PATH if that is used, since older ones refuse to dump a
    newer server; with another server they come last. This interpreter's programs are on PATH too.
    """
    known = connection_variables(url)
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), str(bin_folder())]
    if not settings.has_external_database:
        folders.reverse()
    return os.environ | known | {"PATH": os.pathsep.join(folders)}


def program_for(name: str, environment: Mapping[str, str], url: str) -> str:
    """Return the path of a program that is not older than the database's server: an older one refuses to dump it.

    The first one on PATH that is new enough: a newer one may write what that server cannot read.

    Raises:
        ConfigurationError: if there is none.
    """
    import psycopg

    with psycopg.connect(url, connect_timeout=5) as connection:
        server = connection.info.server_version // 10_000
    folders = environment["PATH"].split(os.pathsep)
    found = dict.fromkeys(path for folder in folders if (path := shutil.which(name, path=folder)) is not None)
    for path in found:
        if _major_version(path) >= server:
            return path
    raise ConfigurationError(
        f"the server is Postgres {server}, and no {name} here is of that version or newer; install Postgres' client "
        f"programs of version {server}"
    )


def _major_version(program: str) -> int:
    """Return the major version that one of Postgres' programs says it is, `pg_dump (PostgreSQL) 15.18 (...)`."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return int(re.findall(r"\d+", said)[0])


def connection_variables(url: str) -> Mapping[str, str]:
    """Return the parts of a `postgresql://` URL as libpq's environment variables; parts without a variable are omitted.

    >>> connection_variables("postgresql://ada@db:6432/selfheal?sslmode=require")["PGSSLMODE"]
    'require'
    """
    from psycopg import pq

    given = pq.Conninfo.parse(url.encode())
    return {o.envvar.decode(): o.val.decode() for o in given if o.envvar is not None and o.val is not None}
