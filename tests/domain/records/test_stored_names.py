"""Stored keys never change: a row written by an older release reads, and digests computed then come out again."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from selfheal.domain import records
from selfheal.domain.records import Decision
from selfheal.domain.records.stored_names import STORED_NAMES
from selfheal.kit.serialization import digest_of, from_dict, to_dict
from tests.builders import decision


def fields_of_all_records() -> dict[str, set[str]]:
    kinds = [kind for _, kind in inspect.getmembers(records, dataclasses.is_dataclass)]
    return {kind.__name__: {field.name for field in dataclasses.fields(kind)} for kind in kinds}


def test_a_renamed_attribute_is_written_and_read_under_its_stored_key() -> None:
    judged = dataclasses.replace(decision(), verdict_number=3)
    stored = to_dict(judged)
    assert stored["look"] == 3
    assert "verdict_number" not in stored
    assert from_dict(Decision, stored) == judged


def test_a_decision_of_release_0_1_0_reads_and_has_the_digest_it_had() -> None:
    stored = {
        "decision_id": "5b0c3d2f6a7e8190",
        "created_at": "2026-10-01T12:00:00Z",
        "model_name": "credit_risk",
        "trigger_reason": "drift",
        "action": "reject",
        "reason": "the gates say no",
        "actor": "drift_sensor",
        "champion_version": 1,
        "challenger_version": None,
        "mlflow_run_id": "run",
        "episode_id": "e1",
        "attempt": 2,
        "n_labels": 1200,
        "conditions": [],
        "gates": [],
        "data_sha256": None,
        "model_sha256": None,
        "gate_config_sha256": None,
        "code_version": None,
        "look": 2,
        "gate_config": {"level": 0.05},
    }
    read = from_dict(Decision, stored)
    assert read.verdict_number == 2
    added = {"onset": None, "declared": None, "cross_fitted_sha256": None}
    assert to_dict(read) == stored | added
    known = {name: value for name, value in to_dict(read).items() if name not in added}
    assert list(known) == list(stored), "in the same order"
    assert digest_of(known) == digest_of(stored)


def test_the_map_names_attributes_that_exist_and_no_key_that_another_attribute_has() -> None:
    everything: dict[str, Any] = fields_of_all_records()
    for attribute, key in STORED_NAMES.items():
        having = [kind for kind, names in everything.items() if attribute in names]
        assert having, f"no record has an attribute {attribute!r}"
        assert not [kind for kind in having if key in everything[kind]]
