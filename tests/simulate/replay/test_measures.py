"""The figures of a replay are those of its true labels."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.simulate.replay.deployment import Kind
from selfheal.simulate.replay.engine import replay
from selfheal.simulate.replay.measures import auc_roc, figures
from selfheal.simulate.replay.models import Model
from selfheal.simulate.replay.peers.calendar import Never
from selfheal.simulate.replay.policy import Keep, Promote, Retrain, RollBack, View
from tests.simulate.replay.small import CALM, CHANGED, Scripted, deployment

DAILY = timedelta(days=1)


def retrain(view: View) -> Retrain:
    return Retrain(view.newest_labelled(400), n_original=200, alarm="drift")


def inverted(model: Model) -> Model:
    return replace(model, score=lambda features: 1 - model.score(features))


def test_losses_are_those_of_the_rows_after_the_change() -> None:
    found = replay(deployment(CHANGED), Never())
    first = found.deployment.first_after_change
    p, y = found.probability[first:], found.deployment.stream.true_label[first:]
    measured = figures(found)
    assert measured.brier == pytest.approx(np.mean((p - y) ** 2))
    assert measured.log_loss == pytest.approx(-np.mean(np.log(np.where(y == 1, p, 1 - p))))
    assert measured.n_rows_after == len(y)
    assert sum(measured.by_day.n_rows) == len(found.probability)
    assert sum(measured.by_day.brier) == pytest.approx(
        np.sum((found.probability - found.deployment.stream.true_label) ** 2)
    )


def test_never_has_no_events() -> None:
    measured = figures(replay(deployment(CHANGED), Never()))
    assert (measured.detect_h, measured.alarms, measured.trainings, measured.promotions) == (None, 0, 0, 0)


def test_alarms_before_the_change_are_false_and_those_of_two_days_are_one() -> None:
    script = Scripted(at_1=Keep("early"), at_3=Keep("drift"), at_4=Keep("drift"), at_9=Keep("drift"))
    measured = figures(replay(deployment(CHANGED), script, interval=DAILY))
    assert (measured.alarms, measured.false_alarms) == (2, 1)
    assert measured.detect_h == 24.0


def test_a_training_without_an_alarm_is_a_reaction_too() -> None:
    silent = replace(retrain(last_view()), alarm=None)
    script = Scripted(at_1=Keep("early"), at_4=silent, at_6=Keep("late"))
    assert figures(replay(deployment(CHANGED), script, interval=DAILY)).detect_h == 48.0


def last_view() -> View:
    policy = Scripted()
    replay(deployment(CHANGED), policy, interval=timedelta(days=4))
    return policy.views[0]


def test_where_nothing_can_be_repaired_every_alarm_and_training_is_false() -> None:
    measured = figures(replay(deployment(CALM), Scripted(at_6=retrain), interval=DAILY))
    assert (measured.false_alarms, measured.false_retrains, measured.trainings) == (1, 1, 1)
    harmful = figures(replay(deployment(CHANGED), Scripted(at_6=retrain), interval=DAILY))
    assert (harmful.false_alarms, harmful.false_retrains, harmful.trainings) == (0, 0, 1)


def test_a_version_that_is_provably_worse_was_wrongly_promoted_while_it_served() -> None:
    bad = inverted(deployment().champion)
    script = Scripted(at_3=Promote(bad), at_5=RollBack("worse"))
    measured = figures(replay(deployment(CALM), script, interval=DAILY))
    assert (measured.wrong_promotions, measured.wrong_promotion_h, measured.rollbacks) == (1, 48.0, 1)


def test_a_version_that_is_as_good_was_not_wrongly_promoted() -> None:
    measured = figures(replay(deployment(CALM), Scripted(at_3=Promote(deployment().champion)), interval=DAILY))
    assert (measured.promotions, measured.wrong_promotions, measured.wrong_promotion_h) == (1, 0, 0.0)


def test_in_a_natural_stream_nobody_knows_what_was_false() -> None:
    natural = replace(deployment(CALM), kind=Kind.NATURAL)
    measured = figures(replay(natural, Scripted(at_3=retrain), interval=DAILY))
    assert (measured.false_alarms, measured.false_retrains, measured.expected_brier) == (0, 0, ())


def test_figures_are_plain_values() -> None:
    measured = figures(replay(deployment(CHANGED), Scripted(at_6=retrain), interval=DAILY))
    assert json.loads(json.dumps(measured.as_json()))["trainings"] == 1


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_auc_is_the_share_of_pairs_that_are_in_order(rows: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in rows], dtype=np.int8)
    scores = np.array([score / 5 for _, score in rows])
    positive, negative = scores[labels == 1], scores[labels == 0]
    found = auc_roc(labels, scores)
    if not len(positive) or not len(negative):
        assert found is None
        return
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    assert found == pytest.approx(pairs.mean())
