"""Metrics for Prometheus, read from the service's own counts at each scrape, so that they cost nothing in between.

Several workers share one address, and a scrape reaches any of them. Each worker therefore writes its metrics to a file every
`SHARE_EVERY_SECONDS`, and the scraped worker returns those of all, with a `worker` label. The multiprocess mode of
prometheus_client is not used, because it does not support custom collectors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from selfheal.kit.atomic_file import write_atomic
from serving.schemas.problems import NOT_REFUSED

if TYPE_CHECKING:
    from serving.dependencies import Service
    from serving.scoring.fast_path import FastPath
    from serving.security.auth import Authenticator

logger = logging.getLogger(__name__)

SHARE_EVERY_SECONDS = 2.0
STALE_AFTER_SECONDS = 30.0
"""Age from which a file counts as that of a worker that has ended."""


class ServiceCollector(Collector):
    """The service's counts as Prometheus metrics.

    Args:
        of_protocols: scoring requests of other wire protocols, by protocol and outcome.
    """

    def __init__(
        self,
        service: Service,
        fast_path: FastPath,
        authenticator: Authenticator,
        of_protocols: Mapping[tuple[str, str], int],
    ) -> None:
        self._service = service
        self._of_protocols = of_protocols
        self._fast_path = fast_path
        self._authenticator = authenticator

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of this worker."""
        yield from self._predictions()
        yield from self._requests()
        yield from self._journal()
        yield from self._model()

    def _predictions(self) -> Iterator[Metric]:
        batcher = self._service.batcher
        predictions = CounterMetricFamily(
            "selfheal_predictions", "Acknowledged predictions.", labels=("model_version", "prediction")
        )
        for (version, prediction), count in batcher.n_by_outcome.copy().items():
            predictions.add_metric((str(version), str(prediction)), count)
        yield predictions
        latency = batcher.latency
        counts, buckets = 0, []
        for bound, count in zip((*latency.BOUNDS_SECONDS, None), tuple(latency.counts), strict=True):
            counts += count
            buckets.append(("+Inf" if bound is None else str(bound), float(counts)))
        yield HistogramMetricFamily(
            "selfheal_scoring_latency_seconds",
            "From a scoring request's arrival to its acknowledgement.",
            buckets=buckets,
            sum_value=latency.sum_seconds,
        )
        yield _gauge(
            "selfheal_waiting_rows", "Rows that wait to be scored and written to the journal.", batcher.n_waiting_rows
        )

    def _requests(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            "selfheal_refused_requests", "Refused scoring requests, by kind of problem.", labels=("kind",)
        )
        of_protocols = dict(self._of_protocols)
        n_refused = self._fast_path.n_refused.copy()
        for (_, outcome), count in of_protocols.items():
            if outcome not in NOT_REFUSED:
                n_refused[outcome] += count
        for kind, count in n_refused.items():
            refused.add_metric((kind,), count)
        yield refused
        requests = CounterMetricFamily(
            "selfheal_protocol_requests",
            "Scoring requests of other wire protocols, by outcome: answered, or the kind of problem.",
            labels=("protocol", "outcome"),
        )
        for (protocol, outcome), count in of_protocols.items():
            requests.add_metric((protocol, outcome), count)
        yield requests
        yield _counter("selfheal_wrong_keys", "Requests with an unknown API key.", self._authenticator.n_wrong_keys)
        labels = CounterMetricFamily("selfheal_labels", "Received labels, by outcome.", labels=("outcome",))
        for outcome, count in self._service.labels.n_by_outcome.copy().items():
            labels.add_metric((outcome,), count)
        yield labels

    def _journal(self) -> Iterator[Metric]:
        ingest_worker = self._service.ingest_worker
        is_ready = self._service.batcher.problem is None
        yield _gauge("selfheal_ready", "1 if predictions can be scored and acknowledged.", int(is_ready))
        yield _gauge(
            "selfheal_journal_lag_seconds",
            "Seconds since the whole journal was in Postgres.",
            ingest_worker.lag_seconds,
        )
        lag_bytes = ingest_worker.last_lag_bytes
        if lag_bytes is not None:  # absent, not 0, while Postgres is unavailable
            yield _gauge("selfheal_journal_lag_bytes", "Journal bytes that are not in Postgres.", lag_bytes)
        yield _counter(
            "selfheal_journal_copied_rows", "Rows copied to Postgres by this process.", ingest_worker.n_copied
        )
        yield _counter(
            "selfheal_journal_damaged_lines", "Damaged journal lines that were left out.", ingest_worker.n_damaged
        )
        yield _counter(
            "selfheal_journal_torn_files",
            "Journal files that a crash left with an incomplete line.",
            ingest_worker.n_torn,
        )
        yield _counter(
            "selfheal_label_conflicts", "Labels that contradict the one that counts.", ingest_worker.n_label_conflicts
        )

    def _model(self) -> Iterator[Metric]:
        champion, problem = self._service.holder.current, self._service.holder.problem
        if champion is not None:
            yield _gauge("selfheal_model_version", "The version that scores.", champion.version.version)
        is_followed = champion is not None and problem is None
        yield _gauge(
            "selfheal_model_followed", "1 if the version in production is the one that scores.", int(is_followed)
        )


class MetricsPage:
    """The metrics of this worker, or of all if there are several.

    Args:
        folder: where the workers share their metrics; None if there is only one worker.
    """

    def __init__(self, collector: ServiceCollector, folder: Path | None) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        for each in (ProcessCollector, PlatformCollector, GCCollector):
            each(registry=self._registry)
        self._registry.register(collector)
        self._folder = folder
        self._name = f"{os.getpid()}.prom"

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        own = generate_latest(self._registry)
        if self._folder is None:
            return own
        pages = {self._name: own.decode()} | dict(self._others())
        return generate_latest(_Pages(pages))

    async def share(self) -> None:
        """Write this worker's metrics for the others every `SHARE_EVERY_SECONDS`, until cancelled."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / self._name
        try:
            while True:
                await asyncio.to_thread(self._write, path)
                await asyncio.sleep(SHARE_EVERY_SECONDS)
        finally:
            path.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        try:
            write_atomic(path, generate_latest(self._registry))
        except OSError as error:
            logger.warning("this worker's metrics cannot be shared with the other workers: %s", error)

    def _others(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of each other worker's page; a page may disappear when its worker stops."""
        assert self._folder is not None
        for path in self._folder.glob("*.prom"):
            if path.name == self._name:
                continue
            with contextlib.suppress(FileNotFoundError):
                # From the future, too: before a clock was set back. A worker that lives writes its page again at once.
                if abs(time.time() - path.stat().st_mtime) > STALE_AFTER_SECONDS:
                    path.unlink()
                else:
                    yield path.name, path.read_text()


class _Pages(CollectorRegistry):
    """The pages of several workers as one, distinguished by a label."""

    def __init__(self, pages: dict[str, str]) -> None:
        super().__init__(auto_describe=False)
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for name, page in sorted(self._pages.items()):
            for family in text_string_to_metric_families(page):
                into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = sample.labels | {"worker": name.removesuffix(".prom")}
                    into.add_sample(sample.name, labels, sample.value)
        yield from merged.values()


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, value=value)
