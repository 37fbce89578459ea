"""OpenTelemetry traces, if a collector is configured. FastAPI makes the spans; this module exports them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from selfheal.settings import Settings


STOP_TIMEOUT_SECONDS = 5.0
"""Time limit for sending the last spans when the service stops, also if the collector does not respond."""


def tracing(settings: Settings) -> TelemetryConfig:
    """Return FastAPI's telemetry options: a span for each request, sent in the background; nothing without a collector.

    Everything else (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, sampling, ...) is read from the environment, as usual
    with OpenTelemetry. Spans that cannot be delivered are dropped, because the queue is bounded. `stop_tracing` sends the
    remaining ones.
    """
    endpoint = settings.otel_exporter_otlp_endpoint
    if endpoint is None:
        return {"tracing": False, "metrics": False, "logs": False}
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create({"service.name": "selfheal-api"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return {"tracing": True, "tracer_provider": provider, "metrics": False, "logs": False}


def stop_tracing(telemetry: TelemetryConfig) -> None:
    """Send the waiting spans, for at most `STOP_TIMEOUT_SECONDS`."""
    provider = telemetry.get("tracer_provider")
    if provider is None:
        return
    from opentelemetry.sdk.trace import TracerProvider

    assert isinstance(provider, TracerProvider)
    stopping = threading.Thread(target=provider.shutdown, name="tracing", daemon=True)
    stopping.start()
    stopping.join(STOP_TIMEOUT_SECONDS)


def name_span(route: str) -> None:
    """Name the span of this POST, if there is one, because the framework names only those of its own routes."""
    span = trace.get_current_span()
    span.update_name(f"POST {route}")
    span.set_attribute("http.route", route)
