"""One monitoring tick: proxy metrics, drift and performance of the same window, the verdict, and reports for people."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from selfheal.domain.records import (
    DriftReport,
    Interval,
    PerformanceReport,
    ProxyMetrics,
    TickRecord,
    Triage,
    Verdict,
)
from selfheal.kit.serialization import to_dict
from selfheal_assets.assets import BY_HAND, EACH_TICK, MONTHLY, described
from selfheal_assets.assets.reference import reference_data
from selfheal_assets.assets.serving_logs import label_store, prediction_logs
from selfheal_assets.metadata import Facts, plain, table
from selfheal_assets.resources import links
from selfheal_assets.resources.platform import PlatformResource

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

FEED_IS_SOUND, MODEL_DOES_NO_HARM = "feed_is_sound", "model_does_no_harm"


@dg.asset(
    kinds={"postgres"},
    output_required=False,
    deps=[prediction_logs, label_store],
    tags=EACH_TICK,
    description=described(
        "The window of the champion's newest traffic (`MONITORING_LOOKBACK` hours, or more until it has `MIN_DRIFT_ROWS`; "
        "nothing from before it went live), and what it shows without labels: positive rate, mean and spread of the "
        "probability, entropy. Gives nothing while the champion has served nothing.",
        runs="with each tick: every `MONITORING_INTERVAL` seconds if there is new traffic.",
        red="No version is in production (`selfheal bootstrap`), or Postgres does not answer: the message says which.",
    ),
)
def proxy_metrics(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[dg.Output[ProxyMetrics]]:
    from selfheal.services.tick import collect

    proxy = collect(platform.open(), datetime.now(UTC))
    if proxy is None:
        context.log.info("The champion has served nothing yet: there is nothing to monitor.")
        return
    window = proxy.window
    yield dg.Output(
        proxy,
        metadata=plain(
            {
                "model_version": window.model_version,
                "predictions": window.n_predictions,
                "labels": window.n_labels,
                "window_start": dg.MetadataValue.timestamp(window.start),
                "window_end": dg.MetadataValue.timestamp(window.end),
                "window_hours": window.length / timedelta(hours=1),
                **{name: getattr(proxy, name) for name in PROXY_FIELDS},
            }
        ),
    )


PROXY_FIELDS = ("positive_rate", "probability_mean", "probability_std", "entropy")


@dg.asset(
    kinds={"evidently"},
    deps=[reference_data],
    tags=EACH_TICK,
    description=described(
        "Each feature and the predicted probability against the reference frozen with the champion (this one acts) and the "
        "first baseline (informs). Significant under the false-alarm budget *and* material, or not drifted. The page behind "
        "`report` is written when the state changes and hourly while drifted.",
        runs="with each tick.",
        red="The champion's reference cannot be read: MLflow's artifacts are away or were changed; the message names the file.",
    ),
)
def drift_report(proxy_metrics: ProxyMetrics, platform: PlatformResource) -> dg.Output[DriftReport]:
    from selfheal.services.tick import compare

    opened = platform.open()
    report = _with_page(opened, compare(opened, proxy_metrics.window))
    rows = [
        {
            "column": c.column,
            "drifted": "yes" if c.is_drifted or c.is_missing_rate_drifted else "",
            "effect": round(c.effect, 3),
            "p_value": c.p_value,
            "missing_now_pct": round(c.current_missing_pct, 1),
            "missing_reference_pct": round(c.reference_missing_pct, 1),
        }
        for c in sorted(report.columns, key=lambda c: -c.effect)
    ]
    metadata: Facts = {
        "drifted_features": ", ".join(report.drifted_features) or "none",
        "num_drifted_features": len(report.drifted_features),
        "long_term_drift": ", ".join(report.baseline_drifted_features) or "none",
        "compared_rows": report.n_current,
        "feed_problems": "; ".join(report.feed_problems) or "none",
        "feature_drift_ratio": report.feature_drift_ratio,
    }
    if rows:
        metadata["columns"] = table(rows)
    if report.report_ref is not None:
        page = opened.settings.data_dir.resolve() / report.report_ref
        metadata["report"] = links.report_page(opened.settings, page.name)
        metadata["report_file"] = dg.MetadataValue.path(page)
    return dg.Output(report, metadata=plain(metadata))


@dg.asset(
    kinds={"scikitlearn"},
    deps=[label_store],
    tags=EACH_TICK,
    description=described(
        "How well the champion does in the window: realised on labelled rows, estimated without labels by CBPE. All with 95 % "
        "intervals. Realised are rows old enough to have been labelled, where that age can be told. `brier_excess` is the "
        "loss beyond what the model's own probabilities announce. `concept_drift` is by labels alone: an estimate is never "
        "proof of health.",
        runs="with each tick.",
        red="The champion's reference cannot be read, or Postgres does not answer: the message says which.",
    ),
)
def performance_report(proxy_metrics: ProxyMetrics, platform: PlatformResource) -> dg.Output[PerformanceReport]:
    from selfheal.services.tick import measure

    report = measure(platform.open(), proxy_metrics.window)
    realised = {} if report.realised is None else to_dict(report.realised)
    numbers = _with_intervals("realised", realised, report.realised_intervals)
    metadata: Facts = {
        "metrics": table(_metric_rows(report)),
        "realised_on": "matured rows" if report.is_matured else "labelled rows of any age",
        "concept_drift": report.concept_drift.value,
    }
    if report.estimate is not None:
        numbers |= _with_intervals("estimated", report.estimate.values, report.estimate.intervals)
        metadata["estimate"] = report.estimate.reason
    if report.label_delay is not None:
        numbers["matured_after_s"] = report.label_delay.matured_after_s
        metadata["label_delay"] = report.label_delay.reason
    numbers |= {name: getattr(report, name) for name in PERFORMANCE_FIELDS}
    return dg.Output(report, metadata=plain(metadata | numbers))


PERFORMANCE_FIELDS = (
    "label_coverage_pct",
    "matured_coverage_pct",
    "brier_excess",
    "brier_excess_low",
    "concept_drift_p_value",
)


def _with_intervals(
    prefix: str, values: Mapping[str, float | None], intervals: Mapping[str, Interval]
) -> dict[str, float | None]:
    """Return `<prefix>_<metric>`, and `_low` and `_high` for metrics with an interval."""
    numbers = {f"{prefix}_{name}": value for name, value in values.items()}
    for name, interval in intervals.items():
        numbers |= {f"{prefix}_{name}_low": interval.low, f"{prefix}_{name}_high": interval.high}
    return numbers


def _metric_rows(report: PerformanceReport) -> list[dict[str, str]]:
    """Return one row per metric: realised and estimated with their 95 % intervals, and the champion's value at its verdict."""
    values, intervals = ({}, {}) if report.estimate is None else (report.estimate.values, report.estimate.intervals)
    return [
        {
            "metric": name,
            "realised": _figure(getattr(report.realised, name, None), report.realised_intervals.get(name)),
            "estimated": _figure(values.get(name), intervals.get(name)),
            "reference": _figure(getattr(report.reference, name), None),
        }
        for name in ("f1", "precision", "recall", "auc_roc", "brier")
    ]


def _figure(value: float | None, interval: Interval | None) -> str:
    """Return `0.620 (0.550 to 0.680)`; empty if unknown."""
    if value is None:
        return ""
    return f"{value:.3f}" + ("" if interval is None else f" ({interval.low:.3f} to {interval.high:.3f})")


@dg.asset(
    kinds={"postgres"},
    tags=EACH_TICK,
    check_specs=[
        dg.AssetCheckSpec(FEED_IS_SOUND, asset="monitoring_alerts", description="The feed is not broken."),
        dg.AssetCheckSpec(
            MODEL_DOES_NO_HARM,
            asset="monitoring_alerts",
            description="The traffic is enough for a verdict, and shows no harm.",
        ),
    ],
    description=described(
        "The verdict of the tick: `stable`, `benign_shift`, `harmful_shift`, `broken_feed` or `insufficient`, with every "
        "reason; a row of `monitoring_metrics`; alerts opened, updated and resolved, and sent to `NOTIFY_URLS`; on a change of "
        "state, and hourly while drifted, the overview page of a report. A harmful shift makes a sensor ask for a retraining.",
        runs="with each tick.",
        red="The reports it rests on are of different windows: materialise them together, with the job `monitoring_job`. Are "
        "only its checks red? That is the verdict: broken feed, repair the sender; harm, the loop retrains by itself.",
    ),
)
def monitoring_alerts(
    proxy_metrics: ProxyMetrics,
    drift_report: DriftReport,
    performance_report: PerformanceReport,
    platform: PlatformResource,
) -> Iterator[dg.Output[Triage] | dg.AssetCheckResult]:
    from selfheal.adapters.alerting.delivery import deliver_due_alerts
    from selfheal.services.reports.files import results_folder, save_tick
    from selfheal.services.reports.writer import is_worth_a_page, write_overview
    from selfheal.services.tick import conclude

    opened = platform.open()
    if not proxy_metrics.window == drift_report.window == performance_report.window:
        raise dg.Failure("the three reports are of different windows: materialise them together (job `monitoring_job`)")
    triage, _ = conclude(opened, proxy_metrics, drift_report, performance_report, datetime.now(UTC))
    tick = TickRecord(triage, proxy_metrics, drift_report, performance_report)
    folder = results_folder(opened.settings.data_dir)
    save_tick(tick, folder)
    deliver_due_alerts(opened.settings, opened.store, datetime.now(UTC))
    page = write_overview(opened, tick, datetime.now(UTC)) if is_worth_a_page(opened, tick) else None
    yield dg.Output(
        triage,
        metadata=plain(
            {
                "verdict": triage.verdict.value,
                "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in triage.reasons)),
                **({} if page is None else {"report": links.report_page(opened.settings, page.name)}),
                "open_alerts": len(triage.alerts),
                "alerts": dg.MetadataValue.md(
                    "\n".join(f"- **{a.severity}** {a.message}" for a in triage.alerts) or "none"
                ),
                "episode": triage.episode_id or "none",
            }
        ),
    )
    yield from _verdict_checks(triage)


@dg.asset(
    kinds={"plotly", "evidently"},
    deps=[monitoring_alerts],
    tags=BY_HAND,
    description=described(
        "A report of the champion's traffic as it is now: verdict, distributions, shifts, missing values, quality over time, "
        "and Evidently's page. Records nothing and notifies nobody.",
        runs="when a person materialises it, like `selfheal report`. Each change of state writes one by itself.",
        red="No version is in production yet, or the folder of reports cannot be written: the message says which.",
    ),
)
def monitoring_report(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult[None]:
    from selfheal.services.reports.writer import report_now

    opened = platform.open()
    page = report_now(opened, datetime.now(UTC))
    if page is None:
        context.log.info("The champion has served nothing yet: there is nothing to report on.")
        return dg.MaterializeResult(metadata=plain({"report": "none: the champion has served nothing yet"}))
    return dg.MaterializeResult(
        metadata=plain(
            {
                "report": links.report_page(opened.settings, page.name),
                "file": dg.MetadataValue.path(page.resolve()),
            }
        )
    )


@dg.asset(
    kinds={"plotly"},
    deps=[prediction_logs, label_store],
    tags=MONTHLY,
    description=described(
        "What other policies would have made of the platform's own logs: the predictions of the last `POLICY_REPORT_DAYS` days, "
        "`POLICY_REPORT_MAX_ROWS` at most, are replayed on a simulated clock, each label known no earlier than it was, under a "
        "policy that never retrains, one that does so weekly, and ours. A page with a picture and the cost of each. Decides "
        "nothing.",
        runs="on the first of each month at 04:00 UTC, and when a person materialises it, like `selfheal replay --logs`.",
        red="A replay failed or took more than an hour; the message says which. Lower `POLICY_REPORT_MAX_ROWS` or `POLICY_REPORT_DAYS`.",
    ),
)
def policy_report(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult[None]:
    from selfheal.kit.errors import InvalidDataError
    from selfheal.simulate.replay.policy_report import write_policy_report

    opened = platform.open()

    def report_progress(n_done: int, n_replays: int) -> None:
        context.log.info(f"{n_done} of {n_replays} replays")

    try:
        report = write_policy_report(opened, datetime.now(UTC), report_progress)
    except InvalidDataError as error:
        context.log.info(f"Nothing is replayed: {error}")
        return dg.MaterializeResult(metadata=plain({"report": f"none: {error}"}))
    return dg.MaterializeResult(
        metadata=plain(
            {
                "report": links.report_page(opened.settings, report.page.name),
                "file": dg.MetadataValue.path(report.page.resolve()),
                "deployment": report.description,
                "predictions": report.n_predictions,
                "labels": report.n_labels,
                "policies": table(report.rows),
                **{f"brier_{name}": brier for name, brier in report.brier.items()},
            }
        )
    )


def _verdict_checks(triage: Triage) -> Iterator[dg.AssetCheckResult]:
    """Yield the verdict as two checks. Too little traffic does not pass, because unknown is not healthy."""
    told = f"{triage.verdict.value.replace('_', ' ')}: {'; '.join(triage.reasons)}"
    seen = plain({"predictions": triage.window.n_predictions, "labels": triage.window.n_labels})
    yield dg.AssetCheckResult(
        check_name=FEED_IS_SOUND, passed=triage.verdict is not Verdict.BROKEN_FEED, description=told, metadata=seen
    )
    yield dg.AssetCheckResult(
        check_name=MODEL_DOES_NO_HARM,
        passed=triage.verdict in {Verdict.STABLE, Verdict.BENIGN_SHIFT},
        severity=dg.AssetCheckSeverity.ERROR if triage.verdict is Verdict.HARMFUL_SHIFT else dg.AssetCheckSeverity.WARN,
        description=told,
        metadata=seen,
    )


def _with_page(platform: "Platform", report: DriftReport) -> DriftReport:
    """Render Evidently's page if it is due; return the report with a reference to it."""
    import dataclasses

    from selfheal.adapters.postgres.ticks import recent_ticks
    from selfheal.services.reports.files import should_render
    from selfheal.services.reports.writer import write_evidently

    if not report.columns:
        return report
    ticks = recent_ticks(platform.store, 288, report.window.model_version)
    rendered = next((tick.created_at for tick in ticks if tick.report_ref is not None), None)
    wanted = should_render(
        is_drifted=bool(report.drifted_features),
        was_drifted=bool(ticks[0].num_drifted_features) if ticks else None,
        last_rendered_at=rendered,
        now=datetime.now(UTC),
    )
    path = write_evidently(platform, report) if wanted else None
    if path is None:
        return report
    return dataclasses.replace(report, report_ref=str(path.relative_to(platform.settings.data_dir)))
