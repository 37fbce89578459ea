"""What the WebSocket `/live` tells: a snapshot every second, and what happens as it happens.

One task looks and tells, and only while somebody listens. Each listener has a bounded queue: one that falls behind is dropped
and never waited for. The socket itself is `serving.routes.live`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, TypeAdapter

from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import decisions, model_versions, ticks
from selfheal.domain.records import Verdict
from selfheal.kit.latency import LatencyHistogram
from serving.schemas.problems import ProblemError
from serving.schemas.responses import (
    AlertInfo,
    DecisionInfo,
    TickInfo,
    VersionInfo,
    alert_info,
    decision_info,
    tick_info,
    version_info,
)

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store
    from serving.champion.holder import ChampionHolder
    from serving.database.read_pool import ReadPool
    from serving.scoring.micro_batcher import MicroBatcher

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""From one snapshot to the next, and from one look at Postgres (four small queries) to the next."""

POLL_TIMEOUT_SECONDS = 0.8
"""Less than the interval: a Postgres that hangs does not slow the snapshots down."""

LATENCY_SECONDS = 10.0
"""Over how long the latency in a snapshot is taken."""

MAX_LISTENERS = 100

MAX_NEWS = 100
"""Decisions, and alerts, told after one look; what is more comes with the next."""

MAX_QUEUED_MESSAGES = 4 * MAX_NEWS
"""Room for the most that one look can tell, beside what a listener has not yet read."""


class Snapshot(BaseModel):
    """Sent every second."""

    type: Literal["snapshot"] = "snapshot"
    at: datetime
    predictions_per_second: float | None = Field(
        description="acknowledged by this worker since the last snapshot; null in the first"
    )
    latency_p50_ms: float | None = Field(
        description=f"median time from arrival to acknowledgement, of this worker's requests of the last "
        f"{LATENCY_SECONDS:g} s, at most the newest {LatencyHistogram.MAX_RECENT:,}; null if there were none",
    )
    latency_p99_ms: float | None = Field(description="the 99th percentile of the same; null if there were none")
    serving_version: int | None = Field(description="the version that this worker answers with; null if it has none")
    production_version: int | None = Field(description="the version in production; null if there is none, or unknown")
    verdict: Verdict | None = Field(description="of that version's latest tick; null if there is none, or unknown")
    feature_drift_ratio: float | None = Field(description="of that tick, 0 to 1; null if unknown")
    tick_at: datetime | None = Field(description="when the monitor looked; null if it has not, or unknown")
    n_open_alerts: int | None = Field(description=f"at most {MAX_NEWS} are counted; null if unknown")
    problem: str | None = Field(description="why something is unknown; null if nothing is")


class VerdictGiven(BaseModel):
    """The monitor has looked at the version in production."""

    type: Literal["verdict"] = "verdict"
    tick: TickInfo


class Promoted(BaseModel):
    """Another version is in production, by a promotion or a rollback."""

    type: Literal["promotion"] = "promotion"
    version: VersionInfo


class DecisionTaken(BaseModel):
    """The loop has decided something; `GET /decisions/{decision_id}` has conditions and gates."""

    type: Literal["decision"] = "decision"
    decision: DecisionInfo


class AlertOpened(BaseModel):
    type: Literal["alert_opened"] = "alert_opened"
    alert: AlertInfo


class AlertResolved(BaseModel):
    type: Literal["alert_resolved"] = "alert_resolved"
    alert: AlertInfo


News = VerdictGiven | Promoted | DecisionTaken | AlertOpened | AlertResolved
LiveMessage = Annotated[Snapshot | News, Field(discriminator="type")]


def message_schema() -> dict[str, Any]:
    """JSON Schema of the messages."""
    return TypeAdapter(LiveMessage).json_schema(mode="serialization") | {"title": "Message of the WebSocket /live"}


# What there is to tell


@dataclass(frozen=True, slots=True)
class Observation:
    """What Postgres said at one moment. `alerts` are open, or were open at the look before."""

    production: VersionInfo | None
    tick: TickInfo | None
    alerts: dict[UUID, AlertInfo]
    decisions: tuple[DecisionInfo, ...]
    last_position: int

    @property
    def open_alerts(self) -> dict[UUID, AlertInfo]:
        return {alert_id: alert for alert_id, alert in self.alerts.items() if alert.resolved_at is None}


def observe(store: Store, before: Observation | None) -> Observation:
    """Asks Postgres for what has come since `before`; None: the first look, of which nothing is news."""
    production = model_versions.production_version(store)
    tick = None if production is None else ticks.latest_tick(store, production.version)
    known = () if before is None else before.open_alerts.keys()
    alerts = map(alert_info, alert_queries.alerts_open_or_among(store, known, MAX_NEWS))
    if before is None:
        news: list[DecisionInfo] = []
        last_position = max((newest.position for newest in decisions.page(store, 1)), default=0)
    else:
        news = [decision_info(chained) for chained in decisions.later_than(store, before.last_position, MAX_NEWS)]
        last_position = max((one.position for one in news), default=before.last_position)
    return Observation(
        production=None if production is None else version_info(production),
        tick=None if tick is None else tick_info(tick),
        alerts={alert.alert_id: alert for alert in alerts},
        decisions=tuple(news),
        last_position=last_position,
    )


def news_between(before: Observation | None, now: Observation) -> Iterator[News]:
    """What has happened, in the order in which one thing leads to the next."""
    if before is None:
        return
    if now.tick is not None and (before.tick is None or now.tick.tick_id != before.tick.tick_id):
        yield VerdictGiven(tick=now.tick)
    for alert_id, alert in now.open_alerts.items():
        if alert_id not in before.open_alerts:
            yield AlertOpened(alert=alert)
    for decision in now.decisions:
        yield DecisionTaken(decision=decision)
    if now.production is not None and _number(now.production) != _number(before.production):
        yield Promoted(version=now.production)
    for alert_id, alert in now.alerts.items():
        if alert.resolved_at is not None and alert_id in before.open_alerts:
            yield AlertResolved(alert=alert)


def _number(version: VersionInfo | None) -> int | None:
    return None if version is None else version.model_version


# Telling it


class Listener:
    """One reader's queue of messages, in JSON."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[str] = asyncio.Queue(MAX_QUEUED_MESSAGES)
        self.is_too_slow = asyncio.Event()

    async def next_message(self) -> str:
        return await self._messages.get()

    def offer(self, message: str) -> None:
        """Queues the message; a listener without room for it is too slow from then on."""
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            self.is_too_slow.set()


class Live:
    """Listeners, and the task that tells them. One an app, for its event loop's thread."""

    def __init__(self, holder: ChampionHolder, batcher: MicroBatcher, read_pool: ReadPool) -> None:
        self._holder = holder
        self._batcher = batcher
        self._read_pool = read_pool
        self._listeners: set[Listener] = set()
        self._is_heard = asyncio.Event()
        self._last_observation: Observation | None = None
        self._problem: str | None = None
        self._counted: tuple[float, int] | None = None

    @property
    def n_listeners(self) -> int:
        return len(self._listeners)

    def join(self) -> Listener | None:
        """A new listener; None if there are too many already. Whoever joins must leave."""
        if len(self._listeners) >= MAX_LISTENERS:
            return None
        listener = Listener()
        self._listeners.add(listener)
        self._is_heard.set()
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners:
            self._is_heard.clear()
            self._last_observation = self._counted = (
                None  # the next listener begins with what is, not with what was missed
            )

    def publish(self, message: Snapshot | News) -> None:
        """To everybody who listens; those who fall behind are dropped."""
        text = message.model_dump_json()
        for listener in tuple(self._listeners):
            listener.offer(text)
            if listener.is_too_slow.is_set():
                self.leave(listener)

    async def run(self) -> None:
        """Looks and tells until cancelled."""
        while True:
            await self._is_heard.wait()
            began = time.monotonic()
            try:
                await self._observe_and_publish()
            except Exception:  # the task must outlive whatever one look runs into
                logger.exception("telling the listeners of /live failed")
            await asyncio.sleep(max(0.0, INTERVAL_SECONDS - (time.monotonic() - began)))

    async def _observe_and_publish(self) -> None:
        before, now, problem = self._last_observation, None, None
        try:
            now = await self._read_pool.run(partial(observe, before=before), timeout_seconds=POLL_TIMEOUT_SECONDS)
        except ProblemError as error:
            problem = error.detail
        if not self._is_heard.is_set():
            return  # everybody has left meanwhile
        if now is not None:
            self._last_observation = now
            for message in news_between(before, now):
                self.publish(message)
        self.publish(self._snapshot(now, problem))

    def _snapshot(self, now: Observation | None, problem: str | None) -> Snapshot:
        champion = self._holder.current
        tick = None if now is None else now.tick
        latencies = sorted(self._batcher.latency.recent_seconds(time.perf_counter() - LATENCY_SECONDS))
        return Snapshot(
            at=datetime.now(UTC),
            predictions_per_second=self._predictions_per_second(),
            latency_p50_ms=_quantile_ms(latencies, 0.5),
            latency_p99_ms=_quantile_ms(latencies, 0.99),
            serving_version=None if champion is None else champion.version.version,
            production_version=None if now is None else _number(now.production),
            verdict=None if tick is None else tick.verdict,
            feature_drift_ratio=None if tick is None else tick.feature_drift_ratio,
            tick_at=None if tick is None else tick.created_at,
            n_open_alerts=None if now is None else len(now.open_alerts),
            problem=problem,
        )

    def _predictions_per_second(self) -> float | None:
        now, counted = time.monotonic(), self._batcher.n_acknowledged
        before, self._counted = self._counted, (now, counted)
        if before is None or now <= before[0]:
            return None
        return (counted - before[1]) / (now - before[0])


def _quantile_ms(sorted_seconds: list[float], q: float) -> float | None:
    """The smallest value that at least the share `q` does not exceed, in milliseconds; None of none."""
    if not sorted_seconds:
        return None
    return round(1_000 * sorted_seconds[max(0, math.ceil(q * len(sorted_seconds)) - 1)], 3)
