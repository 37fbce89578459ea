"""OpenTelemetry traces, if a collector is configured. FastAPI makes the spans; here is where they go."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from selfheal.settings import Settings


def tracing(settings: Settings) -> TelemetryConfig:
    """FastAPI's telemetry options: a span for each request, sent in the background; nothing without a collector.

    The exporter reads its other settings (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, sampling...) from the environment, as all of
    OpenTelemetry does. What cannot be delivered is dropped: its queue is bounded.
    """
    endpoint = settings.otel_exporter_otlp_endpoint
    if endpoint is None:
        return {"tracing": False, "metrics": False, "logs": False}
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "selfheal-api"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return {"tracing": True, "tracer_provider": provider, "metrics": False, "logs": False}
