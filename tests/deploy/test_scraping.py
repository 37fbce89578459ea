"""Prometheus scrapes the real API by deploy/monitoring: what the dashboard and the rules ask for is there, and no alert is false."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import SecretStr

from selfheal.kit.api_keys import Scope, hashed_entry, new_api_key
from selfheal.settings import Settings
from tests.deploy.test_monitoring import FOLDER, boards, queries, rules
from tests.deploy.tools import PROMETHEUS
from tests.serving.running import api_in_thread, bodies, free_port
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, PROMETHEUS.needed]

EVERY = "200ms"
"""Between two scrapes, and two evaluations: a test does not wait for the 15 s of deploy/monitoring/prometheus.yml."""

MIN_SAMPLES = 3
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Watched:
    """A Prometheus that scrapes the API."""

    client: httpx.Client
    stop_api: Callable[[], None]

    def get(self, path: str, **parameters: str) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def values(self, query: str) -> list[float]:
        return [float(one["value"][1]) for one in self.get("query", query=query)["result"]]

    def alerts(self) -> dict[str, str]:
        """The state of each alert: inactive, pending or firing."""
        (group,) = self.get("rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}, group["rules"]
        return {rule["name"]: rule["state"] for rule in group["rules"]}


@pytest.fixture
def watched(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Watched]:
    """An API with keys that has answered everything there is a metric of, and Prometheus with the files of deploy/monitoring."""
    own, prometheus_key = new_api_key(), new_api_key()
    keys = (
        hashed_entry("own", frozenset(Scope), own),
        hashed_entry("prometheus", frozenset({Scope.READ}), prometheus_key),
    )
    settings = make_settings(api_keys=SecretStr(",".join(keys)), ingest_interval_seconds=0.05)
    with ExitStack() as api:
        running = api.enter_context(api_in_thread(settings))
        running.client.headers["X-API-Key"] = own
        send_some_of_everything(running.client)
        with prometheus(configuration(tmp_path, running.client.base_url.netloc.decode(), prometheus_key)) as client:
            found = Watched(client, stop_api=api.close)
            query = f"count_over_time(selfheal_ready[1m]) >= {MIN_SAMPLES}"
            eventually(lambda: found.values(query), "Prometheus has scraped the API", PATIENCE_SECONDS)
            yield found


def send_some_of_everything(client: httpx.Client) -> None:
    """Predictions, by another protocol too, a label, one that contradicts it, a wrong request and a wrong key."""
    scored = [client.post("/predict", json=body).raise_for_status().json() for body in bodies(20)]
    prediction_id = scored[0]["prediction_id"]
    for label in (0, 1):
        client.post("/labels", json={"prediction_id": prediction_id, "true_label": label})
    assert client.post("/predict", json={}).status_code == 422
    client.post("/invocations", json={"dataframe_records": bodies(1)}).raise_for_status()
    assert client.get("/metrics", headers={"X-API-Key": "wrong"}).status_code == 401


def configuration(folder: Path, target: str, key: str) -> Path:
    """The files of deploy/monitoring, with this API and this key, and no time to wait."""
    shutil.copy(FOLDER / "rules.yml", folder)
    (folder / "api_key").write_text(key)
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], EVERY)
    (scraped,) = config["scrape_configs"]
    scraped["authorization"]["credentials_file"] = str(folder / "api_key")
    scraped["static_configs"] = [{"targets": [target]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def prometheus(config: Path) -> Iterator[httpx.Client]:
    """Debian's Prometheus on a free port; a client of it. What it has stored is thrown away."""
    address, storage, log = f"127.0.0.1:{free_port()}", config.parent / "prometheus", config.parent / "prometheus.log"
    options = (f"--config.file={config}", f"--storage.tsdb.path={storage}", f"--web.listen-address={address}")
    with log.open("w") as output, httpx.Client(base_url=f"http://{address}", timeout=10) as client:
        process = subprocess.Popen([PROMETHEUS.found(), *options], stdout=output, stderr=subprocess.STDOUT)

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return client.get("/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        try:
            eventually(is_ready, "Prometheus is ready", PATIENCE_SECONDS)
            yield client
        finally:
            process.kill()
            process.wait()


def test_prometheus_sees_all_that_is_asked_for_and_alerts_only_when_the_api_is_gone(watched: Watched) -> None:
    """One test: the platform and Prometheus are most of its time."""
    without_an_answer = [query for query in queries() if not watched.values(query)]
    assert without_an_answer == []

    for board in boards().values():
        for variable in board["templating"]["list"]:
            metric = variable["query"]["query"].removeprefix("label_values(").removesuffix(", instance)")
            assert watched.get(f"label/{variable['name']}/values", **{"match[]": metric})

    expected = {rule["alert"] for rule in rules()}
    eventually(lambda: watched.alerts().keys() == expected, "the rules are loaded")
    may_be_pending = {"SelfhealLabelConflicts", "SelfhealWrongKeys"}  # which the requests above earn
    active = {name for name, state in watched.alerts().items() if state != "inactive"}
    assert active <= may_be_pending

    watched.stop_api()
    eventually(lambda: watched.alerts()["SelfhealApiDown"] == "pending", "its absence is noticed", PATIENCE_SECONDS)
