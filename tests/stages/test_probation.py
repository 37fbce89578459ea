"""A promoted version watched by the one it replaced."""

from __future__ import annotations

from datetime import timedelta

import pytest

from selfheal.platform import Platform
from selfheal.promotion import force_promote, stage
from selfheal.records import (
    Action,
    ShadowModel,
    Stage,
)
from selfheal.registry import PRODUCTION_ALIAS
from selfheal.stages.probation import watch_probation
from selfheal.store import decisions, models
from tests.candidates import log_worse_model, passed
from tests.times import T0
from tests.traffic import SECOND, serve, toy_rows

HOUR = timedelta(hours=1)


@pytest.fixture
def worse(platform: Platform) -> ShadowModel:
    """Version 2, registered and not in production: it predicts the opposite of what is true."""
    shadow = log_worse_model(platform)
    staged = stage(platform, shadow, passed(platform, shadow).decision, T0)
    assert (staged.version, staged.stage) == (2, Stage.STAGING)
    return shadow


def test_a_worse_version_is_rolled_back_once_by_its_probation(platform: Platform, worse: ShadowModel) -> None:
    forced_at = T0 + HOUR
    force_promote(platform, 2, reason="a person's word", actor="ada", now=forced_at)
    assert watch_probation(platform, forced_at).reason.startswith("0 labels so far")

    sent = serve(platform, toy_rows(150), start=forced_at + SECOND)
    early = watch_probation(platform, sent.last_at + HOUR)
    assert (early.n_labels, early.is_harmful) == (150, False), "too few labels to tell"
    assert models.champion(platform.store).version == 2

    sent = serve(platform, toy_rows(150, seed=2), start=sent.last_at + SECOND)
    report = watch_probation(platform, sent.last_at + HOUR)
    assert (report.version, report.n_labels, report.is_harmful) == (2, 300, True)
    assert models.champion(platform.store).version == 1
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1

    for hour in range(2, 4):
        assert not watch_probation(platform, sent.last_at + hour * HOUR).is_harmful
    (recorded,) = decisions.recent(platform.store, actions=[Action.ROLLBACK])
    assert (recorded.actor, recorded.trigger_reason, recorded.reason) == ("probation", "probation", report.reason)
    assert models.champion(platform.store).version == 1


def test_after_its_probation_a_version_is_not_rolled_back(platform: Platform, worse: ShadowModel) -> None:
    force_promote(platform, 2, reason="a person's word", actor="ada", now=T0 + HOUR)
    serve(platform, toy_rows(300), start=T0 + HOUR + SECOND)
    end = T0 + HOUR + timedelta(hours=platform.settings.probation_hours)
    report = watch_probation(platform, end)
    assert (report.is_on_probation, report.is_harmful) == (False, False)
    assert models.champion(platform.store).version == 2


def test_rows_served_by_the_old_version_do_not_count_in_probation(platform: Platform, worse: ShadowModel) -> None:
    old = models.champion(platform.store)
    force_promote(platform, 2, reason="a person's word", actor="ada", now=T0 + HOUR)
    serve(platform, toy_rows(300), start=T0 + HOUR + SECOND, version=old)  # an API that had not swapped yet
    assert watch_probation(platform, T0 + 2 * HOUR).n_labels == 0
