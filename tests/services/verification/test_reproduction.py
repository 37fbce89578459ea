"""A version can be trained again from its record, to the bit; what is not as it was is named."""

from __future__ import annotations

import json
import os
import platform as machine
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from selfheal.domain.retraining.training import TrainedModel, library_versions, train
from selfheal.kit.errors import MissingArtifactError, PermanentError
from selfheal.services.platform import Platform
from selfheal.services.promotion.going_live import promote
from selfheal.services.verification import reproduction
from selfheal.services.verification.reproduction import TOLERANCE, changed_since, reproduce
from selfheal.simulate.demo import settings_environment
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


def round_otherwise(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """As if a training on this machine gave a coefficient that lies so far from the one it gave then."""

    def train_otherwise(*arguments: Any) -> TrainedModel:
        model = train(*arguments)
        model.pipeline.steps[-1][1].coef_[0, 0] += by
        return model

    monkeypatch.setattr(reproduction, "train", train_otherwise)


def on_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "library_versions", lambda: library_versions() | {"processor": "of tomorrow"})


def test_on_the_same_machine_a_last_digit_is_a_difference(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    round_otherwise(monkeypatch, 1e-15)
    found = reproduce(platform, 1)
    assert not found.is_reproduced
    assert (found.tolerance, found.n_rounded) == (0.0, 0)
    assert any("coef_" in difference for difference in found.differences)


def test_on_another_processor_last_digits_may_differ_and_the_tolerance_is_named(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_otherwise(monkeypatch, 1e-12)
    on_another_processor(monkeypatch)
    found = reproduce(platform, 1)
    assert found.is_reproduced
    assert not found.is_identical
    assert (found.tolerance, found.n_rounded) == (TOLERANCE, 1)
    assert [change.split(" was ")[0] for change in found.changed_since] == ["processor"]


def test_on_another_processor_another_model_is_another_model(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_otherwise(monkeypatch, 100 * TOLERANCE)
    on_another_processor(monkeypatch)
    found = reproduce(platform, 1)
    assert not found.is_reproduced
    assert found.tolerance == TOLERANCE


@pytest.mark.skipif(machine.machine() not in {"x86_64", "AMD64"}, reason="another OpenBLAS has no such kernels")
def test_a_version_is_reproduced_by_a_process_with_other_kernels_of_blas(platform: Platform) -> None:
    own = library_versions()["blas"]
    kernel = "Sandybridge" if "Sandybridge" not in own else "Nehalem"
    done = subprocess.run(
        [sys.executable, "-m", "selfheal", "reproduce", "1", "--json"],
        env=os.environ | settings_environment(platform.settings) | {"OPENBLAS_CORETYPE": kernel},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["is_reproduced"] is True
    assert any(change.startswith("blas was ") and kernel in change for change in found["changed_since"])


def test_what_was_not_recorded_cannot_be_trained_again_and_says_so(platform: Platform) -> None:
    with pytest.raises(PermanentError, match="version 7 is not registered"):
        reproduce(platform, 7)
    promote(platform, passed(platform, twin_of_champion(platform)), T0 + SECOND)
    with pytest.raises(MissingArtifactError, match=r"metadata\.json is not there"):
        reproduce(platform, 2)
    promote(platform, passed(platform, log_worse_model(platform)), T0 + 2 * SECOND)
    with pytest.raises(PermanentError, match="version 3 was trained before trainings were recorded"):
        reproduce(platform, 3)
