"""Rules of the durable path: what the API acknowledges when the disk is full or fails, and what comes of it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from selfheal.adapters.journal import (
    COMPRESSED_SUFFIX,
    FsyncMode,
    Journal,
    JournalKind,
    prediction_journal,
    read_chunk,
)
from selfheal.adapters.postgres.ingest import ingest
from selfheal.kit.errors import JournalUnavailableError
from selfheal.settings import Settings
from serving.ingest import worker
from serving.ingest.journal_writer import JournalWriter
from tests.disk import Disk
from tests.serving.history import platform_of
from tests.serving.running import (
    Api,
    api_in_thread,
    bodies,
    contract_of,
    journal_rows,
    label_rows,
    load_on,
    logged_probabilities,
    query,
)
from tests.waiting import eventually

KIND = JournalKind("things", ("key", "value"))
LINE = b"a,1,00000000\n"


@pytest.fixture
def often_kept(api_settings: Settings) -> Settings:
    """Trouble is looked at anew many times a second."""
    return api_settings.model_copy(update={"journal_fsync_interval_seconds": 0.02})


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, often_kept: Settings) -> Disk:
    return Disk(monkeypatch, often_kept.data_dir / "audit")


@pytest.fixture
def kept_api(often_kept: Settings, disk: Disk) -> Iterator[Api]:
    """An API above the disk."""
    with api_in_thread(often_kept) as running:
        yield running


def every_kind_of_request(api: Api) -> list[httpx.Response]:
    """A prediction, a batch and a label."""
    row = bodies(1)[0]
    return [
        api.post("/predict", row),
        api.post("/predict/batch", {"instances": [row, row]}),
        api.post("/labels", {"prediction_id": str(uuid4()), "true_label": 1}),
    ]


def statuses(answers: list[httpx.Response]) -> list[int]:
    return [answer.status_code for answer in answers]


def journal_files(settings: Settings) -> list[Path]:
    return sorted((settings.data_dir / "audit").rglob("*.csv*"))


def test_a_failed_sync_ends_acceptance_for_good(kept_api: Api, disk: Disk, often_kept: Settings) -> None:
    assert statuses(every_kind_of_request(kept_api)) == [200] * 3
    before = journal_rows(often_kept)
    files = journal_files(often_kept)
    disk.sync_fails_with = errno.EIO
    failed = every_kind_of_request(kept_api)
    disk.sync_fails_with = None
    n_synced = len(disk.synced)
    for refused in (failed, every_kind_of_request(kept_api)):
        assert statuses(refused) == [503] * 3
        assert {answer.json()["type"] for answer in refused} == {"journal_unavailable"}
        assert all(answer.headers["Retry-After"] for answer in refused)
        assert not any(str(often_kept.data_dir) in answer.text for answer in refused)
    assert kept_api.client.get("/health/ready").status_code == 503
    health = kept_api.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "not_ready")
    assert any("journal cannot be written" in problem for problem in health.json()["problems"])
    assert kept_api.client.get("/health/live").status_code == 200

    eventually(lambda: kept_api.health()["journal_lag_bytes"] == 0, "what is in the files is copied all the same")
    assert statuses(every_kind_of_request(kept_api)) == [503] * 3, "waiting does not mend a disk"
    assert len(disk.synced) == n_synced, "a sync that follows a failed one proves nothing"
    assert journal_files(often_kept) == files
    assert {row["prediction_id"] for row in before} <= set(logged_probabilities(often_kept))


def test_a_label_journal_that_fails_refuses_labels_only_and_health_says_so(
    monkeypatch: pytest.MonkeyPatch, often_kept: Settings
) -> None:
    disk = Disk(monkeypatch, often_kept.data_dir / "audit" / "labels")
    with api_in_thread(often_kept) as api:
        assert statuses(every_kind_of_request(api)) == [200] * 3
        disk.sync_fails_with = errno.EIO
        assert statuses(every_kind_of_request(api)) == [200, 200, 503]
        health = api.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert any("labels are refused" in problem for problem in health.json()["problems"])


@pytest.mark.parametrize("room_bytes", [0, 200])
def test_a_full_disk_refuses_everything_until_there_is_room(
    kept_api: Api, disk: Disk, often_kept: Settings, room_bytes: int
) -> None:
    """With room for 200 bytes a new file's header fits, and no record."""
    assert statuses(every_kind_of_request(kept_api)) == [200] * 3
    before, labels_before = journal_rows(often_kept), label_rows(often_kept)
    disk.room_bytes = room_bytes
    for _ in range(3):
        assert set(statuses(every_kind_of_request(kept_api))) == {503}
    health = kept_api.client.get("/health")
    if room_bytes == 0:  # else it looks over, again and again, until the next record is tried
        assert (health.status_code, health.json()["status"]) == (503, "not_ready")
        assert any("journal cannot be written" in problem for problem in health.json()["problems"])
        assert kept_api.client.get("/health/ready").status_code == 503
    assert (journal_rows(often_kept), label_rows(often_kept)) == (before, labels_before)
    assert len(journal_files(often_kept)) <= 2 + 2, "those in use before, and at most one tried now for each journal"

    disk.room_bytes = None
    eventually(lambda: kept_api.client.get("/health/ready").status_code == 200, "it takes predictions again by itself")
    eventually(lambda: statuses(every_kind_of_request(kept_api)) == [200] * 3, "labels, too")
    eventually(lambda: kept_api.health()["status"] == "ok", "all is well")
    eventually(
        lambda: logged_probabilities(often_kept).keys() == {row["prediction_id"] for row in journal_rows(often_kept)},
        "everything acknowledged is copied",
    )
    assert len(journal_rows(often_kept)) >= len(before) + 3


def test_a_disk_that_fills_up_under_load_costs_no_answered_prediction(
    kept_api: Api, disk: Disk, often_kept: Settings
) -> None:
    with load_on(kept_api) as load:
        load.wait_for(30)
        (file,) = [path for path in journal_files(often_kept) if path.parent.name == "predictions"]
        disk.room_bytes = file.stat().st_size + 1_000
        eventually(lambda: len(load.failures) == 4, "every client is refused")
    disk.room_bytes = None
    assert all("503" in failure for failure in load.failures)
    answered = {answer["prediction_id"]: answer["probability"] for _, answer in load.answers}
    journaled = {row["prediction_id"]: float(row["probability"]) for row in journal_rows(often_kept)}
    assert journaled == answered, "nothing that was refused stays in the journal"
    eventually(lambda: logged_probabilities(often_kept).items() >= answered.items(), "it is copied")


def kept(log: JournalWriter, work: Callable[[], Awaitable[None]]) -> None:
    """Runs the work while the log is kept."""

    async def both() -> None:
        keeping = asyncio.create_task(log.run())
        await work()
        keeping.cancel()

    asyncio.run(both())
    log.close()


async def soon(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(eventually, condition, what)


@pytest.mark.parametrize(("mode", "at_once"), [("always", 1), ("interval", 0), ("off", 0)])
def test_what_was_acknowledged_is_on_disk_when_the_mode_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: FsyncMode, at_once: int
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    log = JournalWriter(Journal(KIND, tmp_path, 1_000_000, mode), interval_seconds=0.02)

    async def work() -> None:
        log.write(LINE)
        assert len(disk.synced) == at_once
        if mode == "interval":
            await soon(lambda: len(disk.synced) == 1, "the interval is over")
        await asyncio.sleep(0.1)

    kept(log, work)
    assert len(disk.synced) == (0 if mode == "off" else 1)


def test_an_interval_sync_that_fails_ends_acceptance_before_the_next_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    log = JournalWriter(Journal(KIND, tmp_path, 1_000_000, "interval"), interval_seconds=0.02)

    async def work() -> None:
        disk.sync_fails_with = None
        log.write(LINE)
        disk.sync_fails_with = errno.EIO
        await soon(lambda: log.problem is not None, "the failure is noticed without a request")
        disk.sync_fails_with = None
        await asyncio.sleep(0.1)
        with pytest.raises(JournalUnavailableError, match="the disk failed"):
            log.write(LINE)

    kept(log, work)
    assert len(disk.synced) == 1


@pytest.mark.parametrize("mode", ["interval", "off"])
def test_the_api_journals_before_it_answers_whatever_the_mode(
    often_kept: Settings, disk: Disk, mode: FsyncMode
) -> None:
    with api_in_thread(often_kept.model_copy(update={"journal_fsync": mode})) as api:
        answered = api.post("/predict", bodies(1)[0]).json()["prediction_id"]
        assert [row["prediction_id"] for row in journal_rows(often_kept)] == [answered]
        if mode == "interval":
            eventually(lambda: disk.synced, "it is brought to disk soon after")
    assert bool(disk.synced) == (mode == "interval")


def test_rotated_files_of_a_live_api_are_compressed_once_copied_and_a_replay_reads_them(
    often_kept: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "COMPRESS_EVERY_SECONDS", 0.0)
    kind = prediction_journal(contract_of(often_kept))
    rows = bodies(120)

    def suffixes() -> list[str]:
        return [path.suffix for path in kind.files(often_kept.data_dir)]

    with api_in_thread(often_kept.model_copy(update={"journal_max_mb": 0.01})) as api:
        for at in range(0, 120, 20):
            assert api.post("/predict/batch", {"instances": rows[at : at + 20]}).json()["errors"] == []
        eventually(
            lambda: suffixes()[:-1] == [COMPRESSED_SUFFIX] * (len(suffixes()) - 1), "all but the last are compressed"
        )
        assert len(suffixes()) > 1
        assert suffixes()[-1] == ".csv", "the one in use is not touched"
        eventually(lambda: len(logged_probabilities(often_kept)) == 120, "everything is copied")
        assert api.health()["journal_lag_bytes"] == 0
    before = logged_probabilities(often_kept)
    query(often_kept, "TRUNCATE prediction_logs")
    with platform_of(often_kept) as platform:
        replay = ingest(platform.store, kind, often_kept.data_dir, from_start=True)
    assert (replay.n_new, replay.corrupt) == (120, [])
    assert logged_probabilities(often_kept) == before
    assert sum(len(read_chunk(path, 0).lines) for path in kind.files(often_kept.data_dir)) == 120
