"""Verification of decisions: hash chain, files, promotions, and the table of versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from selfheal.adapters.decision_log import decision_folder, file_problems
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.adapters.postgres.promotions import list_promotions
from selfheal.adapters.postgres.spoiled_periods import spoiled_periods
from selfheal.domain.monitoring.declarations import Declared
from selfheal.domain.records import Action, Decision, ModelVersion, Promotion, SpoiledPeriod, Stage
from selfheal.services.verification.findings import Check, CheckResult

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

ALL = 1_000_000
"""Limit for reading all rows of a table that grows by a few rows per week."""

GOES_LIVE = frozenset({Action.PROMOTE, Action.ROLLBACK, Action.FORCE_PROMOTE})


def check_chain(platform: Platform, expected_head: str | None) -> CheckResult:
    """Check each decision's hash and predecessor and, if given, that a head noted elsewhere is still in the chain.

    What was sent while the feed was broken counts only by a decision of the chain.
    """
    check = Check("chain of decisions")
    with check.checking("table retraining_decisions", n_things=0):
        check.found(decisions.chain_problems(platform.store))
        known = decisions.all_readable(platform.store)
        check.n_checked = len(known)
        check.found(acceptance_problems(spoiled_periods(platform.store), known))
        if expected_head is not None and not decisions.is_in_chain(platform.store, expected_head):
            check.found(
                [f"no record has the hash {expected_head}: the chain was cut, or written anew, since it was noted"]
            )
    return check.result()


def acceptance_problems(periods: Mapping[str, SpoiledPeriod], known: Mapping[str, Decision | None]) -> Iterator[str]:
    """Yield the periods of a broken feed whose rows count by no decision that declares sound what was found broken."""
    for tick_id, period in periods.items():
        if period.accepted_by is not None and not _declares_sound(known.get(period.accepted_by), period):
            yield (
                f"what was sent while tick {tick_id} found the feed broken counts by decision {period.accepted_by}, "
                "which does not declare it sound"
            )


def _declares_sound(decision: Decision | None, period: SpoiledPeriod) -> bool:
    kind, _, column = ("" if decision is None else decision.declared or "").partition(":")
    return kind == Declared.SOUND and (not period.columns or column in period.columns)


def check_files(platform: Platform) -> CheckResult:
    """Check each decision's JSON file against Postgres."""
    check = Check("files of decisions")
    data_dir = platform.settings.data_dir
    with check.checking(str(decision_folder(data_dir)), n_things=0):
        check.found(file_problems(platform.store, data_dir))
        check.n_checked = sum(1 for _ in decision_folder(data_dir).glob("*.json"))
    return check.result()


def check_promotions(platform: Platform) -> CheckResult:
    """Check the promotions against their decisions and against the table of versions."""
    check = Check("promotions")
    with check.checking("table promotions", n_things=0):
        promotions = list_promotions(platform.store, ALL)[::-1]
        versions = model_versions.list_versions(platform.store, ALL)
        known = {key: one for key, one in decisions.all_readable(platform.store).items() if one is not None}
        check.found(promotion_problems(promotions, known, {version.version: version for version in versions}))
        check.found(version_problems(promotions, versions))
        check.n_checked = len(promotions) + len(versions)
    return check.result()


def promotion_problems(
    promotions: Sequence[Promotion], known: Mapping[str, Decision], versions: Mapping[int, ModelVersion]
) -> Iterator[str]:
    """Yield the contradictions among the promotions, oldest first."""
    before: Promotion | None = None
    for promotion in promotions:
        name = f"version {promotion.version} went live at {promotion.promoted_at:%Y-%m-%d %H:%M:%S} UTC"
        if before is not None and promotion.replaced_version != before.version:
            yield f"{name} and is said to have replaced {promotion.replaced_version}, but {before.version} was live"
        before = promotion
        decision, version = known.get(promotion.decision_id), versions.get(promotion.version)
        if decision is None:
            yield f"{name} by decision {promotion.decision_id}, which is not readable"
        elif version is None:
            yield f"{name}, but is not in model_metadata"
        else:
            yield from (f"{name}, but {difference}" for difference in _contradictions(promotion, decision, version))


def version_problems(promotions: Sequence[Promotion], versions: Collection[ModelVersion]) -> Iterator[str]:
    """Yield the stages in `model_metadata` that contradict the promotions, which are oldest first."""
    latest = {promotion.version: promotion for promotion in promotions}
    live = promotions[-1] if promotions else None
    in_production = {version.version for version in versions if version.stage is Stage.PRODUCTION}
    expected = set() if live is None else {live.version}
    if in_production != expected:
        yield f"in production: {sorted(in_production)} by model_metadata, {sorted(expected)} by the promotions"
    for version in versions:
        promotion = latest.get(version.version)
        if promotion is None:
            if version.stage is Stage.ARCHIVED:
                yield f"version {version.version} is archived, but never went live"
        elif version.stage is Stage.STAGING:
            yield f"version {version.version} is staging, but went live at {promotion.promoted_at}"
        elif (version.promoted_at, version.decision_id) != (promotion.promoted_at, promotion.decision_id):
            yield (
                f"version {version.version} went live at {version.promoted_at} by decision {version.decision_id} as "
                f"model_metadata has it, at {promotion.promoted_at} by {promotion.decision_id} as promotions has it"
            )


def _contradictions(promotion: Promotion, decision: Decision, version: ModelVersion) -> Iterator[str]:
    name = f"decision {decision.decision_id}"
    if decision.action not in GOES_LIVE:
        yield f"{name} is to {decision.action.value}"
    if decision.champion_version != promotion.replaced_version:
        yield f"{name} was to replace {decision.champion_version}, not {promotion.replaced_version}"
    if decision.mlflow_run_id != version.mlflow_run_id:
        yield f"{name} is on the model of run {decision.mlflow_run_id}, not of {version.mlflow_run_id}"
    if decision.model_sha256 != version.artifact_sha256:
        yield f"{name} is on a model with sha256 {decision.model_sha256}, not {version.artifact_sha256}"
