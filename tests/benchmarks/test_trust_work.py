"""The work of the benchmark of trust: pieces that are kept, a run that goes on, and an estimate of the rest."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.trust.figures import exact
from benchmarks.trust.results import Done, Results, code_of_worlds
from benchmarks.trust.work import do, jobs_of, measure
from benchmarks.trust.worlds import Figures, Found, Given, Half, Piece, TrustWorld, all_worlds, flat, found_by
from selfheal.kit.errors import InvalidDataError


def doubled(_: Given, number: float) -> dict[str, Any]:
    """Return a number of numpy's, a time that never came, and a tuple."""
    return {
        "twice": np.float64(2 * number),
        "is_even": np.bool_(number % 2 == 0),
        "never": math.inf,
        "both": (1, number),
    }


def pieces(given: Given) -> list[Piece]:
    return [Piece(f"number.{n}", doubled, (n,), float(n)) for n in range(given.tries(4, 2))]


def figures(_: Given, found: Found) -> Figures:
    return {"sum": exact(float(sum(one["twice"] for one in found.values())))}


WORLD = TrustWorld("W1", "numbers", Half.CHOSEN, pieces, figures)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    return Given(tmp_path / "rows.csv")


def run(
    given: Given, results: Results, n_processes: int = 0, **more: Any
) -> tuple[dict[str, Mapping[str, Done]], list[str]]:
    """Measure; return the pieces of each world that became complete, and what was said."""
    complete: dict[str, Mapping[str, Done]] = {}
    said: list[str] = []

    def on_world(world: TrustWorld, done: Mapping[str, Done]) -> None:
        assert world.name not in complete
        complete[world.name] = done

    measure([WORLD], given, results, n_processes=n_processes, on_world=on_world, on_progress=said.append, **more)
    return complete, said


@pytest.mark.parametrize("n_processes", [0, 1])
def test_a_world_gets_its_pieces_as_plain_values_in_their_order(given: Given, n_processes: int) -> None:
    complete, said = run(given, Results(None, given, "code"), n_processes)
    assert list(complete["W1"]) == [f"number.{n}" for n in range(4)]
    assert complete["W1"]["number.3"].found == {"twice": 6.0, "is_even": False, "never": math.inf, "both": [1, 3]}
    assert said[0].startswith("4 pieces; about 6 s on 1 idle core (")


def test_a_run_that_was_stopped_does_only_what_is_missing(given: Given, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    whole, _ = run(given, Results(path, given, "code"))
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    path.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    again, said = run(given, Results(path, given, "code"))
    assert "2 pieces, 2 are known" in said[0]
    assert {name: one.found for name, one in again["W1"].items()} == {
        name: one.found for name, one in whole["W1"].items()
    }
    once_more, said = run(given, Results(path, given, "code"))
    assert said == ["0 pieces, 4 are known; about 0 s on 1 idle core (CPU time: none)"]
    assert list(once_more["W1"]) == list(whole["W1"])


def test_results_of_other_code_rows_seeds_or_tries_do_not_count(given: Given, tmp_path: Path) -> None:
    results, (piece, *_) = Results(tmp_path / "results.jsonl", given, "code"), pieces(given)
    results.keep("W1", piece, Done(1, 0.1))

    def is_known(given: Given = given, code: str = "code", world: str = "W1", piece: Piece = piece) -> bool:
        return Results(tmp_path / "results.jsonl", given, code).find(world, piece) is not None

    other = tmp_path / "other.csv"
    other.write_text("a\n2\n")
    assert is_known()
    assert is_known(piece=replace(piece, cpu_s=9.0))
    assert not is_known(code="newer code")
    assert not is_known(world="W2")
    assert not is_known(piece=replace(piece, arguments=(7,)))
    assert not is_known(piece=replace(piece, work=pieces))
    for changed in ({"data": other}, {"streams": (other,)}, {"is_quick": True}, {"seed": 2}):
        assert not is_known(replace(given, **changed))


def test_a_file_of_something_else_is_refused(given: Given, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes\n")
    with pytest.raises(InvalidDataError, match="no result of a piece"):
        Results(tmp_path / "notes.txt", given, "code")


def test_how_much_is_left_is_said_while_a_run_goes_on(given: Given) -> None:
    _, said = run(given, Results(None, given, "code"), every=timedelta(0))
    assert said[1:] == [f"{n} of 4 pieces are done, about 0 s left" for n in (1, 2, 3, 4)]


def test_the_longest_pieces_of_a_world_are_done_first(given: Given) -> None:
    jobs = jobs_of([WORLD, replace(WORLD, name="W2")], given)
    assert [(job.world, job.piece.cpu_s) for job in jobs] == [
        (w, s) for w in ("W1", "W2") for s in (3.0, 2.0, 1.0, 0.0)
    ]
    assert [found[1].found["both"][1] for found in do(jobs, given, 0) if found is not None][:4] == [3, 2, 1, 0]


def test_found_values_are_chosen_by_whole_words() -> None:
    found = {"share_1.0": [1], "share_1.1": [2, 3], "share_15.0": [4], "share_1": [5]}
    assert found_by(found, "share_1") == [[1], [2, 3], [5]]
    assert flat(found, "share_15") == [4]


@pytest.mark.parametrize("is_quick", [True, False])
def test_every_piece_of_a_world_has_a_name_of_its_own_and_may_go_to_another_process(
    tmp_path: Path, is_quick: bool
) -> None:
    given = Given(tmp_path / "rows.csv", is_quick=is_quick)
    for world in all_worlds().values():
        found = list(world.pieces(given))
        assert len({piece.name for piece in found}) == len(found)
        for piece in found:
            assert piece.cpu_s > 0
            again = pickle.loads(pickle.dumps(piece))
            assert repr(again.arguments) == repr(piece.arguments), "their text says all that the result depends on"
            assert " at 0x" not in repr(piece.arguments)


def test_the_code_of_the_worlds_is_part_of_what_results_depend_on() -> None:
    assert code_of_worlds() == code_of_worlds()
    assert json.dumps(code_of_worlds()).count("+") == 2
