"""The embedded server's life: who starts it, who stops it, and what a crash leaves. Real processes on a folder of their own.

The users are child processes that hold the server until told to leave, or are killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from selfheal.adapters.postgres import cluster, embedded, model_versions, os_user, programs
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.services.platform import open_platform
from selfheal.settings import load_settings
from tests.conftest import roomy_memory
from tests.waiting import eventually

TIMEOUT_SECONDS = 20.0

USER = """
import sys
from pathlib import Path
from selfheal.adapters.postgres.embedded import ensure_running
server = ensure_running(Path(sys.argv[1]))
print(server.url("postgres"), flush=True)
sys.stdin.readline()
"""

UNWINDING_USER = f"""
from selfheal.cli.supervisor import stop_in_order_on_signals
stop_in_order_on_signals()
{USER}
"""
"""It takes SIGTERM as `selfheal up` does."""

FORKING_USER = """
import os, sys
from pathlib import Path
from selfheal.adapters.postgres.embedded import ensure_running
server = ensure_running(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    server.release()
    sys.exit()  # runs the handlers of atexit, as a forked worker does
os.waitpid(child, 0)
print(server.url("postgres"), flush=True)
sys.stdin.readline()
"""


class User:
    """A process that uses the server of a folder until `leave` or `kill`."""

    def __init__(self, pgdata: Path, script: str = USER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(pgdata)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def url(self) -> str:
        """Where the server is; waits until the process has it."""
        assert self.process.stdout is not None
        url = self.process.stdout.readline().strip()
        assert url, "the user ended before it had a server"
        return url

    def ask_to_leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def leave(self) -> None:
        self.ask_to_leave()
        assert self.process.wait(TIMEOUT_SECONDS) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_SECONDS)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder outside pytest's own, which is closed to others: as root the server runs as another user."""
    with tempfile.TemporaryDirectory(prefix="selfheal-tests-", dir=roomy_memory()) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    """The folder of a server that was started once and stopped: to make one takes seconds, to copy it does not."""
    with open_folder() as parent:
        embedded.ensure_running(parent / "postgres").release()
        yield parent / "postgres"


@pytest.fixture
def pgdata(initialised: Path) -> Iterator[Path]:
    """A folder of its own for a test; its server is stopped afterwards, whatever the test left."""
    with open_folder() as parent:
        folder = parent / "postgres"
        subprocess.run(["cp", "--archive", str(initialised), str(folder)], check=True)
        yield folder
        embedded.release(folder)
        pid = postmaster_pid(folder)
        if pid is not None and is_postgres(pid):
            server = psutil.Process(pid)
            server.terminate()
            server.wait(TIMEOUT_SECONDS)


@pytest.fixture
def start_user(pgdata: Path) -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def start(script: str = USER) -> User:
        users.append(User(pgdata, script))
        return users[-1]

    yield start
    for user in users:
        with suppress(ProcessLookupError):
            user.process.kill()
        user.process.communicate()


@pytest.fixture
def unmade(pgdata: Path) -> Path:
    """The same folder before its first start."""
    shutil.rmtree(pgdata)
    return pgdata


def postmaster_pid(pgdata: Path) -> int | None:
    try:
        return int((pgdata / "postmaster.pid").read_text().splitlines()[0])
    except (FileNotFoundError, IndexError):
        return None


def is_postgres(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
    return False


def answers(url: str) -> bool:
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def test_the_last_user_stops_the_server_and_an_earlier_one_does_not(
    pgdata: Path, start_user: Callable[..., User]
) -> None:
    first, second = start_user(), start_user()
    url = first.url()
    assert second.url() == url
    first.leave()
    assert answers(url)
    second.leave()
    assert not answers(url)
    assert postmaster_pid(pgdata) is None


def test_a_server_stops_although_its_user_no_longer_reaches_its_folder(
    pgdata: Path, start_user: Callable[..., User]
) -> None:
    """As root the server runs as a user of its own; whoever closes a folder above has not stopped it."""
    user = start_user()
    url = user.url()
    pgdata.parent.chmod(0o700)
    user.leave()
    assert postmaster_pid(pgdata) is None
    assert not answers(url)


def test_users_that_leave_at_the_same_moment_leave_no_server_behind(
    pgdata: Path, start_user: Callable[..., User]
) -> None:
    users = [start_user() for _ in range(3)]
    urls = [user.url() for user in users]
    for user in users:
        user.ask_to_leave()
    for user in users:
        assert user.process.wait(TIMEOUT_SECONDS) == 0
    assert not answers(urls[0])


def test_a_killed_user_neither_blocks_the_next_nor_keeps_the_server_alive(
    pgdata: Path, start_user: Callable[..., User]
) -> None:
    killed = start_user()
    url = killed.url()
    killed.kill()
    successor = start_user()
    assert successor.url() == url
    successor.leave()
    assert not answers(url)


def test_who_leaves_last_waits_until_a_killed_user_is_dead(
    pgdata: Path, start_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the kernel does not take its lock from it, and it is in no list of live processes."""
    dying = start_user()
    url = dying.url()
    embedded.ensure_running(pgdata)
    monkeypatch.setattr(embedded, "others_with", lambda _: [])
    threading.Timer(0.3, dying.kill).start()
    embedded.release(pgdata)
    assert not answers(url)


def test_the_next_user_recovers_after_user_and_server_were_killed(
    pgdata: Path, start_user: Callable[..., User]
) -> None:
    killed = start_user()
    with psycopg.connect(killed.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    pid = postmaster_pid(pgdata)
    assert pid is not None
    killed.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(pid)
    successor = start_user()
    with psycopg.connect(successor.url()) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    successor.leave()


def test_a_server_that_was_killed_is_started_again_for_who_still_holds_it(pgdata: Path) -> None:
    first = embedded.ensure_running(pgdata)
    pid = postmaster_pid(pgdata)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(pid)
    again = started_again(pgdata)
    assert answers(again.url("postgres"))
    assert embedded.ensure_running(pgdata) is again
    first.release()
    assert answers(again.url("postgres")), "the handle of before holds nothing any more"
    again.release()
    assert not answers(again.url("postgres"))


def test_the_last_user_stops_a_server_that_another_one_started_anew(
    pgdata: Path, start_user: Callable[..., User]
) -> None:
    embedded.ensure_running(pgdata)
    pid = postmaster_pid(pgdata)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(pid)
    other = start_user()
    url = other.url()
    other.leave()
    assert answers(url), "this process uses it still"
    embedded.release(pgdata)
    assert not answers(url)


MOMENTS = ("PG_VERSION", "global/pg_control", "base/5")
"""What a first start has made of the cluster by then, one after the other."""


@pytest.mark.parametrize(
    ("signum", "moment"),
    [*((signal.SIGKILL, moment) for moment in MOMENTS), (signal.SIGTERM, "base"), (signal.SIGINT, "base")],
)
def test_a_first_start_that_is_ended_while_it_makes_the_cluster_does_not_block_the_next(
    unmade: Path, start_user: Callable[..., User], signum: signal.Signals, moment: str
) -> None:
    ended = start_user(UNWINDING_USER)
    wait_until_a_cluster_has(unmade.parent, moment)
    ended.process.send_signal(signum)
    ended.process.wait(TIMEOUT_SECONDS)
    server = embedded.ensure_running(unmade)
    assert answers(server.url("postgres"))
    server.release()
    assert {path.name for path in unmade.parent.iterdir()} == {"postgres", ".postgres.users", ".postgres.lock"}


WRITER = """
import contextlib, itertools, pathlib, sys
for number in itertools.count():
    with contextlib.suppress(OSError):
        pathlib.Path(sys.argv[1]).mkdir(exist_ok=True)
        (pathlib.Path(sys.argv[1]) / str(number % 500)).write_text("half a cluster")
"""


def test_what_still_makes_a_cluster_for_nobody_is_ended_before_its_folder_is_removed(unmade: Path) -> None:
    left = unmade.parent / f".{unmade.name}.x7.new"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(left)])
    try:
        eventually(left.exists, "the orphan writes")
        embedded.ensure_running(unmade).release()
        assert not psutil.pid_exists(writer.pid)
        assert not left.exists()
    finally:
        writer.kill()
        writer.wait(TIMEOUT_SECONDS)


def test_a_server_whose_starter_is_killed_while_it_starts_is_taken_over(
    unmade: Path, start_user: Callable[..., User]
) -> None:
    killed = start_user()
    wait_until_a_cluster_has(unmade.parent, "postmaster.opts")
    killed.kill()
    successor = start_user()
    url = successor.url()
    assert answers(url)
    successor.leave()
    assert not answers(url)


@pytest.mark.parametrize("moment", MOMENTS[:2])
def test_a_cluster_that_an_earlier_release_left_half_made_is_set_aside_and_made_anew(unmade: Path, moment: str) -> None:
    leave_half_made(unmade, moment)
    assert answers(embedded.ensure_running(unmade).url("postgres"))
    aside = list(unmade.parent.glob("postgres.half-made-*"))
    assert len(aside) == 1, "nothing is deleted that this release has not made"
    assert (aside[0] / "PG_VERSION").exists()


@pytest.mark.parametrize("lost", ["base/5", "PG_VERSION"])
def test_a_cluster_with_a_database_of_somebody_is_never_made_anew(pgdata: Path, lost: str) -> None:
    server = embedded.ensure_running(pgdata)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE theirs")
    server.release()
    (pgdata / cluster.MADE_WHOLE).unlink()  # as an earlier release made it
    (pgdata / lost).rename(pgdata.parent / "lost")
    with suppress(ConfigurationError, ServiceUnavailableError):
        embedded.ensure_running(pgdata)
    embedded.release(pgdata)
    (pgdata / lost).exists() or (pgdata.parent / "lost").rename(pgdata / lost)
    assert answers(embedded.ensure_running(pgdata).url("theirs"))


def wait_until_a_cluster_has(parent: Path, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if any((folder / name).exists() for folder in parent.iterdir()):
            return
        time.sleep(0.002)
    raise AssertionError(f"no cluster had {name} within {TIMEOUT_SECONDS:.0f} s")


def leave_half_made(pgdata: Path, moment: str) -> None:
    """What a killed initdb leaves that ran in place."""
    user = os_user.server_user(pgdata)
    pgdata.mkdir(mode=0o700)
    if user is not None:
        os.chown(pgdata, user.uid, user.gid)
    command = [programs.bin_folder() / "initdb", "--username=postgres", "--pgdata", pgdata]
    own = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    with subprocess.Popen(command, cwd="/", start_new_session=True, stdout=subprocess.DEVNULL, **own) as initdb:
        wait_until_a_cluster_has(pgdata.parent, moment)
        os.killpg(initdb.pid, signal.SIGKILL)


def wait_for_the_end_of(pid: int) -> None:
    eventually(lambda: not is_postgres(pid), f"Postgres {pid} has ended", TIMEOUT_SECONDS)


def started_again(pgdata: Path) -> embedded.EmbeddedServer:
    """Postgres refuses to start while the killed server's children are still there: a moment."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return embedded.ensure_running(pgdata)
        except ServiceUnavailableError:
            if time.monotonic() > deadline:
                raise


def test_a_pid_file_left_by_a_crash_whose_number_another_process_has_now_does_not_block_the_start(pgdata: Path) -> None:
    """After a reboot, or in a container that was restarted, small process numbers come up again."""
    server = embedded.ensure_running(pgdata)
    left_over = (pgdata / "postmaster.pid").read_text().splitlines()
    server.release()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (pgdata / name).write_text("\n".join([str(stranger.pid), *left_over[1:]]) + "\n")
        again = embedded.ensure_running(pgdata)
        assert answers(again.url("postgres"))
        again.release()
        assert stranger.poll() is None
        stranger.kill()


def test_who_let_go_can_come_back_after_the_others_have_stopped_the_server(
    pgdata: Path, start_user: Callable[..., User]
) -> None:
    other = start_user()
    other.url()
    embedded.ensure_running(pgdata)
    embedded.release(pgdata)
    other.leave()
    assert answers(embedded.ensure_running(pgdata).url("postgres"))


def test_letting_go_twice_does_not_take_the_server_from_a_later_holder(pgdata: Path) -> None:
    first = embedded.ensure_running(pgdata)
    first.release()
    second = embedded.ensure_running(pgdata)
    first.release()
    assert answers(second.url("postgres"))
    assert embedded.ensure_running(pgdata) is second


def test_a_forked_child_does_not_stop_its_parents_server(pgdata: Path, start_user: Callable[..., User]) -> None:
    parent = start_user(FORKING_USER)
    url = parent.url()
    assert answers(url)
    parent.leave()
    assert not answers(url)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot write in .*file.*set DATA_DIR to a writable folder"):
        embedded.ensure_running(tmp_path / "file" / "data" / "postgres")


def test_a_server_that_does_not_start_is_one_clear_error_and_starts_once_it_is_repaired(pgdata: Path) -> None:
    embedded.ensure_running(pgdata).release()
    configuration = pgdata / "postgresql.conf"
    sound = configuration.read_text()
    configuration.write_text("no_such_setting = 1\n")
    for _ in range(2):
        with pytest.raises(ServiceUnavailableError, match=r"did not start: .*contains errors; its log is "):
            embedded.ensure_running(pgdata)
    configuration.write_text(sound)
    assert answers(embedded.ensure_running(pgdata).url("postgres"))


def test_a_platform_that_closes_leaves_the_server_to_another_of_its_process(pgdata: Path) -> None:
    settings = load_settings(use_case="tests.toy_use_case:contract", data_dir=pgdata.parent)
    first, second = open_platform(settings), open_platform(settings)
    first.close()
    first.close()  # twice, as a careful caller may
    assert model_versions.list_versions(second.store) == []
    pid = postmaster_pid(pgdata)
    assert pid is not None
    second.close()
    assert not is_postgres(pid)
