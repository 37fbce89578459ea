"""Responses with reports: pages with scripts of their own, shown with as few rights as they need.

A report contains external text (messages, names). If a script were injected with it, the page has no origin (`sandbox`) and
may load nothing from any host (`default-src 'none'`), so the script cannot call this service in the reader's name.
"""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse

NOTHING_BUT_STYLES = "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
OVERVIEW_POLICY = f"{NOTHING_BUT_STYLES}; script-src 'self'; sandbox allow-scripts allow-popups"
"""Policy of our overview, which has no inline script but loads two files beside it."""

EVIDENTLY_POLICY = (
    f"{NOTHING_BUT_STYLES}; script-src 'unsafe-inline' 'unsafe-eval'; sandbox allow-scripts allow-downloads"
)
"""Policy of Evidently's page, which contains everything, including scripts."""

CACHE_FOREVER = "private, max-age=31536000, immutable"
"""Cache-Control of scripts, whose names change with their content."""


def report_response(path: Path) -> FileResponse:
    """Return the response with a report's file. `SecurityHeaders` adds the headers of every response."""
    if path.suffix == ".js":
        return FileResponse(path, media_type="text/javascript", headers={"cache-control": CACHE_FOREVER})
    policy = OVERVIEW_POLICY if path.stem.endswith("-overview") else EVIDENTLY_POLICY
    headers = {"content-security-policy": policy, "cache-control": "private, no-cache"}
    return FileResponse(path, media_type="text/html", headers=headers)
