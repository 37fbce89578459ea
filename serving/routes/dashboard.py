"""`GET /`: the dashboard's page and its files. They contain no data, so they need no key."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from serving.dashboard.files import DashboardFiles, PackedFile
from serving.schemas.problems import ProblemError

router = APIRouter(include_in_schema=False)

PLOTLYS_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",  # an empty style, which Plotly fills rule by rule
    "'sha256-gG0b4ixT/IQUp7JJLbyKcpYcYDjq2Wp8NGv3f+aasqo='",  # the style of its map library
)
"""Digests of the inline styles that Plotly's bundle adds as it loads; no other inline style is allowed."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {' '.join(PLOTLYS_STYLES)}",
        "img-src 'self' data:",  # Plotly tests formats with tiny images
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content security policy: no inline script, no other host."""

CACHE_FOREVER = "public, max-age=31536000, immutable"
"""Cache-Control of files whose path changes with their content."""

REVALIDATE = "no-cache"
"""Cache-Control of the page: browsers ask each time whether it has changed, and download it only then."""


@router.get("/")
async def get_page(request: Request) -> Response:
    """Return the page, or 304 if the browser has it already."""
    files: DashboardFiles = request.app.state.dashboard
    headers = {
        "cache-control": REVALIDATE,
        "etag": files.index.etag,
        "content-security-policy": POLICY,
        "referrer-policy": "no-referrer",
    }
    if files.index.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return _response(request, files.index, headers)


@router.get("/dashboard/{folder}/{name:path}")
async def get_file(request: Request, folder: str, name: str) -> Response:
    """Return one of the page's files."""
    files: DashboardFiles = request.app.state.dashboard
    found = await asyncio.to_thread(files.find, folder, name)
    if found is None:
        raise ProblemError(404, "not_found", "there is no such file; reload the dashboard")
    return _response(request, found, {"cache-control": CACHE_FOREVER})


def _response(request: Request, file: PackedFile, headers: dict[str, str]) -> Response:
    headers = headers | {"content-type": file.media_type, "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers=headers | {"content-encoding": "gzip"})
    return Response(file.plain, headers=headers)
