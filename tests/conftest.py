"""Shared fixtures: one embedded Postgres a session, a bootstrapped platform cloned from a template for each test."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import psycopg
import pytest

from selfheal.adapters.postgres.embedded import EmbeddedServer, ensure_running
from selfheal.adapters.postgres.migrate import ensure_database
from selfheal.domain.records import Trigger
from selfheal.services.platform import Platform, open_platform
from selfheal.services.retraining import decide_retraining, gather_training_set, judge, train_shadow
from selfheal.settings import Settings, load_settings
from tests.demotable import Demotable
from tests.object_store import Bucket, new_bucket, object_store
from tests.times import T0

TOY = "tests.toy_use_case:contract"
TEMPLATE = "template"
_numbers = itertools.count(1)

hypothesis.settings.register_profile("selfheal", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("selfheal")

ROOMY_BYTES = 8 << 30

for name in [name for name in os.environ if name.lower().removesuffix("_file") in Settings.model_fields]:
    del os.environ[name]  # what the developer has set must not decide a test


OWN_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """A folder of this session's own: pytest's is closed to others again by each session that starts beside it.

    As root the embedded server runs as a user of its own, and would be shut out in the middle of a test.
    """
    # A shell starts what it runs in the background without SIGINT; Dagster would then ignore SIGTERM as well.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.option.basetemp = config.stash[OWN_FOLDER] = tempfile.mkdtemp(prefix="selfheal-pytest-")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """After failures the folder stays, to be looked at."""
    if exitstatus == pytest.ExitCode.OK and OWN_FOLDER in session.config.stash:
        folder = session.config.stash[OWN_FOLDER]
        session.config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that uses the server, however indirectly, is an integration test. Side by side, the longest start first."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(scope="session", autouse=True)
def _no_dotenv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests run in a folder without `.env`."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """The embedded Postgres of the whole session.

    Not below pytest's own folder: that is closed to other users, and as root the server runs as one.
    """
    with tempfile.TemporaryDirectory(prefix="selfheal-tests-", dir=roomy_memory()) as folder:
        Path(folder).chmod(0o755)
        running = ensure_running(Path(folder) / "postgres")
        with psycopg.connect(running.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # tests kill our processes, never the machine
            connection.execute("SELECT pg_reload_conf()")
        yield running
        postmaster = psutil.Process(int((Path(folder) / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
        postmaster.send_signal(signal.SIGQUIT)  # at once: what is thrown away needs no checkpoint
        psutil.wait_procs([postmaster], timeout=20)
        running.release()


@pytest.fixture(scope="session")
def _own_server() -> Iterator[EmbeddedServer]:
    """A second server: what a test does to a whole server, no other test may meet."""
    with tempfile.TemporaryDirectory(prefix="selfheal-tests-", dir=roomy_memory()) as folder:
        Path(folder).chmod(0o755)
        running = ensure_running(Path(folder) / "postgres")
        yield running
        running.release()


@pytest.fixture
def demotable(_own_server: EmbeddedServer) -> Iterator[Demotable]:
    """A server that a test demotes and fails over."""
    yield (demotable := Demotable(_own_server))
    demotable.restore()


@pytest.fixture(scope="session")
def _object_store() -> Iterator[None]:
    with object_store():
        yield


@pytest.fixture
def bucket(_object_store: None) -> Bucket:
    """An empty bucket of the session's S3-compatible store."""
    return new_bucket()


def roomy_memory() -> Path | None:
    """Where files are memory, if there is room for the hundreds of small databases of a session; None: where temporary files go."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > ROOMY_BYTES else None


def settings_for(server: EmbeddedServer, data_dir: Path, name: str, **overrides: Any) -> Settings:
    """Settings whose databases (platform and MLflow) are named after the test, on the session's server."""
    url = server.url("postgres")
    values: dict[str, Any] = {
        "use_case": TOY,
        "data_dir": data_dir,
        "database_url": url,
        "mlops_db_name": f"{name}_platform",
        "mlflow_tracking_uri": server.url(f"{name}_mlflow").replace("postgresql://", "postgresql+psycopg2://"),
        "synthetic_rows": 3_000,
        "promotion_cooldown_days": 0.0,
    }
    return load_settings(**(values | overrides))


WITH_MLFLOW = ("platform", "mlflow")


def clone_databases(server: EmbeddedServer, source: str, name: str, kinds: Sequence[str] = WITH_MLFLOW) -> None:
    """Copies of a platform's databases, under another name."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for kind in kinds:  # pools keep connections for ever, and a database in use cannot be a template
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (f"{source}_{kind}",)
            )
            # Small databases in memory: to copy their files costs half of writing their pages to the log.
            connection.execute(f"CREATE DATABASE {name}_{kind} TEMPLATE {source}_{kind} STRATEGY FILE_COPY")


def drop_databases(server: EmbeddedServer, name: str) -> None:
    """Removes a test's databases and closes what is connected to them: MLflow keeps its connections for ever."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for kind in WITH_MLFLOW:
            connection.execute(f"DROP DATABASE IF EXISTS {name}_{kind} WITH (FORCE)")


@pytest.fixture
def settings(server: EmbeddedServer, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty platform for the toy use case: its own database does not exist yet, MLflow's is empty."""
    name = f"empty{next(_numbers)}"
    ensure_database(server.url(f"{name}_mlflow"))
    yield settings_for(server, tmp_path / "data", name)
    drop_databases(server, name)


@pytest.fixture
def empty_platform(settings: Settings) -> Iterator[Platform]:
    """An open platform before its bootstrap."""
    platform = open_platform(settings)
    yield platform
    platform.close()


@pytest.fixture(scope="session")
def bootstrapped_template(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder (and databases named `template_...`) with version 1 of the toy use case in production."""
    from selfheal.adapters.datasets import load_dataset
    from selfheal.adapters.postgres.baseline import write_baseline
    from selfheal.services.promotion.going_live import promote

    data_dir = tmp_path_factory.mktemp("template") / "data"
    platform = open_platform(settings_for(server, data_dir, TEMPLATE))
    ensure_database(server.url(f"{TEMPLATE}_mlflow"))
    dataset = load_dataset(platform.settings, platform.contract)
    write_baseline(platform.store, dataset.frame, dataset.description, T0, data_dir)
    decision = decide_retraining(platform, Trigger.BOOTSTRAP, episode_id=None, actor="test", reason="bootstrap", now=T0)
    rows = gather_training_set(platform, decision, dataset, decision.created_at)
    verdict = judge(platform, train_shadow(platform, rows, T0), rows, T0)
    promote(platform, verdict, T0)
    platform.close()
    return data_dir


@pytest.fixture
def make_settings(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path: Path
) -> Iterator[Callable[..., Settings]]:
    """Makes settings of a bootstrapped platform: databases cloned, data folder copied."""
    made: list[str] = []

    def make(**overrides: Any) -> Settings:
        name = f"clone{next(_numbers)}"
        made.append(name)
        clone_databases(server, TEMPLATE, name)
        data_dir = tmp_path / name
        shutil.copytree(bootstrapped_template, data_dir)
        return settings_for(server, data_dir, name, **overrides)

    yield make
    for name in made:
        drop_databases(server, name)


@pytest.fixture
def platform(make_settings: Callable[..., Settings]) -> Iterator[Platform]:
    """A platform of the toy use case with version 1 in production since `T0` and no traffic yet."""
    opened = open_platform(make_settings())
    yield opened
    opened.close()
