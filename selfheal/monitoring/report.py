"""Files for people: Evidently's HTML of one comparison, and the JSON of every tick. Old ones are pruned."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from selfheal.records import TickRecord, from_dict, to_json

RENDER_AGAIN_AFTER = timedelta(hours=1)


def should_render(
    *, is_drifted: bool, was_drifted: bool | None, last_rendered_at: datetime | None, now: datetime
) -> bool:
    """A page of 4 MB is written when the state changes and hourly while drifted, not at every tick."""
    if is_drifted != bool(was_drifted):
        return True
    return is_drifted and (last_rendered_at is None or now - last_rendered_at >= RENDER_AGAIN_AFTER)


def save_html(snapshot: Any, folder: Path, name: str, keep: int) -> Path:
    """Writes the page and deletes all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.html"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    snapshot.save_html(str(temporary))
    temporary.replace(path)
    prune(folder, "*.html", keep=keep)
    return path


def results_folder(data_dir: Path) -> Path:
    return data_dir / "monitoring" / "results"


def save_tick(tick: TickRecord, folder: Path) -> Path:
    """Writes the tick's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _tick_path(folder, tick.triage.window.end, tick.triage.window.tick_id)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(to_json(tick))
    temporary.replace(path)
    return path


def read_tick(folder: Path, window_end: datetime, tick_id: str) -> TickRecord | None:
    """The tick's file; None if it is not there (pruned, or written on another host) or not whole."""
    try:
        return from_dict(TickRecord, json.loads(_tick_path(folder, window_end, tick_id).read_bytes()))
    except (OSError, ValueError):
        return None


def _tick_path(folder: Path, window_end: datetime, tick_id: str) -> Path:
    return folder / f"{window_end.astimezone(UTC):%Y%m%dT%H%M%S}-{tick_id}.json"


def prune(folder: Path, pattern: str, *, keep: int) -> int:
    """Deletes all but the newest `keep` files; returns how many went."""
    files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[keep:]:
        path.unlink(missing_ok=True)
    return len(files[keep:])
