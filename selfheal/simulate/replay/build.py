"""From a declaration and labelled rows to a deployment: seeded, and without a row that the champion learned from.

The rows of the data are shuffled by the seed alone and divided: the champion's, and a pool from which the traffic is drawn with
replacement. A row that is drawn again differs a little in its continuous inputs (`JITTER`), since in a real stream two cases are never
equal to the last digit; values that many rows share (codes, limits, zeros) remain. Such rows are different cases, and the contract
says so (`equal_inputs_are_one_case`). Customers who return, and rows that are sent again, are equal on purpose.

Two limits follow. The pool is the whole population: its difference from the champion's rows is the same all the time, which shows more
easily than that of ever new rows. And a row that is drawn again has its old outcome, so a model that memorises gains by it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from selfheal.domain.contract import TRUE_LABEL, Feature, FloatArray, ModelContract
from selfheal.kit.errors import InvalidDataError
from selfheal.simulate.replay.changes import (
    Traffic,
    apply_changes,
    break_feed,
    choose_rows,
    group_name,
    shuffle_input,
    strongest_inputs,
)
from selfheal.simulate.replay.deployment import Deployment
from selfheal.simulate.replay.labels import label_times, labels_given
from selfheal.simulate.replay.models import Model, Rows, train_champion
from selfheal.simulate.replay.stream import BoolArray, IntArray, Stream, TimeArray
from selfheal.simulate.replay.worlds import Burst, Customers, InputAwakens, Outage, World

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

CHANGE_AT = np.datetime64("2026-06-01T00:00:00", "us")
"""Time of the change, a Monday, in every world: a season or an hour of the day then means the same everywhere."""

CHAMPION_SHARE = 0.45
"""Largest share of the data that the champion learns from."""

MIN_ROWS = 2_000
"""Fewest rows of data; with fewer, champion and traffic would be accidents."""

JITTER = 1e-3
"""Relative standard deviation of the noise on a continuous value that is drawn again."""

SHARED_BY = 1e-3
"""Share of the pool from which on a value counts as shared by many rows; it is never changed."""

GROUP_SHARES = (0.60, 0.15, 0.10, 0.10, 0.05)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RESENT_WITHIN_HOURS = 48.0
CHAMPIONS_KEPT = 8


@dataclass(frozen=True, eq=False)
class Source:
    """The labelled rows that worlds are built from: data of a contract, and its name for people."""

    contract: ModelContract
    rows: Rows
    name: str


def source_of(frame: pd.DataFrame, contract: ModelContract, name: str) -> Source:
    """Return a source from a frame of raw inputs and `true_label`.

    Raises:
        InvalidDataError: if there are fewer than `MIN_ROWS` rows, or inputs that are no numbers.
    """
    if contract.category_names:
        raise InvalidDataError(
            f"contract {contract.name!r} has categories ({', '.join(contract.category_names)}), and worlds are made of numbers; "
            "name another use case"
        )
    if len(frame) < MIN_ROWS:
        raise InvalidDataError(f"{name}: {len(frame):,} rows; worlds are built from at least {MIN_ROWS:,}")
    columns = {column: frame[column].to_numpy(dtype=np.float64) for column in contract.input_names}
    return Source(contract, Rows(columns, frame[TRUE_LABEL].to_numpy(dtype=np.int8)), name)


def build(world: World, source: Source, seed: int) -> Deployment:
    """Build the deployment of a world. The same world, rows and seed give the same deployment, bit for bit."""
    prepared = _prepared(world, source, seed)
    contract, pool, champion = prepared.contract, prepared.pool, prepared.champion
    rng = np.random.default_rng([seed, crc32(world.name.encode())])
    start, end = CHANGE_AT - _days(world.champion_age_days), CHANGE_AT + _days(world.days_after)
    times = event_times(world, rng)
    hours = (times - CHANGE_AT) / np.timedelta64(1, "h")
    chosen, entity = _customers(world.customers, pool, contract, world, hours, rng)
    traffic = Traffic(hours, _jittered(pool, chosen, world.customers is not None, contract, rng), pool.labels[chosen])
    if world.with_calendar:
        traffic.columns |= _calendar_columns(times)
    apply_changes(traffic, contract, world.changes, pool, lambda rows: champion.score(rows.features(contract)), rng)
    _resend(world.resent_share, traffic, entity, rng)
    if world.feed is not None:
        break_feed(traffic.columns, contract, world.feed, hours, pool, rng)
    stream = Stream(
        contract=contract if _repeats(world) else replace(contract, equal_inputs_are_one_case=False),
        columns=traffic.columns,
        event_time=times,
        entity=entity,
        true_label=traffic.labels,
        label_time=label_times(world.labels, times, traffic.labels, rng),
        label=labels_given(world.labels, hours, traffic.labels, rng),
    )
    return Deployment(
        name=world.name,
        kind=world.kind,
        stream=stream,
        champion=champion,
        learned_from=prepared.learned_from,
        start=start,
        end=end,
        change=CHANGE_AT if world.changes or world.feed is not None else None,
        regime=_regimes(world, hours),
        selection=world.labels.selection,
    )


def _repeats(world: World) -> bool:
    """Return whether a row of the world may be the same case as another, rather than drawn like it."""
    return world.customers is not None or world.resent_share > 0


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What a world's deployments have in common for one seed: contract, pool and champion."""

    contract: ModelContract
    pool: Rows
    learned_from: Rows
    champion: Model


_prepared_before: OrderedDict[tuple[Any, ...], _Prepared] = OrderedDict()
"""Champions of this process: most worlds share one for each seed, and training it costs seconds."""


def _prepared(world: World, source: Source, seed: int) -> _Prepared:
    is_asleep = any(isinstance(change, InputAwakens) for change in world.changes)
    key = (source, seed, world.champion_rows, world.with_calendar, world.estimator, is_asleep)
    if key not in _prepared_before:
        _prepared_before[key] = _prepare(world, source, seed, is_asleep=is_asleep)
        while len(_prepared_before) > CHAMPIONS_KEPT:
            _prepared_before.popitem(last=False)
    return _prepared_before[key]


def _prepare(world: World, source: Source, seed: int, *, is_asleep: bool) -> _Prepared:
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(source.rows))
    n_learn = min(world.champion_rows, round(CHAMPION_SHARE * len(order)))
    learn, pool = source.rows.at(order[:n_learn]), source.rows.at(order[n_learn:])
    contract = source.contract
    if world.with_calendar:
        contract = _with_calendar(contract)
        learn, pool = (_with_groups(rows, rng) for rows in (learn, pool))
        before = CHANGE_AT - _days(world.champion_age_days)
        times = before - np.sort(rng.integers(0, _days(60.0).astype(np.int64), n_learn))[::-1].astype("m8[us]")
        learn = Rows({**learn.columns, **_calendar_columns(times)}, learn.labels)
    if world.estimator == "random_forest":
        contract = replace(contract, build_estimator=random_forest, param_grid={"classify__max_features": ("sqrt",)})
    if is_asleep:
        columns = dict(learn.columns)
        strongest = strongest_inputs(pool, source.contract, 1)[0]
        shuffle_input(columns, strongest, np.ones(n_learn, dtype=np.bool_), rng)
        learn = Rows(columns, learn.labels)
    return _Prepared(contract, pool, learn, train_champion(learn, contract, seed))


def random_forest(seed: int) -> Pipeline:
    """Return an unfitted random forest, which can memorise a customer."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline

    forest = RandomForestClassifier(50, min_samples_leaf=3, random_state=seed)
    return Pipeline([("impute", SimpleImputer(strategy="median", keep_empty_features=True)), ("classify", forest)])


# Time


def event_times(world: World, rng: np.random.Generator) -> TimeArray:
    """Return the sorted times of a world's rows: independent, uniform, with its outages and bursts (datetime64[us])."""
    n_hours = world.days * 24.0
    first = -world.champion_age_days * 24.0
    hours = first + rng.random(round(world.per_day * world.days)) * n_hours
    for disturbance in world.traffic:
        is_within = (hours >= disturbance.at) & (hours < disturbance.at + disturbance.hours)
        match disturbance:
            case Outage():
                hours = hours[~is_within]
            case Burst():
                n_more = round(float(is_within.sum()) * (disturbance.factor - 1))
                more = disturbance.at + rng.random(n_more) * disturbance.hours
                hours = np.concatenate([hours, more])
    microseconds = np.floor(np.sort(hours) * 3.6e9).astype(np.int64)
    return CHANGE_AT + microseconds.astype("m8[us]")


def _days(days: float) -> np.timedelta64:
    return np.timedelta64(round(days * 86_400e6), "us")


def _regimes(world: World, hours: FloatArray) -> IntArray:
    """Return the number of the world that each row is of: 0 is the champion's, one more for each combination of changes in force.

    While a change grows, each tenth of it is a regime of its own.
    """
    if not world.changes:
        return np.zeros(len(hours), dtype=np.int64)
    steps = np.stack([np.ceil(np.round(change.when.intensity(hours) * 10, 9)) for change in world.changes])
    combinations, number = np.unique(steps, axis=1, return_inverse=True)
    is_calm = ~combinations.any(axis=0)
    numbers = np.where(is_calm, 0, np.cumsum(~is_calm))
    return np.asarray(numbers[number.ravel()])


# Customers, repeated and re-sent rows


def _customers(
    customers: Customers | None,
    pool: Rows,
    contract: ModelContract,
    world: World,
    hours: FloatArray,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray]:
    """Return the pool row and the entity of each row of the traffic."""
    if customers is None:
        return choose_rows(pool, contract, world.changes, hours, rng), np.arange(len(hours))
    entity = recurring_customers(customers, hours, rng)
    _, first = np.unique(entity, return_index=True)
    of_customer = choose_rows(pool, contract, world.changes, hours[first], rng)
    return of_customer[entity], entity


def recurring_customers(customers: Customers, hours: FloatArray, rng: np.random.Generator) -> IntArray:
    """Return the customer of each row, numbered from 0 in the order of their first rows.

    Customers are spread over consecutive rows such that all occurrences of one lie within about `within_days`.
    """
    n_rows = len(hours)
    times = rng.integers(customers.fewest, customers.most, endpoint=True, size=n_rows // customers.fewest + 1)
    slots = np.repeat(np.arange(len(times)), times)[:n_rows]
    span = max(1, int(np.searchsorted(hours, hours[0] + customers.within_days * 24.0)))
    mixed = np.concatenate([rng.permutation(slots[start : start + span]) for start in range(0, n_rows, span)])
    _, first, number = np.unique(mixed, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number.ravel()]


def _jittered(
    pool: Rows, chosen: IntArray, is_returning: bool, contract: ModelContract, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Return the inputs of the chosen rows; continuous ones with noise where a row is drawn again by chance."""
    if is_returning:
        return {name: values[chosen] for name, values in pool.columns.items()}
    is_again = np.ones(len(chosen), dtype=np.bool_)
    is_again[np.unique(chosen, return_index=True)[1]] = False
    columns: dict[str, FloatArray] = {}
    for feature in contract.inputs:
        if feature.name not in pool.columns:
            continue  # the calendar's, which come later
        values = pool.columns[feature.name][chosen]
        if feature.kind == "float":
            noise = 1 + JITTER * rng.standard_normal(len(chosen))
            is_own = is_again & ~_is_shared(pool.columns[feature.name])[chosen]
            values = np.where(is_own, np.clip(values * noise, feature.lower, feature.upper), values)
        columns[feature.name] = values
    return columns


def _is_shared(values: FloatArray) -> BoolArray:
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(counts[number.ravel()] > SHARED_BY * len(values))


def _resend(share: float, traffic: Traffic, entity: IntArray, rng: np.random.Generator) -> None:
    """Let a share of the rows repeat an earlier row of the last two days, with its inputs, outcome and entity."""
    if not share:
        return
    n_rows = len(traffic.hours)
    earliest = np.searchsorted(traffic.hours, traffic.hours - RESENT_WITHIN_HOURS)
    source = np.arange(n_rows)
    copies = np.flatnonzero((rng.random(n_rows) < share) & (earliest < source))
    source[copies] = earliest[copies] + np.floor(rng.random(len(copies)) * (copies - earliest[copies])).astype(np.int64)
    while (source[source] != source).any():
        source = source[source]  # a copy of a copy is one of the first
    for name, values in traffic.columns.items():
        traffic.columns[name] = values[source]
    traffic.labels = traffic.labels[source]
    entity[:] = entity[source]


# The calendar's inputs


def _with_calendar(contract: ModelContract) -> ModelContract:
    hour = Feature("hour_of_day", "int", 0, 23, "hours", "hour of the request (UTC)", 12)
    flags = (*(f"day_{day}" for day in WEEKDAYS), *(group_name(number) for number in range(len(GROUP_SHARES))))
    extra = tuple(Feature(name, "int", 0, 1, "0 or 1", f"one-hot: {name}", 0) for name in flags)
    return replace(contract, inputs=(*contract.inputs, hour, *extra))


def _calendar_columns(times: TimeArray) -> dict[str, FloatArray]:
    hours = times.astype("M8[h]").astype(np.int64)
    weekday = (times.astype("M8[D]").astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    return {"hour_of_day": (hours % 24).astype(np.float64)} | {
        f"day_{name}": (weekday == number).astype(np.float64) for number, name in enumerate(WEEKDAYS)
    }


def _with_groups(rows: Rows, rng: np.random.Generator) -> Rows:
    group = rng.choice(len(GROUP_SHARES), p=GROUP_SHARES, size=len(rows))
    flags = {group_name(number): (group == number).astype(np.float64) for number in range(len(GROUP_SHARES))}
    return Rows({**rows.columns, **flags}, rows.labels)
