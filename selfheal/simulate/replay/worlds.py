"""Worlds declared as data: what happens to a deployment's rows, labels, customers and feeds, and when.

Belongs here: frozen declarations that compose, with their units. Does not belong here: applying them (`changes`, `build`), and the
named ones (`catalogue`). Times are hours from the change, which may be negative, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.deployment import Kind, Selection

HOURS_PER_DAY = 24.0

# When: the intensity of a change over time


@dataclass(frozen=True)
class Sudden:
    """Intensity 1 from the change on, for `days` or for ever."""

    days: float = np.inf

    def intensity(self, hours: FloatArray) -> FloatArray:
        """Return the intensity at each time, in hours since the change."""
        return ((hours >= 0) & (hours < self.days * HOURS_PER_DAY)).astype(np.float64)


@dataclass(frozen=True)
class Later:
    """Intensity 1 from `days` after the change on: a second change."""

    days: float

    def intensity(self, hours: FloatArray) -> FloatArray:
        """Return the intensity at each time, in hours since the change."""
        return (hours >= self.days * HOURS_PER_DAY).astype(np.float64)


@dataclass(frozen=True)
class Gradual:
    """Intensity that rises linearly from 0 at the change to 1 after `days`, and stays there."""

    days: float

    def intensity(self, hours: FloatArray) -> FloatArray:
        """Return the intensity at each time, in hours since the change."""
        return np.clip(hours / (self.days * HOURS_PER_DAY), 0.0, 1.0)


@dataclass(frozen=True)
class Seasonal:
    """A sine of amplitude 1 with this period, there from the deployment's first row on: 0 at the change."""

    period_hours: float

    def intensity(self, hours: FloatArray) -> FloatArray:
        """Return the intensity at each time, between -1 and 1."""
        return np.sin(2 * np.pi * hours / self.period_hours)


@dataclass(frozen=True)
class Recurring:
    """A world that comes and goes: intensity 1 in the first `on_days` of every `period_days` after the change."""

    period_days: float
    on_days: float

    def intensity(self, hours: FloatArray) -> FloatArray:
        """Return the intensity at each time, in hours since the change."""
        phase = np.mod(hours, self.period_days * HOURS_PER_DAY)
        return ((hours >= 0) & (phase < self.on_days * HOURS_PER_DAY)).astype(np.float64)


@dataclass(frozen=True)
class Campaign:
    """Intensity 1 for `hours` in every `every_hours`, there from the deployment's first row on."""

    every_hours: float
    hours: float

    def intensity(self, hours: FloatArray) -> FloatArray:
        """Return the intensity at each time."""
        return (np.mod(hours, self.every_hours) < self.hours).astype(np.float64)


When: TypeAlias = Sudden | Later | Gradual | Seasonal | Recurring | Campaign

# What: changes of the population (who comes), of the inputs (what is measured), of the relation (what comes of it)


@dataclass(frozen=True)
class MixShift:
    """Covariate shift: rows are chosen by their inputs, so that the relation of inputs and outcome remains.

    The `n_inputs` that are most strongly correlated with the outcome are tilted: at intensity 1 the mean of each one's normal score
    moves by `size_sd` standard deviations (exponential tilting).
    """

    size_sd: float
    n_inputs: int = 3
    when: When = field(default_factory=Sudden)


@dataclass(frozen=True)
class GroupShift:
    """The share of a group (`WithGroups`) moves to `shares` at intensity 1; groups not named keep their proportions."""

    shares: tuple[tuple[int, float], ...]
    when: When = field(default_factory=Sudden)


@dataclass(frozen=True)
class PriorShift:
    """The odds of the event change by a factor; within each class the inputs remain."""

    odds_factor: float
    when: When = field(default_factory=Sudden)


@dataclass(frozen=True)
class InputShift:
    """The inputs move while outcomes remain: each row's value becomes (1 + factor) x value + size_sd x robust sd, at intensity 1.

    The `n_inputs` most strongly correlated with the outcome are moved, those with more than ten values only.
    """

    factor: float = 0.0
    size_sd: float = 0.0
    n_inputs: int = 1
    when: When = field(default_factory=Sudden)


@dataclass(frozen=True)
class FromScenario:
    """The contract's scenario, by default its first, strikes a share of the rows: inputs and outcomes change."""

    share: float = 1.0
    scenario: str | None = None
    when: When = field(default_factory=Sudden)


@dataclass(frozen=True)
class RelationGone:
    """In a share of the rows the outcome no longer depends on the inputs: it is drawn at the base rate."""

    share: float
    when: When = field(default_factory=Sudden)


@dataclass(frozen=True)
class RiskiestChange:
    """The share of rows with the highest scores of the first champion: their outcomes are inverted, or become average."""

    share: float
    to: Literal["inverted", "average"]
    when: When = field(default_factory=Sudden)


@dataclass(frozen=True)
class MoreEvents:
    """A further share of all rows has the event, whatever the inputs."""

    share: float
    when: When = field(default_factory=Sudden)


@dataclass(frozen=True)
class InputAwakens:
    """The input with the strongest correlation says nothing (it is shuffled among rows) until the change, the champion's rows included.

    From the change on a refit ranks far better than the champion, while few decisions need to differ.
    """

    when: When = field(default_factory=Sudden)


Change: TypeAlias = (
    MixShift
    | GroupShift
    | PriorShift
    | InputShift
    | FromScenario
    | RelationGone
    | RiskiestChange
    | MoreEvents
    | InputAwakens
)

FeedFault = Literal["unit", "missing", "constant", "swapped", "out_of_bounds", "frozen_rows"]


@dataclass(frozen=True)
class BrokenFeed:
    """A sender's fault from the change on: outcomes are as before, what the model sees is wrong.

    `unit`: an input is multiplied by 100; `missing`: it is blank, or its lower limit if it must not be; `constant`: it is its median;
    `swapped`: two inputs change places; `out_of_bounds`: a tenth of the rows hold its upper limit; `frozen_rows`: the sender repeats one
    row for an hour. `repaired_after_days`: None: never.
    """

    fault: FeedFault
    repaired_after_days: float | None = None


# Labels


@dataclass(frozen=True)
class Delay:
    """Days from a row to its label: `days`, plus an exponential delay of mean `mean_extra_days`."""

    days: float = 1.0
    mean_extra_days: float = 0.0


@dataclass(frozen=True)
class ClassLabels:
    """The labels of one class: the share that ever arrives, and when. `late_share` of them take the `late` delay."""

    coverage: float = 1.0
    delay: Delay = field(default_factory=Delay)
    late_share: float = 0.0
    late: Delay = field(default_factory=Delay)


@dataclass(frozen=True)
class Labels:
    """Which labels arrive, when, and how right they are.

    Args:
        positive, negative: by the true outcome.
        selection: by what was served.
        noise: share of labels that are wrong at any time.
        poisoned: (first day after the change, days, share of labels that are inverted then), by event time; None: never.
    """

    positive: ClassLabels = field(default_factory=ClassLabels)
    negative: ClassLabels = field(default_factory=ClassLabels)
    selection: Selection = Selection.ALL
    noise: float = 0.0
    poisoned: tuple[float, float, float] | None = None


def all_labels(coverage: float = 1.0, delay_days: float = 1.0, mean_extra_days: float = 0.0) -> Labels:
    """Return labels whose arrival does not depend on the outcome."""
    same = ClassLabels(coverage, Delay(delay_days, mean_extra_days))
    return Labels(same, same)


# Traffic


@dataclass(frozen=True)
class Outage:
    """No rows for `hours`, from `at` hours after the change."""

    at: float
    hours: float


@dataclass(frozen=True)
class Burst:
    """`factor` times as many rows for `hours`, from `at` hours after the change."""

    at: float
    hours: float
    factor: float


@dataclass(frozen=True)
class Customers:
    """Each customer occurs between `fewest` and `most` times, with the same inputs and the same outcome, within `within_days`."""

    fewest: int
    most: int
    within_days: float = 30.0


@dataclass(frozen=True)
class World:
    """A deployment declared as data.

    Args:
        kind: what a policy should do about it.
        changes: in the order in which they are applied.
        champion_age_days: days from the champion's start to the change.
        days_after: days from the change to the end.
        per_day: predictions a day.
        champion_rows: the most rows that the champion learns from; never more than 45 % of the data.
        with_calendar: the contract also has the hour, one-hot weekdays and one-hot groups as inputs.
        estimator: `default`, or a random forest.
        resent_share: share of rows that repeat an earlier one of the last two days.
        is_core: whether the benchmark gives it 20 seeds instead of 5.
        covers: the names of the known failures (W1 ... W22) that the world rebuilds.
    """

    name: str
    description: str
    kind: Kind
    changes: tuple[Change, ...] = ()
    champion_age_days: float = 30.0
    days_after: float = 60.0
    per_day: float = 1_440.0
    champion_rows: int = 8_000
    labels: Labels = field(default_factory=Labels)
    customers: Customers | None = None
    feed: BrokenFeed | None = None
    traffic: tuple[Outage | Burst, ...] = ()
    resent_share: float = 0.0
    with_calendar: bool = False
    estimator: Literal["default", "random_forest"] = "default"
    is_core: bool = False
    covers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = [
            f"{name}={value} is not within {low:g} and {high:g}"
            for name, value, low, high in (
                ("champion_age_days", self.champion_age_days, 0.0, 3_650.0),
                ("days_after", self.days_after, 1.0, 3_650.0),
                ("per_day", self.per_day, 1.0, 1_000_000.0),
                ("resent_share", self.resent_share, 0.0, 0.9),
                ("labels.noise", self.labels.noise, 0.0, 1.0),
                ("labels.positive.coverage", self.labels.positive.coverage, 0.0, 1.0),
                ("labels.negative.coverage", self.labels.negative.coverage, 0.0, 1.0),
            )
            if not low <= value <= high
        ]
        if self.kind is Kind.BROKEN and self.feed is None:
            problems.append("it is of kind broken but has no feed; name the fault")
        if any(isinstance(change, GroupShift) for change in self.changes) and not self.with_calendar:
            problems.append("GroupShift needs with_calendar=True, which adds the groups")
        if problems:
            raise ConfigurationError(f"world {self.name!r}: {'; '.join(problems)}")

    @property
    def days(self) -> float:
        """Return its whole length in days."""
        return self.champion_age_days + self.days_after
