"""The API's peer in `benchmarks.serving`: the same server, FastAPI, and an endpoint that returns its request's body."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.post("/echo")
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    """Return the request's body."""
    return body


@app.get("/ready")
async def ready() -> None:
    """Respond with 200 once the server runs."""


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
