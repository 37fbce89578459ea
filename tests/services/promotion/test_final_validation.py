"""What is looked at before production: that a model loads, answers, scores as in training, and is quick enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from selfheal.domain.records import ModelVersion, ShadowModel
from selfheal.kit.errors import IntegrityError, ModelRefusedError
from selfheal.services.platform import Platform
from selfheal.services.promotion.final_validation import (
    BATCH_ROWS,
    FLOOR_MS,
    Latency,
    check_answers_again,
    check_latency,
    check_parity,
    measure,
    validate,
)
from tests.candidates import champion, log_model_without_scores, log_worse_model, twin_of_champion
from tests.domain.model.test_examination import Scores, two_columns
from tests.times import T0


def as_version(platform: Platform, shadow: ShadowModel) -> ModelVersion:
    return replace(
        champion(platform),
        mlflow_run_id=shadow.mlflow_run_id,
        artifact_uri=shadow.artifact_uri,
        artifact_sha256=shadow.artifact_sha256,
    )


MATRIX = np.linspace(0.0, 1.0, 12).reshape(4, 3)


def test_a_sound_model_passes_as_a_candidate_and_as_a_version(platform: Platform) -> None:
    live = champion(platform)
    validate(platform, log_worse_model(platform), live)  # whether it is a good model is the gates' question
    validate(platform, live)


def test_a_model_file_that_changed_since_training_is_refused(platform: Platform) -> None:
    shadow = replace(twin_of_champion(platform), artifact_sha256="0" * 64)
    with pytest.raises(IntegrityError, match=r"model\.skops has changed: expected sha256 000"):
        validate(platform, shadow)


def test_a_model_of_another_contract_is_refused(platform: Platform) -> None:
    shadow = replace(twin_of_champion(platform), contract_hash="f" * 64)
    with pytest.raises(ModelRefusedError, match="trained under contract ffffffffffff"):
        validate(platform, shadow)


def test_a_model_that_scores_otherwise_than_in_training_is_refused(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = platform.registry.reference(champion(platform))
    frame.loc[frame.index[-1], "probability"] += 1e-6
    monkeypatch.setattr(platform.registry, "reference", lambda _: frame)
    with pytest.raises(ModelRefusedError, match=r"scores differently from training \(by up to 1e-06\)"):
        validate(platform, twin_of_champion(platform))


def test_a_model_without_scores_is_refused(platform: Platform) -> None:
    with pytest.raises(ModelRefusedError, match="gives nan to nan as probabilities"):
        validate(platform, log_model_without_scores(platform))


def test_a_version_that_was_served_here_goes_back_unopened_if_its_file_is_the_same(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = champion(platform)
    platform.registry.cache.remember(live, T0)
    monkeypatch.setattr(platform.registry, "load", raising)
    check_answers_again(platform, live)
    with pytest.raises(ModelRefusedError, match="trained under contract ffffffffffff"):
        monkeypatch.undo()
        check_answers_again(platform, replace(live, contract_hash="f" * 64))


def test_a_version_whose_file_changed_does_not_go_back_though_it_was_served_here(platform: Platform) -> None:
    changed = replace(champion(platform), artifact_sha256="0" * 64)
    platform.registry.cache.remember(changed, T0)
    with pytest.raises(IntegrityError, match=r"model\.skops has changed"):
        check_answers_again(platform, changed)


def test_a_version_that_was_served_elsewhere_is_opened_and_asked(platform: Platform) -> None:
    without_scores = log_model_without_scores(platform)
    with pytest.raises(ModelRefusedError, match="gives nan to nan"):
        check_answers_again(platform, as_version(platform, without_scores))


def test_a_champion_that_does_not_load_keeps_nobody_out(platform: Platform) -> None:
    broken = replace(champion(platform), contract_hash="f" * 64)
    validate(platform, twin_of_champion(platform), broken)


def raising(_: Any) -> Any:
    raise ZeroDivisionError("by its own zero")


@pytest.mark.parametrize(
    ("model", "expected", "reason"),
    [
        (Scores(lambda m: two_columns(np.full(len(m), np.nan))), np.full(4, 0.5), "not numbers from 0 to 1"),
        (Scores(lambda m: two_columns(np.full(len(m), 1.5))), np.full(4, 1.5), "not numbers from 0 to 1"),
        (Scores(lambda m: two_columns(np.full(len(m), 0.5))), np.full(4, np.nan), r"differently .* \(by up to nan\)"),
        (Scores(raising), np.full(4, 0.5), "does not score: ZeroDivisionError: by its own zero"),
    ],
    ids=["nan", "beyond one", "nothing to compare with", "raising"],
)
def test_scores_that_cannot_be_compared_are_no_parity(model: Any, expected: Any, reason: str) -> None:
    with pytest.raises(ModelRefusedError, match=reason):
        check_parity(model, MATRIX, expected)


def test_without_evaluation_rows_there_is_no_parity() -> None:
    with pytest.raises(ModelRefusedError, match="no evaluation rows"):
        check_parity(Scores(lambda m: two_columns(np.full(len(m), 0.5))), MATRIX[:0], np.empty(0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_rows", "model_ms", "champion_ms", "is_refused"),
    [
        (1, 10.0, 0.01, False),  # five times the floor, however quick the champion is
        (1, 10.1, 0.01, True),
        (1, 49.0, 10.0, False),
        (1, 51.0, 10.0, True),
        (BATCH_ROWS, 50.0, 1.0, False),
        (BATCH_ROWS, 51.0, 1.0, True),
        (1, 0.1, 50.0, False),
    ],
)
def test_a_model_may_be_slower_up_to_the_factor_or_where_nobody_notices(
    n_rows: int, model_ms: float, champion_ms: float, is_refused: bool
) -> None:
    latencies = [Latency(n_rows, model_ms, champion_ms)]
    if is_refused:
        with pytest.raises(ModelRefusedError, match="MAX_LATENCY_RATIO=5 allows"):
            check_latency(latencies, 5.0)
    else:
        check_latency(latencies, 5.0)


def test_both_models_are_measured_on_one_row_and_on_a_batch() -> None:
    seen: list[tuple[str, int]] = []

    def scoring(name: str) -> Any:
        return lambda rows: seen.append((name, len(rows)))

    found = measure(scoring("model"), scoring("champion"), MATRIX)
    assert [latency.n_rows for latency in found] == list(FLOOR_MS)
    assert set(seen) == {(name, n_rows) for name in ("model", "champion") for n_rows in FLOOR_MS}
    assert all(0.0 <= latency.model_ms < float("inf") for latency in found)
