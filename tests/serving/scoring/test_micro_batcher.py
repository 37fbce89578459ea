"""The one path of a prediction: groups form by themselves, and nobody in one pays for another."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline

from selfheal.adapters.journal import Journal, prediction_journal, read_chunk
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from serving.champion.holder import Champion, ready_champion
from serving.ingest.journal_writer import JournalWriter
from serving.schemas.problems import ProblemError
from serving.scoring.micro_batcher import MAX_INLINE_ROWS, MicroBatcher, Row
from tests import builders
from tests.toy_use_case import contract

ResultT = TypeVar("ResultT")
TIMEOUT_SECONDS = 30.0


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """Of trees: nothing that `selfheal.domain.model.plain_scoring` knows a formula for."""
    rows = contract.synthesize(500, 1)
    matrix = contract.feature_frame(rows).to_numpy(dtype=np.float64)
    trees = GradientBoostingClassifier(n_estimators=20, random_state=1)
    return make_pipeline(SimpleImputer(), trees).fit(matrix, rows[TRUE_LABEL])


class Disk:
    """Counts syncs, and holds them while it is told to."""

    def __init__(self) -> None:
        self.n_syncs = 0
        self.is_syncing = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def sync(self, descriptor: int) -> None:
        self.n_syncs += 1
        self.is_syncing.set()
        assert self.may_go_on.wait(TIMEOUT_SECONDS)
        os.fsync(descriptor)


@dataclass
class ScoringPath:
    """A scorer at work, its journal, and what it asked of the model and of the disk."""

    scorer: MicroBatcher
    log: JournalWriter
    disk: Disk
    data_dir: Path
    task: asyncio.Task[None]
    calls: list[tuple[int, str]] = field(default_factory=list)
    """Rows and thread of each call of the model."""

    @property
    def group_sizes(self) -> list[int]:
        return [n_rows for n_rows, _ in self.calls]

    def lines(self) -> list[dict[str, str]]:
        found = []
        for path in prediction_journal(contract).files(self.data_dir):
            chunk = read_chunk(path, 0)
            assert chunk.corrupt == ()
            found += [dict(zip(chunk.columns, line.decode().split(","), strict=True)) for line in chunk.lines]
        return found

    async def hold_a_group(self) -> asyncio.Future[Any]:
        """One row that is being brought to disk until `may_go_on`."""
        self.disk.is_syncing.clear()
        self.disk.may_go_on.clear()
        first = self.scorer.submit([row(0)])
        await asyncio.to_thread(self.disk.is_syncing.wait, TIMEOUT_SECONDS)
        return first


def on_path(
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    champion: Champion,
    work: Callable[[ScoringPath], Awaitable[ResultT]],
) -> ResultT:
    """What `work` gives with a scorer of this champion that is at work."""

    async def run() -> ResultT:
        disk, calls = Disk(), []
        monkeypatch.setattr("selfheal.adapters.journal.os.fdatasync", disk.sync)

        def watched(matrix: FloatArray) -> FloatArray:
            calls.append((len(matrix), threading.current_thread().name))
            return champion.probabilities(matrix)

        holder: Any = SimpleNamespace(current=Champion(champion.version, champion.pipeline, watched), problem=None)
        log = JournalWriter(Journal(prediction_journal(contract), data_dir, 10_000_000), 0.01)
        scorer = MicroBatcher(contract, holder, log)
        path = ScoringPath(scorer, log, disk, data_dir, asyncio.create_task(scorer.work()), calls)
        try:
            return await asyncio.wait_for(work(path), TIMEOUT_SECONDS)
        finally:
            disk.may_go_on.set()
            path.task.cancel()
            await asyncio.gather(path.task, return_exceptions=True)
            scorer.close()
            log.close()

    return asyncio.run(run())


@pytest.fixture
def champion(pipeline: Pipeline) -> Champion:
    return ready_champion(builders.model_version(version=3), pipeline, contract)


@pytest.fixture
def along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, champion: Champion
) -> Callable[[Callable[[ScoringPath], Awaitable[Any]]], Any]:
    return lambda work: on_path(tmp_path, monkeypatch, champion, work)


def row(which: int, source: str = "test", prediction_id: str | None = None) -> Row:
    return Row((None if which % 7 == 3 else 40.0 + which % 50, 0.1 + which % 11 / 10, which % 5), source, prediction_id)


def expected(pipeline: Pipeline, rows: Sequence[Row]) -> FloatArray:
    inputs = np.array([one.values for one in rows], dtype=np.float64)
    matrix = contract.matrix(dict(zip(contract.input_names, inputs.T, strict=True)))
    return np.asarray(pipeline.predict_proba(matrix)[:, 1])


# Groups


def test_requests_that_arrive_together_are_one_call_and_one_sync(along: Any) -> None:
    async def work(path: ScoringPath) -> None:
        answers = await asyncio.gather(*(path.scorer.score([row(n)]) for n in range(50)))
        assert path.group_sizes == [50]
        assert path.disk.n_syncs == 1
        assert [line["prediction_id"] for line in path.lines()] == [one["prediction_id"] for (one,) in answers]

    along(work)


def test_what_arrives_while_a_group_is_brought_to_disk_is_the_next_group(along: Any) -> None:
    async def work(path: ScoringPath) -> None:
        first = await path.hold_a_group()
        others = [path.scorer.submit([row(n), row(n + 1)]) for n in range(30)]
        await asyncio.sleep(0)
        assert path.group_sizes == [1]
        assert not first.done(), "nothing is answered before it is on disk"
        path.disk.may_go_on.set()
        await asyncio.gather(first, *others)
        assert path.group_sizes == [1, 60]
        assert path.disk.n_syncs == 2

    along(work)


def test_requests_that_arrive_in_the_next_moments_of_the_event_loop_still_join(along: Any) -> None:
    """As many connections do that were ready in one look at the sockets, or in the one right after it."""

    async def later(path: ScoringPath, n_rounds: int) -> None:
        for _ in range(n_rounds):
            await asyncio.sleep(0)
        await path.scorer.score([row(n_rounds)])

    async def work(path: ScoringPath) -> None:
        await asyncio.gather(*(later(path, n_rounds) for n_rounds in range(5)))
        assert path.group_sizes == [5]

    along(work)


def test_one_request_alone_waits_for_nobody(along: Any) -> None:
    async def work(path: ScoringPath) -> None:
        for n in range(5):
            (answer,) = await path.scorer.score([row(n)])
            assert answer["model_version"] == 3
        assert path.group_sizes == [1] * 5

    along(work)


def test_only_a_large_group_is_scored_beside_the_event_loop(along: Any) -> None:
    async def work(path: ScoringPath) -> None:
        await path.scorer.score([row(n) for n in range(MAX_INLINE_ROWS)])
        await path.scorer.score([row(n) for n in range(MAX_INLINE_ROWS + 1)])
        (_, inline), (_, beside) = path.calls
        assert inline == threading.current_thread().name
        assert beside != inline

    along(work)


def test_a_group_is_bounded_and_no_request_is_split(along: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.scoring.micro_batcher.MAX_GROUP_ROWS", 10)

    async def work(path: ScoringPath) -> None:
        first = await path.hold_a_group()
        others = [path.scorer.submit([row(n)] * n_rows) for n, n_rows in enumerate((4, 4, 4, 11, 1, 9))]
        path.disk.may_go_on.set()
        await asyncio.gather(first, *others)
        assert path.group_sizes == [1, 8, 4, 11, 10]

    along(work)


def test_a_row_never_waits_for_the_batches_that_came_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, champion: Champion
) -> None:
    may_go_on = threading.Event()

    def slow_for_batches(matrix: FloatArray) -> FloatArray:
        if len(matrix) > MAX_INLINE_ROWS:
            assert may_go_on.wait(TIMEOUT_SECONDS)
        return champion.probabilities(matrix)

    async def work(path: ScoringPath) -> None:
        batches = [path.scorer.submit([row(n) for n in range(MAX_INLINE_ROWS + 1)]) for _ in range(3)]
        await asyncio.sleep(0.05)
        for n in range(5):
            assert len(await path.scorer.score([row(n)])) == 1
        assert not any(batch.done() for batch in batches)
        assert path.scorer.n_waiting_rows == 3 * (MAX_INLINE_ROWS + 1)
        may_go_on.set()
        assert [len(answers) for answers in await asyncio.gather(*batches)] == [MAX_INLINE_ROWS + 1] * 3
        assert len(path.lines()) == 5 + 3 * (MAX_INLINE_ROWS + 1)

    on_path(tmp_path, monkeypatch, Champion(champion.version, champion.pipeline, slow_for_batches), work)


# Answers


sources = st.sampled_from(["api", "press-7", "a:b.c_d"])
values = st.tuples(st.none() | st.floats(-50, 300), st.floats(0, 5), st.integers(0, 1_000).map(float))
requests = st.lists(
    st.lists(st.tuples(values, sources).map(lambda given: Row(*given)), min_size=1, max_size=5),
    min_size=1,
    max_size=12,
)


def test_every_answer_is_the_models_own_and_what_the_journal_has(
    tmp_path_factory: pytest.TempPathFactory, champion: Champion, pipeline: Pipeline
) -> None:
    @settings(max_examples=30, deadline=None, phases=[Phase.generate])
    @given(requests)
    def check(groups: list[list[Row]]) -> None:
        async def work(path: ScoringPath) -> None:
            answers = await asyncio.gather(*(path.scorer.score(rows) for rows in groups))
            flat = [
                (one, answer)
                for rows, given in zip(groups, answers, strict=True)
                for one, answer in zip(rows, given, strict=True)
            ]
            scores = expected(pipeline, [one for one, _ in flat])
            lines = path.lines()
            assert len(lines) == len(flat)
            assert path.scorer.n_acknowledged == len(flat)
            for line, (one, answer), score in zip(lines, flat, scores, strict=True):
                assert answer["probability"] == score
                assert answer["prediction"] == int(answer["probability"] >= answer["threshold"])
                told = {name: line[name] for name in ("prediction_id", "prediction", "probability", "threshold")}
                assert told == {name: str(answer[name]) for name in told}
                assert line["request_source"] == one.request_source
                kept = [None if line[name] == "" else float(line[name]) for name in contract.input_names]
                assert kept == list(one.values)

        with pytest.MonkeyPatch.context() as patched:
            on_path(tmp_path_factory.mktemp("scored"), patched, champion, work)

    check()


def test_an_id_of_the_clients_own_is_kept_and_others_are_made_unique(along: Any) -> None:
    own = "0198f0f0-5c1e-7000-8000-000000000000"

    async def work(path: ScoringPath) -> None:
        answers = await path.scorer.score([row(1), row(2, prediction_id=own), row(3)])
        ids = [answer["prediction_id"] for answer in answers]
        assert ids[1] == own
        assert len(set(ids)) == 3
        assert [line["prediction_id"] for line in path.lines()] == ids

    along(work)


def test_what_was_acknowledged_is_counted_by_version_and_outcome(along: Any, pipeline: Pipeline) -> None:
    rows = [row(n) for n in range(40)]

    async def work(path: ScoringPath) -> None:
        await asyncio.gather(path.scorer.score(rows[:25]), path.scorer.score(rows[25:]))
        n_positive = int((expected(pipeline, rows) >= 0.5).sum())
        assert 0 < n_positive < 40
        assert path.scorer.n_by_outcome == {(3, 1): n_positive, (3, 0): 40 - n_positive}
        assert path.scorer.n_acknowledged == 40
        assert sum(path.scorer.latency.counts) == 2
        assert path.scorer.latency.sum_seconds > 0

    along(work)


# Failures


POISON = 4.75
"""A load at which the model below fails."""


@pytest.fixture
def poisoned(champion: Champion) -> Callable[[Callable[[FloatArray], FloatArray]], Champion]:
    """Champions that, where a row has the poison, do something else."""

    def make(otherwise: Callable[[FloatArray], FloatArray]) -> Champion:
        def probabilities(matrix: FloatArray) -> FloatArray:
            has_poison = (matrix == POISON).any()
            return otherwise(matrix) if has_poison else champion.probabilities(matrix)

        return Champion(champion.version, champion.pipeline, probabilities)

    return make


def fails(matrix: FloatArray) -> FloatArray:
    raise ZeroDivisionError("the model cannot")


@pytest.mark.parametrize(
    ("otherwise", "error"),
    [
        (fails, ZeroDivisionError),
        (lambda matrix: np.full(len(matrix), np.nan), ValueError),
        (lambda matrix: np.full(len(matrix), 1.5), ValueError),
        (lambda matrix: np.full(len(matrix), -1e-9), ValueError),
    ],
    ids=["raises", "not a number", "above 1", "below 0"],
)
def test_a_request_that_the_model_fails_on_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned: Any, otherwise: Any, error: type[Exception]
) -> None:
    async def work(path: ScoringPath) -> None:
        bad = Row((60.0, POISON, 1.0), "bad")
        answers = await asyncio.gather(
            *(path.scorer.score([row(n), bad] if n == 4 else [row(n)]) for n in range(9)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [list] * 4 + [error] + [list] * 4
        assert [line["request_source"] for line in path.lines()] == ["test"] * 8
        assert path.scorer.n_acknowledged == 8
        assert path.scorer.n_waiting_rows == 0
        assert len(await path.scorer.score([row(1)])) == 1

    on_path(tmp_path, monkeypatch, poisoned(otherwise), work)


def test_a_full_queue_refuses_at_once_and_goes_on_when_there_is_room(
    along: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.scoring.micro_batcher.MAX_WAITING_ROWS", 5)

    async def work(path: ScoringPath) -> None:
        first = await path.hold_a_group()
        waiting = [path.scorer.submit([row(n)] * 2) for n in range(2)]
        with pytest.raises(ProblemError) as caught:
            path.scorer.submit([row(9)])
        assert (caught.value.status, caught.value.kind) == (503, "overloaded")
        assert caught.value.retry_after_seconds
        path.disk.may_go_on.set()
        await asyncio.gather(first, *waiting)
        assert path.scorer.n_waiting_rows == 0
        assert len(await path.scorer.score([row(9)] * 5)) == 5
        assert len(path.lines()) == 10

    along(work)


def test_a_group_that_cannot_be_made_durable_is_refused_and_not_counted(
    along: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(path: ScoringPath) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("selfheal.adapters.journal.os.fdatasync", full)
            answers = await asyncio.gather(*(path.scorer.score([row(n)]) for n in range(3)), return_exceptions=True)
        assert [(type(one), getattr(one, "kind", None)) for one in answers] == [
            (ProblemError, "journal_unavailable")
        ] * 3
        with pytest.raises(ProblemError, match="not acknowledged"):
            path.scorer.submit([row(4)])
        assert (path.scorer.n_acknowledged, path.scorer.n_waiting_rows) == (0, 0)
        assert not path.scorer.n_by_outcome
        keeping = asyncio.create_task(path.log.run())
        while path.log.problem is not None:
            await asyncio.sleep(0.01)
        keeping.cancel()
        assert len(await path.scorer.score([row(5)])) == 1
        assert len(path.lines()) == 1

    along(work)


def test_without_a_model_nothing_is_taken_in(along: Any) -> None:
    async def work(path: ScoringPath) -> None:
        path.scorer._holder.current = None
        with pytest.raises(ProblemError) as caught:
            await path.scorer.score([row(1)])
        assert (caught.value.status, caught.value.kind) == (503, "not_ready")
        assert path.scorer.problem == "no model is loaded yet"
        assert path.scorer.n_waiting_rows == 0

    along(work)


def test_a_client_that_gives_up_takes_nothing_from_the_others(along: Any) -> None:
    async def work(path: ScoringPath) -> None:
        first = await path.hold_a_group()
        others = [path.scorer.submit([row(n)]) for n in range(3)]
        first.cancel()
        others[1].cancel()
        path.disk.may_go_on.set()
        assert len(await others[0]) == len(await others[2]) == 1
        assert path.scorer.n_waiting_rows == 0
        assert len(path.lines()) == 4, "what was scored is logged, whether or not somebody still waits"

    along(work)


# Stopping


def refused(answers: Sequence[Any]) -> bool:
    return all(isinstance(one, ProblemError) and one.kind == "not_ready" for one in answers)


def test_a_stop_fails_what_waits_and_takes_nothing_more(along: Any) -> None:
    async def work(path: ScoringPath) -> None:
        first = await path.hold_a_group()
        others = [path.scorer.submit([row(n)] * 3) for n in range(4)]
        path.task.cancel()
        await asyncio.gather(path.task, return_exceptions=True)
        path.disk.may_go_on.set()
        path.scorer.close()
        assert refused(await asyncio.gather(first, *others, return_exceptions=True))
        assert path.scorer.n_waiting_rows == 0
        assert path.scorer.n_acknowledged == 0
        with pytest.raises(ProblemError, match="stopping"):
            path.scorer.submit([row(1)])

    along(work)


def test_a_stop_fails_all_of_a_group_of_which_one_request_failed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned: Any
) -> None:
    """It is then served request by request, and the stop comes in between."""

    async def work(path: ScoringPath) -> None:
        path.disk.may_go_on.clear()
        bad = Row((60.0, POISON, 1.0), "bad")
        submitted = [path.scorer.submit([one]) for one in (bad, row(1), row(2), row(3))]
        await asyncio.to_thread(path.disk.is_syncing.wait, TIMEOUT_SECONDS)
        path.task.cancel()
        await asyncio.gather(path.task, return_exceptions=True)
        path.disk.may_go_on.set()
        path.scorer.close()
        _, still_waiting = await asyncio.wait(submitted, timeout=0)
        assert not still_waiting
        assert isinstance(submitted[0].exception(), ZeroDivisionError)
        assert refused([one.exception() for one in submitted[1:]])
        assert path.scorer.n_waiting_rows == 0

    on_path(tmp_path, monkeypatch, poisoned(fails), work)
