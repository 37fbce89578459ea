"""`GET /metrics`: valid, exact, silent about what is not known, and whole however many workers there are."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.settings import Settings
from serving.observability.metrics import STALE_AFTER_SECONDS, MetricsPage
from tests.forwarder import forwarded
from tests.serving.history import READER, SCORER
from tests.serving.running import Api, api_in_thread, bodies, logged_probabilities
from tests.waiting import eventually

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]


def read(text: str) -> Samples:
    """Each sample by its name and labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(one.name, frozenset(one.labels.items())): one.value for one in samples}
    assert len(found) == len(samples), "a series was told twice"
    return found


def scrape(api: Api) -> Samples:
    answer = api.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return read(answer.text)


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"selfheal_{name}", frozenset(labels.items())))


def test_counts_go_up_by_exactly_what_was_sent(api: Api) -> None:
    before = scrape(api)
    answers = [api.post("/predict", row).json() for row in bodies(20)]
    batch = api.post("/predict/batch", {"instances": [*bodies(7, seed=2), {"colour": "red"}]}).json()["predictions"]
    answers += [one for one in batch if one is not None]
    api.post("/predict", {"colour": "red"})
    api.post("/predict?colour=red", bodies(1)[0])
    api.client.post("/predict", content=b"{}")
    label = {"prediction_id": answers[0]["prediction_id"], "true_label": 1}
    for body in (label, label, label | {"true_label": 0}):
        api.post("/labels", body)

    after = scrape(api)
    for outcome in (0, 1):
        n_answers = sum(one["prediction"] == outcome for one in answers)
        assert n_answers > 0
        assert value(after, "predictions_total", model_version="1", prediction=str(outcome)) == n_answers
    assert {key: number for key, number in after.items() if key[0] == "selfheal_refused_requests_total"} == {
        ("selfheal_refused_requests_total", frozenset({("kind", "invalid_request")})): 2,
        ("selfheal_refused_requests_total", frozenset({("kind", "unsupported_media_type")})): 1,
    }
    for outcome in ("accepted", "duplicate", "conflict"):
        assert value(after, "labels_total", outcome=outcome) == 1
    assert value(before, "scoring_latency_seconds_count") == 0
    assert value(after, "scoring_latency_seconds_count") == 21, "a batch is one request"
    assert value(after, "waiting_rows") == 0


def test_the_latency_is_a_histogram_as_prometheus_means_it(api: Api) -> None:
    for row in bodies(20):
        api.post("/predict", row)
    samples = scrape(api)
    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in samples.items()
        if name == "selfheal_scoring_latency_seconds_bucket"
    }
    counts = [buckets[bound] for bound in sorted(buckets)]
    assert counts == sorted(counts)
    assert buckets[float("inf")] == value(samples, "scoring_latency_seconds_count") == 20
    total = value(samples, "scoring_latency_seconds_sum")
    assert total is not None
    assert 0 < total < 20 * max(bound for bound in buckets if bound < float("inf"))


def test_the_state_of_model_journal_and_process_is_told(api: Api) -> None:
    for row in bodies(5):
        api.post("/predict", row)
    eventually(lambda: len(logged_probabilities(api.settings)) == 5, "the journal is copied")
    eventually(lambda: value(scrape(api), "journal_lag_bytes") == 0, "no lag is left")
    samples = scrape(api)
    assert value(samples, "ready") == value(samples, "model_followed") == value(samples, "model_version") == 1
    assert value(samples, "journal_copied_rows_total") == 5
    assert value(samples, "journal_damaged_lines_total") == value(samples, "journal_torn_files_total") == 0
    lag_seconds = value(samples, "journal_lag_seconds")
    assert lag_seconds is not None
    assert 0 <= lag_seconds < 30
    assert samples["process_resident_memory_bytes", frozenset()] > 1e7


def test_what_is_not_known_is_absent_and_not_0(api_settings: Settings, server: EmbeddedServer) -> None:
    with forwarded(api_settings, server.socket_dir) as (settings, network):
        network.mend()
        with api_in_thread(settings) as api:
            eventually(lambda: value(scrape(api), "journal_lag_bytes") == 0, "the lag is known")
            network.cut()
            eventually(lambda: value(scrape(api), "journal_lag_bytes") is None, "it is not known any more")
            samples = scrape(api)
            assert value(samples, "ready") == 1
            eventually(lambda: value(scrape(api), "model_followed") == 0, "promotions would not be seen")
            assert (value(scrape(api), "journal_lag_seconds") or 0) > (value(samples, "journal_lag_seconds") or 0)


def test_without_a_model_the_service_is_not_ready_and_names_no_version(without_production: Settings) -> None:
    with api_in_thread(without_production) as api:
        api.post("/predict", bodies(1)[0])
        samples = scrape(api)
        assert value(samples, "ready") == value(samples, "model_followed") == 0
        assert value(samples, "model_version") is None
        assert value(samples, "refused_requests_total", kind="not_ready") == 1


@pytest.mark.parametrize(
    ("key", "status"),
    [("", 401), ("wrong", 401), (SCORER, 403), (READER, 200)],
    ids=["no key", "wrong", "for scoring", "for reading"],
)
def test_a_key_that_may_read_is_asked_for(watched_api: Api, key: str, status: int) -> None:
    n_before = value(scrape(watched_api), "wrong_keys_total")
    assert n_before is not None
    with httpx.Client(base_url=watched_api.client.base_url) as stranger:
        assert stranger.get("/metrics", headers={"X-API-Key": key} if key else {}).status_code == status
    assert value(scrape(watched_api), "wrong_keys_total") == n_before + (key == "wrong")


# Several workers


class Sent(Collector):
    """A worker's own count."""

    def __init__(self, count: int) -> None:
        self.count = count

    def collect(self) -> Iterator[Metric]:
        told = CounterMetricFamily("selfheal_sent", 'What "it" \\ sent.', labels=("to",))
        told.add_metric(('a "quoted"\nname',), self.count)
        yield told


def page_of(folder: Path, name: str, count: int) -> MetricsPage:
    page = MetricsPage(Sent(count), folder)  # type: ignore[arg-type]
    page._name = f"{name}.prom"
    return page


def test_each_worker_tells_the_numbers_of_all(tmp_path: Path) -> None:
    one, two = page_of(tmp_path, "11", 3), page_of(tmp_path, "22", 4)

    async def told() -> list[str]:
        sharing = [asyncio.create_task(page.share()) for page in (one, two)]
        while len(list(tmp_path.glob("*.prom"))) < 2:
            await asyncio.sleep(0.01)
        texts = [page.text().decode() for page in (one, two)]
        for task in sharing:
            task.cancel()
        await asyncio.gather(*sharing, return_exceptions=True)
        return texts

    for text in asyncio.run(told()):
        samples = read(text)
        for worker, count in (("11", 3), ("22", 4)):
            assert value(samples, "sent_total", worker=worker, to='a "quoted"\nname') == count
        workers = {dict(labels)["worker"] for _, labels in samples}
        assert workers == {"11", "22"}, "every series says whose it is"
    assert list(tmp_path.iterdir()) == [], "workers that stop take their pages along"


@pytest.mark.parametrize("age_seconds", [STALE_AFTER_SECONDS + 1, -2 * 86_400.0], ids=["old", "the clock was set back"])
def test_what_a_worker_left_that_is_gone_is_told_no_more(tmp_path: Path, age_seconds: float) -> None:
    one = page_of(tmp_path, "11", 3)
    one._write(tmp_path / "11.prom")
    page_of(tmp_path, "22", 4)._write(tmp_path / "22.prom")
    (tmp_path / "33.tmp").write_text("half a pa")
    old = time.time() - age_seconds
    os.utime(tmp_path / "22.prom", (old, old))
    samples = read(one.text().decode())
    assert {dict(labels)["worker"] for _, labels in samples} == {"11"}
    assert not (tmp_path / "22.prom").exists()


def test_a_page_that_goes_while_it_is_looked_at_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = page_of(tmp_path, "11", 3)
    page_of(tmp_path, "22", 4)._write(tmp_path / "22.prom")
    read_text = Path.read_text

    def gone(path: Path) -> str:
        path.unlink()
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", gone)
    assert {dict(labels)["worker"] for _, labels in read(one.text().decode())} == {"11"}


def test_numbers_that_cannot_be_shared_are_told_by_their_own_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a_file").touch()
    one = page_of(tmp_path / "a_file", "11", 3)
    one._write(tmp_path / "a_file" / "11.prom")
    assert "cannot be shared" in caplog.text
    assert value(read(one.text().decode()), "sent_total", worker="11", to='a "quoted"\nname') == 3


def test_a_worker_alone_needs_no_label(api: Api) -> None:
    assert all("worker" not in dict(labels) for _, labels in scrape(api))
    assert not (api.settings.data_dir / "run" / "metrics").exists()
