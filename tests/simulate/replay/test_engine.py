"""The clock: what serves when, what is known when, and that nothing ahead is ever seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.deployment import Deployment, Selection
from selfheal.simulate.replay.engine import Replay, What, replay
from selfheal.simulate.replay.peers.adwin import AdwinRetrain
from selfheal.simulate.replay.peers.calendar import FixedInterval, Never
from selfheal.simulate.replay.policy import Promote, Reject, Retrain, RollBack, View
from selfheal.simulate.replay.stream import Stream
from tests.simulate.replay.small import CHANGED, DAY, Scripted, deployment

DAILY = timedelta(days=1)


def kinds(found: Replay) -> list[What]:
    return [event.what for event in found.events]


def retrain_on_labelled(view: View) -> Retrain:
    return Retrain(view.newest_labelled(200), n_original=300)


def test_without_a_decision_the_champion_serves_every_row() -> None:
    found = replay(deployment(), Never())
    stream = found.deployment.stream
    assert (found.version == 0).all()
    expected = found.deployment.champion.score(stream.features(0, len(stream)))
    np.testing.assert_array_equal(found.probability, expected)
    assert found.n_decisions == 40  # ten days, every six hours


def test_a_promoted_version_serves_from_the_decision_on_and_no_row_before_it() -> None:
    found = replay(deployment(), Scripted(at_4=retrain_on_labelled), interval=DAILY)
    at = found.deployment.start + 4 * DAY
    is_later = found.deployment.stream.event_time >= at
    assert (found.version == is_later).all()
    assert kinds(found) == [What.TRAINED, What.PROMOTED]
    first = int(np.argmax(is_later))
    np.testing.assert_array_equal(found.probability[first:], found.scores(1, first, len(is_later)))


def test_a_rollback_brings_the_version_before_back_and_none_beyond_it() -> None:
    script = Scripted(at_4=retrain_on_labelled, at_6=RollBack("worse"), at_8=RollBack("again"))
    found = replay(deployment(), script, interval=DAILY)
    times = found.deployment.stream.event_time - found.deployment.start
    assert set(found.version[(times >= 4 * DAY) & (times < 6 * DAY)].tolist()) == {1}
    assert set(found.version[times >= 6 * DAY].tolist()) == {0}
    assert kinds(found) == [What.TRAINED, What.PROMOTED, What.ALARM, What.ROLLED_BACK, What.ALARM]


def test_a_challenger_that_is_refused_does_not_serve_and_its_labels_count_as_used() -> None:
    def refused(view: View) -> Retrain:
        rows = view.newest_labelled(200)
        return Retrain(rows[:100], rows[100:], promote_if=lambda comparison: comparison.labels.sum() < 0)

    found = replay(deployment(), Scripted(at_5=refused), interval=DAILY)
    assert kinds(found) == [What.TRAINED, What.REJECTED]
    assert (found.version == 0).all()
    assert found.labels_used == 200


def test_too_few_rows_of_a_class_are_a_failed_training_and_change_nothing() -> None:
    found = replay(deployment(), Scripted(at_3=lambda view: Retrain(view.newest_labelled(3))), interval=DAILY)
    assert kinds(found) == [What.TRAINING_FAILED]
    assert (found.version == 0).all()


def test_a_policy_may_bring_a_model_of_its_own() -> None:
    champion = deployment().champion
    script = Scripted(at_2=Reject(np.arange(5)), at_3=Promote(champion, np.arange(10)))
    found = replay(deployment(), script, interval=DAILY)
    assert kinds(found) == [What.TRAINED, What.REJECTED, What.TRAINED, What.PROMOTED]
    assert found.labels_used == 10


def test_once_it_is_enough_the_policy_is_not_asked_again_and_what_serves_goes_on() -> None:
    policy = Scripted(at_4=retrain_on_labelled, at_6=RollBack("worse"))
    seen: list[int] = []

    def is_enough(found: Replay, now: np.datetime64) -> bool:
        seen.append(found.n_decisions)
        assert now == found.deployment.start + found.n_decisions * DAY
        return bool(found.events)

    found = replay(deployment(), policy, interval=DAILY, is_enough=is_enough)
    assert (seen, len(policy.views), found.n_decisions) == ([1, 2, 3, 4], 4, 4)
    whole = replay(deployment(), Scripted(at_4=retrain_on_labelled), interval=DAILY)
    assert (kinds(found), found.version.tolist()) == (kinds(whole), whole.version.tolist())
    np.testing.assert_array_equal(found.probability, whole.probability)


def test_the_same_replay_gives_the_same_bits() -> None:
    first, second = (replay(deployment(CHANGED), AdwinRetrain(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.probability, second.probability)
    assert first.events == second.events


@pytest.mark.parametrize("policy", [AdwinRetrain, lambda: FixedInterval(timedelta(days=2))])
def test_nothing_ahead_changes_what_was_decided_before(policy: type[AdwinRetrain]) -> None:
    whole = deployment(CHANGED)
    cut = whole.start + 6 * DAY
    before = replay(whole, policy())
    after = replay(with_another_future(whole, cut), policy())
    is_past = whole.stream.event_time < cut
    np.testing.assert_array_equal(before.probability[is_past], after.probability[is_past])
    assert [e for e in before.events if e.time < cut] == [e for e in after.events if e.time < cut]
    assert (before.probability[~is_past] != after.probability[~is_past]).any()


def with_another_future(whole: Deployment, cut: np.datetime64) -> Deployment:
    stream = whole.stream
    is_ahead = stream.event_time >= cut
    label_ahead = stream.label_time >= cut
    return replace(
        whole,
        stream=Stream(
            stream.contract,
            {name: np.where(is_ahead, values + 1.0, values) for name, values in stream.columns.items()},
            stream.event_time,
            stream.entity,
            np.where(is_ahead, 1 - stream.true_label, stream.true_label).astype(np.int8),
            stream.label_time,
            np.where(label_ahead, 1 - stream.label, stream.label).astype(np.int8),
        ),
    )


@pytest.mark.parametrize("selection", [Selection.APPROVED_ONLY, Selection.FLAGGED_ONLY])
def test_selected_labels_are_those_of_rows_that_were_served_so(selection: Selection) -> None:
    policy = Scripted(at_4=retrain_on_labelled)
    found = replay(replace(deployment(), selection=selection), policy, interval=DAILY)
    last = policy.views[-1]
    is_flagged = found.is_flagged[: last.n_rows]
    has_label = last.labels() >= 0
    assert has_label.any()
    assert not (has_label & (is_flagged != (selection is Selection.FLAGGED_ONLY))).any()


def test_an_interval_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="choose a positive one"):
        replay(deployment(), Never(), interval=timedelta(0))


def test_five_hundred_days_take_less_than_a_minute_of_cpu_where_nothing_is_trained() -> None:
    import time

    began = time.process_time()
    found = replay(deployment(), Never(), interval=timedelta(minutes=5))
    days_per_minute = 60 * found.deployment.days / (time.process_time() - began)
    assert found.n_decisions == 10 * 24 * 12
    assert days_per_minute >= 500
