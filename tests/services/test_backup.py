"""A backup is taken while the platform runs and restored elsewhere; tables and journal of different age converge."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.ingest import compress_copied
from selfheal.domain.records import Trigger
from selfheal.kit.errors import ConfigurationError, IntegrityError, ServiceUnavailableError
from selfheal.services import backup as module
from selfheal.services.backup import back_up, read_manifest, restore
from selfheal.services.platform import RESTORING, Platform, open_platform
from selfheal.services.promotion.going_live import promote
from selfheal.services.verification.findings import Verification
from selfheal.services.verification.run import verify_everything
from selfheal.settings import Settings
from tests.conftest import drop_databases, settings_for
from tests.services.steps import decide, retrain, whole_tick
from tests.times import T0
from tests.traffic import SECOND, serve, toy_rows

RESTORED = "restored"


def quiet(_: str) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def _no_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database has one name on a server, which all tests share."""
    monkeypatch.setattr(module, "DAGSTER_DATABASE", "dagster_of_this_test")


@pytest.fixture
def empty(server: EmbeddedServer, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a platform of which nothing is there yet."""
    yield settings_for(server, tmp_path / RESTORED, RESTORED)
    drop_databases(server, RESTORED)


def verified(settings: Settings, expected_head: str | None = None) -> Verification:
    platform = open_platform(settings)
    try:
        return verify_everything(platform, n_verdicts=0, expected_head=expected_head)
    finally:
        platform.close()


def findings(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {result.name: result.findings for result in verified(settings).results if result.n_findings}


def ids(settings: Settings, table: str = "prediction_logs") -> set[str]:
    platform = open_platform(settings)
    try:
        with platform.store.engine.connect() as connection:
            return {str(one) for one in connection.execute(text(f"SELECT prediction_id FROM {table}")).scalars()}
    finally:
        platform.close()


@contextmanager
def traffic(platform: Platform) -> Iterator[set[str]]:
    """Predictions, copied, sealed and compressed without a pause; yields the ids that were acknowledged so far."""
    acknowledged: set[str] = set()
    is_over = threading.Event()
    kinds = (prediction_journal(platform.contract), LABEL_JOURNAL)

    def send() -> None:
        start = T0 + 100 * SECOND
        while not is_over.is_set():
            sent = serve(platform, toy_rows(20), start=start)
            acknowledged.update(map(str, sent.prediction_ids))
            start = sent.last_at + SECOND
            for kind in kinds:
                compress_copied(platform.store, kind, platform.settings.data_dir)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield acknowledged
    finally:
        is_over.set()
        thread.join(30)


def test_a_backup_under_traffic_brings_everything_back_elsewhere_and_the_platform_heals_there(
    platform: Platform, empty: Settings, tmp_path: Path
) -> None:
    sent = serve(platform, toy_rows(1_200, scenario="overheating"))
    with traffic(platform) as acknowledged:
        before = {*acknowledged, *map(str, sent.prediction_ids)}
        manifest = back_up(platform, tmp_path / "backup", quiet)
    platform.close()
    shutil.rmtree(platform.settings.data_dir)

    report = restore(empty, tmp_path / "backup", quiet)
    assert (report.n_kept, report.damaged_lines) == (0, ())
    assert ids(empty) >= before
    found = verified(empty, manifest.chain_head)
    assert found.is_sound, [(r.name, r.findings, r.unchecked) for r in found.results]
    assert not (empty.data_dir / RESTORING).exists()

    restored = open_platform(empty)
    try:
        now = sent.last_at + (sent.last_at - T0)
        episode_id = whole_tick(restored, now).episode_id
        verdict = retrain(restored, decide(restored, Trigger.DRIFT, now, episode_id), now)
        promote(restored, verdict, now)
        assert model_versions.champion(restored.store).version == 2
    finally:
        restored.close()
    assert verified(empty).is_sound
    assert not platform.settings.data_dir.exists()


def test_a_backup_is_readable_for_its_owner_alone(platform: Platform, tmp_path: Path) -> None:
    back_up(platform, tmp_path / "backup", quiet)
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "backup" / "data").rglob("*") if path.is_file()}
    assert modes == {0}
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


def test_a_backup_has_nothing_of_the_embedded_server_but_its_dump(platform: Platform, tmp_path: Path) -> None:
    for name in ("postgres", "postgres.half-made-20260101T000000Z", ".postgres.x7.new"):
        folder = platform.settings.data_dir / name / "base"
        folder.mkdir(parents=True)
        (folder / "1").write_bytes(b"pages of a cluster")
    for name in (".postgres.users", ".postgres.lock"):
        (platform.settings.data_dir / name).touch()
    manifest = back_up(platform, tmp_path / "backup", quiet)
    copied = {Path(name).parts[1] for name in manifest.files if name.startswith("data/")}
    assert copied, "the rest is there"
    assert [name for name in copied if "postgres" in name] == []


# Tables and journal of different age


def test_tables_older_than_the_journal_are_filled_up_from_it(
    platform: Platform, empty: Settings, tmp_path: Path
) -> None:
    first = serve(platform, toy_rows(30))
    back_up(platform, tmp_path / "backup", quiet)
    later = serve(platform, toy_rows(40), start=first.last_at + SECOND)
    shutil.copytree(platform.settings.data_dir / "audit", empty.data_dir / "audit")
    report = restore(empty, tmp_path / "backup", quiet)
    assert (report.n_new_predictions, report.n_new_labels) == (40, 40)
    assert report.n_kept > 0
    assert ids(empty) == {str(one) for sent in (first, later) for one in sent.prediction_ids}
    assert verified(empty).is_sound


def test_a_journal_file_that_was_cut_off_is_brought_back_whole(
    platform: Platform, empty: Settings, tmp_path: Path
) -> None:
    serve(platform, toy_rows(30))
    back_up(platform, tmp_path / "backup", quiet)
    (path,) = prediction_journal(platform.contract).files(platform.settings.data_dir)
    here = empty.data_dir / path.relative_to(platform.settings.data_dir)
    here.parent.mkdir(parents=True)
    here.write_bytes(path.read_bytes()[:-300])
    restore(empty, tmp_path / "backup", quiet)
    assert here.read_bytes() == path.read_bytes()
    assert verified(empty).is_sound


def test_tables_newer_than_the_journal_keep_their_rows_and_each_file_is_named(
    platform: Platform, tmp_path: Path
) -> None:
    """The files of an older backup under a Postgres that has gone on: what is missing or shorter was evidence."""
    kind = prediction_journal(platform.contract)
    serve(platform, toy_rows(30))
    back_up(platform, tmp_path / "backup", quiet)
    later = serve(platform, toy_rows(40), start=T0 + 100 * SECOND)
    newer = {path.name for path in kind.files(platform.settings.data_dir)}
    shutil.rmtree(platform.settings.data_dir)
    report = restore(platform.settings, tmp_path / "backup", quiet, files_only=True)
    assert (report.n_new_predictions, report.n_kept) == (0, 0)
    assert ids(platform.settings) >= set(map(str, later.prediction_ids))
    (cut,) = LABEL_JOURNAL.files(platform.settings.data_dir)
    cut.write_bytes(cut.read_bytes()[:-300])
    (missing_predictions,) = newer - {path.name for path in kind.files(platform.settings.data_dir)}
    named = findings(platform.settings)["journal files"]
    assert len(named) == 3
    assert any(one.startswith(f"predictions/{missing_predictions}: is not there any more") for one in named)
    assert any(one.startswith(f"labels/{cut.name}: ends at byte") for one in named)


def test_decisions_later_than_the_tables_are_named(platform: Platform, empty: Settings, tmp_path: Path) -> None:
    back_up(platform, tmp_path / "backup", quiet)
    decision = decide(platform, Trigger.MANUAL, T0)
    shutil.copytree(platform.settings.data_dir / "decisions", empty.data_dir / "decisions")
    restore(empty, tmp_path / "backup", quiet)
    assert any(decision.decision_id in one for one in findings(empty)["files of decisions"])


# What is refused


@pytest.mark.parametrize("place", ["data folder", "below it", "a full folder", "a file"])
def test_a_backup_is_not_written_into_the_data_folder_nor_over_anything(
    platform: Platform, tmp_path: Path, place: str
) -> None:
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "precious").touch()
    file.touch()
    data_dir = platform.settings.data_dir
    target = {"data folder": data_dir, "below it": data_dir / "backup", "a full folder": full, "a file": file}[place]
    with pytest.raises(ConfigurationError, match="choose a"):
        back_up(platform, target, quiet)
    assert (full / "precious").exists()


def test_a_backup_that_fails_leaves_nothing_that_looks_like_one(
    platform: Platform, empty: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise ServiceUnavailableError("no room")

    monkeypatch.setattr(module, "_copy", fails)
    with pytest.raises(ServiceUnavailableError):
        back_up(platform, tmp_path / "backup", quiet)
    assert not (tmp_path / "backup").exists()
    with pytest.raises(IntegrityError, match="is not a complete backup"):
        restore(empty, tmp_path / "backup", quiet)


def test_a_damaged_backup_restores_nothing_and_names_the_file(
    platform: Platform, empty: Settings, tmp_path: Path
) -> None:
    back_up(platform, tmp_path / "backup", quiet)
    for name in read_manifest(tmp_path / "backup").files:
        path = tmp_path / "backup" / name
        data = path.read_bytes()
        path.write_bytes(data + b"x")
        with pytest.raises(IntegrityError, match=f"{path.name} has changed"):
            restore(empty, tmp_path / "backup", quiet)
        path.write_bytes(data)
    assert not empty.data_dir.exists()


def test_what_a_killed_backup_was_running_ends_with_it(platform: Platform, tmp_path: Path) -> None:
    """A dump that waits for a lock would have hours to write into a backup that nobody finishes."""
    context = multiprocessing.get_context("spawn")
    backup = context.Process(target=_back_up_elsewhere, args=(platform.settings, tmp_path / "backup"))
    with platform.store.engine.begin() as connection:
        connection.execute(text("LOCK TABLE prediction_logs IN ACCESS EXCLUSIVE MODE"))
        backup.start()
        dump = _child_named(psutil.Process(backup.pid), "pg_dump")
        backup.kill()
        ended, left = psutil.wait_procs([dump], timeout=10)
    backup.join()
    assert (ended, left) == ([dump], [])


def _back_up_elsewhere(settings: Settings, folder: Path) -> None:
    back_up(open_platform(settings), folder, quiet)


def _child_named(parent: psutil.Process, name: str) -> psutil.Process:
    for _ in range(600):
        for child in parent.children(recursive=True):
            if child.name() == name:
                return child
        time.sleep(0.1)
    raise AssertionError(f"{name} was not started")


def test_a_restore_overwrites_no_database(platform: Platform, tmp_path: Path) -> None:
    back_up(platform, tmp_path / "backup", quiet)
    elsewhere = platform.settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    with pytest.raises(ConfigurationError, match="is not empty, and a restore overwrites nothing; set another MLOPS"):
        restore(elsewhere, tmp_path / "backup", quiet)
    assert not elsewhere.data_dir.exists()


def test_a_backup_of_another_use_case_is_refused(platform: Platform, empty: Settings, tmp_path: Path) -> None:
    back_up(platform, tmp_path / "backup", quiet)
    other = empty.model_copy(update={"use_case": "selfheal.credit_risk:contract"})
    with pytest.raises(ConfigurationError, match="is a backup of the use case machine_failure"):
        restore(other, tmp_path / "backup", quiet)


@pytest.mark.parametrize("step", ["_bring_back_files", "_load", "follow_folder", "_copy_journal"])
def test_a_restore_that_was_killed_goes_on_where_it_was(
    platform: Platform, empty: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class KilledError(BaseException):
        """Nothing that runs here may catch it."""

    calls = 0
    real: Callable[..., object] = getattr(module, step)

    def killed_in_its_last_call(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if step != "_load" or calls == 2:
            raise KilledError
        return real(*arguments, **options)

    serve(platform, toy_rows(30))
    head = decisions.chain_head(platform.store)
    back_up(platform, tmp_path / "backup", quiet)
    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed_in_its_last_call)
        with pytest.raises(KilledError):
            restore(empty, tmp_path / "backup", quiet)
    assert (empty.data_dir / RESTORING).exists()
    with pytest.raises(ConfigurationError, match="is half restored; run `selfheal restore FOLDER`"):
        open_platform(empty)
    restore(empty, tmp_path / "backup", quiet)
    found = verified(empty, head)
    assert found.is_sound, [(r.name, r.findings, r.unchecked) for r in found.results]
