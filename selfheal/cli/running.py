"""Commands that start the platform, its first version, and simulated traffic."""

from __future__ import annotations

import asyncio
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from selfheal.adapters.alerting.channels import check_channels
from selfheal.cli import completion
from selfheal.cli.app import JsonFlag, app, console, opened_platform, production, progress_console
from selfheal.cli.ports import published_ports, reserved_ports, with_published_ports
from selfheal.cli.printing import print_json, step_progress
from selfheal.kit.errors import NoProductionModelError
from selfheal.services.addresses import http_url
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from selfheal.settings import Settings


@app.command(rich_help_panel="Run")
def up() -> None:
    """Run the platform on this machine: Postgres, Dagster, API and MLflow, until Ctrl-C."""
    from selfheal.cli import supervisor
    from selfheal.services.platform import open_platform

    settings = load_settings()
    check_channels(settings)
    supervisor.stop_in_order_on_signals()
    folder = supervisor.prepare_data_dir(settings)
    with (
        supervisor.only_one(folder),
        supervisor.no_process_left(settings, folder),
        reserved_ports(settings) as settings,
        published_ports(settings),
        closing(open_platform(settings)) as platform,
    ):
        _ensure_first_version(platform)
        from selfheal.adapters.mlflow_store import mlflow_store_uri

        code = supervisor.supervise(settings, mlflow_store_uri(settings), lambda: _print_addresses(settings))
    raise typer.Exit(code)


class Target(StrEnum):
    """Where `selfheal demo` runs the platform."""

    HERE = "here"
    COMPOSE = "compose"


TIMEOUT_SECONDS = {Target.HERE: 240.0, Target.COMPOSE: 600.0}
"""For the start, and again for the healing: containers have limits, and share the machine with an engine."""


@app.command(rich_help_panel="Run")
def demo(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: DATA, else synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    leave_running: Annotated[bool, typer.Option("--keep", help="Leave the platform running at the end.")] = False,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="The change of the world to live through; default: the contract's first.",
            autocompletion=completion.scenarios,
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=1, max=500, help="Requests per second.")] = 30.0,
    interval: Annotated[int, typer.Option(min=5, max=300, help="MONITORING_INTERVAL for the demo, seconds.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenario and of training.")] = 20,
    api: Annotated[
        str | None, typer.Option(help="API of a platform that runs, with these settings; default: start one.")
    ] = None,
    dagster: Annotated[str | None, typer.Option(help="Dagster's pages of that platform.")] = None,
    target: Annotated[
        Target, typer.Option(help="Start processes here, or containers by deploy/compose.yaml.")
    ] = Target.HERE,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=30, max=7_200, help="Seconds for the start, and for the healing; default: 240, in containers 600."
        ),
    ] = None,
) -> None:
    """Live through the whole loop with real processes, in a few minutes, and judge it honestly."""
    from selfheal.cli import supervisor
    from selfheal.domain.contract import load_contract
    from selfheal.simulate.compose_demo import run_compose_demo
    from selfheal.simulate.demo import DemoOptions, RunningPlatform, run_demo

    if (api is None) != (dagster is None):
        raise typer.BadParameter("--api and --dagster belong together")
    if api is not None and target is not Target.HERE:
        raise typer.BadParameter("--api names a platform that runs; --target starts one")
    options = DemoOptions(
        data=data,
        json_file=json_file,
        leave_running=leave_running,
        scenario=scenario or load_contract(load_settings().use_case).first_scenario.name,
        rate_per_second=rate,
        interval_seconds=interval,
        seed=seed,
        running=None if api is None or dagster is None else RunningPlatform(api.rstrip("/"), dagster.rstrip("/")),
        timeout_seconds=timeout or TIMEOUT_SECONDS[target],
    )
    if target is Target.COMPOSE:
        supervisor.stop_in_order_on_signals()
        raise typer.Exit(run_compose_demo(options, console))
    raise typer.Exit(asyncio.run(run_demo(options, console)))


@app.command(rich_help_panel="Run")
def bootstrap(as_json: JsonFlag = False) -> None:
    """Train and promote a first version, if none is in production."""
    settings = load_settings()
    with opened_platform(settings) as platform:
        version = _ensure_first_version(platform)
    if as_json:
        print_json({"version": version})
    else:
        console.print(f"Version {version} is in production.")


@app.command(rich_help_panel="Run")
def simulate(
    scenario: Annotated[
        str, typer.Option(help="`calm`, or a scenario of the contract.", autocompletion=completion.scenarios)
    ] = "calm",
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows to send.")] = 500,
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="Requests per second.")] = 20.0,
    label_delay: Annotated[float, typer.Option(min=0, help="Seconds between a prediction and its label.")] = 5.0,
    start: Annotated[int, typer.Option(min=0, help="First row of the data set to use.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenario.")] = 20,
    url: Annotated[str | None, typer.Option(help="The API; default: that of DATA_DIR.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send traffic with delayed labels to a running API."""
    from selfheal.simulate.session import send_scenario

    settings = load_settings()
    api_url = url or http_url(settings.api_host, with_published_ports(settings).api_port)
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
            console=progress_console,
        )
    )
    if as_json:
        print_json({name: getattr(stats, name) for name in STATS_SHOWN})
    else:
        console.print(
            f"{stats.predictions:,} predictions, {stats.labels:,} labels, {stats.failed_requests} failed requests"
        )
    if stats.first_failure:
        progress_console.print(f"[red]first failure: {escape(stats.first_failure)}[/]", soft_wrap=True)
        raise typer.Exit(1)


STATS_SHOWN = ("predictions", "labels", "failed_requests", "first_failure")


@app.command("dagster-home", rich_help_panel="Run")
def dagster_home() -> None:
    """Lay out DAGSTER_HOME below DATA_DIR and print it: `DAGSTER_HOME=$(selfheal dagster-home) dagster dev`."""
    from selfheal.cli import supervisor

    settings = load_settings()
    supervisor.prepare_data_dir(settings)
    typer.echo(supervisor.dagster_home(settings))


def _ensure_first_version(platform: Platform) -> int:
    """Return the version in production, after a bootstrap if there was none.

    Raises:
        NoProductionModelError: if the gates rejected what the bootstrap trained.
    """
    from selfheal.adapters.postgres import decisions

    if production(platform) is None:
        _bootstrap(platform.settings)
    version = production(platform)
    if version is None:
        reason = next((decision.reason for decision in decisions.recent(platform.store, 1)), "there is no decision")
        raise NoProductionModelError(
            f"the gates did not let the first version go live: {reason}; better features or another limit may help "
            "(`selfheal check-contract` shows this beforehand), then bootstrap again"
        )
    return version


def _bootstrap(settings: Settings) -> None:
    from selfheal.adapters.datasets import load_dataset
    from selfheal.cli import supervisor
    from selfheal.domain.contract import load_contract
    from selfheal.domain.retraining.dataset import refuse_few
    from selfheal.services.retraining_signals import bootstrap_parts

    contract = load_contract(settings.use_case)
    dataset = load_dataset(settings, contract)
    refuse_few(bootstrap_parts(settings, contract, dataset), dataset.frame)  # before the first baseline is written
    progress_console.print(f"No version is in production: training the first one on {dataset.description}.")
    with step_progress("Bootstrap") as on_event:
        supervisor.run_job(settings, "bootstrap_job", on_event)


def _print_addresses(settings: Settings) -> None:
    from selfheal.services import addresses

    table = Table(title="The platform is up. Ctrl-C stops it.", title_style="bold green", show_header=False)
    for address in addresses.addresses(settings):
        table.add_row(address.name, address.url, address.note)
    console.print(table)
