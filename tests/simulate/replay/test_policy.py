"""A view ends at its moment: whatever lies ahead, it shows the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.simulate.replay.models import Rows
from selfheal.simulate.replay.policy import Comparison, Log, View, f1_gain_rule, f1_score, split_newest
from selfheal.simulate.replay.stream import UNKNOWN
from tests.simulate.replay.small import DAY, HOUR, T0, deployment, stream

N = 60


def view_at(hours: int, delays: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None) -> View:
    """A view of a stream with a row an hour; `delays` in hours, negative: the label never arrives."""
    times = T0 + np.arange(N) * HOUR
    label_time = times + DAY if delays is None else np.where(delays < 0, np.datetime64("NaT"), times + delays * HOUR)
    found = stream(N, label_time=label_time.astype("M8[us]"))
    by_arrival = np.argsort(found.label_time, kind="stable")[: int((~np.isnat(found.label_time)).sum())]
    log = Log(found, np.full(N, 0.5), np.zeros(N, np.int32), found.label_time, by_arrival, found.label_time[by_arrival])
    model = deployment().champion
    rows = Rows(found.columns, found.true_label)
    now = T0 + hours * HOUR
    return View(now, T0, int(np.searchsorted(found.event_time, now)), model, 1, T0, rows, None, log)


DELAYS = st.lists(st.integers(-5, 80), min_size=N, max_size=N).map(np.array)


@given(DELAYS, st.integers(0, 100), st.integers(0, 70))
def test_the_newest_labelled_rows_are_the_last_of_those_whose_label_has_arrived(
    delays: np.ndarray[tuple[int], np.dtype[np.int64]], hours: int, n_rows: int
) -> None:
    view = view_at(hours, delays)
    arrived = [i for i in range(min(N, hours)) if delays[i] >= 0 and i + delays[i] <= hours]
    assert view.newest_labelled(n_rows).tolist() == arrived[len(arrived) - n_rows if n_rows < len(arrived) else 0 :]
    assert np.flatnonzero(view.labels() != UNKNOWN).tolist() == arrived


@given(DELAYS, st.lists(st.integers(1, 150), min_size=1, max_size=6))
def test_each_label_arrives_once_however_often_one_asks(
    delays: np.ndarray[tuple[int], np.dtype[np.int64]], moments: list[int]
) -> None:
    moments = sorted(moments)
    since, seen = T0 - HOUR, []
    for hours in moments:
        view = view_at(hours, delays)
        seen += view.arrived(since).tolist()
        since = view.now
    assert sorted(seen) == [i for i in range(N) if delays[i] >= 0 and i + delays[i] <= moments[-1]]
    assert len(seen) == len(set(seen))


def test_no_array_of_a_view_reaches_beyond_its_moment() -> None:
    view = view_at(20)
    arrays = [*view.columns.values(), view.event_time, view.entity, view.probability, view.served_by, view.labels()]
    assert {len(array) for array in arrays} == {20}
    assert view.labels(0, 999).shape == (20,)
    assert view.labels_at(np.array([5, 40])).tolist() == [UNKNOWN, UNKNOWN]
    with pytest.raises(ValueError, match="no label"):
        view.rows(np.array([19]))


def test_a_policy_cannot_change_what_was_served() -> None:
    view = view_at(20)
    with pytest.raises(ValueError, match="read-only"):
        view.probability[0] = 0.9
    assert view.log.probability.flags.writeable  # the engine's own array


def compared(challenger: list[float], champion: list[float]) -> Comparison:
    labels = np.array([1, 1, 0, 0], dtype=np.int8)
    return Comparison(labels, np.array(challenger), 0.5, np.array(champion), 0.5)


def test_the_rule_of_thumb_promotes_from_two_percent_on() -> None:
    rule = f1_gain_rule(2.0)
    assert rule(compared([0.9, 0.9, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]))
    assert not rule(compared([0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]))
    assert not rule(compared([0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]))


def test_f1_without_positive_and_flagged_rows_is_0() -> None:
    assert f1_score(np.zeros(3, dtype=np.int8), np.zeros(3, dtype=np.bool_)) == 0.0


def test_the_newest_share_is_split_off() -> None:
    learn, judge = split_newest(np.arange(10), 0.3)
    assert (learn.tolist(), judge.tolist()) == (list(range(7)), [7, 8, 9])
