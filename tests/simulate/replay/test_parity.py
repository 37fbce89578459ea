"""A replay decides what Dagster decides on Postgres and MLflow, from the same rows and labels at the same times."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from benchmarks import heal
from benchmarks.measured import MeasuredOtherwiseError
from benchmarks.parity import Parity, compare_deployment, compare_ticks, compared
from benchmarks.parity_cases import ACTIONS, BASE, LOOSE, TRIGGERS, USE_CASE
from selfheal.domain.records import Action, Decision, GateResult, GateStatus
from selfheal.settings import Settings
from selfheal.simulate.replay.worlds import FromScenario, Sudden, all_labels
from tests.selfheal_assets.conftest import overrides_of
from tests.simulate.replay.small import deployment
from tests.times import T0

WORLD = replace(
    BASE,
    name="changed and back",
    champion_age_days=1.0,
    days_after=2.5,
    changes=(FromScenario(when=Sudden(1.0)),),
    labels=all_labels(1.0, 0.25),
)


@pytest.mark.integration
def test_dagster_and_the_replay_take_the_same_decisions(settings: Settings) -> None:
    where = {name: value for name, value in overrides_of(settings).items() if name not in LOOSE | {"use_case": ""}}
    found = compare_deployment(
        deployment(WORLD),
        USE_CASE,
        settings.data_dir,
        interval=timedelta(hours=6),
        seed=1,
        overrides=LOOSE,
        where=where,
    )
    assert found.differences == []
    assert found.compared >= 8
    assert found.ticks >= 10
    assert {Action.TRAIN, Action.PROMOTE} <= found.by_action.keys()


def decision(**changes: Any) -> Decision:
    gate = GateResult("auc_roc", GateStatus.PASS, 0.8, 0.72, "AUC-ROC 0.8", n_rows=60)
    speed = GateResult("shadow_scoring", GateStatus.PASS, 0.9, None, "agrees; 0.1 ms a row")
    values: dict[str, Any] = {
        "decision_id": "a",
        "created_at": T0,
        "model_name": "toy",
        "trigger_reason": "drift",
        "action": Action.PROMOTE,
        "reason": "better",
        "actor": "drift_sensor",
        "gates": (gate, speed),
    }
    return Decision(**(values | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"action": Action.REJECT},
        {"reason": "worse"},
        {"created_at": T0 + timedelta(microseconds=1)},
        {"n_labels": 1},
        {"data_sha256": "0"},
        {"gates": (replace(decision().gates[0], value=0.8 + 2**-53), decision().gates[1])},
    ],
)
def test_a_decision_that_differs_in_a_bit_is_a_difference(changes: dict[str, Any]) -> None:
    assert len(compared([decision()], [decision(**changes)]).differences) == 1
    assert len(compared([decision()], []).differences) == 1


def test_what_depends_on_mlflow_or_on_the_clock_of_the_machine_is_no_difference() -> None:
    slower = replace(decision().gates[1], sentence="agrees; 0.3 ms a row")
    other = decision(decision_id="b", mlflow_run_id="r", model_sha256="0", gates=(decision().gates[0], slower))
    found = compared([decision()], [other])
    assert found.differences == []
    assert (found.compared, found.by_action, found.by_trigger) == (1, {"promote": 1}, {"drift": 1})


def test_a_tick_that_one_side_lacks_or_judges_otherwise_is_a_difference() -> None:
    found = Parity()
    compare_ticks({"a": ("stable",), "b": ("stable",)}, {"b": ("harmful_shift",), "c": ("stable",)}, found)
    assert found.ticks == 3
    assert len(found.differences) == 3


def test_a_comparison_without_each_action_and_trigger_has_no_figures() -> None:
    actions, triggers = (Counter(dict.fromkeys(names, 40)) for names in (ACTIONS, TRIGGERS))
    heal.check_parity(Parity(240, 100, actions, triggers), quick=False)
    heal.check_parity(Parity(20, 10), quick=True)
    for few in (Parity(199, 100, actions, triggers), Parity(240, 100, actions - Counter(rollback=36), triggers)):
        with pytest.raises(MeasuredOtherwiseError):
            heal.check_parity(few, quick=False)
