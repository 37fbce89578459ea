"""Rules of label sanity: what contradicts the scores is withheld, a drift is not, and nothing is withheld for ever by mistake."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring.label_sanity import BY_CONSISTENCY, RELEASE_AFTER, alert_of, check_labels, sentence_of
from selfheal.domain.records import LabelCheck, LabelQuarantine

START = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CALM = 1_000


def labels(*parts: pd.DataFrame, source: str = "bank") -> pd.DataFrame:
    """Return parts one after the other, a label a minute."""
    frame = pd.concat([part.assign(label_source=part.get("label_source", source)) for part in parts], ignore_index=True)
    times = pd.DatetimeIndex([START + number * MINUTE for number in range(len(frame))])
    return frame.assign(received_at=times)


def right(n: int, seed: int = 1, odds: float = 1.0) -> pd.DataFrame:
    """Return calibrated scores of 7 % events with their labels; `odds` multiplies the odds of the outcome."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.2, 2.7, n)
    true = odds * scores / (1 - scores + odds * scores)
    return pd.DataFrame({"probability": scores, "true_label": (rng.random(n) < true).astype(np.int64)})


def inverted(n: int, seed: int = 2) -> pd.DataFrame:
    return right(n, seed).assign(true_label=lambda rows: 1 - rows["true_label"])


def unrelated(n: int, rate: float, seed: int = 3) -> pd.DataFrame:
    is_event = np.random.default_rng(seed).random(n) < rate
    return right(n, seed).assign(true_label=is_event.astype(np.int64))


def reversed_ranking(n: int, seed: int = 4) -> pd.DataFrame:
    """Return labels of which those of low scores are events, as many as before: a relation that has turned."""
    rows = right(n, seed)
    other = np.sort(rows["probability"])[::-1][np.argsort(np.argsort(rows["probability"]))]
    return rows.assign(true_label=(np.random.default_rng(seed).random(n) < other).astype(np.int64))


@pytest.mark.parametrize("seed", range(5))
def test_right_labels_are_not_suspect(seed: int) -> None:
    assert check_labels(labels(right(2_000, seed)), [], 1) == LabelCheck(2_000)


@pytest.mark.parametrize(
    "after",
    [
        unrelated(900, 0.07),
        unrelated(900, 0.24),
        right(900, 3, odds=5.0),
        right(900, 3, odds=1 / 3),
        reversed_ranking(900),
    ],
    ids=["relation gone", "rate fourfold without relation", "odds fivefold", "odds a third", "ranking turned"],
)
def test_a_drift_is_not_suspect(after: pd.DataFrame) -> None:
    found = [check_labels(labels(right(CALM), after[:n]), [], 1).open for n in (50, 100, 300, 900)]
    assert found == [()] * 4


@pytest.mark.parametrize("n_wrong", [60, 200, 900])
def test_inverted_labels_are_withheld_from_the_first_one_on(n_wrong: int) -> None:
    (found,) = check_labels(labels(right(CALM), inverted(n_wrong)), [], 7).open
    n_missed = (found.started_at - START) / MINUTE - CALM
    assert -n_wrong <= n_missed <= max(10, 0.4 * n_wrong), "later ticks reach back as far as the fault"
    assert found.model_version == 7
    assert found.label_source is None
    if n_wrong >= 200:
        assert found.is_exchanged
        assert n_missed <= 0


@pytest.mark.parametrize("n_wrong", [250, 400])
def test_the_first_labels_of_a_version_may_be_inverted(n_wrong: int) -> None:
    """A version that has just gone live has no labels before: what is learned of it would be the fault."""
    for seed in range(5):
        (found,) = check_labels(labels(inverted(n_wrong, seed)), [], 1).open
        assert found.is_exchanged
        assert found.started_at <= START + 5 * MINUTE


def test_one_class_only_is_withheld_if_both_came_before() -> None:
    ones = right(120, 5).assign(true_label=1)
    assert check_labels(labels(right(CALM), ones), [], 1).open
    assert check_labels(labels(ones), [], 1).open == (), (
        "the first labels may be of one class: it has its reasons in time"
    )


def test_labels_of_one_sender_are_withheld_and_those_of_others_are_not() -> None:
    good, bad = right(400, 6).assign(label_source="bank"), inverted(400, 7).assign(label_source="agency")
    mixed = pd.concat([good, bad]).sample(frac=1.0, random_state=1)
    (found,) = check_labels(labels(right(CALM).assign(label_source="bank"), mixed), [], 1).open
    assert found.label_source == "agency"
    assert found.is_exchanged


@pytest.mark.parametrize("seed", range(3))
def test_inverted_labels_are_withheld_where_both_classes_are_as_frequent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.beta(1, 1.3, 1_600)
    outcomes = (rng.random(1_600) < scores).astype(np.int64)
    rows = pd.DataFrame(
        {"probability": scores, "true_label": np.where(np.arange(1_600) < CALM, outcomes, 1 - outcomes)}
    )
    (found,) = check_labels(labels(rows), [], 1).open
    assert found.is_exchanged
    assert abs((found.started_at - START) / MINUTE - CALM) <= 10
    assert "inverted they would be as announced" in found.reasons[0]


def test_a_broken_feed_begins_nothing() -> None:
    assert check_labels(labels(right(CALM), inverted(400)), [], 1, is_feed_broken=True).open == ()


def quarantine(started: int, **fields: object) -> LabelQuarantine:
    return replace(LabelQuarantine("q", 1, START + started * MINUTE, ("a reason",)), **fields)  # type: ignore[arg-type]


def test_labels_that_are_right_again_end_a_quarantine_with_the_last_wrong_one() -> None:
    rows = labels(right(CALM), inverted(300), right(300, 9))
    found = check_labels(rows, [quarantine(CALM, is_exchanged=True)], 1)
    assert found.open == ()
    (ended,) = found.changed
    assert ended.ended_at is not None
    assert ended.released_at is None, "what was wrong remains withheld"
    n_after = (ended.ended_at - START) / MINUTE - (CALM + 299)
    assert 0 <= n_after <= 100


def test_too_few_right_labels_end_nothing() -> None:
    assert check_labels(labels(right(CALM), inverted(300), right(60, 9)), [quarantine(CALM)], 1).open


def test_what_was_withheld_is_no_reason_to_withhold_what_follows() -> None:
    rows = labels(right(500), inverted(600), right(400, 9))
    ended = quarantine(500, ended_at=START + 1_099 * MINUTE)
    assert check_labels(rows, [ended], 1).changed == ()


def test_a_jump_that_stays_is_released_by_consistency() -> None:
    rows = labels(right(CALM), unrelated(900, 0.75))
    (found,) = check_labels(rows, [], 1).open
    assert not found.is_exchanged
    later = rows.assign(received_at=rows["received_at"] + RELEASE_AFTER)
    (released,) = check_labels(later, [found], 1).changed
    assert released.released_by == BY_CONSISTENCY
    assert check_labels(later, [released], 1).open == (), "it is the world now"


def test_exchanged_classes_are_released_by_people_only() -> None:
    rows = labels(inverted(1_500))
    kept = quarantine(0, is_exchanged=True, started_at=START - 10 * RELEASE_AFTER)
    assert check_labels(rows, [kept], 1).open == (kept,)
    freed = replace(kept, released_at=START, released_by="a person")
    assert check_labels(rows, [freed], 1).open == ()


def test_the_alert_says_why_since_when_and_what_to_do() -> None:
    check = check_labels(labels(right(CALM), inverted(400)), [], 1)
    alert = alert_of(check)
    assert alert is not None
    assert alert.kind == "labels_suspect"
    for words in ("are withheld", "the wrong way round", "`selfheal release-labels`", check.open[0].quarantine_id):
        assert words in alert.message
    assert sentence_of(check.open) in alert.message
    assert alert_of(LabelCheck(3)) is None


def test_labels_of_one_batch_are_withheld_or_trusted_together() -> None:
    rows = labels(right(CALM), inverted(400))
    batches = rows.assign(received_at=rows["received_at"].iloc[rows.index // 200 * 200].to_numpy())
    (found,) = check_labels(batches, [], 1).open
    assert found.started_at == START + CALM * MINUTE
