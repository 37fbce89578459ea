"""A version can be trained again from its record, to the bit; what is not as it was is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfheal.kit.errors import MissingArtifactError, PermanentError
from selfheal.services.platform import Platform
from selfheal.services.promotion.going_live import promote
from selfheal.services.verification.reproduction import changed_since, reproduce
from tests.candidates import log_worse_model, passed, twin_of_champion
from tests.times import T0
from tests.traffic import SECOND


def test_the_version_in_production_is_trained_again_to_the_bit_whatever_runs_the_fits(platform: Platform) -> None:
    told: list[tuple[int, int]] = []
    found = reproduce(platform, 1, lambda n_done, n_fits: told.append((n_done, n_fits)))
    assert found.differences == ()
    assert found.changed_since == ()
    assert told[-1] == (16, 16)
    shadow = platform.registry.shadow_of_run(found.mlflow_run_id)
    assert found.data_sha256 == shadow.training_set.sha256
    in_threads = platform.settings.model_copy(update={"training_jobs": 2, "training_backend": "threading"})
    assert reproduce(replace(platform, settings=in_threads), 1).is_identical


def test_another_model_under_the_same_record_is_found(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the recorded seed, threshold and model were of another training."""
    run_id = reproduce(platform, 1).mlflow_run_id
    shadow = platform.registry.shadow_of_run(run_id)
    assert shadow.record is not None
    claimed = replace(shadow, threshold=0.9, record=replace(shadow.record, seed=99))
    monkeypatch.setattr(platform.registry, "shadow_of_run", lambda run_id: claimed)
    found = reproduce(platform, 1)
    assert not found.is_identical
    assert any(difference.startswith("threshold: 0.9 and") for difference in found.differences)
    assert any("model content" in difference and "random_state" in difference for difference in found.differences)


def test_what_has_changed_since_is_named(platform: Platform) -> None:
    shadow = platform.registry.shadow_of_run(reproduce(platform, 1).mlflow_run_id)
    assert shadow.record is not None
    then = replace(
        shadow.record,
        code_version="0.0.1+older",
        libraries=shadow.record.libraries | {"scikit-learn": "1.0"},
        param_grid={"classify__C": ["7"]},
    )
    changes = changed_since(then, platform.contract)
    assert [change.split(" was ")[0] for change in changes] == ["candidates of classify__C", "code", "scikit-learn"]
    assert "code was 0.0.1+older, is " in changes[1]


def test_what_was_not_recorded_cannot_be_trained_again_and_says_so(platform: Platform) -> None:
    with pytest.raises(PermanentError, match="version 7 is not registered"):
        reproduce(platform, 7)
    promote(platform, passed(platform, twin_of_champion(platform)), T0 + SECOND)
    with pytest.raises(MissingArtifactError, match=r"metadata\.json is not there"):
        reproduce(platform, 2)
    promote(platform, passed(platform, log_worse_model(platform)), T0 + 2 * SECOND)
    with pytest.raises(PermanentError, match="version 3 was trained before trainings were recorded"):
        reproduce(platform, 3)
