"""Keeping decisions twice: in Postgres' hash chain and as a JSON file each, so that neither can be edited unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.records import Decision, to_dict, to_json
from selfheal.store import decisions
from selfheal.whole_file import write_whole

if TYPE_CHECKING:
    from selfheal.store import Store


def decision_folder(data_dir: Path) -> Path:
    return data_dir / "decisions"


def record_decision(store: Store, data_dir: Path, decision: Decision) -> Decision:
    """Keeps a decision; one with the same id is kept once, as it was first. Returns the one that is kept."""
    decisions.append(store, decision)
    kept = decisions.find(store, decision.decision_id)
    assert kept is not None
    path = decision_folder(data_dir) / f"{kept.created_at:%Y%m%dT%H%M%S}-{kept.decision_id}.json"
    if not path.exists():
        write_whole(path, to_json(kept))  # another process may be writing the same decision
    return kept


def verify_decisions(store: Store, data_dir: Path) -> list[str]:
    """Every difference between the chain, its hashes and the JSON files, a sentence each. Empty: all is as it was."""
    problems = decisions.chain_problems(store)
    stored = {decision.decision_id: to_dict(decision) for decision in decisions.recent(store, limit=1_000_000)}
    seen: set[str] = set()
    for path in sorted(decision_folder(data_dir).glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
            decision_id = str(content["decision_id"])
        except (ValueError, KeyError, TypeError):
            problems.append(f"{path.name} is not a decision record")
            continue
        seen.add(decision_id)
        if decision_id not in stored:
            problems.append(f"decision {decision_id} is in {path.name} but not in Postgres")
        elif stored[decision_id] != content:
            problems.append(f"decision {decision_id} in Postgres differs from {path.name}")
    problems += [f"decision {decision_id} has no JSON file" for decision_id in stored if decision_id not in seen]
    return problems
