"""A policy with settings is named by text, and a sweep is the grid of its variants; wrong ones are refused before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest

from selfheal.domain.retraining.gates import GATES
from selfheal.kit.errors import ConfigurationError
from selfheal.services.retraining import gate_limits
from selfheal.settings import load_settings
from selfheal.simulate.replay.peers.calendar import Never
from selfheal.simulate.replay.plans import chosen_policies
from selfheal.simulate.replay.policies import OURS, POLICIES, PolicyEntry, PolicyFactory, policy_named, policy_rank
from selfheal.simulate.replay.policy_spec import (
    DECIDING,
    MAX_COMBINATIONS,
    PolicySpec,
    parse_policy,
    short_names,
    sweep,
    with_settings_of,
)
from tests.simulate.replay.small import CALM, deployment

made_with: list[Mapping[str, str]] = []


def factory_with(settings: Mapping[str, str]) -> PolicyFactory:
    made_with.append(settings)
    return lambda *_: Never()


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy of that name that has settings."""
    entry = PolicyEntry(OURS, "the platform", lambda *_: Never(), make_with=factory_with)
    monkeypatch.setitem(POLICIES, OURS, entry)


def test_a_sweep_is_every_combination_in_the_order_given() -> None:
    found = sweep(PolicySpec(OURS), ["PROMOTION_COOLDOWN_DAYS=7,1", "gate_level=0.1, 0.05"])
    assert [str(spec) for spec in found] == [
        f"ours PROMOTION_COOLDOWN_DAYS={days} GATE_LEVEL={level}" for days in (7, 1) for level in (0.1, 0.05)
    ]
    assert [parse_policy(str(spec)) for spec in found] == list(found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["PROMOTION_COOLDOWN_DAY=1"], "no setting PROMOTION_COOLDOWN_DAY; did you mean PROMOTION_COOLDOWN_DAYS"),
        (["PROMOTION_COOLDOWN_DAYS=soon"], "PROMOTION_COOLDOWN_DAYS=soon: .*valid number"),
        (["GATE_LEVEL=0.05,0.9"], "GATE_LEVEL=0.9: .*less than 0.5"),
        (
            ["PRIMARY_METRIC=f1,accuracy"],
            "PRIMARY_METRIC=accuracy: .*'f1', 'log_loss', 'brier', 'auc' or 'expected_cost'",
        ),
        (["COST_OF_MISS=0"], "COST_OF_MISS=0: .*greater than 0"),
        (["GATE_LEVEL"], "'GATE_LEVEL' is no setting with a value"),
        (["GATE_LEVEL=,"], "no value; write for example"),
        (["GATE_LEVEL=0.1", "GATE_LEVEL=0.2"], "GATE_LEVEL is given twice"),
        (["GATE_LEVEL=" + ",".join(f"0.{n:03}" for n in range(1, 2 + MAX_COMBINATIONS))], "more than 64 combinations"),
    ],
)
def test_a_sweep_of_what_the_settings_refuse_is_refused(options: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        sweep(PolicySpec(OURS), options)


def test_the_settings_in_force_that_a_gate_judges_by_are_those_of_its_replay() -> None:
    """A verdict of a replay that took one of them from the defaults would be another gate's."""
    limits = [limit for spec in GATES for limit in spec.limits if not limit.brings_setting]
    assert {limit.setting_name for limit in limits} <= set(DECIDING)


def test_the_primary_metric_can_be_swept_and_reaches_the_gates() -> None:
    swept = ["PRIMARY_METRIC=f1,brier,expected_cost", "COST_OF_MISS=8"]
    found = [gate_limits(load_settings(**spec.overrides)) for spec in sweep(PolicySpec(OURS), swept)]  # type: ignore[arg-type]
    assert [limits["primary_metric"] for limits in found] == ["f1", "brier", "expected_cost"]
    assert {limits["cost_of_miss"] for limits in found} == {8.0}
    in_force = with_settings_of(OURS, load_settings(primary_metric="auc", max_f1_degradation_pct=5.0))
    assert str(in_force) == "ours PRIMARY_METRIC=auc MAX_F1_DEGRADATION_PCT=5.0"


def test_a_variant_is_made_with_its_settings_and_named_with_them(ours: None) -> None:
    entry = policy_named("ours PROMOTION_COOLDOWN_DAYS=30")
    assert entry.name == "ours PROMOTION_COOLDOWN_DAYS=30"
    assert made_with[-1] == {"promotion_cooldown_days": "30"}
    assert entry.run(deployment(CALM), timedelta(days=1), seed=1).n_decisions == 10
    assert policy_rank(entry.name) == policy_rank(OURS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("never GATE_LEVEL=0.1", "the policy 'never' has no settings, such as GATE_LEVEL; only 'ours' has"),
        ("ours GATE_LEVEL=7", "GATE_LEVEL=7"),
        ("ours NOTHING_LIKE_IT=7", "no setting NOTHING_LIKE_IT"),
        (" ", "a policy without a name"),
    ],
)
def test_settings_of_another_policy_and_wrong_ones_are_refused(ours: None, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        policy_named(text)


def test_a_sweep_is_compared_with_never_and_the_oracle_unless_others_are_named(ours: None) -> None:
    variants = ("ours GATE_LEVEL=0.1", "ours GATE_LEVEL=0.2")
    known = ("never", "weekly", "oracle", "ours")
    assert chosen_policies([], ["GATE_LEVEL=0.1,0.2"], known) == ("never", "oracle", *variants)
    assert chosen_policies(["weekly"], ["GATE_LEVEL=0.1,0.2"], known) == ("weekly", *variants)
    assert chosen_policies([], [], known) == known


def test_ours_on_the_own_logs_has_the_settings_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMOTION_COOLDOWN_DAYS", "3")
    monkeypatch.setenv("API_PORT", "8123")
    settings = load_settings()
    assert chosen_policies([], [], ("never", "ours"), settings=settings) == (
        "never",
        "ours PROMOTION_COOLDOWN_DAYS=3.0",
    )
    swept = chosen_policies(["never"], ["GATE_LEVEL=0.1", "PROMOTION_COOLDOWN_DAYS=9"], (), settings=settings)
    assert swept == ("never", "ours GATE_LEVEL=0.1 PROMOTION_COOLDOWN_DAYS=9"), "what is swept takes its place"


def test_decisions_too_far_apart_for_ours_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigurationError, match="at least once a day"):
        chosen_policies(["ours"], [], (), interval=timedelta(days=2))
    assert chosen_policies(["weekly"], [], (), interval=timedelta(days=2)) == ("weekly",)


def test_variants_have_short_names_for_charts() -> None:
    specs = [str(PolicySpec(OURS, (("A", a), ("B", "2")))) for a in ("1", "30")]
    assert short_names(["never", *specs]) == {"never": "never", specs[0]: "ours 1", specs[1]: "ours 30"}
    assert short_names([specs[0]]) == {specs[0]: "ours 1/2"}
