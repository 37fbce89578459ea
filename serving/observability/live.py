"""The messages of the WebSocket `/live`: a snapshot every second, and events as they happen.

One task polls Postgres and publishes, only while there are listeners. Each listener has a bounded queue: one that falls
behind is dropped and never delays the others. The socket itself is in `serving.routes.live`.
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
"""Time between snapshots, and between polls of Postgres (four small queries each)."""

POLL_TIMEOUT_SECONDS = 0.8
"""Time limit of a poll: less than the interval, so that a hanging Postgres does not delay the snapshots."""

LATENCY_WINDOW_SECONDS = 10.0
"""Time over which a snapshot's latencies are computed."""

MAX_LISTENERS = 100

MAX_EVENTS = 100
"""Largest number of decisions, and of alerts, published after one poll; the others follow with the next."""

MAX_QUEUED_MESSAGES = 4 * MAX_EVENTS
"""Size of a listener's queue: room for the largest result of a poll, in addition to unread messages."""


class Snapshot(BaseModel):
    """Sent every second."""

    type: Literal["snapshot"] = "snapshot"
    at: datetime
    predictions_per_second: float | None = Field(
        description="acknowledged by this worker since the last snapshot; null in the first"
    )
    latency_p50_ms: float | None = Field(
        description=f"median time from arrival to acknowledgement, of this worker's requests of the last "
        f"{LATENCY_WINDOW_SECONDS:g} s, at most the newest {LatencyHistogram.MAX_RECENT:,}; null if there were none",
    )
    latency_p99_ms: float | None = Field(description="the 99th percentile of the same; null if there were none")
    serving_version: int | None = Field(description="the version that this worker scores with; null if it has none")
    production_version: int | None = Field(description="the version in production; null if there is none, or unknown")
    verdict: Verdict | None = Field(description="of that version's latest tick; null if there is none, or unknown")
    feature_drift_ratio: float | None = Field(description="of that tick, 0 to 1; null if unknown")
    tick_at: datetime | None = Field(description="when that tick was made; null if there is none, or unknown")
    n_open_alerts: int | None = Field(description=f"at most {MAX_EVENTS} are counted; null if unknown")
    problem: str | None = Field(description="why something is unknown; null if everything is known")


class VerdictGiven(BaseModel):
    """The monitor has made a tick for the version in production."""

    type: Literal["verdict"] = "verdict"
    tick: TickInfo


class Promoted(BaseModel):
    """Another version is in production, after a promotion or a rollback."""

    type: Literal["promotion"] = "promotion"
    version: VersionInfo


class DecisionTaken(BaseModel):
    """The loop has taken a decision; `GET /decisions/{decision_id}` has its conditions and gates."""

    type: Literal["decision"] = "decision"
    decision: DecisionInfo


class AlertOpened(BaseModel):
    """An alert has been opened."""

    type: Literal["alert_opened"] = "alert_opened"
    alert: AlertInfo


class AlertResolved(BaseModel):
    """An alert has been resolved."""

    type: Literal["alert_resolved"] = "alert_resolved"
    alert: AlertInfo


Event = VerdictGiven | Promoted | DecisionTaken | AlertOpened | AlertResolved
LiveMessage = Annotated[Snapshot | Event, Field(discriminator="type")]


def message_schema() -> dict[str, Any]:
    """Return the JSON Schema of the messages."""
    return TypeAdapter(LiveMessage).json_schema(mode="serialization") | {"title": "Message of the WebSocket /live"}


# Events


@dataclass(frozen=True, slots=True)
class Observation:
    """The state in Postgres at one moment. `alerts` are open, or were open at the poll before."""

    production: VersionInfo | None
    tick: TickInfo | None
    alerts: dict[UUID, AlertInfo]
    decisions: tuple[DecisionInfo, ...]
    last_position: int

    @property
    def open_alerts(self) -> dict[UUID, AlertInfo]:
        """Return the open alerts."""
        return {alert_id: alert for alert_id, alert in self.alerts.items() if alert.resolved_at is None}


def observe(store: Store, before: Observation | None) -> Observation:
    """Read from Postgres what has changed since `before` (None: the first poll, which yields no events)."""
    production = model_versions.production_version(store)
    tick = None if production is None else ticks.latest_tick(store, production.version)
    known = () if before is None else before.open_alerts.keys()
    alerts = map(alert_info, alert_queries.alerts_open_or_among(store, known, MAX_EVENTS))
    if before is None:
        news: list[DecisionInfo] = []
        last_position = max((newest.position for newest in decisions.page(store, 1)), default=0)
    else:
        news = [decision_info(chained) for chained in decisions.later_than(store, before.last_position, MAX_EVENTS)]
        last_position = max((one.position for one in news), default=before.last_position)
    return Observation(
        production=None if production is None else version_info(production),
        tick=None if tick is None else tick_info(tick),
        alerts={alert.alert_id: alert for alert in alerts},
        decisions=tuple(news),
        last_position=last_position,
    )


def events_between(before: Observation | None, now: Observation) -> Iterator[Event]:
    """Yield what has happened between two polls, causes before effects."""
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


# Publishing


class Listener:
    """One listener's queue of messages, in JSON."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[str] = asyncio.Queue(MAX_QUEUED_MESSAGES)
        self.is_too_slow = asyncio.Event()

    async def next_message(self) -> str:
        """Return the next message as soon as there is one."""
        return await self._messages.get()

    def offer(self, message: str) -> None:
        """Queue the message; a listener whose queue is full is marked as too slow."""
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            self.is_too_slow.set()


class Live:
    """The listeners, and the task that publishes to them. One per app, for its event loop's thread."""

    def __init__(self, holder: ChampionHolder, batcher: MicroBatcher, read_pool: ReadPool) -> None:
        self._holder = holder
        self._batcher = batcher
        self._read_pool = read_pool
        self._listeners: set[Listener] = set()
        self._has_listeners = asyncio.Event()
        self._last_observation: Observation | None = None
        self._problem: str | None = None
        self._counted: tuple[float, int] | None = None

    @property
    def n_listeners(self) -> int:
        """Return the number of listeners."""
        return len(self._listeners)

    def join(self) -> Listener | None:
        """Return a new listener, which must `leave`; None if there are already `MAX_LISTENERS`."""
        if len(self._listeners) >= MAX_LISTENERS:
            return None
        listener = Listener()
        self._listeners.add(listener)
        self._has_listeners.set()
        return listener

    def leave(self, listener: Listener) -> None:
        """Remove a listener, if it is still there."""
        self._listeners.discard(listener)
        if not self._listeners:
            self._has_listeners.clear()
            self._last_observation = self._counted = (
                None  # the next listener starts with the current state, not with missed events
            )

    def publish(self, message: Snapshot | Event) -> None:
        """Queue the message for all listeners; those that fall behind are dropped."""
        text = message.model_dump_json()
        for listener in tuple(self._listeners):
            listener.offer(text)
            if listener.is_too_slow.is_set():
                self.leave(listener)

    async def run(self) -> None:
        """Poll and publish until cancelled."""
        while True:
            await self._has_listeners.wait()
            began = time.monotonic()
            try:
                await self._observe_and_publish()
            except Exception:  # whatever fails in one poll, the next one is made
                logger.exception("/live broadcast failed")
            await asyncio.sleep(max(0.0, INTERVAL_SECONDS - (time.monotonic() - began)))

    async def _observe_and_publish(self) -> None:
        before, now, problem = self._last_observation, None, None
        try:
            now = await self._read_pool.run(partial(observe, before=before), timeout_seconds=POLL_TIMEOUT_SECONDS)
        except ProblemError as error:
            problem = error.detail
        if not self._has_listeners.is_set():
            return  # all listeners have left
        if now is not None:
            self._last_observation = now
            for message in events_between(before, now):
                self.publish(message)
        self.publish(self._snapshot(now, problem))

    def _snapshot(self, now: Observation | None, problem: str | None) -> Snapshot:
        champion = self._holder.current
        tick = None if now is None else now.tick
        latencies = sorted(self._batcher.latency.recent_seconds(time.perf_counter() - LATENCY_WINDOW_SECONDS))
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
    """Return the quantile `q` (0 to 1) in ms; None without values."""
    if not sorted_seconds:
        return None
    return round(1_000 * sorted_seconds[max(0, math.ceil(q * len(sorted_seconds)) - 1)], 3)
