"""The named worlds of the benchmark. A world is one entry to add; none is left out because a policy does badly in it.

`covers` names the known failures of real deployments (W1 to W21) that a world rebuilds; W22 is the natural stream Elec2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.deployment import Kind, Selection
from selfheal.simulate.replay.worlds import (
    BrokenFeed,
    Burst,
    Campaign,
    ClassLabels,
    Customers,
    Delay,
    FeedFault,
    FromScenario,
    Gradual,
    GroupShift,
    InputAwakens,
    InputShift,
    Labels,
    MixShift,
    MoreEvents,
    Outage,
    PriorShift,
    Recurring,
    RelationGone,
    RiskiestChange,
    Seasonal,
    World,
    all_labels,
)

HARMLESS, HARMFUL, BROKEN = Kind.HARMLESS, Kind.HARMFUL, Kind.BROKEN

FEW, MANY = 144.0, 1_440.0
"""Predictions a day, all of them labelled a day later unless a world says otherwise."""

DAY, WEEK, MONTH = 24.0, 168.0, 720.0
"""Periods in hours."""

LATE_GOOD = Labels(
    positive=ClassLabels(delay=Delay(10.0)), negative=ClassLabels(delay=Delay(10.0), late_share=0.7, late=Delay(90.0))
)
LATE_BAD = Labels(positive=ClassLabels(delay=Delay(90.0)), negative=ClassLabels(delay=Delay(30.0)))
MORE_DEFAULTS = Labels(positive=ClassLabels(1.0), negative=ClassLabels(0.4))
APPROVED = Labels(selection=Selection.APPROVED_ONLY)
FLAGGED = Labels(selection=Selection.FLAGGED_ONLY)

_CALM = (
    World("calm", "nothing changes", HARMLESS, days_after=90.0, is_core=True),
    World("calm_50_a_day", "nothing changes, 50 predictions a day", HARMLESS, per_day=50.0),
    World(
        "returning_customers",
        "nothing changes; customers return 1 to 10 times",
        HARMLESS,
        customers=Customers(1, 10),
        is_core=True,
        covers=("W1", "W2", "W3"),
    ),
    *(
        World(
            f"customers_{times}_times",
            f"nothing changes; each customer occurs {times} times",
            HARMLESS,
            customers=Customers(times, times),
            covers=("W1", "W2", "W3"),
        )
        for times in (2, 5, 10)
    ),
    World(
        "forest_on_customers",
        "the inputs move by 2 %, a random forest can memorise customers who occur 5 times",
        HARMLESS,
        (InputShift(factor=0.02, n_inputs=3),),
        per_day=FEW,
        customers=Customers(5, 5),
        estimator="random_forest",
        covers=("W4",),
    ),
    World("resent_15", "15 % of the rows are sent again", HARMLESS, resent_share=0.15, covers=("W14",)),
    World("resent_30", "30 % of the rows are sent again", HARMLESS, resent_share=0.30, covers=("W14",)),
    World(
        "outage_and_burst",
        "a day without rows, later a day with ten times as many",
        HARMLESS,
        traffic=(Outage(240.0, 24.0), Burst(480.0, 24.0, 10.0)),
    ),
)

_LABELS = (
    World(
        "late_good_labels",
        "nothing changes; defaults are known after 10 days, 70 % of the good loans after 90",
        HARMLESS,
        champion_age_days=60.0,
        labels=LATE_GOOD,
        is_core=True,
        covers=("W5",),
    ),
    World(
        "late_bad_labels",
        "nothing changes; defaults are known after 90 days, good loans after 30",
        HARMLESS,
        champion_age_days=60.0,
        labels=LATE_BAD,
    ),
    World(
        "more_labels_of_defaults",
        "nothing changes; labels of all defaults and of 40 % of the others, ever",
        HARMLESS,
        labels=MORE_DEFAULTS,
        covers=("W6", "W20"),
    ),
    World("approved_only", "nothing changes; labels of approved rows only", HARMLESS, labels=APPROVED, covers=("W7",)),
    World("flagged_only", "nothing changes; labels of flagged rows only", HARMLESS, labels=FLAGGED),
    World("label_noise", "nothing changes; 5 % of the labels are wrong", HARMLESS, labels=Labels(noise=0.05)),
    World(
        "poisoned_week",
        "nothing changes; all labels of one week are inverted",
        HARMLESS,
        labels=Labels(poisoned=(14.0, 7.0, 1.0)),
        is_core=True,
        covers=("W8",),
    ),
)

_MIX = (
    World("mix_sudden", "other rows come, the relation remains", HARMLESS, (MixShift(0.5),)),
    World("mix_gradual", "the mix moves by 0.01 sd a day", HARMLESS, (MixShift(0.6, when=Gradual(60.0)),)),
    World(
        "mix_recurring",
        "another mix comes for two weeks in every four",
        HARMLESS,
        (MixShift(0.5, when=Recurring(28.0, 14.0)),),
    ),
    *(
        World(
            f"season_{name}",
            f"the mix moves by the {name}",
            HARMLESS,
            (MixShift(0.3, when=Seasonal(hours)),),
            days_after=90.0,
            covers=("W13",),
        )
        for name, hours in (("day", DAY), ("week", WEEK), ("month", MONTH))
    ),
    World(
        "campaigns",
        "for 3 hours every other day other rows come",
        HARMLESS,
        (MixShift(1.0, when=Campaign(48.0, 3.0)),),
        days_after=90.0,
        covers=("W13",),
    ),
    World(
        "population_mix",
        "one group grows from 5 to 15 %, another falls from 15 to 5 %; the day and the hour are inputs",
        HARMLESS,
        (GroupShift(((4, 0.15), (1, 0.05))),),
        with_calendar=True,
        covers=("W15",),
    ),
)

_CONCEPT = (
    World("sudden", "all rows change, champion 30 days old", HARMFUL, (FromScenario(),), is_core=True, covers=("W16",)),
    *(
        World(
            f"sudden_at_{days}_days",
            f"all rows change, champion {days} days old",
            HARMFUL,
            (FromScenario(),),
            champion_age_days=float(days),
            covers=("W16",),
        )
        for days in (0, 7, 90)
    ),
    World(
        "sudden_old_champion",
        "all rows change, champion 180 days old, 144 labels a day",
        HARMFUL,
        (FromScenario(),),
        champion_age_days=180.0,
        per_day=FEW,
        is_core=True,
        covers=("W17",),
    ),
    World("sudden_5000_a_day", "all rows change, 5,000 predictions a day", HARMFUL, (FromScenario(),), per_day=5_000.0),
    World("partial_5", "5 % of the rows change", HARMFUL, (FromScenario(0.05),), covers=("W18",)),
    World("partial_12", "12 % of the rows change", HARMFUL, (FromScenario(0.12),), is_core=True, covers=("W18",)),
    World("partial_30", "30 % of the rows change", HARMFUL, (FromScenario(0.30),), covers=("W18",)),
    *(
        World(
            f"partial_{pct}_few_labels",
            f"{pct} % of the rows change, 144 labels a day",
            HARMFUL,
            (FromScenario(pct / 100),),
            days_after=120.0,
            per_day=FEW,
            covers=("W18",),
        )
        for pct in (5, 12, 30)
    ),
    World("gradual", "all rows change, within 30 days", HARMFUL, (FromScenario(when=Gradual(30.0)),)),
    World(
        "recurring", "all rows change for two weeks in every four", HARMFUL, (FromScenario(when=Recurring(28.0, 14.0)),)
    ),
    World("prior_shift", "the base rate rises by half", HARMFUL, (PriorShift(1.56),), covers=("W12",)),
    World("odds_overstated", "the odds fall to a 2.7th", HARMFUL, (PriorShift(1 / 2.7),), covers=("W20",)),
    World("relation_gone", "in 40 % of the rows the inputs say nothing", HARMFUL, (RelationGone(0.4),), covers=("W9",)),
    World(
        "riskiest_average",
        "the riskiest tenth becomes average",
        HARMFUL,
        (RiskiestChange(0.1, "average"),),
        covers=("W10",),
    ),
    World("riskiest_inverted", "in the riskiest tenth the outcome turns", HARMFUL, (RiskiestChange(0.1, "inverted"),)),
    World("more_events", "a further 5 % of all rows have the event", HARMFUL, (MoreEvents(0.05),)),
    World(
        "rising_input",
        "the strongest continuous input doubles within 90 days, outcomes remain",
        HARMFUL,
        (InputShift(factor=1.0, when=Gradual(90.0)),),
        days_after=120.0,
        covers=("W11",),
    ),
    World(
        "input_awakens", "an input that said nothing now ranks far better", HARMFUL, (InputAwakens(),), covers=("W19",)
    ),
)

_CONCEPT_AND_LABELS = (
    World("sudden_coverage_10", "all rows change, labels of 10 %", HARMFUL, (FromScenario(),), labels=all_labels(0.1)),
    World("sudden_coverage_30", "all rows change, labels of 30 %", HARMFUL, (FromScenario(),), labels=all_labels(0.3)),
    World(
        "sudden_delay_30",
        "all rows change, labels after 30 days on average",
        HARMFUL,
        (FromScenario(),),
        labels=all_labels(delay_days=10.0, mean_extra_days=20.0),
    ),
    World(
        "sudden_late_good_labels",
        "all rows change; defaults are known after 10 days, 70 % of the good loans after 90",
        HARMFUL,
        (FromScenario(),),
        champion_age_days=60.0,
        labels=LATE_GOOD,
    ),
    World(
        "sudden_approved_only",
        "all rows change, labels of approved rows only",
        HARMFUL,
        (FromScenario(),),
        labels=APPROVED,
    ),
    World(
        "sudden_label_noise",
        "all rows change, 5 % of the labels are wrong",
        HARMFUL,
        (FromScenario(),),
        labels=Labels(noise=0.05),
    ),
    World(
        "sudden_customers",
        "all rows change, customers return 1 to 10 times",
        HARMFUL,
        (FromScenario(),),
        customers=Customers(1, 10),
    ),
    World(
        "poisoned_then_changed",
        "a poisoned week, and two weeks later all rows change for nine months",
        HARMFUL,
        (FromScenario(),),
        days_after=270.0,
        per_day=FEW,
        labels=Labels(poisoned=(-21.0, 7.0, 1.0)),
        covers=("W21",),
    ),
)

REPAIRED_AFTER_DAYS = 7.0

_FEEDS = tuple(
    World(
        f"feed_{fault}{suffix}",
        f"broken feed ({fault.replace('_', ' ')}), {'repaired after a week' if suffix else 'never repaired'}",
        BROKEN,
        feed=BrokenFeed(fault, REPAIRED_AFTER_DAYS if suffix else None),
        is_core=(fault, suffix) == ("unit", "_repaired"),
    )
    for fault in get_args(FeedFault)
    for suffix in ("", "_repaired")
)

WORLDS: dict[str, World] = {
    world.name: world for world in (*_CALM, *_LABELS, *_MIX, *_CONCEPT, *_CONCEPT_AND_LABELS, *_FEEDS)
}


def world_named(name: str) -> World:
    """Return the world of this name.

    Raises:
        ConfigurationError: if there is none; the message lists the known ones.
    """
    if name not in WORLDS:
        raise ConfigurationError(f"there is no world {name!r}; choose among {', '.join(WORLDS)}")
    return WORLDS[name]


def core_worlds() -> tuple[World, ...]:
    """Return the worlds that the benchmark measures with the most seeds."""
    return tuple(world for world in WORLDS.values() if world.is_core)


def covering(failure: str) -> tuple[World, ...]:
    """Return the worlds that rebuild a known failure, such as `W5`."""
    return tuple(world for world in WORLDS.values() if failure in world.covers)


def shortened(world: World, days_after: float) -> World:
    """Return a world that ends earlier, for a quick look; its name stays."""
    return replace(world, days_after=min(world.days_after, days_after))
