"""The rule of probation: only a loss beyond its noise, on enough labels, while probation lasts, is harmful."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest

from selfheal.contract import FloatArray
from selfheal.probation import judge_probation
from selfheal.records import ModelVersion, ProbationReport
from tests.builders import model_version
from tests.times import T0

ON_PROBATION = model_version(probation_until=T0 + timedelta(hours=72))
MIN_LABELS = 200


def scores(n_rows: int, seed: int = 1) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Labels, true probabilities, and probabilities turned upside down."""
    rng = np.random.default_rng(seed)
    true = rng.beta(0.8, 2.0, n_rows)
    return (rng.random(n_rows) < true).astype(np.int64), true, 1 - true


LABELS, TRUE, TURNED = scores(400)


def judged(
    new: FloatArray = TRUE,
    old: FloatArray | None = TURNED,
    *,
    version: ModelVersion = ON_PROBATION,
    n_rows: int = 400,
    now: datetime = T0 + timedelta(hours=1),
) -> ProbationReport:
    return judge_probation(
        version, LABELS[:n_rows], new[:n_rows], None if old is None else old[:n_rows], MIN_LABELS, now
    )


def test_a_version_that_is_worse_than_the_one_before_is_harmful() -> None:
    report = judged(new=TURNED, old=TRUE)
    assert report.is_harmful
    assert report.brier_change is not None
    assert report.brier_change_low is not None
    assert 0 < report.brier_change_low < report.brier_change
    assert report.brier_change == pytest.approx(np.mean((TURNED - LABELS) ** 2) - np.mean((TRUE - LABELS) ** 2))
    assert "worse than version 1 on 400 rows" in report.reason


def test_a_version_that_is_better_is_not_harmful() -> None:
    report = judged()
    assert not report.is_harmful
    assert report.is_on_probation
    assert "better than version 1" in report.reason


def test_a_loss_within_its_noise_is_not_harmful() -> None:
    noisy = np.clip(TRUE + np.random.default_rng(2).normal(0.005, 0.1, 400), 0, 1)
    report = judged(new=noisy, old=TRUE)
    assert report.brier_change is not None
    assert report.brier_change_low is not None
    assert report.brier_change_low < 0 < report.brier_change
    assert not report.is_harmful


def test_two_versions_that_say_the_same_are_not_harmful() -> None:
    report = judged(new=TRUE, old=TRUE)
    assert (report.brier_change, report.brier_change_low) == (0.0, 0.0)
    assert not report.is_harmful


def test_too_few_labels_do_not_judge() -> None:
    report = judged(new=TURNED, old=TRUE, n_rows=MIN_LABELS - 1)
    assert (report.brier_change, report.is_harmful) == (None, False)
    assert report.reason == "199 labels so far, 200 wanted"
    assert judged(new=TURNED, old=TRUE, n_rows=MIN_LABELS).is_harmful


def test_before_the_first_label_it_is_labels_that_are_wanting() -> None:
    report = judged(old=None, n_rows=0)
    assert report.reason == "0 labels so far, 200 wanted"
    assert not report.is_harmful


@pytest.mark.parametrize("hours", [72, 73])
def test_after_probation_nothing_is_harmful(hours: int) -> None:
    report = judged(new=TURNED, old=TRUE, now=T0 + timedelta(hours=hours))
    assert (report.is_on_probation, report.is_harmful) == (False, False)
    assert report.brier_change is not None


def test_a_version_without_probation_is_not_harmful() -> None:
    report = judged(new=TURNED, old=TRUE, version=model_version(probation_until=None))
    assert (report.is_on_probation, report.is_harmful) == (False, False)


def test_without_an_earlier_version_there_is_nothing_to_compare() -> None:
    first = model_version(version=1, previous_version=None, probation_until=T0 + timedelta(hours=72))
    report = judged(old=None, version=first)
    assert report.reason == "no earlier version to compare with"
    assert (report.brier_change, report.is_harmful) == (None, False)


def test_an_earlier_version_that_cannot_score_is_told_and_not_harmful() -> None:
    report = judged(new=TURNED, old=None)
    assert report.reason == "version 1 cannot score these rows"
    assert not report.is_harmful
