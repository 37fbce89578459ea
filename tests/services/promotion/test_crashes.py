"""`kill -9` in every step of a promotion, a rollback and a forced promotion: whoever comes next finds nothing half done.

A child process kills itself before a step. The platform goes on from test to test: each begins with whatever the crash before
it and the repair after that have left, as in life.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from selfheal.adapters.decision_log import verify_decisions
from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS, STAGING_ALIAS
from selfheal.adapters.postgres import decisions, model_versions, promotions
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.domain.records import GateVerdict, Stage
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import (
    PROMOTION_STEPS,
    SWITCH_STEPS,
    force_promote,
    promote,
    rollback,
    stage,
)
from selfheal.services.promotion.registry_sync import watch_registry
from selfheal.settings import Settings
from tests.candidates import champion, passed, twin_of_champion
from tests.conftest import TEMPLATE, WITH_MLFLOW, drop_databases
from tests.forked import forking
from tests.serving.conftest import clone
from tests.times import T0

LATER = T0 + timedelta(hours=1)
MUCH_LATER = T0 + timedelta(hours=2)
TIMEOUT_SECONDS = 120.0
COMMITTED = SWITCH_STEPS[SWITCH_STEPS.index("commit") + 1 :]
"""Steps before which the version is live."""


@pytest.fixture(scope="module")
def survivor(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform that lives through all crashes of this module."""
    data_dir = tmp_path_factory.mktemp("crashes") / "data"
    opened = open_platform(clone(server, TEMPLATE, bootstrapped_template, "crashes", data_dir, WITH_MLFLOW))
    yield opened
    opened.close()
    drop_databases(server, "crashes")


def dying_in(step: str) -> Callable[[str], None]:
    def hear(heard: str) -> None:
        if heard == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return hear


def _promote(settings: Settings, verdict: GateVerdict, step: str) -> None:
    promote(open_platform(settings), verdict, LATER, on_step=dying_in(step))


def _roll_back(settings: Settings, to_version: int, step: str) -> None:
    words = {"reason": "worse", "actor": "ada"}
    rollback(open_platform(settings), to_version=to_version, now=MUCH_LATER, on_step=dying_in(step), **words)


def _force(settings: Settings, version: int, step: str) -> None:
    words = {"reason": "by my word", "actor": "ada"}
    force_promote(open_platform(settings), version, now=MUCH_LATER, on_step=dying_in(step), **words)


def kill_in_step(work: Callable[..., None], *arguments: object) -> None:
    process = forking().Process(target=work, args=arguments)
    process.start()
    process.join(TIMEOUT_SECONDS)
    assert process.exitcode == -signal.SIGKILL, "it was to die in the middle of its work"


def assert_one_is_served_with_its_decision(platform: Platform) -> None:
    """What must hold at every moment, before anybody has repaired anything."""
    in_production = model_versions.list_versions(platform.store, stage=Stage.PRODUCTION)
    assert len(in_production) == 1
    latest = promotions.list_promotions(platform.store, 1)[0]
    assert (latest.version, latest.decision_id) == (in_production[0].version, in_production[0].decision_id)
    assert decisions.find(platform.store, latest.decision_id) is not None
    assert decisions.chain_problems(platform.store) == []


def assert_all_agree(platform: Platform) -> None:
    assert_one_is_served_with_its_decision(platform)
    live = champion(platform)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == live.version
    assert platform.registry.alias_version(STAGING_ALIAS) != live.version
    staged = {version.version: version.stage.value for version in model_versions.list_versions(platform.store)}
    assert platform.registry.stage_tags() == staged
    assert verify_decisions(platform.store, platform.settings.data_dir) == []


def staged_twin(platform: Platform) -> int:
    verdict = passed(platform, twin_of_champion(platform))
    return stage(platform, verdict.shadow, verdict.decision, LATER).version


@pytest.mark.parametrize("step", PROMOTION_STEPS)
def test_a_promotion_that_was_killed_is_finished_by_the_next_try(survivor: Platform, step: str) -> None:
    before, n_before = champion(survivor), len(model_versions.list_versions(survivor.store))
    verdict = passed(survivor, twin_of_champion(survivor))
    kill_in_step(_promote, survivor.settings, verdict, step)
    assert_one_is_served_with_its_decision(survivor)
    assert (champion(survivor).version != before.version) == (step in COMMITTED)
    live = promote(survivor, verdict, LATER)
    assert (live.previous_version, live.decision_id) == (before.version, verdict.decision.decision_id)
    assert len(model_versions.list_versions(survivor.store)) == n_before + 1, "registered once"
    assert_all_agree(survivor)


@pytest.mark.parametrize("step", SWITCH_STEPS)
def test_a_rollback_that_was_killed_happened_or_did_not_and_a_look_sets_the_rest_right(
    survivor: Platform, step: str
) -> None:
    before = champion(survivor).version
    bad = promote(survivor, passed(survivor, twin_of_champion(survivor)), LATER).version
    kill_in_step(_roll_back, survivor.settings, before, step)
    assert_one_is_served_with_its_decision(survivor)
    assert champion(survivor).version == (before if step in COMMITTED else bad)
    watch_registry(survivor, MUCH_LATER)
    assert_all_agree(survivor)


@pytest.mark.parametrize("step", SWITCH_STEPS)
def test_a_forced_promotion_that_was_killed_happened_or_did_not_and_a_look_sets_the_rest_right(
    survivor: Platform, step: str
) -> None:
    before, wanted = champion(survivor).version, staged_twin(survivor)
    kill_in_step(_force, survivor.settings, wanted, step)
    assert_one_is_served_with_its_decision(survivor)
    assert champion(survivor).version == (wanted if step in COMMITTED else before)
    watch_registry(survivor, MUCH_LATER)
    assert_all_agree(survivor)
