"""OS user of the embedded server: Postgres refuses to run as root, so that root needs another one, and opens a path for it.

As little as possible is opened: folders on the way get the right to be passed (`x` for others), never to be listed.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from selfheal.kit.errors import ConfigurationError

NAME = "pgserver"
PASS = stat.S_IXOTH
READ = stat.S_IROTH
USERADD = ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME)


@dataclass(frozen=True)
class OsUser:
    """Who the server runs as, if not as this process."""

    uid: int
    gid: int


def server_user(pgdata: Path) -> OsUser | None:
    """Return the user that a server of this folder runs as: the folder's owner; None: this process's own.

    Raises:
        ConfigurationError: if the folder belongs to another user, or root finds no user and cannot make one.
    """
    owner = _owner(pgdata)
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise ConfigurationError(
                f"the embedded Postgres in {pgdata} belongs to user {_name(owner)}, but this is {_name(os.geteuid())}; run "
                f"the platform as that user, change the owner of the whole DATA_DIR, or set another DATA_DIR"
            )
        return None
    if owner:
        with suppress(KeyError):  # it came from another machine: to be given to a user of this one
            return OsUser(owner, pwd.getpwuid(owner).pw_gid)
    return _known() or _made()


def open_path(path: Path, user: OsUser) -> None:
    """Let the user pass through every folder above `path`; those that it can pass stay as they are.

    Raises:
        ConfigurationError: naming the folder that cannot be changed.
    """
    for folder in path.parents:
        _add(folder, PASS, user)


def open_tree(root: Path, user: OsUser) -> None:
    """Let the user read the folder and everything in it, and run what may be run: for programs, which are no secret.

    A folder that does not exist needs nothing.

    Raises:
        ConfigurationError: naming the file that cannot be changed.
    """
    if not root.exists():
        return
    _add(root, PASS | READ, user)
    for path in root.rglob("*"):
        if path.is_symlink():
            continue
        may_run = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        _add(path, READ | PASS if may_run else READ, user)


def give_tree(root: Path, user: OsUser) -> None:
    """Make the user the owner of the folder and of everything in it; symbolic links are not followed."""
    for path in (root, *root.rglob("*")):
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
    root.chmod(0o700)


def _add(path: Path, wanted: int, user: OsUser) -> None:
    status = path.stat()
    wanted_here = wanted << _shift(status, user)
    if status.st_mode & wanted_here == wanted_here:
        return
    try:
        path.chmod(stat.S_IMODE(status.st_mode) | wanted_here)
    except OSError as error:
        raise ConfigurationError(
            f"the embedded Postgres cannot run: it runs as user {_name(user.uid)}, since root may not, who has no access to "
            f"{path}, and that cannot be changed ({error.strerror}); `chmod o+{_letters(wanted)} {path}`, start the platform "
            "as another user than root, or set DATABASE_URL to a server of your own"
        ) from error


def _shift(status: os.stat_result, user: OsUser) -> int:
    """Return by how many bits the user's permissions lie above those of others."""
    return 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0


def _letters(wanted: int) -> str:
    return ("r" if wanted & READ else "") + ("x" if wanted & PASS else "")


def _owner(pgdata: Path) -> int | None:
    try:
        return pgdata.stat().st_uid
    except FileNotFoundError:
        return None


def _known() -> OsUser | None:
    with suppress(KeyError):
        found = pwd.getpwnam(NAME)
        return OsUser(found.pw_uid, found.pw_gid)
    return None


def _made() -> OsUser:
    problem = "it did nothing"
    try:
        subprocess.run(USERADD, check=True, capture_output=True, text=True)  # noqa: S603  (a constant, no shell)
    except subprocess.CalledProcessError as error:
        problem = " ".join(error.stderr.split())
    except OSError as error:
        problem = str(error)
    user = _known()  # another process may have made it in the meantime
    if user is None:
        raise ConfigurationError(
            f"the embedded Postgres cannot run as root, and user {NAME} cannot be made ({problem}); make it "
            f"(`{' '.join(USERADD)}`), start the platform as another user than root, or set DATABASE_URL to a server of your own"
        )
    return user


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return str(uid)
