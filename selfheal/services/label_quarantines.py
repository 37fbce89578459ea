"""Release of withheld labels by a person: they count again, and the decision chain says who took them for right, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from selfheal.domain.monitoring.label_sanity import LABELS_SUSPECT
from selfheal.domain.records import Action, Decision, LabelQuarantine, Trigger
from selfheal.domain.records.decisions import MAX_REASON_CHARACTERS
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import PermanentError, UnknownQuarantineError
from selfheal.kit.serialization import digest_of

if TYPE_CHECKING:
    from selfheal.services.repositories import LoopPlatform

SOURCE = "monitoring"
"""The source of the alert: a tick opens it (`selfheal.adapters.postgres.alerts.MONITORING`)."""


def release_labels(
    platform: LoopPlatform, quarantine_id: str, *, reason: str, actor: str, now: datetime
) -> LabelQuarantine:
    """Release the labels of a quarantine. Later labels of this version and source are not withheld any more.

    The decision is recorded first, so that no label counts again without one; a repeated release changes nothing.

    Raises:
        UnknownQuarantineError: if there is no such quarantine.
        PermanentError: if it is released already, or no reason is given.
    """
    if not reason.strip() or len(reason) > MAX_REASON_CHARACTERS:
        raise PermanentError(
            f"a reason of at most {MAX_REASON_CHARACTERS:,} characters is required: it is recorded with the decision"
        )
    known = {one.quarantine_id: one for one in platform.traffic.label_quarantines()}
    found = known.get(quarantine_id)
    if found is None:
        waiting = ", ".join(one.quarantine_id for one in known.values() if one.released_at is None) or "none"
        raise UnknownQuarantineError(f"there is no quarantine {quarantine_id!r} of labels; not released are: {waiting}")
    if found.released_at is not None:
        raise PermanentError(f"quarantine {quarantine_id} was released by {found.released_by} already")
    platform.decisions.record(_decision(platform, found, reason, actor, now))
    released = replace(found, released_at=now, released_by=actor, ended_at=found.ended_at or now)
    platform.traffic.record_label_quarantine(released)
    if not any(one.is_open for one in platform.traffic.label_quarantines(found.model_version)):
        platform.alerts.resolve(SOURCE, LABELS_SUSPECT, now)
    return released


def _decision(platform: LoopPlatform, found: LabelQuarantine, reason: str, actor: str, now: datetime) -> Decision:
    whose = "" if found.label_source is None else f" of {found.label_source!r}"
    until = "now" if found.ended_at is None else f"{found.ended_at:%Y-%m-%d %H:%M} UTC"
    text = f"labels{whose} received from {found.started_at:%Y-%m-%d %H:%M} UTC to {until} count again: {reason}"
    return Decision(
        decision_id=digest_of(Action.RELEASE_LABELS, found.quarantine_id)[:16],
        created_at=now,
        model_name=platform.contract.name,
        trigger_reason=Trigger.MANUAL.value,
        action=Action.RELEASE_LABELS,
        reason=text,
        actor=actor,
        champion_version=found.model_version,
        code_version=code_version(),
    )
