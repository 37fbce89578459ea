"""Simulated traffic: rows of a data set as requests to a running API, and their labels some time later."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.levels import as_texts

if TYPE_CHECKING:
    import httpx
    import pandas as pd

    from selfheal.domain.contract import ModelContract
    from selfheal.domain.features import Kind

MAX_IN_FLIGHT = 32
LABELS_PER_CALL = 100
REQUEST_TIMEOUT_SECONDS = 30.0

TYPES: dict[Kind, type[float]] = {"float": float, "int": int, "bool": bool}
"""What a number of each kind is in a request."""


@dataclass
class TrafficStats:
    """Counts so far. A failed request is one without a response of status 200."""

    predictions: int = 0
    labels: int = 0
    failed_requests: int = 0
    first_failure: str | None = None
    sent_at: list[float] = field(default_factory=list)

    def rate_per_second(self, over_seconds: float = 5.0) -> float:
        """Return the predictions answered per second in the last `over_seconds`."""
        since = time.monotonic() - over_seconds
        return sum(1 for moment in reversed(self.sent_at[-2_000:]) if moment > since) / over_seconds


class TrafficSender:
    """Posts rows to `/predict` at a steady rate and their labels to `/labels` after a delay.

    Args:
        rate_per_second: requests started per second.
        label_delay_seconds: time between a prediction and its label.
    """

    def __init__(
        self, client: httpx.AsyncClient, *, rate_per_second: float, label_delay_seconds: float, source: str
    ) -> None:
        self._client = client
        self._rate = rate_per_second
        self._label_delay = label_delay_seconds
        self._source = source
        self._due_labels: list[tuple[float, str, int]] = []
        self._delivering = asyncio.Lock()
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self.stats = TrafficStats()

    async def send(self, rows: pd.DataFrame, contract: ModelContract, stop: asyncio.Event | None = None) -> int:
        """Post the rows in order until all are answered or `stop` is set; return how many were started."""
        tasks: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        begun = 0
        for row in request_bodies(rows, contract):
            if stop is not None and stop.is_set():
                break
            await asyncio.sleep(max(0.0, started + begun / self._rate - time.monotonic()))
            await self._slots.acquire()
            task = asyncio.create_task(self._post_one(*row))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            begun += 1
        await asyncio.gather(*tasks)
        return begun

    async def deliver_labels(self) -> None:
        """Post labels as they fall due, until cancelled."""
        while True:
            await self._post_due_labels(time.monotonic())
            await asyncio.sleep(0.5)

    async def deliver_all_labels(self) -> None:
        """Post every outstanding label now."""
        await self._post_due_labels(float("inf"))

    async def _post_one(self, body: dict[str, Any], label: int) -> None:
        try:
            answer = await self._post("/predict", body | {"request_source": self._source})
        finally:
            self._slots.release()
        if answer is not None:
            self.stats.predictions += 1
            self.stats.sent_at.append(time.monotonic())
            heapq.heappush(self._due_labels, (time.monotonic() + self._label_delay, answer["prediction_id"], label))

    async def _post_due_labels(self, now: float) -> None:
        async with self._delivering:  # a delivery in progress is finished and counted before the next
            await self._post_labels_until(now)

    async def _post_labels_until(self, now: float) -> None:
        while self._due_labels and self._due_labels[0][0] <= now:
            batch: list[tuple[float, str, int]] = []
            while self._due_labels and self._due_labels[0][0] <= now and len(batch) < LABELS_PER_CALL:
                batch.append(heapq.heappop(self._due_labels))
            labels = [{"prediction_id": i, "true_label": label, "label_source": self._source} for _, i, label in batch]
            if await self._post("/labels", {"labels": labels}) is not None:
                self.stats.labels += len(labels)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        import httpx

        try:
            response = await self._client.post(path, json=body)
        except httpx.HTTPError as error:
            self._failed(f"POST {path}: {type(error).__name__} {error}")
            return None
        if response.status_code != 200:
            self._failed(f"POST {path}: {response.status_code} {response.text[:200]}")
            return None
        answer: dict[str, Any] = response.json()
        return answer

    def _failed(self, reason: str) -> None:
        self.stats.failed_requests += 1
        self.stats.first_failure = self.stats.first_failure or reason


@asynccontextmanager
async def traffic_to(
    api_url: str, *, rate_per_second: float, label_delay_seconds: float, source: str, api_key: str | None = None
) -> AsyncIterator[TrafficSender]:
    """Open a sender whose labels are delivered in the background while the context is open."""
    import httpx

    headers = {"X-API-Key": api_key} if api_key else {}
    async with httpx.AsyncClient(base_url=api_url, timeout=REQUEST_TIMEOUT_SECONDS, headers=headers) as client:
        sender = TrafficSender(
            client, rate_per_second=rate_per_second, label_delay_seconds=label_delay_seconds, source=source
        )
        delivery = asyncio.create_task(sender.deliver_labels())
        try:
            yield sender
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)


def request_bodies(rows: pd.DataFrame, contract: ModelContract) -> list[tuple[dict[str, Any], int]]:
    """Return each row as a request body (whole numbers as ints, flags as true or false, missing values as null), with its true label.

    Where the contract declares a key, each row is of an entity of its own: which rows are of one is not in the data set.
    """
    columns: list[list[Any]] = []
    for feature in contract.inputs:
        if feature.kind == "category":
            columns.append(as_texts(rows[feature.name].tolist()).tolist())
            continue
        values = rows[feature.name].to_numpy(dtype=np.float64)
        typed = TYPES[feature.kind]
        columns.append([None if np.isnan(v) else typed(v) for v in values])
    labels = rows[TRUE_LABEL].astype(int).tolist()
    key: Callable[[], dict[str, Any]] = (lambda: {contract.entity: token_hex(8)}) if contract.has_entity_key else dict
    return [
        (dict(zip(contract.input_names, values, strict=True)) | key(), label)
        for values, label in zip(zip(*columns, strict=True), labels, strict=True)
    ]
