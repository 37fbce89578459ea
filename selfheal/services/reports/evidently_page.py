"""Evidently's page with a note at its top: which figures decide, and which columns it leaves out. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

BODY = re.compile(r"<body\b[^>]*>", re.IGNORECASE)

STYLE = (
    "margin:12px auto;max-width:1200px;padding:10px 14px;border:1px solid #8a6d00;border-radius:8px;background:#fdf6e3;"
    "color:#1c2733;font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere"
)


def with_note(html: str, left_out: Sequence[str], overview: str) -> str:
    """Return the page with the note.

    Args:
        left_out: columns that were judged and are not on the page.
        overview: the file name of our own page.
    """
    note = _note(left_out, overview)
    body = BODY.search(html)
    return note + html if body is None else html[: body.end()] + note + html[body.end() :]


def _note(left_out: Sequence[str], overview: str) -> str:
    missing = ""
    if left_out:
        names = escape(", ".join(left_out))
        missing = f"<br><b>Not on this page:</b> {names}. The overview shows what is known."
    return (
        f'<div id="selfheal-note" style="{STYLE}"><b>This page decides nothing.</b> The verdict rests on the figures of the '
        f'<a href="{escape(overview)}">overview</a>: a column has drifted if its shift is significant and material. Evidently '
        "judges significance alone, and spreads its bars over the whole range of a column, so that a single extreme row can "
        f"hide a shift in its charts.{missing}</div>"
    )
