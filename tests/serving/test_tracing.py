"""Traces go to the collector that is configured, and nowhere without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from selfheal.settings import Settings
from serving import tracing
from serving.app import create_app
from serving.security.http_protocol import StrictHttpProtocol
from tests.local_server import served
from tests.serving.running import api_in_thread, bodies, free_port


class Collector(ThreadingHTTPServer):
    """An OpenTelemetry collector that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorHandler)
        self.paths: set[str] = set()
        self.spans: list[tuple[str, Any]] = []
        """Name of the service and span."""
        self.url = f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> Any:
        (found,) = [span for _, span in self.spans if span.name == name]
        return found


class CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.add(self.path)
        for of_resource in request.resource_spans:
            service = attributes(of_resource.resource)["service.name"]
            self.server.spans += [(service, span) for scope in of_resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not to the tests' output."""


def attributes(thing: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in thing.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with served(Collector()) as server:
        yield server


def traced(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"otel_exporter_otlp_endpoint": url})


def test_each_request_leaves_a_span_that_continues_the_clients_trace(
    api_settings: Settings, collector: Collector
) -> None:
    """They are sent when the service stops, at the latest."""
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with api_in_thread(traced(api_settings, f"{collector.url}/"), http=StrictHttpProtocol) as api:
        headers = {"traceparent": f"00-{trace_id}-{span_id}-01"}
        assert api.client.post("/predict", json=bodies(1)[0], headers=headers).status_code == 200
        assert api.post("/predict/batch", {"instances": 7}).status_code == 422
        assert api.client.get("/health/live").status_code == 200
    assert collector.paths == {"/v1/traces"}
    assert {service for service, _ in collector.spans} == {"selfheal-api"}
    scored, refused, asked = (
        collector.named(name) for name in ("POST /predict", "POST /predict/batch", "GET /health/live")
    )
    assert (scored.trace_id.hex(), scored.parent_span_id.hex()) == (trace_id, span_id)
    assert scored.end_time_unix_nano > scored.start_time_unix_nano
    assert [attributes(span)["http.response.status_code"] for span in (scored, refused, asked)] == [200, 422, 200]
    assert attributes(scored)["http.route"] == "/predict"
    assert len({span.trace_id for span in (scored, refused, asked)}) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_SERVICE_NAME", "scoring-eu"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=scoring-eu,region=eu")],
)
def test_the_service_is_called_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, api_settings: Settings, collector: Collector, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    telemetry = tracing.tracing(traced(api_settings, collector.url))
    telemetry["tracer_provider"].get_tracer("test").start_span("one").end()
    tracing.stop_tracing(telemetry)
    assert [service for service, _ in collector.spans] == ["scoring-eu"]


def test_a_collector_that_does_not_answer_holds_up_neither_requests_nor_the_stop(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "STOP_TIMEOUT_SECONDS", 0.1)
    with api_in_thread(traced(api_settings, f"http://127.0.0.1:{free_port()}"), http=StrictHttpProtocol) as api:
        assert [api.post("/predict", row).status_code for row in bodies(5)] == [200] * 5


def test_without_a_collector_nothing_is_loaded_and_nothing_is_made(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it now fails
    assert "tracer_provider" not in tracing.tracing(api_settings)
    create_app(api_settings)
    tracing.stop_tracing(tracing.tracing(api_settings))
