"""What settings and contract say of labels goes beside what the labels show."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from selfheal.domain.contract import LabelPolicy
from selfheal.services.label_maturity import delay_for_judging, delay_of_labels
from selfheal.services.platform import Platform
from tests.traffic import SECOND, serve, toy_rows


def test_a_declared_age_and_a_declared_policy_are_heard(platform: Platform) -> None:
    sent = serve(platform, toy_rows(600))
    period = sent.created_at[0] - SECOND, sent.last_at + timedelta(hours=5)
    found = delay_of_labels(platform, 1, *period)
    assert found.is_identifiable
    declared = replace(platform, settings=platform.settings.model_copy(update={"label_maturity_hours": 2.0}))
    assert delay_of_labels(declared, 1, *period).matured_after_s == 7_200
    never = platform.settings.model_copy(update={"label_maturity_hours": 48.0})
    assert "LABEL_MATURITY_HOURS" in delay_of_labels(replace(platform, settings=never), 1, *period).reason
    approved = replace(platform.contract, label_policy=LabelPolicy("approved_only"))
    assert approved.hash == platform.contract.hash, "who gets a label is no part of what the model sees"
    share = replace(platform.contract, label_policy=LabelPolicy("random_share", of_flagged=0.5))
    sharing = replace(platform, contract=share)
    assert delay_of_labels(sharing, 1, *period).is_identifiable
    assert "gates and probation do not know" in delay_for_judging(sharing, 1, *period).reason
    assert "below the threshold" in delay_of_labels(replace(platform, contract=approved), 1, *period).reason
