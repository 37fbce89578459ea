"""Model versions of a replay, their promotions and probations.

Belongs here: the rules of `selfheal.adapters.postgres.model_versions`, `.promotions` and `.probations`, on lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from selfheal.adapters.postgres.model_versions import GO_LIVE_STEPS
from selfheal.domain.records import Action, Decision, ModelVersion, ProbationReport, Promotion, Stage
from selfheal.kit.errors import NoProductionModelError, PromotionConflictError, UnknownVersionError
from selfheal.simulate.replay.memory.records import MemoryDecisions


@dataclass(frozen=True)
class _Switch:
    """A promotion and what its decision did."""

    promotion: Promotion
    action: Action


class MemoryVersions:
    """Model versions of a replay (`VersionRepository`)."""

    def __init__(self, decisions: MemoryDecisions) -> None:
        self._decisions = decisions
        self._versions: dict[int, ModelVersion] = {}
        self._switches: list[_Switch] = []
        self._probations: dict[tuple[int, datetime], ProbationReport] = {}

    def production(self) -> ModelVersion | None:
        return next((one for one in self._versions.values() if one.stage is Stage.PRODUCTION), None)

    def champion(self) -> ModelVersion:
        found = self.production()
        if found is None:
            raise NoProductionModelError("no version is in production in this replay")
        return found

    def find(self, version: int) -> ModelVersion | None:
        return self._versions.get(version)

    def newest(self, limit: int = 100) -> list[ModelVersion]:
        return [self._versions[number] for number in sorted(self._versions, reverse=True)[:limit]]

    def register_staging(self, version: ModelVersion) -> None:
        self._versions.setdefault(version.version, version)

    def go_live(
        self,
        version: int,
        *,
        replaces: int | None,
        decision: Decision,
        now: datetime,
        probation_until: datetime | None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        current = self.production()
        number = None if current is None else current.version
        if number == version and self.has_taken_effect(decision.decision_id):
            return
        if number != replaces:
            raise PromotionConflictError(f"version {version} was to replace {replaces}, but {number} is in production")
        target = self._versions.get(version)
        if target is None:
            raise UnknownVersionError(f"version {version} is not registered; production stays as it is")
        if decision.action is Action.PROMOTE and target.stage is not Stage.STAGING:
            raise PromotionConflictError(
                f"version {version} was in production before and was replaced since its verdict"
            )
        for step in GO_LIVE_STEPS:
            on_step(step)
        self._decisions.record(decision)
        if current is not None:
            self._versions[current.version] = replace(
                current, stage=Stage.ARCHIVED, archived_at=now, probation_until=None
            )
        self._versions[version] = replace(
            target,
            stage=Stage.PRODUCTION,
            promoted_at=now,
            archived_at=None,
            previous_version=replaces,
            probation_until=probation_until,
            decision_id=decision.decision_id,
        )
        position = len(self._switches) + 1
        promotion = Promotion(position, target.model_name, version, replaces, decision.decision_id, now)
        self._switches.append(_Switch(promotion, decision.action))

    def predecessor(self, version: int) -> int | None:
        found = [s for s in self._switches if s.promotion.version == version and s.action is not Action.ROLLBACK]
        return found[-1].promotion.replaced_version if found else None

    def has_taken_effect(self, decision_id: str) -> bool:
        return any(switch.promotion.decision_id == decision_id for switch in self._switches)

    def rollback_of(self, version: int) -> Promotion | None:
        found = [switch for switch in self._switches if switch.promotion.replaced_version == version]
        return found[-1].promotion if found and found[-1].action is Action.ROLLBACK else None

    def record_probation(self, report: ProbationReport, promoted_at: datetime, now: datetime) -> None:  # noqa: ARG002
        self._probations.setdefault((report.version, promoted_at), report)

    def probation_outcome(self, version: ModelVersion) -> ProbationReport | None:
        assert version.promoted_at is not None, "it has been in production"
        report = self._probations.get((version.version, version.promoted_at))
        if report is None:
            return None
        return ProbationReport(
            model_name=report.model_name,
            version=report.version,
            previous_version=version.previous_version,
            n_labels=report.n_labels,
            brier_change=report.brier_change,
            brier_change_low=report.brier_change_low,
            is_on_probation=False,
            reason=report.reason,
            outcome=report.outcome,
        )
