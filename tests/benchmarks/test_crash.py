"""The crash benchmark itself: it sees every durable step, dies where it says, and does not call sound what it has not tried."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from benchmarks.crash import operations, trying
from benchmarks.crash.forks import Ended, Pipe, forked
from benchmarks.crash.operations import Flavour, nothing
from benchmarks.crash.outcome import QUICK, outcome_of, shortfalls
from benchmarks.crash.points import TRIES, Found, Results, another_try, first_plan, make_states
from benchmarks.crash.resuming import PointsFile
from benchmarks.crash.states import Trial, drop_databases, roomy_folder
from benchmarks.crash.steps import END, Step, Watch
from benchmarks.crash.trying import RANDOM_MOMENT, Point, Tried, begin_lane, run_point
from selfheal.adapters.journal import LABEL_JOURNAL, Journal
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.errors import InvalidDataError
from selfheal.services.maintenance import _delete

LABEL = ("0198", 1, "2026-03-02T12:00:00+00:00", "2026-03-02T12:00:00+00:00", "test", False, None)


# Steps


def steps_of(folder: Path, work: object, *, half_of: str | None = None) -> Ended:
    """Runs the work in a process that names each step; it dies in the middle of `half_of`."""

    def watched(pipe: Pipe) -> None:
        def on_step(step: Step) -> None:
            pipe.send("step", step.name)
            if step.name == half_of and step.finish_half is not None:
                step.finish_half()
                os._exit(9)

        watch = Watch(folder, on_step)
        watch.begin()
        work()  # type: ignore[operator]

    return forked(watched)


def journal_one(folder: Path) -> None:
    Journal(LABEL_JOURNAL, folder, 1_000_000).append([LABEL])


def test_the_steps_of_a_writer_are_seen_in_order_and_named_by_whoever_wants_them(tmp_path: Path) -> None:
    ended = steps_of(tmp_path, lambda: journal_one(tmp_path))
    place = "adapters.journal.Journal"
    assert ended.status == 0, ended.last_words
    assert [step for step in ended.messages("step") if not step.startswith("mkdir")] == [
        f"create {place}._open_next #1",
        "write adapters.journal._write_all #1",
        f"fsync {place}._open_next #1",
        f"rename {place}._open_next #1",
        f"fsync {place}._open_next #2",
        "write adapters.journal._write_all #2",
        f"fdatasync {place}.write #1",
    ]


def test_what_many_write_through_is_named_by_who_writes(tmp_path: Path) -> None:
    def delete_two() -> None:
        _delete([tmp_path / "one", tmp_path / "missing"])

    (tmp_path / "one").touch()
    ended = steps_of(tmp_path, delete_two)
    assert ended.messages("step") == ["unlink services.maintenance._delete #1"], "nothing is done to what is not there"
    ended = steps_of(tmp_path, lambda: write_atomic(tmp_path / "file", b"x"))
    assert {step.split()[0] for step in ended.messages("step")} == {"create", "rename"}


def test_steps_of_a_loop_have_one_name_from_the_third_time_on(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    ended = steps_of(tmp_path, lambda: _delete([tmp_path / str(number) for number in range(5)]))
    numbers = Counter(step.rpartition("#")[2] for step in ended.messages("step"))
    assert numbers == {"1": 1, "2": 1, "3+": 3}


def test_a_death_in_the_middle_of_a_write_leaves_half_a_line(tmp_path: Path) -> None:
    steps_of(tmp_path, lambda: journal_one(tmp_path), half_of="write adapters.journal._write_all #2")
    (path,) = LABEL_JOURNAL.files(tmp_path)
    header, rest = path.read_bytes().split(b"\n", 1)
    assert header.startswith(b"prediction_id")
    assert rest and b"\n" not in rest


def test_files_of_others_are_nobodys_step(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    ended = steps_of(tmp_path / "own", lambda: (tmp_path / "elsewhere").write_text("x"))
    assert ended.messages("step") == []


# States


def test_the_states_are_made_and_in_the_drifted_one_a_retraining_is_asked_for(server: EmbeddedServer) -> None:
    url, results = server.url("postgres"), Results()
    chosen = {"retraining": operations.OPERATIONS["retraining"]}
    with roomy_folder("selfheal-test-") as folder, Progress(disable=True) as progress:
        states = make_states(url, folder, chosen, progress, results)
    for name in states:
        drop_databases(url, name)
    assert results.errors == []
    assert states["drifted"].extra is not None, "the episode"


# Points


def half_writer(trial: Trial) -> None:
    """A faulty operation: it writes beside the place, and nobody ever moves or deletes what a crash leaves there."""
    write_atomic(trial.settings.data_dir / "result", b"x")


def has_no_result(trial: Trial) -> list[str]:
    return [] if (trial.settings.data_dir / "result").exists() else ["there is no result"]


def deaf(_: Trial) -> None:
    """Never goes on."""


@pytest.fixture
def lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = Flavour(None, nothing, half_writer, deaf, has_no_result, owns_server=True)
    careless = replace(faulty, go_on=half_writer)
    table = {"faulty": {"plain": faulty}, "careless": {"plain": careless}}
    monkeypatch.setattr(operations, "OPERATIONS", table)
    monkeypatch.setattr(trying, "OPERATIONS", table)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    begin_lane("", tmp_path, {})


@pytest.mark.usefixtures("lane")
def test_a_run_to_the_end_tells_its_steps_and_leaves_nothing_to_find() -> None:
    tried = run_point(Point("careless", "plain", END, 1))
    assert tried.is_reached, tried.error
    assert [step.split()[0] for step in tried.steps] == ["mkdir", "create", "rename"]
    assert not any(tried.findings.values()), tried.findings


@pytest.mark.usefixtures("lane")
def test_an_operation_that_does_not_go_on_is_stuck_and_half_files_are_left_behind() -> None:
    steps = run_point(Point("careless", "plain", END, 1)).steps
    (rename,) = [step for step in steps if step.startswith("rename")]
    stuck = run_point(Point("faulty", "plain", rename, 1))
    assert stuck.is_reached
    assert stuck.findings["stuck"] == ["there is no result"]
    assert stuck.n_rounds == 3
    careless = run_point(Point("careless", "plain", rename, 1))
    assert careless.findings["stuck"] == []
    (half,) = careless.findings["left_behind"]
    assert half.startswith("half a file in .: .result.")


@pytest.mark.usefixtures("lane")
def test_a_step_that_was_not_taken_is_no_point() -> None:
    tried = run_point(Point("careless", "plain", "rename nobody #1", 1))
    assert not tried.is_reached
    results = Results()
    results.add(tried)
    assert (results.n_points, results.unreached.total()) == (0, 1)


def found(*steps: str) -> dict[str, Found]:
    one = Found()
    for step in steps:
        one.note("plain", step, times=5, seed=77)
    return {"ingest": one}


def test_the_plan_has_every_step_as_often_as_asked() -> None:
    plan = first_plan(found("a #1", "b #3+", END), 20, random.Random(1))
    assert Counter(point.step for point in plan) == {"a #1": 20, "b #3+": 20, END: 20}
    assert {point.ordinal for point in plan if point.step == "b #3+"} == {1, 2, 3, 4, 5}
    assert {point.ordinal for point in plan if point.step == "a #1"} == {1}


def test_a_run_that_goes_on_tries_what_is_missing(tmp_path: Path) -> None:
    done = [
        tried("ingest", "one"),
        tried("ingest", "one"),
        tried("ingest", "two", lost=["a row"]),
        tried("tick", "three"),
    ]
    before = Results(file=PointsFile(tmp_path / "points.jsonl", "code 1"))
    for one in done:
        before.add(one)
    PointsFile(tmp_path / "points.jsonl", "code 2").append(tried("ingest", "two"))
    with (tmp_path / "points.jsonl").open("ab") as file:
        file.write(b'{"code":"code 1","poi')  # killed while it wrote
    results = Results.resumed(PointsFile(tmp_path / "points.jsonl", "code 1"), ["ingest"])
    assert results.by == {"ingest": {"one": 2, "two": 1}}, "of this code and the chosen operations"
    assert results.counts == {"lost": 1}
    plan = first_plan(found("one", "two"), 3, random.Random(1), results.by)
    assert Counter(point.step for point in plan) == {"one": 1, "two": 2}
    results.add(tried("ingest", "two"))
    assert len(PointsFile(tmp_path / "points.jsonl", "code 1").points) == 5


def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    for text in ("mine\n", "mine"):
        (tmp_path / "notes.txt").write_text(text)
        with pytest.raises(InvalidDataError, match=r"notes.txt, line 1: no crash point"):
            PointsFile(tmp_path / "notes.txt", "code 1")
        assert (tmp_path / "notes.txt").read_text() == text


def test_a_step_that_is_not_reached_is_tried_at_last_in_the_state_that_had_it() -> None:
    point, one = Point("ingest", "plain", "a #1", 1, ordinal=3), found("a #1")["ingest"]
    assert another_try(point, TRIES - 1, one, random.Random(1)) == replace(point, seed=77, ordinal=1)
    assert another_try(point, 1, one, random.Random(1)).seed != 77


# What was measured


def tried(operation: str, step: str, **findings: list[str]) -> Tried:
    return Tried(Point(operation, "plain", step, 1), True, findings)


def test_findings_are_counted_by_key_and_points_by_step() -> None:
    results = Results()
    results.add(tried("ingest", "a #1", lost=["prediction 1", "prediction 2"]))
    results.add(tried("ingest", "a #1"))
    outcome = outcome_of(results, None, None, QUICK, 1.0)
    assert (outcome.lost, outcome.duplicated, outcome.crash_points) == (2, 0, 2)
    assert outcome.crash_points_by == {"ingest": {"a #1": 2}}
    assert not outcome.is_ok


def test_what_was_not_measured_is_said_and_is_not_ok() -> None:
    results = Results()
    results.add(tried("ingest", "a #1"))
    results.known["ingest"] |= {"a #1", "b #1"}
    short = list(shortfalls(results, Counter(api=300), replace(QUICK, operations=("ingest", "backup"))))
    assert short == [
        "no crash point of backup: this build does not have it, or its steps were not found",
        "0 of 1 crash points of ingest, b #1",
        *[
            f"0 of 1 kills of {role}"
            for role in ("up", "code", "webserver", "daemon", "mlflow", "run_worker", "postgres", "everything")
        ],
    ]


def test_a_random_moment_is_a_step_like_any_other() -> None:
    results = Results()
    results.known["tick"] |= {f"{RANDOM_MOMENT}, calm"}
    demands = replace(QUICK, operations=("tick",), kills=None, api_kills=None)
    assert f"0 of 1 crash points of tick, {RANDOM_MOMENT}, calm" in list(shortfalls(results, Counter(), demands))
