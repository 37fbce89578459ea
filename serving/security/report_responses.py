"""Reports as answers: pages with scripts of their own, shown with as few rights as they need.

A report shows text that came from outside (messages, names). Should a script get in there after all, the page is of no origin
(`sandbox`), asks nothing of any host (`default-src 'none'`), and so cannot call this service for whoever looks at it.
"""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse

NOTHING_ELSE = "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
OWN = f"{NOTHING_ELSE}; script-src 'self'; sandbox allow-scripts allow-popups"
"""For our overview, which has no script of its own but loads two that lie beside it."""

EVIDENTLYS = f"{NOTHING_ELSE}; script-src 'unsafe-inline' 'unsafe-eval'; sandbox allow-scripts allow-downloads"
"""For Evidently's page, which brings everything along, scripts included."""

OF_THIS_CONTENT = "private, max-age=31536000, immutable"
"""For scripts: their names change with what is in them."""


def report_response(path: Path) -> FileResponse:
    """The file of a report. `SecurityHeaders` adds what every answer has."""
    if path.suffix == ".js":
        return FileResponse(path, media_type="text/javascript", headers={"cache-control": OF_THIS_CONTENT})
    policy = OWN if path.stem.endswith("-overview") else EVIDENTLYS
    headers = {"content-security-policy": policy, "cache-control": "private, no-cache"}
    return FileResponse(path, media_type="text/html", headers=headers)
