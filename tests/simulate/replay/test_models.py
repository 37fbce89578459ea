"""A champion is trained as the bootstrap trains it; a refit has its parameters and never scores rows that it saw as a reference."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal.kit.errors import TrainingFailedError
from selfheal.simulate.replay.models import Rows, can_refit, refit
from tests.simulate.replay.small import deployment, source


def learned() -> Rows:
    return source().rows.at(np.arange(600))


def test_a_refit_has_the_champions_parameters_and_its_own_threshold() -> None:
    champion = deployment().champion
    model = refit(champion, learned(), seed=2)
    assert set(champion.parameters) == {"classify__C"}
    assert model.parameters == champion.parameters
    assert 0 < model.threshold < 1


def test_a_refit_of_the_same_rows_and_seed_gives_the_same_bits() -> None:
    champion = deployment().champion
    features = learned().features(champion.contract)
    first, second = (refit(champion, learned(), seed=2).score(features) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_refit_of_few_rows_prints_nothing(recwarn: pytest.WarningsRecorder) -> None:
    refit(deployment().champion, learned().at(np.arange(60)), seed=2)
    assert [str(found.message) for found in recwarn] == []


def test_the_reference_of_a_refit_is_scored_out_of_fold() -> None:
    model = refit(deployment().champion, learned(), seed=2)
    in_sample = model.score(model.reference.features(model.contract))
    assert len(model.reference) == 600
    assert (np.abs(in_sample - model.reference_probability) > 0).mean() > 0.99


def test_fewer_than_ten_rows_of_a_class_cannot_be_learned_from() -> None:
    rows = learned()
    few = rows.at(np.concatenate([np.flatnonzero(rows.labels == 0)[:200], np.flatnonzero(rows.labels == 1)[:9]]))
    assert not can_refit(few.labels)
    with pytest.raises(TrainingFailedError, match="9 of 209 rows are positive; 10 of each class"):
        refit(deployment().champion, few, seed=2)


def test_the_champion_is_better_than_chance_on_rows_it_did_not_see() -> None:
    found = deployment()
    scores = found.champion.score(found.stream.features(0, len(found.stream)))
    positive = found.stream.true_label == 1
    assert scores[positive].mean() > 1.5 * scores[~positive].mean()
