"""The nine operations that a process is ended in: what each does, how it goes on by itself, and what is unfinished after that.

Belongs here: one entry of the table a flavour of an operation. A new operation is one more entry. The functions call the
services as Dagster's assets and sensors do, without Dagster: its own steps are killed at random moments
(`benchmarks.crash.processes`). Does not belong here: what must hold whatever was done (`benchmarks.crash.checks`).
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.crash.states import HOT, HOUR, Acknowledged, Trial
from benchmarks.crash.whole_folder import (
    backup,
    backup_again,
    has_backup,
    server_missing,
    start_dagster,
    start_mlflow,
    start_server,
    without_backup,
)
from selfheal.adapters.journal import LABEL_JOURNAL, file_key, has_writer, prediction_journal
from selfheal.adapters.postgres import decisions, model_versions, probations, ticks
from selfheal.adapters.postgres.ingest import compress_copied, copied_positions, lag_bytes
from selfheal.adapters.postgres.journal_seals import seal_finished, sealed_files
from selfheal.domain.records import Action, GateVerdict, TickRecord, Trigger
from selfheal.services import retraining
from selfheal.services.maintenance import DeletedRuns, maintain
from selfheal.services.probation import resolve_finished_alerts, watch_probation
from selfheal.services.promotion import going_live
from selfheal.services.promotion.registry_sync import watch_registry

Work = Callable[[Trial], Any]
Unfinished = Callable[[Trial], list[str]]


@dataclass(frozen=True)
class Flavour:
    """One way an operation goes.

    Args:
        state: what it begins from (`benchmarks.crash.states`); None: an empty folder, with a Postgres of its own.
        prepare: makes the state random; nobody dies in it.
        run: the operation. What it hands to its caller, it tells.
        go_on: one round of what the platform does by itself, or the same person again.
        unfinished: what is still to be done, a sentence each; nothing at the end.
    """

    state: str | None
    prepare: Work
    run: Work
    go_on: Work
    unfinished: Unfinished
    owns_server: bool = False
    deletes_old_predictions: bool = False


def nothing(_: Trial) -> list[str]:
    """Do nothing: there is nothing to prepare, or nothing is unfinished."""
    return []


# Ingest


def traffic_before(trial: Trial) -> None:
    """Send some traffic, ingest it or not, and sometimes append half a line, as a writer that died leaves it."""
    trial.send(trial.rng.randrange(1, 40), labelled_share=trial.rng.random())
    if trial.rng.random() < 0.5:
        trial.ingest()
    if trial.rng.random() < 0.4:
        newest = prediction_journal(trial.platform.contract).files(trial.settings.data_dir)[-1]
        with newest.open("ab") as file:
            file.write(newest.read_bytes().splitlines()[-1][: trial.rng.randrange(1, 30)])


def ingest(trial: Trial) -> None:
    """From the writer's first line to compressed files."""
    trial.send(trial.rng.randrange(20, 60), labelled_share=trial.rng.random())
    copy_journals(trial)


def copy_journals(trial: Trial) -> None:
    """Copy the journals to Postgres, seal the files that are finished, and compress those that are copied."""
    trial.ingest()
    for kind in (prediction_journal(trial.platform.contract), LABEL_JOURNAL):
        seal_finished(trial.platform.store, kind, trial.settings.data_dir)
        compress_copied(trial.platform.store, kind, trial.settings.data_dir)


def uncopied(trial: Trial) -> list[str]:
    """Return what of the journals is not in Postgres, and which finished files are not sealed or not compressed."""
    store, data_dir = trial.platform.store, trial.settings.data_dir
    found = []
    for kind in (prediction_journal(trial.platform.contract), LABEL_JOURNAL):
        if (n_bytes := lag_bytes(store, kind, data_dir)) > 0:
            found.append(f"{n_bytes} bytes of the journal of {kind.name} are not in Postgres")
        done, sealed = copied_positions(store, kind), sealed_files(store, kind)
        finished = [path for path in kind.files(data_dir) if not has_writer(path) and done.get(file_key(path))]
        found += [f"{path.name} is not compressed" for path in finished if path.suffix == ".csv"]
        found += [f"{path.name} is not sealed" for path in finished if file_key(path) not in sealed]
    return found


# Tick


def tick(trial: Trial) -> str | None:
    """One monitoring tick, as the assets of `monitoring_job` do it; return the episode."""
    from selfheal.adapters.alerting.delivery import deliver_due_alerts
    from selfheal.services.reports.files import results_folder, save_tick
    from selfheal.services.reports.writer import is_worth_a_page, write_evidently, write_overview
    from selfheal.services.tick import collect, compare, conclude, measure

    platform, now = trial.platform, trial.now
    trial.ingest()
    proxy = collect(platform, now)
    assert proxy is not None, "there is traffic"
    report = compare(platform, proxy.window)
    if report.columns and report.drifted_features and trial.rng.random() < 0.5:
        page = write_evidently(platform, report)
        assert page is not None, "a drifted column has values"
        report = dataclasses.replace(report, report_ref=str(page.relative_to(trial.settings.data_dir)))
    performance = measure(platform, proxy.window)
    outcome, _ = conclude(platform, proxy, report, performance, now)
    record = TickRecord(outcome, proxy, report, performance)
    save_tick(record, results_folder(trial.settings.data_dir))
    deliver_due_alerts(trial.settings, platform.store, now)
    if is_worth_a_page(platform, record):
        write_overview(platform, record, now)
    return outcome.episode_id


def calm_traffic(trial: Trial) -> None:
    """Send rows without drift."""
    trial.send(trial.rng.randrange(20, 120))


def hot_traffic(trial: Trial) -> None:
    """Send rows with drift, all labelled."""
    trial.send(trial.rng.randrange(300, 500), scenario=HOT, labelled_share=1.0)


def broken_traffic(trial: Trial) -> None:
    """Send rows of a feed that has lost a column."""
    trial.send_broken(trial.rng.randrange(220, 300))


def unwatched(trial: Trial) -> list[str]:
    """Return what the newest tick does not cover, or which file of it is missing."""
    from selfheal.adapters.postgres.predictions import latest_activity
    from selfheal.services.reports.files import read_tick, results_folder

    store = trial.platform.store
    newest, _ = latest_activity(store, trial.now)
    row = ticks.latest_tick(store)
    if row is None or row.window_end != newest:
        return [f"no tick covers the newest prediction ({newest})"]
    if read_tick(results_folder(trial.settings.data_dir), row.window_end, row.tick_id) is None:
        return [f"the file of tick {row.tick_id} is missing or incomplete"]
    return []


# Retraining and promotion


def bootstrap(trial: Trial) -> None:
    """From labelled rows to version 1, as `bootstrap_job` does it."""
    from selfheal.adapters.datasets import load_dataset
    from selfheal.adapters.postgres.baseline import write_baseline

    platform, now = trial.platform, trial.now
    dataset = load_dataset(trial.settings, platform.contract)
    write_baseline(platform.store, dataset.frame, dataset.description, now, trial.settings.data_dir)
    verdict = _from_decision_to_verdict(trial, Trigger.BOOTSTRAP, None, dataset)
    assert verdict is not None, "nothing is in production: what speaks against a first version?"
    going_live.promote(platform, verdict, now)
    trial.tell(Acknowledged(switches=[1]))


def bootstrap_if_needed(trial: Trial) -> None:
    """As `selfheal up` does at each start."""
    fail_killed_runs(trial)
    if model_versions.production_version(trial.platform.store) is None:
        bootstrap(trial)
    watch_registry(trial.platform, trial.now)


def without_version(trial: Trial) -> list[str]:
    """Return a sentence if no version is in production."""
    return [] if model_versions.production_version(trial.platform.store) else ["no version is in production"]


def retrain(trial: Trial) -> GateVerdict | None:
    """As `retraining_job` does it up to its verdict; None if it was decided not to train."""
    return _from_decision_to_verdict(trial, Trigger.DRIFT, trial.extra, None)


def _from_decision_to_verdict(trial: Trial, trigger: Trigger, episode: str | None, data: Any) -> GateVerdict | None:
    platform, now = trial.platform, trial.now
    decision = retraining.decide_retraining(
        platform, trigger, episode_id=episode, actor="crash", reason="asked", now=now
    )
    if decision.action is not Action.TRAIN:
        return None
    rows = retraining.gather_training_set(platform, decision, data, decision.created_at)
    run_id = uuid4().hex
    try:
        shadow = retraining.train_shadow(
            platform, rows, now, open_run=lambda earlier: _open_run(trial, run_id, earlier)
        )
    finally:
        _end_run()
    return retraining.judge(platform, shadow, rows, now)


def _open_run(trial: Trial, dagster_run_id: str, earlier: str | None) -> str | None:
    """Open MLflow's run, tagged as dagster-mlflow does, so that whoever comes after a crash can tell whose it was."""
    import mlflow

    from selfheal.adapters.mlflow_registry import DAGSTER_RUN_TAG, unchanged_environment

    registry = trial.platform.registry
    if earlier is not None and registry.is_finished(earlier):
        return earlier
    (_runs_folder(trial) / dagster_run_id).touch()
    with unchanged_environment():
        config = registry.tracking_config()
        mlflow.set_tracking_uri(config["mlflow_tracking_uri"])
        experiment = mlflow.set_experiment(config["experiment_name"])
        run = mlflow.start_run(
            run_id=earlier, experiment_id=experiment.experiment_id, tags={DAGSTER_RUN_TAG: dagster_run_id}
        )
    return str(run.info.run_id)


def _end_run() -> None:
    import mlflow

    if mlflow.active_run() is not None:
        mlflow.end_run()


def _runs_folder(trial: Trial) -> Path:
    """Return where the stand-in for Dagster notes which runs it began; outside of what is watched."""
    folder = trial.settings.data_dir.parent.parent / "runs"
    folder.mkdir(exist_ok=True)
    return folder


def retrain_again(trial: Trial) -> None:
    """As Dagster does with a killed run: its run in MLflow is ended, and the whole job, with its promotion, is repeated."""
    fail_killed_runs(trial)
    verdict = retrain(trial)
    if verdict is not None and verdict.is_promotion:
        going_live.promote(trial.platform, verdict, trial.now)
    watch_registry(trial.platform, trial.now)


def fail_killed_runs(trial: Trial) -> None:
    """End the MLflow runs of killed processes as failed."""
    for path in _runs_folder(trial).iterdir():
        trial.platform.registry.fail_runs_of(path.name)
        path.unlink()


def not_healed(trial: Trial) -> list[str]:
    """Decided once, judged once, and what passed the gates is in production."""
    taken = Counter(one.action for one in decisions.attempts_of(trial.platform.store, trial.extra, tuple(Action)))
    found = [
        f"{taken[action]} decisions to {action.value}"
        for action in (Action.TRAIN, Action.PROMOTE)
        if taken[action] != 1
    ]
    live = model_versions.champion(trial.platform.store)
    if live.version != 2:
        found.append("a version passed the gates and is not in production: the run that is repeated decides to skip")
    return found


def promote(trial: Trial) -> None:
    """Promote the version that the trial's verdict names, and acknowledge the switch."""
    live = going_live.promote(trial.platform, trial.extra, trial.now)
    trial.tell(Acknowledged(switches=[live.version]))


def promote_again(trial: Trial) -> None:
    """Promote once more, then make MLflow and files follow, as the registry's sensor does."""
    promote(trial)
    watch_registry(trial.platform, trial.now)


def not_live(trial: Trial) -> list[str]:
    """Return a sentence unless version 2 is in production, after version 1, by the verdict's decision."""
    live = model_versions.champion(trial.platform.store)
    expected = trial.extra.decision.decision_id
    if (live.version, live.previous_version, live.decision_id) == (2, 1, expected):
        return []
    return [f"version {live.version} is in production by decision {live.decision_id}, not 2 by {expected}"]


# Probation and rollback


def more_labels(trial: Trial) -> None:
    """Send labelled rows with drift, and ingest them."""
    trial.send(trial.rng.randrange(5, 60), labelled_share=1.0, scenario=HOT)
    trial.ingest()


def past_probation(trial: Trial) -> None:
    """Send labelled rows, then set the time to after the probation's end."""
    more_labels(trial)
    trial.now += (trial.settings.probation_hours + 1) * HOUR


def watch(trial: Trial) -> None:
    """Evaluate the probation once."""
    watch_probation(trial.platform, trial.now)


def watch_again(trial: Trial) -> None:
    """As the sensors of probation, registry and housekeeping do."""
    watch_probation(trial.platform, trial.now)
    watch_registry(trial.platform, trial.now)
    resolve_finished_alerts(trial.platform, trial.now)


def not_rolled_back(trial: Trial) -> list[str]:
    """Return a sentence unless version 1 is in production again."""
    live = model_versions.champion(trial.platform.store)
    return [] if live.version == 1 else [f"version {live.version} is worse and still in production"]


def not_ended(trial: Trial) -> list[str]:
    """Return a sentence unless version 2 is in production and its probation has ended."""
    champion = model_versions.champion(trial.platform.store)
    if champion.version != 2:
        return [f"version {champion.version} is in production instead of 2"]
    ended = probations.outcome_of(trial.platform.store, champion)
    return [] if ended is not None else ["the probation of version 2 has not ended"]


def roll_back(trial: Trial) -> None:
    """Roll back to the previous version, as a person does, and acknowledge the switch."""
    live = going_live.rollback(trial.platform, to_version=None, reason="worse", actor="ada", now=trial.now)
    trial.tell(Acknowledged(switches=[live.version]))


def force(trial: Trial) -> None:
    """Promote version 3 by force, as a person does, and acknowledge the switch."""
    live = going_live.force_promote(trial.platform, 3, reason="by my word", actor="ada", now=trial.now)
    trial.tell(Acknowledged(switches=[live.version]))


def reconcile(trial: Trial) -> None:
    """Nobody asks again: what happened has happened, and the sensor makes MLflow and files follow."""
    watch_registry(trial.platform, trial.now)


# Retention


def more_old_files(trial: Trial) -> None:
    """Write a few result files that are 700 days old."""
    from selfheal.services.reports.files import results_folder

    old = (trial.now - 700 * 24 * HOUR).timestamp()
    for number in range(trial.rng.randrange(1, 6)):
        path = results_folder(trial.settings.data_dir) / f"20200101T0000{number:02}-old{number}.json"
        path.write_text("{}")
        os.utime(path, (old, old))


def maintain_once(trial: Trial) -> Any:
    """Run the maintenance once, and return its report."""
    return maintain(trial.platform, trial.now, lambda _before: DeletedRuns())


def still_old(trial: Trial) -> list[str]:
    """Return what another maintenance still deletes, and whether the last report is missing."""
    from selfheal.services.maintenance import last_report

    left = [] if last_report(trial.settings.data_dir) is not None else ["the report of maintenance is missing"]
    report = maintain_once(trial)
    counts = {name: getattr(report, name) for name in type(report).__slots__ if name.startswith("n_")}
    found = {name: n for name, n in counts.items() if n}
    return left + ([f"the maintenance after that deletes {found}"] if found or report.is_skipped else [])


OPERATIONS: dict[str, dict[str, Flavour]] = {
    "ingest": {"plain": Flavour("serving", traffic_before, ingest, copy_journals, uncopied)},
    "tick": {
        "calm": Flavour("serving", calm_traffic, tick, tick, unwatched),
        "hot": Flavour("serving", hot_traffic, tick, tick, unwatched),
        "broken": Flavour("serving", broken_traffic, tick, tick, unwatched),
    },
    "retraining": {"drift": Flavour("drifted", nothing, retrain, retrain_again, not_healed)},
    "promotion": {"verdict": Flavour("judged", nothing, promote, promote_again, not_live)},
    "probation": {
        "worse": Flavour("worse", more_labels, watch, watch_again, not_rolled_back),
        "proven": Flavour("watched", past_probation, watch, watch_again, not_ended),
    },
    "rollback": {
        "back": Flavour("watched", more_labels, roll_back, reconcile, nothing),
        "forced": Flavour("watched", more_labels, force, reconcile, nothing),
    },
    "retention": {
        "old": Flavour("aged", more_old_files, maintain_once, maintain_once, still_old, deletes_old_predictions=True)
    },
    "backup": {"folder": Flavour("watched", more_labels, backup, backup_again, without_backup)},
    "first_start": {
        "server": Flavour(None, nothing, start_server, start_server, server_missing, owns_server=True),
        "dagster": Flavour(None, start_server, start_dagster, start_dagster, nothing, owns_server=True),
        "mlflow": Flavour("empty", nothing, start_mlflow, start_mlflow, nothing),
        "bootstrap": Flavour("prepared", nothing, bootstrap, bootstrap_if_needed, without_version),
    },
}


def operations() -> dict[str, dict[str, Flavour]]:
    """Return the table as far as this build can do it."""
    return {name: flavours for name, flavours in OPERATIONS.items() if name != "backup" or has_backup()}
