"""Which versions a repair may come of, and that a repaired version is judged, served and trained again as any other."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pandas as pd
import pytest
from sqlalchemy import text

from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.records import Action, Onset, Repair, ShadowModel, Trigger
from selfheal.domain.retraining.dataset import ORIGIN, ORIGINAL
from selfheal.services.platform import Platform
from selfheal.services.promotion.going_live import promote, rollback
from selfheal.services.repairs import ladder_for
from selfheal.services.retraining import gather_training_set, judge, original_rows, train_shadow
from selfheal.services.verification.reproduction import reproduce
from tests import builders
from tests.candidates import passed, repair_of, twin_of_champion
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

    original = original_rows(platform, version)
    assert original is not None
    fitted, labels = platform.registry.training_set(platform.versions.find(1)).frame, rows.frame  # type: ignore[arg-type]
    labels = labels[labels[ORIGIN] != ORIGINAL]
    assert len(original.frame) == len(fitted) + len(labels), "the rows of the fit that is kept, and the repair's own"
    features = list(platform.contract.feature_names)
    assert original.frame[features].iloc[: len(fitted)].equals(fitted[features])
    assert original.frame["prediction_id"].iloc[len(fitted) :].tolist() == labels["prediction_id"].tolist()
    assert original.source.startswith("the training set of version 1 (")
    assert f", and {len(labels):,} rows that version 2 and what it repairs were fitted to" in original.source


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
    assert may_return(platform) == [2, 1]
    with platform.store.engine.begin() as connection:
        connection.execute(text("UPDATE model_metadata SET contract_hash = 'another' WHERE version = 2"))
    assert may_return(platform) == [1]


def may_return(platform: Platform, changed_at: datetime | None = None) -> list[int]:
    """Archived versions that may return, as asked after a change at that time."""
    onset = None if changed_at is None else Onset(changed_at, changed_at, changed_at, 0.001, "outcome", 500, 500)
    champion = platform.versions.champion().version
    asked = builders.decision(
        action=Action.TRAIN, champion_version=champion, trigger_reason=Trigger.DRIFT.value, onset=onset
    )
    ladder = ladder_for(platform, asked)
    assert ladder is not None
    assert ladder.champion.version == champion
    return [one.version for one in ladder.archived]


def go_live(platform: Platform, shadow: ShadowModel, hour: int) -> None:
    promote(platform, passed(platform, shadow), T0 + hour * HOUR)


def test_what_returned_and_was_rolled_back_does_not_return_under_another_number_before_the_next_change(
    platform: Platform,
) -> None:
    """Versions 3 and 4 are version 1 again, 4 by way of 3."""
    go_live(platform, twin_of_champion(platform), 1)
    assert may_return(platform) == [1]
    go_live(platform, repair_of(platform, 1, Repair.RETURN), 2)
    assert may_return(platform) == [2], "version 1 is what serves"
    rollback(platform, to_version=None, reason="worse", actor="ada", now=T0 + 3 * HOUR)
    assert (platform.versions.champion().version, may_return(platform)) == (2, [])
    assert may_return(platform, T0 + 2.5 * HOUR) == [], "the change was before the rollback"
    assert may_return(platform, T0 + 4 * HOUR) == [3], "the relation is another one now"


def test_copies_of_one_fit_take_one_place_and_corrections_are_no_copies(platform: Platform) -> None:
    for hour, (repair, version) in enumerate(
        ((Repair.THRESHOLD, 1), (Repair.RETURN, 2), (Repair.PLATT, 3), (Repair.RETRAINING, None)), 1
    ):
        made = twin_of_champion(platform) if version is None else repair_of(platform, version, repair)
        go_live(platform, made, hour)
    assert may_return(platform) == [4, 3], "versions 1, 2 and 3 give the same probabilities"


def test_a_fit_that_came_back_after_a_rollback_of_its_copy_may_return_once_it_was_replaced(platform: Platform) -> None:
    go_live(platform, repair_of(platform, 1, Repair.THRESHOLD), 1)
    rollback(platform, to_version=1, reason="another threshold was worse", actor="ada", now=T0 + 2 * HOUR)
    go_live(platform, twin_of_champion(platform), 3)
    assert may_return(platform) == [1], "what ended it at last was a promotion"
