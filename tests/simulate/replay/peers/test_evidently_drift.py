"""Evidently's alarm is Evidently's own: the same share of drifted columns as its report gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.contract import FloatArray
from selfheal.simulate.replay.engine import What, replay
from selfheal.simulate.replay.models import Model, Rows
from selfheal.simulate.replay.peers.evidently_drift import EvidentlyAlarm, drifted_share
from selfheal.simulate.replay.worlds import FromScenario, MixShift
from tests.simulate.replay.small import CHANGED, DAY, deployment, source

MOVED = replace(CHANGED, name="moved", changes=(MixShift(1.5), FromScenario()), per_day=300.0, days_after=12.0)
"""All inputs and the relation change."""

NAMES = ("temperature_c", "load_ratio", "restarts")


def moved(n_rows: int, by: float) -> dict[str, FloatArray]:
    rows = source().rows.at(np.arange(n_rows))
    return {
        "temperature_c": rows.columns["temperature_c"] + 40 * by,
        "load_ratio": rows.columns["load_ratio"] * (1 + by),
        "restarts": rows.columns["restarts"],
    }


def model_with(n_reference: int) -> Model:
    rows = source().rows.at(np.arange(2_000, 2_000 + n_reference))
    return replace(deployment().champion, reference=Rows(dict(rows.columns), rows.labels))


@pytest.mark.parametrize("n_reference", [400, 1_500])  # up to 1,000 rows p-values, beyond them distances
@pytest.mark.parametrize("by", [0.0, 0.5])
def test_the_share_is_that_of_evidentlys_own_report(n_reference: int, by: float) -> None:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    model, current = model_with(n_reference), moved(300, by)
    definition = DataDefinition(numerical_columns=list(NAMES))
    sets = [
        Dataset.from_pandas(pd.DataFrame({name: columns[name] for name in NAMES}), data_definition=definition)
        for columns in (current, model.reference.columns)
    ]
    metrics = Report([DataDriftPreset()]).run(*sets).dict()["metrics"]
    share = next(m["value"]["share"] for m in metrics if isinstance(m["value"], dict) and "share" in m["value"])
    assert drifted_share(current, model) == pytest.approx(share)
    assert (share > 0.5) == (by > 0)


def test_an_alarm_after_the_change_retrains_at_most_daily_and_waits_after_a_promotion() -> None:
    found = replay(deployment(MOVED), EvidentlyAlarm())
    alarms = [event.time for event in found.events if event.what is What.ALARM]
    assert alarms
    assert (np.diff(alarms) >= DAY).all()
    promoted = [event.time for event in found.events if event.what is What.PROMOTED]
    trained = [event.time for event in found.events if event.what is What.TRAINED]
    assert all(not (time < other < time + 7 * DAY) for time in promoted for other in trained)
