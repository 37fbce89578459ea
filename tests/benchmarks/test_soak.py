"""The soak benchmark's own rules: what is sampled, who is killed when, what fills, and what minutes of retention delete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.soak import filling
from benchmarks.soak.__main__ import _victims
from benchmarks.soak.bounds import Bound
from benchmarks.soak.filling import N_TO_FILL, NotFilledError, fill
from benchmarks.soak.outcome import Outcome
from benchmarks.soak.plan import FIRST_KILLS, POSTGRES_ONCE_IN, QUICK, Done, Plan, short_of
from benchmarks.soak.samples import memory_of
from benchmarks.soak.series import Series
from benchmarks.soak.upkeep import IN_DAYS, MINUTES_PER_DAY
from benchmarks.witness import Ledger
from selfheal.services.maintenance import cutoffs
from selfheal.settings import load_settings
from serving.ingest.labels import REMEMBERED_LABELS
from serving.scoring.idempotency import MAX_REMEMBERED
from tests.times import T0


def test_the_first_seconds_of_each_life_of_a_process_are_left_out() -> None:
    series = Series()
    for life in range(2):
        for number in range(40):
            series.add(1_000.0 * life + 10.0 * number, 500.0 - number if number < 10 else 400.0, life)
    whole, warm = series.trend(), series.settled(after_start_s=100.0).trend()
    assert whole is not None and warm is not None
    assert whole.mean < -1_000, "it seems to shrink"
    assert (warm.as_list(), warm.n_samples) == ([0.0, 0.0, 0.0], 60)


def kills_of(plan: Plan) -> list[tuple[float, str]]:
    """Return the kills of a plan, with their times in seconds."""
    victim, seconds, kills = _victims(plan), plan.first_kill_s, []
    while seconds < plan.seconds:
        kills.append((seconds, victim(seconds)))
        seconds = plan.next_after("kill", seconds)
    return kills


def test_every_process_is_killed_at_first_and_what_is_measured_lives_on() -> None:
    plan = Plan(2.0)
    first = [role for seconds, role in kills_of(plan) if seconds < plan.first_s]
    later = Counter(role for seconds, role in kills_of(plan) if seconds >= plan.first_s)
    assert Counter(first) == Counter(FIRST_KILLS)
    assert later.keys() == {"run_worker", "postgres"}
    assert later["postgres"] == later.total() // POSTGRES_ONCE_IN


def test_kills_are_a_few_minutes_apart_from_the_first_to_the_last() -> None:
    times = [0.0] + [seconds for seconds, _ in kills_of(Plan(2.0))] + [7_200.0]
    assert max(later - earlier for earlier, later in pairwise(times)) <= 300


HELD_BYTES = 32 << 20
FORKING = f"""
import os, sys, time
held = b"x" * {HELD_BYTES}
print(os.getpid(), flush=True)
sys.stdin.readline()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process that holds some memory, and forks a child that shares it once a line is sent."""
    command = [sys.executable, "-I", "-c", FORKING]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert started.stdout is not None
    assert int(started.stdout.readline()) == started.pid
    yield started
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


def fork(parent: subprocess.Popen[str]) -> psutil.Process:
    """Let the parent fork, and return its child."""
    assert parent.stdin is not None and parent.stdout is not None
    parent.stdin.write("\n")
    parent.stdin.flush()
    return psutil.Process(int(parent.stdout.readline()))


def test_the_memory_of_a_process_does_not_fall_when_a_child_shares_its_pages(parent: subprocess.Popen[str]) -> None:
    ours = psutil.Process(parent.pid)
    alone = memory_of([ours]).own
    fork(parent)
    assert alone > HELD_BYTES
    assert memory_of([ours]).own == pytest.approx(alone, rel=0.02)


def test_pages_that_processes_of_one_role_share_count_once(parent: subprocess.Popen[str]) -> None:
    child = fork(parent)
    both = memory_of([psutil.Process(parent.pid), child]).own
    assert HELD_BYTES < both < 1.5 * HELD_BYTES


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Stand in for the API: the first answer to each path is 503; yields what was sent."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body, path = json.loads(request.content), request.url.path
        is_first = path not in {earlier for earlier, _ in sent}
        sent.append((path, body))
        if is_first:
            return httpx.Response(503)
        given = {"prediction": 1, "probability": 0.7, "threshold": 0.5, "model_version": 1}
        predictions = [given | {"prediction_id": row["prediction_id"]} for row in body.get("instances", ())]
        return httpx.Response(200, json={"predictions": predictions})

    real = httpx.Client
    monkeypatch.setattr(filling, "RETRY_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(httpx, "Client", partial(real, transport=httpx.MockTransport(answer)))
    yield sent


def test_filling_sends_as_many_ids_and_labels_as_are_remembered_and_repeats_what_was_not_answered(
    api: list[tuple[str, dict[str, Any]]],
) -> None:
    n = 2 * filling.BATCH_ROWS + 1
    filled = fill("http://api", Ledger([{"a": 1}, {"a": 2}], [0, 1]), n)
    ids = [one.prediction_id for one in filled.acknowledged]
    assert len(set(ids)) == len(ids) == n
    assert filled.labels == {one.prediction_id: one.number % 2 for one in filled.acknowledged}
    repeated, again = [body for path, body in api if path == "/predict/batch"][:2]
    assert repeated == again, "the same ids"
    assert max(REMEMBERED_LABELS, MAX_REMEMBERED) <= N_TO_FILL


def test_an_api_that_refuses_what_fills_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = httpx.MockTransport(lambda _: httpx.Response(422, text="no such field"))
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=refusing))
    with pytest.raises(NotFilledError, match="POST /predict/batch: 422: no such field"):
        fill("http://api", Ledger([{"a": 1}]), 3)


def test_retention_in_minutes_reaches_everything_that_is_ever_deleted() -> None:
    settings = load_settings().model_copy(update=dict.fromkeys(IN_DAYS, 10 / MINUTES_PER_DAY))
    old = replace(cutoffs(settings, T0, T0), left_behind=T0 - timedelta(minutes=10))
    assert {getattr(old, name) for name in old.__slots__} == {T0 - timedelta(minutes=10)}


def test_what_was_not_done_is_a_problem() -> None:
    problems = list(short_of(Done(), QUICK, Ledger([])))
    for what in ("ticks", "kills", "maintenances", "promotions", "predictions", "labels", "to fill"):
        assert any(what in problem for problem in problems), what
    assert "no runs were deleted: what is kept was not measured" in problems


def test_an_api_that_was_started_again_while_slopes_were_measured_is_a_problem() -> None:
    problems = list(short_of(Done(n_api_lives_measured=2), QUICK, Ledger([])))
    assert any(problem.startswith("2 lives of the API") for problem in problems)


def test_a_whole_run_kills_every_process() -> None:
    done = Done(kills=Counter(dict.fromkeys(FIRST_KILLS, 5)))
    done.kills["api"] = 0
    assert [one for one in short_of(done, Plan(2.0), Ledger([])) if one.startswith("no kill")] == ["no kill of api"]


def outcome(**changes: object) -> Outcome:
    values = {
        "hours": 2.0,
        "slope_pct_per_day": {},
        "bounds": {},
        "acknowledged": 1,
        "labels_acknowledged": 1,
        "lost": 0,
        "duplicated": 0,
        "wrong_values": 0,
        "verify_findings": (),
        "stuck": (),
        "kills_by": {},
        "ticks": 1,
        "maintenances": 1,
        "promotions": 1,
        "n_starts": 1,
        "deleted": {},
        "is_quick": True,
    }
    return Outcome(**(values | changes))  # type: ignore[arg-type]


def test_a_quick_run_judges_no_slope_and_everything_else() -> None:
    assert outcome().problems == []
    assert outcome(lost=1, stuck=("after a kill of api: it does not answer",)).problems == [
        "stuck: after a kill of api: it does not answer",
        "lost: 1",
    ]
    assert "api rss: too few samples to tell" in outcome(is_quick=False).problems


def test_a_bound_that_does_not_hold_is_a_problem_of_any_run() -> None:
    for figure in (float("nan"), 1e6):
        (problem,) = outcome(bounds={"bytes of evidence": Bound(figure, 4_000, "for each prediction")}).problems
        assert problem.startswith("bytes of evidence: not ")


def test_a_slope_that_is_bounded_is_explained_with_its_figure_and_its_limit() -> None:
    found = outcome(slope_pct_per_day={"api": {"fds": [-5.0, 1.0, 7.0]}}, floors={"api": {"fds": [30.0] * 20}})
    assert found.explained["api"]["fds"]["figure"] == 0.0
    assert found.explained["api"]["fds"]["limit"] == 4.0
    written = json.loads(json.dumps(found.to_dict()))
    assert written["explained"]["evidence"].keys() == {"rows", "bytes"}
