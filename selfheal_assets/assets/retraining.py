"""Retraining: from a request to the gates' verdict."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import dagster as dg

from selfheal.adapters.datasets import Dataset
from selfheal.domain.records import (
    Action,
    Calibration,
    Decision,
    GateStatus,
    GateVerdict,
    ShadowModel,
    TrainingRecord,
    TrainingSetInfo,
    Trigger,
)
from selfheal.domain.retraining.dataset import TrainingSet
from selfheal.domain.retraining.gates import GATES
from selfheal.kit.serialization import to_dict
from selfheal_assets.assets import ON_REQUEST, described
from selfheal_assets.assets.monitoring import monitoring_alerts
from selfheal_assets.assets.reference import training_data
from selfheal_assets.assets.serving_logs import label_store, prediction_logs
from selfheal_assets.metadata import Facts, document, plain, table
from selfheal_assets.resources import links
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.resources.tracking import TrainingRun

COUNTED_GATES = frozenset(gate.name for gate in GATES if gate.is_counted)


class RequestTrigger(StrEnum):
    """`Trigger` in run configurations. Dagster stores an enum by the names of its members.

    The names must not change, because a queued or repeated run may have them across an upgrade.
    """

    bootstrap = "bootstrap"
    drift = "drift"
    performance = "performance"
    schedule = "schedule"
    manual = "manual"
    probation = "probation"


class RetrainingRequest(dg.Config):
    """Who requests a retraining, and why. The sensors fill this in; for a run by hand the defaults suffice."""

    trigger: RequestTrigger = RequestTrigger.manual
    reason: str = "asked for by hand"
    actor: str = "dagster"
    episode_id: str | None = None
    request_id: str | None = None

    def run_config(self) -> dg.RunConfig:
        """Return the configuration of a run for this request."""
        return dg.RunConfig(ops={"retraining_decision": self})


@dg.asset(
    kinds={"postgres"},
    deps=[training_data, monitoring_alerts],
    tags=ON_REQUEST,
    description=described(
        "Whether to train now: cooldown, labels, matured ones, enough of each class, coverage, a sound feed, attempts left, "
        "back-off; each condition with its reason. A skip is a decision too and is recorded.",
        runs="when a sensor, the weekly schedule (Monday 02:00 UTC) or a person asks.",
        red="Postgres does not answer: the message says so; the request stands and is taken up again.",
    ),
)
def retraining_decision(
    context: dg.AssetExecutionContext, config: RetrainingRequest, platform: PlatformResource
) -> dg.Output[Decision]:
    from selfheal.services.retraining import decide_retraining

    is_bootstrap = Trigger(config.trigger) is Trigger.BOOTSTRAP
    decision = decide_retraining(
        platform.open(),
        Trigger(config.trigger),
        episode_id=config.episode_id,
        actor=config.actor,
        reason=config.reason,
        now=datetime.now(UTC),
        request_id=config.request_id,
        bootstrap_data=context.load_asset_value(training_data.key, python_type=Dataset) if is_bootstrap else None,
    )
    conditions = "\n".join(f"- {'met' if c.is_met else '**not met**'}: {c.reason}" for c in decision.conditions)
    return dg.Output(
        decision,
        metadata=plain(
            {
                "action": decision.action.value,
                "reason": decision.reason,
                "conditions": dg.MetadataValue.md(conditions),
                "labels": decision.n_labels,
                "attempt": decision.attempt,
                "conditions_unmet": sum(not condition.is_met for condition in decision.conditions),
                "decision_id": decision.decision_id,
            }
        ),
    )


@dg.asset(
    kinds={"parquet", "pandas"},
    io_manager_key="frame_io",
    output_required=False,
    deps=[training_data, prediction_logs, label_store],
    tags=ON_REQUEST,
    description=described(
        "The rows to learn from and, strictly later, the rows to be judged on (after a change each row is both, in turn): "
        "labelled predictions beside the champion's own rows, which count as much as the recent ones say; or `training_data` at "
        "bootstrap. Gives nothing if the decision is to skip.",
        runs="after each `retraining_decision` to train.",
        red="Too few rows of a class: wait for labels. A feature gives the label away: the message names it.",
    ),
)
def training_set(
    context: dg.AssetExecutionContext,
    retraining_decision: Decision,
    platform: PlatformResource,
) -> Iterator[dg.Output[TrainingSet]]:
    from selfheal.services.retraining import gather_training_set

    if retraining_decision.action is not Action.TRAIN:
        context.log.info(f"Nothing to train: {retraining_decision.reason}")
        return
    is_bootstrap = retraining_decision.trigger_reason == Trigger.BOOTSTRAP
    bootstrap_data = context.load_asset_value(training_data.key, python_type=Dataset) if is_bootstrap else None
    rows = gather_training_set(platform.open(), retraining_decision, bootstrap_data, datetime.now(UTC))
    metadata: Facts = {
        "data": rows.info.source,
        "dagster/row_count": len(rows.frame),
        "training_rows": rows.info.n_train,
        "evaluation_rows": rows.info.n_evaluation,
        "positive_rate": rows.info.n_positive / len(rows.frame),
        "sha256": rows.info.sha256,
        "label_coverage_pct": rows.info.label_coverage_pct,
    }
    yield dg.Output(rows, metadata=plain(metadata | _what_was_weighed(rows.info) | _what_was_dropped(rows.info)))


def _what_was_weighed(info: TrainingSetInfo) -> Facts:
    if info.original_weight is None:
        return {}
    losses = [
        {"weight": weight, "log_loss": loss} for weight, loss in info.weight_log_losses.items() if loss is not None
    ]
    return {
        "original_rows": info.n_original,
        "original_source": info.original_source or "",
        "original_weight": info.original_weight,
        "original_weight_reason": info.weight_reason,
        "original_weight_log_losses": table(
            losses,
            schema=dg.TableSchema([dg.TableColumn("weight", "string"), dg.TableColumn("log_loss", "float")]),
        ),
    }


def _what_was_dropped(info: TrainingSetInfo) -> Facts:
    return {"dropped_copies": info.n_copied_inputs, "dropped_repeated_predictions": info.n_repeated_predictions}


@dg.asset(
    kinds={"scikitlearn", "mlflow"},
    tags=ON_REQUEST,
    description=described(
        "A candidate: tuned by grid search, calibrated, its threshold chosen, all on training rows, or a cheaper repair that is "
        "as good (`repair`); its metrics come from the evaluation rows. Logged to MLflow with everything needed to judge it and "
        "to train it again; not registered yet.",
        runs="after each `training_set`.",
        red="The estimator cannot be fitted or does not converge: the message says what to change. Production is untouched.",
    ),
)
def shadow_model(
    context: dg.AssetExecutionContext,
    training_set: TrainingSet,
    platform: PlatformResource,
    mlflow: dg.ResourceParam[TrainingRun],
) -> dg.Output[ShadowModel]:
    from selfheal.services.retraining import train_shadow

    def report_progress(n_done: int, n_fits: int) -> None:
        context.log.info(f"{n_done} of {n_fits} fits")

    opened = platform.open()
    shadow = train_shadow(opened, training_set, datetime.now(UTC), report_progress, mlflow.open)
    return dg.Output(
        shadow,
        metadata=plain(
            {
                **to_dict(shadow.metrics),
                "threshold": shadow.threshold,
                "params": document(shadow.params),
                "mlflow_run": links.mlflow_run(opened, shadow.mlflow_run_id),
                "model_sha256": shadow.artifact_sha256,
                **_calibration(shadow.record),
                **_repair(shadow.record),
            }
        ),
    )


def _calibration(record: TrainingRecord | None) -> Facts:
    """Return the calibration before and after the correction, and on the evaluation rows."""
    if record is None:
        return {}
    checks = {"out of fold": record.out_of_fold, "recalibrated": record.recalibrated, "evaluation": record.evaluation}
    rows = [{"rows": name, **_shown(check)} for name, check in checks.items() if check is not None]
    return {
        "calibration": table(rows),
        "recalibration": record.recalibration,
        **({"notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in record.notes))} if record.notes else {}),
    }


def _repair(record: TrainingRecord | None) -> Facts:
    """Return which repair the challenger is, and what it was chosen from."""
    choice = None if record is None else record.repair
    if choice is None:
        return {}
    rungs = table(map(to_dict, choice.rungs))
    return {"repair": choice.repair.value, "repair_reason": choice.reason, "repairs_compared": rungs}


def _shown(check: Calibration) -> dict[str, str | int | float]:
    return {name: "not known" if value is None else value for name, value in to_dict(check).items()}


@dg.asset(
    kinds={"postgres"},
    check_specs=[dg.AssetCheckSpec(gate.name, asset="gate_verdict", description=gate.description) for gate in GATES],
    tags=ON_REQUEST,
    description=described(
        "Six gates between the shadow model and production, on the same evaluation rows for both models; all must pass. "
        "Beside them: segments, reported or enforced (`GATE_SEGMENTS`), and the challenger on the champion's live traffic. "
        "A rejected model is a green run with red checks: that is the gates at work, and production is untouched. "
        "Inconclusive: the sentences say how many labels are missing, `worth_labelling` which to get first.",
        runs="after each `shadow_model`.",
        red="Champion or challenger cannot score the evaluation rows, or MLflow does not answer: the message says which. "
        "Production is untouched.",
    ),
)
def gate_verdict(
    shadow_model: ShadowModel, training_set: TrainingSet, platform: PlatformResource
) -> Iterator[dg.Output[GateVerdict] | dg.AssetCheckResult]:
    from selfheal.services.retraining import judge

    opened = platform.open()
    verdict = judge(opened, shadow_model, training_set, datetime.now(UTC))
    gates = verdict.decision.gates
    yield dg.Output(
        verdict,
        metadata=plain(
            {
                "action": verdict.decision.action.value,
                "reason": verdict.decision.reason,
                "gates": table({"gate": g.name, "status": g.status.value, "sentence": g.sentence} for g in gates),
                **_what_was_compared(verdict),
                **_live_traffic(verdict),
                **{f"gate_{gate.name}": gate.value for gate in gates},
                "gates_passed": sum(gate.status is GateStatus.PASS for gate in gates if gate.name in COUNTED_GATES),
                "mlflow_run": links.mlflow_run(opened, shadow_model.mlflow_run_id),
                "decision_id": verdict.decision.decision_id,
            }
        ),
    )
    for gate in gates:
        measured = {
            "value": gate.value,
            "threshold": gate.threshold,
            "interval_low": gate.interval_low,
            "interval_high": gate.interval_high,
            "rows": gate.n_rows,
        }
        yield dg.AssetCheckResult(
            check_name=gate.name,
            passed=gate.status in {GateStatus.PASS, GateStatus.NOT_APPLICABLE},
            description=f"{gate.status.value}: {gate.sentence}",
            metadata=plain({"status": gate.status.value, **measured}),
        )


def _what_was_compared(verdict: GateVerdict) -> Facts:
    challenger, champion = verdict.challenger_metrics, verdict.champion_metrics
    return {
        "challenger_f1": None if challenger is None else challenger.f1,
        "champion_f1": None if champion is None else champion.f1,
        "look": verdict.decision.verdict_number,
        "segments": _table(verdict.segments),
    }


def _live_traffic(verdict: GateVerdict) -> Facts:
    scoring = verdict.shadow_scoring
    return {
        "shadow_scoring": None if scoring is None else document(to_dict(scoring)),
        "agreement": None if scoring is None else scoring.agreement,
        "worth_labelling": _table(verdict.worth_labelling),
    }


def _table(rows: Sequence[object]) -> dg.TableMetadataValue | None:
    return table(map(to_dict, rows)) if rows else None
