"""Decision log: each decision is in Postgres' hash chain and in a JSON file, so that an edit of either is detected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfheal.adapters.postgres import decisions
from selfheal.domain.records import Decision
from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.serialization import from_dict, to_dict, to_json

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store


NEWEST = 10
"""Number of recent decisions whose missing files are written again (after a crash between the two steps). If an older
decision has no file, the file was removed; `verify` reports it."""


def decision_folder(data_dir: Path) -> Path:
    """Return the folder of the JSON files."""
    return data_dir / "decisions"


def record_decision(store: Store, data_dir: Path, decision: Decision) -> Decision:
    """Record a decision and return the recorded one: an existing decision with the same id is kept."""
    decisions.append(store, decision)
    recorded = decisions.find(store, decision.decision_id)
    assert recorded is not None
    _write_file(data_dir, recorded)
    write_missing_files(store, data_dir)
    return recorded


def write_missing_files(store: Store, data_dir: Path) -> None:
    """Write the missing files of the `NEWEST` decisions."""
    for decision in decisions.recent(store, NEWEST):
        _write_file(data_dir, decision)


def _write_file(data_dir: Path, decision: Decision) -> None:
    path = decision_folder(data_dir) / f"{decision.created_at:%Y%m%dT%H%M%S}-{decision.decision_id}.json"
    if not path.exists():
        write_atomic(path, to_json(decision), is_durable=True)  # another process may be writing the same one


def verify_decisions(store: Store, data_dir: Path) -> list[str]:
    """Return every difference between the chain, its hashes and the JSON files, one sentence each."""
    return decisions.chain_problems(store) + file_problems(store, data_dir)


def file_problems(store: Store, data_dir: Path) -> list[str]:
    """Return every difference between Postgres and the JSON files, one sentence each."""
    stored = decisions.all_readable(store)
    problems: list[str] = []
    seen: set[str] = set()
    for path in sorted(decision_folder(data_dir).glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
            decision_id = str(content["decision_id"])
        except (OSError, ValueError, KeyError, TypeError):
            problems.append(f"{path.name} is not a decision record")
            continue
        seen.add(decision_id)
        if decision_id not in stored:
            problems.append(f"decision {decision_id} is in {path.name} but not in Postgres")
        elif not _is_same(content, stored[decision_id]):
            problems.append(f"decision {decision_id} in Postgres differs from {path.name}")
    return problems + [f"decision {decision_id} has no JSON file" for decision_id in stored if decision_id not in seen]


def _is_same(content: dict[str, Any], stored: Decision | None) -> bool:
    """Return whether a file agrees with Postgres. A file from before a field was added lacks that field."""
    try:
        in_file = from_dict(Decision, content)
    except ValueError:  # a pydantic.ValidationError is a ValueError
        return False
    return in_file == stored and _is_within(content, to_dict(in_file))


def _is_within(part: Any, whole: Any) -> bool:
    """Return whether `whole` contains everything in `part`, so that a file has no unknown fields."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _is_within(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_is_within, part, whole))
    return bool(part == whole)
