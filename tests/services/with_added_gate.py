"""Run in a process of its own, on a copy of the packages that has one more gate: the loop, Dagster and the verification with it.

Writes what `test_added_gate` checks, as JSON. The settings are in the environment.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Any

import dagster as dg

import selfheal
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.cli.setting_sources import settings_sources
from selfheal.domain.records import Action, Decision, Trigger
from selfheal.services.platform import Platform, open_platform
from selfheal.services.verification.verdicts import newest_verdicts, verdict_differences
from selfheal.settings import load_settings
from selfheal_assets.definitions import build_definitions
from selfheal_assets.resources.platform import close_all
from serving.schemas.responses import decision_detail
from tests.services.steps import decide, retrain, tick
from tests.traffic import serve, toy_rows

N_ROWS = 1_200


def main(gate: str, setting: str) -> None:
    """Let the gate block a better model, loosen it, promote under Dagster, and verify every verdict."""
    settings = load_settings()
    platform = open_platform(settings)
    found: dict[str, Any] = {"packages": selfheal.__path__[0], "source": settings_sources(settings)[setting]}
    now = serve(platform, toy_rows(N_ROWS, scenario="overheating")).last_at + timedelta(hours=1)
    tick(platform, now)
    blocked = retrain(platform, decide(platform, Trigger.MANUAL, now), now).decision
    found["blocked"] = shown(blocked) | {"champion": model_versions.champion(platform.store).version}

    definitions = build_definitions(**{setting: 1.0})
    dg.Definitions.validate_loadable(definitions)
    result = definitions.resolve_job_def("retraining_job").execute_in_process()
    found["checks"] = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    close_all()
    promoted = next(one for one in decisions.recent(platform.store) if one.action is Action.PROMOTE)
    found["promoted"] = shown(promoted) | {"champion": model_versions.champion(platform.store).version}
    found["verified"] = [
        {"gates": len(verdict.gates), "differences": verdict_differences(platform, verdict)}
        for verdict in newest_verdicts(platform, 10)
    ]
    found["view"] = view(platform, promoted, gate)
    platform.close()
    sys.stdout.write(json.dumps(found))


def shown(decision: Decision) -> dict[str, Any]:
    return {
        "action": decision.action,
        "failed": decision.failed_gates,
        "gates": [gate.name for gate in decision.gates],
        "reason": decision.reason,
        "limits": decision.gate_config,
    }


def view(platform: Platform, decision: Decision, gate: str) -> dict[str, Any]:
    """The gate as the API gives it."""
    chained = decisions.find_chained(platform.store, decision.decision_id)
    assert chained is not None
    detail = decision_detail(chained)
    return next(one.model_dump(mode="json") for one in detail.gates if one.name == gate)


if __name__ == "__main__":
    main(*sys.argv[1:])
