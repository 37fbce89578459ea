"""The picture of a world: the loss of each policy in days since the change, and below it what each policy did."""

from __future__ import annotations

from typing import Any

import pytest

from selfheal.simulate.replay.report_figures import MARKS, MAX_POINTS, change_day, smoothed_loss, world_figure
from tests.simulate.replay.results import line, results

EVENTS = [(24.0 * 7, "alarm", 0), (24.0 * 8, "trained", 1), (24.0 * 8, "promoted", 1), (24.0 * 12, "rolled_back", 1)]


def traces(figure: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in figure["data"] if "name" in trace}


def test_a_point_is_the_mean_of_the_rows_of_a_week_and_lies_on_its_last_day() -> None:
    days = {"n_rows": [10] * 6 + [30] * 2, "brier": [1.0] * 6 + [9.0] * 2}
    first, step, values = smoothed_loss([line(0.1, days=8, change_day=5.0, by_day=days)])
    assert (first, step) == (1 - 5.0, 1), "the first day ends four days before the change"
    assert values[5] == pytest.approx(0.1)
    assert values[-1] == pytest.approx((5 * 1.0 + 2 * 9.0) / (5 * 10 + 2 * 30), abs=1e-4)


def test_seeds_are_pooled_by_rows_and_days_without_any_are_unknown() -> None:
    few = {"n_rows": [0] * 9, "brier": [0.0] * 9}
    many = {"n_rows": [0] * 7 + [4, 4], "brier": [0.0] * 7 + [1.0, 1.0]}
    _, _, values = smoothed_loss([line(0.1, days=9, by_day=few), line(0.1, days=9, by_day=many)])
    assert values[:7] == [None] * 7
    assert values[7:] == [0.25, 0.25]


@pytest.mark.parametrize("n_days", [1, MAX_POINTS, MAX_POINTS + 1, 18_000])
def test_a_line_of_decades_has_few_points_and_ends_on_the_last_day(n_days: int) -> None:
    first, step, values = smoothed_loss([line(0.1, days=n_days, change_day=None)])
    assert len(values) <= MAX_POINTS
    assert first + step * (len(values) - 1) == n_days


def test_marks_are_in_the_row_of_their_policy_on_the_day_since_the_change() -> None:
    (result,) = results({"w": {"never": [0.2], "weekly": [0.1]}}, events=EVENTS)
    drawn = traces(world_figure(result, "world-0"))
    assert drawn["alarm"]["x"] == [2.0, 2.0]
    assert drawn["promotion"]["y"] == [1, 0], "the first policy in the upper row"
    assert drawn["alarm"]["y"] == [1.3, 0.3], "not hidden by what it causes"
    assert drawn["promotion"]["x"] == [3.0, 3.0]
    assert drawn["rollback"]["x"] == [7.0, 7.0]
    assert set(drawn) == {"never", "weekly", *(word for word, _, _ in MARKS.values())}


def test_the_change_is_marked_where_one_is_known() -> None:
    (known,), (unknown,) = results({"w": {"never": [0.2]}}), results({"w": {"never": [0.2]}}, change_day=None)
    shown, bare = (world_figure(result, "p")["layout"] for result in (known, unknown))
    assert [shape["x0"] for shape in shown["shapes"]] == [0]
    assert bare["shapes"] == []
    assert "since the start" in bare["xaxis"]["title"]["text"]


def test_results_of_a_release_that_recorded_no_events_are_drawn_without_marks() -> None:
    old = line(0.2)
    del old["events"], old["change_h"]
    assert change_day(old) == 5.0
    (result,) = results({"w": {"never": [0.2]}})
    object.__setattr__(result, "lines", {"never": {1: old}})
    assert traces(world_figure(result, "p"))["alarm"]["x"] == []


def test_a_policy_that_did_nothing_has_its_row() -> None:
    (result,) = results({"w": {"never": [0.2], "oracle": [0.1]}})
    assert world_figure(result, "p")["layout"]["yaxis2"]["ticktext"] == ["oracle", "never"]
