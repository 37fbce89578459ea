"""Which versions a repair may come of, and that a repaired version is judged, served and trained again as any other."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pytest
from sqlalchemy import text

from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.records import Action, Repair, Trigger
from selfheal.services.platform import Platform
from selfheal.services.promotion.going_live import promote
from selfheal.services.repairs import ladder_for
from selfheal.services.retraining import gather_training_set, judge, train_shadow
from selfheal.services.verification.reproduction import reproduce
from tests import builders
from tests.candidates import passed, twin_of_champion
from tests.services.steps import decide, tick
from tests.times import T0
from tests.traffic import SECOND, serve, toy_rows

HOUR = timedelta(hours=1)


def frequent_failures(n_rows: int) -> pd.DataFrame:
    """Rows whose classes have the inputs that they always had; of four, three are failures."""
    rows = toy_rows(10 * n_rows)
    events, others = rows[rows[TRUE_LABEL] == 1], rows[rows[TRUE_LABEL] == 0]
    both = pd.concat([events.head(n_rows * 3 // 4), others.head(n_rows // 4)])
    return both.sample(frac=1.0, random_state=1).reset_index(drop=True)


def test_a_repaired_version_is_judged_by_the_gates_says_what_it_is_and_can_be_made_again(platform: Platform) -> None:
    sent = serve(platform, frequent_failures(2_000))
    tick(platform, sent.last_at + SECOND)
    now = sent.last_at + HOUR
    decision = decide(platform, Trigger.DRIFT, now, "e1")
    assert decision.action is Action.TRAIN
    rows = gather_training_set(platform, decision, None, now)
    shadow = train_shadow(platform, rows, now)
    assert shadow.record is not None
    assert shadow.record.repair is not None
    choice = shadow.record.repair
    assert choice.repair in {Repair.THRESHOLD, Repair.PRIOR_SHIFT, Repair.PLATT}
    assert (shadow.params["repair"], shadow.params["repaired_version"]) == (choice.repair.value, 1)
    verdict = judge(platform, shadow, rows, now)
    assert verdict.decision.reason.endswith(f"(the challenger is {choice.reason})")
    version = promote(platform, passed(platform, shadow), now)
    assert platform.registry.shadow_of_run(version.mlflow_run_id).record == shadow.record
    found = reproduce(platform, version.version)
    assert found.differences == ()
    assert found.is_identical


@pytest.mark.parametrize("trigger", [Trigger.MANUAL, Trigger.BOOTSTRAP])
def test_a_person_and_a_bootstrap_ask_for_a_new_fit(platform: Platform, trigger: Trigger) -> None:
    asked = builders.decision(action=Action.TRAIN, champion_version=1, trigger_reason=trigger.value)
    assert ladder_for(platform, asked) is None


def test_by_setting_every_retraining_is_a_new_fit(platform: Platform) -> None:
    asked = builders.decision(action=Action.TRAIN, champion_version=1, trigger_reason=Trigger.DRIFT.value)
    assert ladder_for(platform, asked) is not None
    always_new = platform.settings.model_copy(update={"repairs": "retraining"})
    assert ladder_for(replace(platform, settings=always_new), asked) is None


def test_archived_versions_may_return_unless_a_rollback_ended_them_or_the_contract_was_another(
    platform: Platform,
) -> None:
    for number in (1, 2):
        promote(platform, passed(platform, twin_of_champion(platform)), T0 + number * HOUR)
    asked = builders.decision(action=Action.TRAIN, champion_version=3, trigger_reason=Trigger.DRIFT.value)

    def may_return() -> list[int]:
        ladder = ladder_for(platform, asked)
        assert ladder is not None
        assert ladder.champion.version == 3
        return [one.version for one in ladder.archived]

    assert may_return() == [2, 1]
    with platform.store.engine.begin() as connection:
        connection.execute(text("UPDATE model_metadata SET contract_hash = 'another' WHERE version = 2"))
    assert may_return() == [1]
