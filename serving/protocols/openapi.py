"""What OpenAPI says of other protocols' endpoints beyond their routes: media types, headers, and that 422 is never sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serving.protocols.errors import protocol_of

if TYPE_CHECKING:
    from fastapi import FastAPI

HEADER_PARAMETER = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "length of the JSON at the beginning of the body, if binary tensors follow it",
    "schema": {"type": "integer", "minimum": 0},
}
BINARY = {"schema": {"type": "string", "format": "binary", "description": "JSON, then the binary tensors"}}
CSV = {"schema": {"type": "string", "description": "a line with the columns' names, then a line for each row"}}


def describe_protocols(app: FastAPI) -> None:
    """Correct the app's OpenAPI document. Call this once, after the routes are there."""
    undescribed = app.openapi

    def openapi() -> dict[str, Any]:
        document = undescribed()
        for path, operations in document["paths"].items():
            if protocol_of(path) is not None:
                for operation in operations.values():
                    _describe(path, operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def _describe(path: str, operation: dict[str, Any]) -> None:
    operation["responses"].pop("422", None)  # FastAPI adds it to every operation with parameters
    if path.endswith("/infer"):
        operation["parameters"] = [p for p in operation["parameters"] if p["name"] != HEADER_PARAMETER["name"]]
        operation["parameters"].append(HEADER_PARAMETER)
        operation["requestBody"]["content"]["application/octet-stream"] = BINARY
        operation["responses"]["200"]["content"]["application/octet-stream"] = BINARY
    if path.endswith("/invocations"):
        operation["requestBody"]["content"]["text/csv"] = CSV
