"""The `selfheal` command. Each command reads its options, calls one thing, and prints; errors are one line with a remedy."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfheal.alerting.channels import check_channels
from selfheal.errors import SelfhealError, ServiceUnavailableError
from selfheal.settings import load_settings, settings_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from selfheal.platform import Platform
    from selfheal.settings import Settings
    from selfheal.verification.findings import Verification
    from selfheal.verification.run import Listener

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A self-healing ML platform: it serves a model, sees drift, retrains, judges, promotes and rolls back.",
)
alerts_app = typer.Typer(pretty_exceptions_enable=False, help="Open alerts; acknowledge one.")
app.add_typer(alerts_app, name="alerts")
console = Console()

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the decision record.")]


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except SelfhealError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]selfheal:[/] {error}", highlight=False)
        sys.exit(2)


@app.command()
def up() -> None:
    """Run the platform on this machine: Postgres, Dagster, API and MLflow, until Ctrl-C."""
    from selfheal import supervise

    settings = load_settings()
    check_channels(settings)
    supervise.stop_in_order_on_signals()
    folder = supervise.prepare_data_dir(settings)
    with supervise.only_one(folder):
        supervise.refuse_busy_ports(settings)
        with _open_platform(settings) as platform:
            if _production(platform) is None:
                _bootstrap(settings)
            from selfheal.registry import mlflow_store_uri

            code = supervise.supervise(settings, mlflow_store_uri(settings), lambda: _print_addresses(settings))
    raise typer.Exit(code)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: DATA, else synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the platform running at the end.")] = False,
    scenario: Annotated[str, typer.Option(help="The change of the world to live through.")] = "rate_shock",
    rate: Annotated[float, typer.Option(min=1, max=500, help="Requests per second.")] = 30.0,
    interval: Annotated[int, typer.Option(min=5, max=300, help="MONITORING_INTERVAL for the demo, seconds.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenario and of training.")] = 20,
) -> None:
    """Live through the whole loop with real processes, in a few minutes, and judge it honestly."""
    from selfheal.simulate.demo import DemoOptions, run_demo

    options = DemoOptions(
        data=data,
        json_file=json_file,
        keep=keep,
        scenario=scenario,
        rate_per_second=rate,
        interval_seconds=interval,
        seed=seed,
    )
    raise typer.Exit(asyncio.run(run_demo(options, console)))


@app.command()
def bootstrap() -> None:
    """Train and promote a first version, if none is in production."""
    settings = load_settings()
    with _open_platform(settings) as platform:
        version = _production(platform)
        if version is None:
            _bootstrap(settings)
            version = _production(platform)
        console.print(f"Version {version} is in production.")


@app.command()
def retrain(reason: Reason) -> None:
    """Ask for a retraining now; the conditions and the gates decide as ever."""
    from selfheal import supervise

    settings = load_settings()
    request = {"trigger": "manual", "reason": reason, "actor": getpass.getuser(), "request_id": str(uuid4())}
    config = {"ops": {"retraining_decision": {"config": request}}}
    with _open_platform(settings) as platform:
        with _step_progress("Retraining", supervise.RETRAINING_STEPS) as on_step:
            supervise.run_job(settings, "retraining_job", on_step, config)
        _print_decisions(platform, limit=2)


@app.command()
def reproduce(
    version: Annotated[int, typer.Argument(help="A registered version.")],
    as_json: JsonFlag = False,
) -> None:
    """Train a version again from its record and compare it to the bit; exit 1 if it differs. Nothing is kept."""
    from selfheal.records import to_dict
    from selfheal.stages.reproduction import reproduce as train_again

    with _open_platform(load_settings()) as platform, _fit_progress(f"Version {version} again") as on_fits:
        found = train_again(platform, version, on_fits)
    if as_json:
        _print_json(to_dict(found) | {"is_identical": found.is_identical})
    else:
        for difference in found.differences:
            console.print(f"[red]-[/] {escape(difference)}")
        for change in found.changed_since:
            console.print(f"changed since: {escape(change)}")
        outcome = "is the same to the bit" if found.is_identical else f"differs in {len(found.differences)} places"
        console.print(f"Version {version}, trained again on rows {found.data_sha256[:12]}, {outcome}.")
    raise typer.Exit(0 if found.is_identical else 1)


@app.command("worth-labelling")
def worth_labelling(as_json: JsonFlag = False) -> None:
    """List the predictions whose labels would settle an inconclusive verdict soonest: the models disagree on them."""
    from selfheal.records import to_dict
    from selfheal.stages.shadow_scoring import wanted_labels

    with _open_platform(load_settings()) as platform:
        wanted = wanted_labels(platform)
    if as_json:
        _print_json(to_dict(wanted))
        return
    console.print(escape(wanted.reason))
    columns = ("prediction_id", "created_at", "champion_probability", "challenger_probability")
    _print_table("Worth labelling first", [asdict(prediction) for prediction in wanted.predictions], columns)


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """What serves, how its traffic looks, what was decided lately."""
    from selfheal.overview import overview

    with _open_platform(load_settings()) as platform:
        found = overview(platform)
        if as_json:
            _print_json(found)
            return
        console.print(f"[bold]{found['sentence']}[/]")
        _print_rows("Model", found["model"])
        _print_rows("Latest look at the traffic", found["latest_tick"])
        _print_table("Open alerts", found["open_alerts"], ("kind", "severity", "message", "created_at"))
        _print_table("Latest decisions", found["decisions"], ("created_at", "trigger_reason", "action", "reason"))


@alerts_app.callback(invoke_without_command=True)
def alerts(
    context: typer.Context,
    with_resolved: Annotated[bool, typer.Option("--all", help="The resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List the open alerts: what a person should know, since when, and who knows."""
    if context.invoked_subcommand is not None:
        return
    from selfheal.store.monitoring import alerts_open_first

    with _open_platform(load_settings()) as platform:
        found = [dict(row._mapping) for row in alerts_open_first(platform.store, limit, only_open=not with_resolved)]
    if as_json:
        _print_json([{name: row[name] for name in ALERT_FIELDS} for row in found])
        return
    _print_alerts("Alerts" if with_resolved else "Open alerts", found)


@alerts_app.command()
def acknowledge(
    alert_id: Annotated[UUID, typer.Argument(help="As `selfheal alerts` prints it.")],
    note: Annotated[str | None, typer.Option(help="What to tell those who look at it later.")] = None,
) -> None:
    """Say that you have seen an alert. Nobody is told of it again unless it becomes more severe."""
    from selfheal.store.monitoring import acknowledge_alert, find_alert

    with _open_platform(load_settings()) as platform:
        is_first = acknowledge_alert(platform.store, alert_id, getpass.getuser(), datetime.now(UTC), note)
        alert = find_alert(platform.store, alert_id)
    if alert is None:
        raise typer.BadParameter(f"there is no alert {alert_id}; `selfheal alerts --all` lists them")
    told = f"by {alert.acknowledged_by} at {_cell(alert.acknowledged_at)} UTC"
    console.print(
        f"{alert.kind} is acknowledged {told}." if is_first else f"{alert.kind} was acknowledged {told} already."
    )


@app.command()
def report(
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser of this machine.")] = False,
) -> None:
    """Write a report of the traffic as it is now: verdict, distributions, drift, quality. Takes some seconds."""
    from selfheal.reports import report_now

    with _open_platform(load_settings()) as platform:
        page = report_now(platform, datetime.now(UTC))
    if page is None:
        console.print("The version in production has served nothing yet: there is nothing to report on.")
        raise typer.Exit(1)
    typer.echo(page.resolve())
    if open_it and typer.launch(page.resolve().as_uri()) != 0:
        console.print("No browser could be opened here; open the file above in one.")


@app.command()
def simulate(
    scenario: Annotated[str, typer.Option(help="`calm`, or a scenario of the contract.")] = "calm",
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows to send.")] = 500,
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="Requests per second.")] = 20.0,
    label_delay: Annotated[float, typer.Option(min=0, help="Seconds between a prediction and its label.")] = 5.0,
    start: Annotated[int, typer.Option(min=0, help="First row of the data set to use.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenario.")] = 20,
    url: Annotated[str | None, typer.Option(help="The API; default: API_HOST and API_PORT.")] = None,
) -> None:
    """Send traffic with delayed labels to a running API."""
    from selfheal.simulate.session import send_scenario

    settings = load_settings()
    api_url = url or f"http://{settings.api_host}:{settings.api_port}"
    stats = asyncio.run(
        send_scenario(
            settings,
            api_url,
            scenario,
            n_rows=rows,
            rate_per_second=rate,
            label_delay_seconds=label_delay,
            start=start,
            seed=seed,
            console=console,
        )
    )
    console.print(
        f"{stats.predictions:,} predictions, {stats.labels:,} labels, {stats.failed_requests} failed requests"
    )
    if stats.first_failure:
        console.print(f"[red]first failure: {stats.first_failure}[/]")
        raise typer.Exit(1)


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="A registered version.")],
    reason: Reason,
    force: Annotated[bool, typer.Option("--force", help="Without a verdict of the gates.")] = False,
) -> None:
    """Put a registered version into production by hand. It goes on probation."""
    from selfheal.promotion.going_live import force_promote

    if not force:
        raise typer.BadParameter("the gates promote by themselves; promoting by hand needs --force")
    with _open_platform(load_settings()) as platform:
        now = datetime.now(UTC)
        promoted = force_promote(platform, version, reason=reason, actor=getpass.getuser(), now=now)
        console.print(
            f"Version {promoted.version} is in production on probation; it replaced version {promoted.previous_version} "
            f"(decision {promoted.decision_id})."
        )


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[int | None, typer.Option(help="The version to go back to; default: the predecessor.")] = None,
) -> None:
    """Put an earlier version back into production."""
    from selfheal.promotion.going_live import rollback as roll_back

    with _open_platform(load_settings()) as platform:
        now = datetime.now(UTC)
        version = roll_back(platform, to_version=to, reason=reason, actor=getpass.getuser(), now=now)
        console.print(
            f"Version {version.version} is in production again; version {version.previous_version} is not "
            f"(decision {version.decision_id})."
        )


@app.command()
def verify(
    decision_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One decision; default: everything that is kept.")
    ] = None,
    verdicts: Annotated[int, typer.Option(min=0, max=10_000, help="Newest verdicts to compute again.")] = 5,
    expect_head: Annotated[
        str | None, typer.Option(help="A head of the chain noted elsewhere: it must be in the chain still.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold all that is kept of the past against each other: decisions, files, models, data, journal, MLflow.

    Exit 1 if anything differs, 3 if nothing does but something could not be looked at.
    """
    from selfheal.records import to_dict
    from selfheal.verification.run import verify_decision, verify_everything

    with _open_platform(load_settings()) as platform, _verification_progress() as listener:
        if decision_id is not None:
            found = verify_decision(platform, decision_id, listener)
        else:
            found = verify_everything(platform, n_verdicts=verdicts, expected_head=expect_head, listener=listener)
    if as_json:
        _print_json(to_dict(found) | {"is_sound": found.is_sound})
    else:
        _print_verification(found, "as decided" if decision_id else "everything agrees")
    raise typer.Exit(1 if found.has_findings else 0 if found.is_complete else 3)


@app.command()
def history(
    at: Annotated[
        str | None, typer.Option(help="What was live then: an ISO 8601 time, UTC unless it names an offset.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Say which version served when, and by which decision."""
    from selfheal.promotion.history import history as all_of_it
    from selfheal.promotion.history import live_at, parse_moment

    moment = None if at is None else parse_moment(at)
    with _open_platform(load_settings()) as platform:
        if moment is None:
            found = all_of_it(platform, limit)
        else:
            live = live_at(platform, moment)
            found = [] if live is None else [live]
    if as_json:
        _print_json(found if moment is None else {"at": moment, "live": found[0] if found else None})
    elif moment is None:
        _print_history(found)
    elif found:
        _print_rows(f"Live at {_cell(moment)} UTC", found[0])
    else:
        console.print(f"At {_cell(moment)} UTC nothing was in production yet.")


@app.command("replay-journal")
def replay_journal() -> None:
    """Copy the whole journal into Postgres again; rows that are there stay as they are."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from selfheal.journal import LABEL_JOURNAL, prediction_journal
    from selfheal.store.ingest import ingest

    with _open_platform(load_settings()) as platform:
        data_dir = platform.settings.data_dir
        for kind in (prediction_journal(platform.contract), LABEL_JOURNAL):
            total = sum(path.stat().st_size for path in kind.files(data_dir))
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console) as progress:
                task = progress.add_task(kind.name, total=total)

                def advance(n_bytes: int, task: Any = task, progress: Progress = progress) -> None:
                    progress.advance(task, n_bytes)

                result = ingest(platform.store, kind, data_dir, from_start=True, on_progress=advance)
            console.print(f"{kind.name}: {result.n_read:,} lines read, {result.n_new:,} rows were missing")
            for place in result.corrupt:
                console.print(f"[red]damaged line left out: {place}[/]")


@app.command()
def maintain(as_json: JsonFlag = False) -> None:
    """Delete what is old now, as every night at 03:30 UTC, and print what went."""
    from selfheal import supervise
    from selfheal.maintenance import last_report
    from selfheal.records import to_dict

    settings = load_settings()
    with _open_platform(settings):
        began = datetime.now(UTC)
        supervise.run_job(settings, "maintenance_job", lambda _step: None)
    report = last_report(settings.data_dir)
    if report is None or report.started_at < began:
        raise ServiceUnavailableError("another maintenance is under way; try again when it is done")
    if as_json:
        _print_json(to_dict(report))
    else:
        _print_rows("Deleted", to_dict(report))


@app.command("check-data")
def check_data(
    csv: Annotated[Path | None, typer.Argument(help="Labelled CSV; default: what a bootstrap would use.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check labelled data against the contract, and show what is in it. Nothing is written."""
    from selfheal.contract import TRUE_LABEL, load_contract
    from selfheal.datasets import load_dataset

    settings = load_settings(**({"data": csv} if csv else {}))
    dataset = load_dataset(settings, load_contract(settings.use_case), all_rows=True)
    frame = dataset.frame
    columns = [
        {
            "column": name,
            "missing_pct": round(100 * float(frame[name].isna().mean()), 2),
            **{f"q{q:g}": round(float(frame[name].quantile(q / 100)), 4) for q in (5, 50, 95)},
            "max": round(float(frame[name].max()), 4),
        }
        for name in frame.columns
    ]
    summary = {"data": dataset.description, "positive_rate": float(frame[TRUE_LABEL].mean()), "sha256": dataset.sha256}
    if as_json:
        _print_json(summary | {"columns": columns})
        return
    _print_rows("Valid", summary)
    _print_table("Columns", columns, ("column", "missing_pct", "q5", "q50", "q95", "max"))


@app.command()
def config(as_json: JsonFlag = False) -> None:
    """Print the settings in force and where each came from."""
    settings = load_settings()
    sources = settings_sources(settings)
    rows = [
        {
            "name": name.upper(),
            "value": _shown(getattr(settings, name)),
            "source": sources[name],
            "meaning": field.description or "",
        }
        for name, field in type(settings).model_fields.items()
    ]
    if as_json:
        _print_json(rows)
    else:
        _print_table("Settings", rows, ("name", "value", "source", "meaning"))


@app.command("api-key")
def api_key(
    name: Annotated[str, typer.Option(help="Who will use it, for example the client's name.")],
    scopes: Annotated[str, typer.Option(help="What for: score, label, read, admin; comma-separated.")],
    as_json: JsonFlag = False,
) -> None:
    """Make an API key: once the key itself, for the client, and its hashed entry for API_KEYS."""
    from selfheal.api_keys import hashed_entry, new_api_key, parse_scopes

    key = new_api_key()
    entry = hashed_entry(name, parse_scopes(scopes), key)
    if as_json:
        _print_json({"key": key, "entry": entry})
        return
    typer.echo(f"Key, shown only now; give it to the client, who sends it in the header X-API-Key:\n{key}")
    typer.echo(f"Entry for API_KEYS on the server, beside the others, comma-separated:\n{entry}")


@app.command("dagster-home")
def dagster_home() -> None:
    """Lay out DAGSTER_HOME below DATA_DIR and print it: `DAGSTER_HOME=$(selfheal dagster-home) dagster dev`."""
    from selfheal import supervise

    typer.echo(supervise.dagster_home(load_settings()))


@contextmanager
def _open_platform(settings: Settings) -> Iterator[Platform]:
    from selfheal import supervise
    from selfheal.platform import open_platform

    supervise.prepare_data_dir(settings)
    platform = open_platform(settings)
    try:
        yield platform
    finally:
        platform.close()


def _production(platform: Platform) -> int | None:
    from selfheal.store.models import production_version

    version = production_version(platform.store)
    return None if version is None else version.version


def _bootstrap(settings: Settings) -> None:
    from selfheal import supervise
    from selfheal.contract import load_contract
    from selfheal.datasets import load_dataset

    dataset = load_dataset(settings, load_contract(settings.use_case))
    console.print(f"No version is in production: training the first one on {dataset.description}.")
    with _step_progress("Bootstrap", supervise.BOOTSTRAP_STEPS) as on_step:
        supervise.run_job(settings, "bootstrap_job", on_step)


ALERT_FIELDS = (
    "alert_id",
    "source",
    "kind",
    "model_version",
    "severity",
    "message",
    "metrics",
    "episode_id",
    "created_at",
    "updated_at",
    "acknowledged_at",
    "acknowledged_by",
    "acknowledged_note",
    "notified_at",
    "notify_failures",
    "resolved_at",
    "resolved_by",
)
"""As the API tells them."""


def _print_alerts(title: str, alerts: list[dict[str, Any]]) -> None:
    if not alerts:
        console.print(f"{title}: none")
        return
    table = Table("alert", "what", title=title, title_justify="left", show_lines=True)
    table.columns[0].no_wrap = True
    for alert in alerts:
        version = "" if alert["model_version"] is None else f", version {alert['model_version']}"
        name = f"{alert['severity']}: {alert['kind'].replace('_', ' ')}{version}\n{alert['alert_id']}"
        table.add_row(escape(name), escape("\n".join((alert["message"], *_alert_story(alert)))))
    console.print(table)


def _alert_story(alert: Mapping[str, Any]) -> Iterator[str]:
    """What became of an alert, a line each."""
    yield f"since {_cell(alert['created_at'])} UTC"
    if alert["resolved_at"] is not None:
        yield f"resolved {_cell(alert['resolved_at'])} UTC"
    told = "nobody was told" if alert["notified_at"] is None else f"told {_cell(alert['notified_at'])} UTC"
    yield f"{told}, {alert['notify_failures']} tries failed" if alert["notify_failures"] else told
    if alert["acknowledged_at"] is not None:
        note = f": {alert['acknowledged_note']}" if alert["acknowledged_note"] else ""
        yield f"acknowledged {_cell(alert['acknowledged_at'])} UTC by {alert['acknowledged_by']}{note}"


@contextmanager
def _step_progress(title: str, steps: tuple[str, ...]) -> Iterator[Callable[[str], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from selfheal import supervise

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=len(steps))

        def done(step: str) -> None:
            if step in steps:
                progress.update(task, advance=1, description=f"{title}: {step.replace('_', ' ')}")
            elif step.startswith(supervise.FITS):
                progress.update(task, description=f"{title}: {step}")

        yield done


@contextmanager
def _fit_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """On stderr, so that JSON on stdout stays JSON."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{title}: fits", total=None)
        yield lambda n_done, n_fits: progress.update(task, completed=n_done, total=n_fits)


def _print_history(entries: list[dict[str, Any]]) -> None:
    if not entries:
        console.print("Nothing has gone live yet.")
        return
    title = "What went live, the newest first; times in UTC"
    table = Table("live", "by which decision", title=title, title_justify="left", show_lines=True)
    table.columns[0].no_wrap = True
    for entry in entries:
        until = "now" if entry["until"] is None else _cell(entry["until"])
        probation = "" if entry["probation"] is None else f"\nprobation: {entry['probation'].replace('_', ' ')}"
        why = f"{_cell(entry['action'])} by {_cell(entry['actor'])}: {_cell(entry['reason'])}\n{entry['decision_id']}"
        table.add_row(f"version {entry['version']}\n{_cell(entry['since'])}\n- {until}", escape(why + probation))
    console.print(table)


@contextmanager
def _verification_progress() -> Iterator[Listener]:
    """On stderr, so that JSON on stdout stays JSON."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from selfheal.verification.run import Listener

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Verifying", total=None)
        yield Listener(
            on_step=lambda step: progress.update(task, description=f"Verifying: {step}", completed=0, total=None),
            on_bytes=lambda done, total: progress.update(task, completed=done, total=total),
        )


def _print_verification(found: Verification, if_sound: str) -> None:
    table = Table("check", "looked at", "findings", "not looked at", title="Verification", title_justify="left")
    for result in found.results:
        colour = "red" if result.n_findings else "yellow" if result.n_unchecked else "green"
        counts = (f"{result.n_checked:,}", f"{result.n_findings:,}", f"{result.n_unchecked:,}")
        table.add_row(result.name, counts[0], f"[{colour}]{counts[1]}[/]", f"[{colour}]{counts[2]}[/]")
    console.print(table)
    for result in found.results:
        for finding in result.findings:
            console.print(f"[red]-[/] {escape(finding)}")
        for sentence in result.unchecked:
            console.print(f"[yellow]not looked at:[/] {escape(sentence)}")
    console.print(f"Head of the chain, to be noted where nobody here can write: {found.chain_head}", soft_wrap=True)
    if found.is_sound:
        console.print(f"[green]{if_sound}[/]")


def _print_addresses(settings: Settings) -> None:
    from selfheal import supervise

    table = Table(title="The platform is up. Ctrl-C stops it.", title_style="bold green", show_header=False)
    for address in supervise.addresses(settings):
        table.add_row(address.name, address.url, address.note)
    console.print(table)


def _print_decisions(platform: Platform, limit: int) -> None:
    from selfheal.store.decisions import recent

    for decision in reversed(recent(platform.store, limit)):
        console.print(f"[bold]{decision.action}[/]: {decision.reason}")


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    return "" if value is None else str(value)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _print_rows(title: str, values: Mapping[str, Any] | None) -> None:
    table = Table("", "", title=title, title_justify="left", show_header=False)
    table.columns[1].overflow = "fold"
    for name, value in (values or {"": "nothing yet"}).items():
        table.add_row(name.replace("_", " "), _cell(value))
    console.print(table)


def _print_table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        console.print(f"{title}: none")
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    console.print(table)


def _cell(value: object) -> str:
    """A value for a table: times to the second, numbers to four digits, what is not known as `-`."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
