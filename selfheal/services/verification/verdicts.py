"""Recomputation of gates from a verdict's recorded inputs: training set, both models, limits and verdict number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from selfheal.adapters.postgres import decisions, model_versions
from selfheal.domain.records import JUDGED, Decision, GateResult, ModelVersion
from selfheal.domain.retraining.gate_spec import GateLimits, GateSpec
from selfheal.domain.retraining.judging import GateOutcome, evaluate_gates, gates_of_verdict, recorded_place
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import IntegrityError, PermanentError
from selfheal.kit.same_numbers import is_same
from selfheal.kit.serialization import digest_of
from selfheal.services.retraining import evaluation_of
from selfheal.services.verification.findings import Check, CheckResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from selfheal.services.platform import Platform

TOLERANCE = 1e-9
"""Relative and absolute: the models are copies, but another machine's arithmetic may differ in the last bits of their scores."""


def newest_verdicts(platform: Platform, limit: int) -> list[Decision]:
    """Return the newest decisions of the gates, newest first."""
    return decisions.recent(platform.store, limit, JUDGED) if limit else []


def check_verdicts(platform: Platform, verdicts: Sequence[Decision], on_step: Callable[[str], None]) -> CheckResult:
    """Recompute each of these verdicts."""
    check = Check("verdicts, computed again")
    for verdict in verdicts:
        on_step(f"verdict {verdict.decision_id}")
        with check.checking(f"verdict {verdict.decision_id}"):
            check.found(f"verdict {verdict.decision_id}: {one}" for one in verdict_differences(platform, verdict))
    return check.result()


def verdict_differences(platform: Platform, verdict: Decision) -> list[str]:
    """Return where a recorded verdict differs from the recomputed one; empty if they agree.

    Raises:
        PermanentError: if it cannot be recomputed; the message says why.
        IntegrityError: if its inputs have changed.
    """
    outcome = recompute(platform, verdict)
    differences = list(gate_differences(verdict.gates, outcome.gates))
    if outcome.action is not verdict.action:
        differences.append(f"it was to {verdict.action.value}, the gates say {outcome.action.value}")
    if differences and verdict.code_version != code_version():
        differences.append(f"it was decided by code {verdict.code_version}, this is {code_version()}")
    return differences


def recompute(platform: Platform, verdict: Decision) -> GateOutcome:
    """Return a verdict's gates, recomputed from stored inputs; a gate on live traffic keeps its recorded result.

    Raises:
        PermanentError, IntegrityError: as `verdict_differences`.
    """
    if verdict.action not in JUDGED or verdict.mlflow_run_id is None:
        raise PermanentError(f"decision {verdict.decision_id} is to {verdict.action.value}: no gates decided it")
    gates, limits = recorded_gates(verdict)
    shadow = platform.registry.shadow_of_run(verdict.mlflow_run_id)
    if shadow.artifact_sha256 != verdict.model_sha256:
        raise IntegrityError(
            f"it judged a model with sha256 {verdict.model_sha256}, its run has {shadow.artifact_sha256}"
        )
    rows = platform.registry.training_set(shadow)
    if rows.info.sha256 != verdict.data_sha256:
        raise IntegrityError(f"it rests on rows with sha256 {verdict.data_sha256}, its run has {rows.info.sha256}")
    if verdict.cross_fitted_sha256 not in {None, shadow.cross_fitted_sha256}:
        raise IntegrityError(
            f"its challenger was judged by what has sha256 {verdict.cross_fitted_sha256}, its run has {shadow.cross_fitted_sha256}"
        )
    evaluation = evaluation_of(platform, shadow, _champion(platform, verdict), rows, verdict.n_labels)
    outcome = evaluate_gates(evaluation, limits, recorded_place(verdict), gates=gates)
    computed = {gate.name for gate in outcome.gates}
    as_decided = (gate for gate in verdict.gates if gate.name not in computed)
    return replace(outcome, gates=(*outcome.gates, *as_decided))


def recorded_gates(verdict: Decision) -> tuple[tuple[GateSpec, ...], GateLimits]:
    """Return the gates of a verdict that can be recomputed, and the limits that it used (`gates_of_verdict`).

    Raises:
        PermanentError: if its limits were not recorded, or if this release does not know one of its gates or limits.
        IntegrityError: if its limits do not match the recorded digest.
    """
    if verdict.gate_config is None:
        raise PermanentError("its limits were not recorded, so it cannot be computed again")
    found = gates_of_verdict(verdict.gate_config, [gate.name for gate in verdict.gates])
    if digest_of(verdict.gate_config) != verdict.gate_config_sha256:
        raise IntegrityError("its limits do not have the recorded digest")
    return found


def gate_differences(decided: Sequence[GateResult], found: Sequence[GateResult]) -> Iterator[str]:
    """Yield a sentence for each difference in status, value, threshold or interval of a recomputed gate."""
    by_name = {gate.name: gate for gate in decided}
    for gate in found:
        was = by_name.get(gate.name)
        if was is None:
            yield f"{gate.name} was not evaluated, it is {gate.status.value}"
            continue
        if was.status is not gate.status:
            yield f"{gate.name} was {was.status.value}, it is {gate.status.value}"
        for name in ("value", "threshold", "interval_low", "interval_high"):
            before, now = getattr(was, name), getattr(gate, name)
            if not is_same(before, now, TOLERANCE):
                yield f"{gate.name} had {name} {before}, it has {now} (compared to {TOLERANCE:g})"


def _champion(platform: Platform, verdict: Decision) -> ModelVersion | None:
    if verdict.champion_version is None:
        return None
    champion = model_versions.model_version(platform.store, verdict.champion_version)
    if champion is None:
        raise IntegrityError(
            f"version {verdict.champion_version}, which it was compared with, is not in model_metadata"
        )
    return champion
