"""NannyML's estimate alerts when scores leave the reference's, without a label; Python 3.13 has no NannyML and is told so."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.engine import What, replay
from selfheal.simulate.replay.peers.nannyml_estimate import NannyEstimate, alerting_metrics, chunk_rows, fitted_cbpe
from selfheal.simulate.replay.worlds import MixShift
from tests.simulate.replay.small import CHANGED, deployment

needs_nannyml = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="NannyML 0.13.1 is not for Python 3.13 and later"
)


@needs_nannyml
def test_a_chunk_like_the_reference_is_no_alert_and_one_of_other_scores_is() -> None:
    model = deployment().champion
    estimator = fitted_cbpe(model)
    n_rows = chunk_rows(model)
    like = model.reference_probability[:n_rows]
    assert alerting_metrics(estimator, like, model.threshold) == []
    assert "roc_auc" in alerting_metrics(estimator, np.full(n_rows, 0.5) + 1e-3 * like, model.threshold)


@needs_nannyml
def test_a_change_that_moves_the_scores_is_followed_by_a_retraining() -> None:
    moved = replace(CHANGED, name="moved", changes=(MixShift(1.5),), per_day=300.0)
    found = replay(deployment(moved), NannyEstimate())
    assert found.deployment.change is not None
    alarms = [event.time for event in found.events if event.what is What.ALARM]
    assert alarms
    assert alarms[0] > found.deployment.change
    assert [event.what for event in found.events[:3]] == [What.ALARM, What.TRAINED, What.PROMOTED]


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nannyml.performance_estimation.confidence_based", None)
    with pytest.raises(ConfigurationError, match=r"needs NannyML, .*pip install 'selfheal\[replay\]'"):
        fitted_cbpe(deployment().champion)
