"""The command that replays whole deployments under several policies, and compares them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfheal.cli.app import app, console
from selfheal.cli.printing import count_progress, print_table
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfheal.services.platform import Platform
    from selfheal.settings import Settings
    from selfheal.simulate.replay.builders import StreamFile
    from selfheal.simulate.replay.comparison import WorldResult
    from selfheal.simulate.replay.plans import Plan
    from selfheal.simulate.replay.stream_file import Columns

RESULTS = Path("replay.json")
"""Without --json, finished replays are kept beside such a file in the present folder."""

MAX_RESULTS_MB = 1_024
"""Largest file of results that is read; a line is some 10 KB."""


@dataclass(frozen=True)
class Choice:
    """What the options say about deployments and policies."""

    worlds: Sequence[str]
    policies: Sequence[str]
    swept: Sequence[str]
    streams: Sequence[StreamFile]
    n_seeds: int
    interval: timedelta
    days: float | None
    data: Path | None
    since: str | None
    is_of_logs: bool


@app.command(rich_help_panel="History")
def replay(
    world: Annotated[
        list[str] | None, typer.Option(help="A world, `core` or `all`; repeatable. `--list` names them.")
    ] = None,
    policy: Annotated[list[str] | None, typer.Option(help="A policy; repeatable. Default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1_000, help="Deployments of each world.")] = 1,
    interval: Annotated[float, typer.Option(min=0.01, max=720, help="Hours between two decisions of a policy.")] = 6.0,
    days: Annotated[
        float | None,
        typer.Option(min=1, max=3_650, help="Days to replay: after a world's change, else from the start."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled CSV that worlds draw their rows from. Default: synthetic rows.")
    ] = None,
    stream: Annotated[
        list[Path] | None, typer.Option(help="CSV of real rows in their order; repeatable. Elec2's file is recognised.")
    ] = None,
    time_column: Annotated[str | None, typer.Option("--time", help="The stream's column of event times.")] = None,
    label: Annotated[str | None, typer.Option(help="The stream's column of labels: 0, 1, or blank.")] = None,
    every: Annotated[
        float | None, typer.Option(min=0.001, help="Minutes between two rows of a stream without times.")
    ] = None,
    label_delay: Annotated[float, typer.Option(min=0, help="Hours from a stream's row to its label.")] = 24.0,
    entity: Annotated[str | None, typer.Option(help="The stream's column that says whom a row is about.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A column of the stream that is no input; repeatable.")
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Replay the platform's own predictions and labels.")] = False,
    since: Annotated[
        str | None, typer.Option(help="With --logs: from when on, an ISO 8601 time. Default: POLICY_REPORT_DAYS ago.")
    ] = None,
    swept: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="Ours with other settings: NAME=VALUE,VALUE; repeatable, every combination."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report here; it opens offline.")] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Finished replays, one a line; default: beside --json. A cut run continues there."),
    ] = None,
    processes: Annotated[int, typer.Option(min=0, max=1_024, help="Worker processes; 0: in this one.")] = os.cpu_count()
    or 1,
    list_them: Annotated[bool, typer.Option("--list", help="List worlds and policies.")] = False,
) -> None:
    """Replay whole deployments on a simulated clock, and compare what each policy would have cost."""
    if list_them:
        _print_list()
        return
    if report is not None:
        from selfheal.simulate.replay.report_files import check_report_path

        check_report_path(report)
    place = results or (json_file or RESULTS).with_suffix(".cells.jsonl")
    _refuse_full(place)
    columns = _columns(label, time_column, every, label_delay, entity, tuple(exclude or ()))
    files = [_stream_file(path, columns) for path in stream or []]
    step = timedelta(hours=interval)
    choice = Choice(world or [], policy or [], swept or [], files, seeds, step, days, data, since, is_of_logs=logs)
    began = time.monotonic()
    with _plan(load_settings(), choice) as plan:
        found = _run(plan, place, step, 0 if logs else processes)
    for result in found:
        _print_result(result)
    if json_file is not None:
        about = {"data": plan.rows_of, "interval_hours": interval, "days": days}
        _write_json(json_file, plan, place, interval, about | {"wall_s": round(time.monotonic() - began, 1)})
    if report is not None:
        from selfheal.simulate.replay.report_files import write_report

        write_report(report, found, rows_of=plan.rows_of, interval_hours=interval, now=datetime.now(UTC))
        console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"finished replays: {place}; the same command continues there", style="dim", soft_wrap=True)


def _run(plan: Plan, place: Path, interval: timedelta, processes: int) -> tuple[WorldResult, ...]:
    from selfheal.simulate.replay.comparison import results_of
    from selfheal.simulate.replay.runs import run_cells

    with count_progress("Replay") as on_progress:
        done = run_cells(plan.run(place, interval), plan.cells, processes=processes, on_progress=on_progress)
    return results_of(done, plan.descriptions, plan.natural)


@contextmanager
def _plan(settings: Settings, choice: Choice) -> Iterator[Plan]:
    """Yield what is to be replayed, checked; of the platform's logs, while the platform is open."""
    from selfheal.simulate.replay.plans import POLICIES_FOR_LOGS, chosen_policies, plan_of_worlds
    from selfheal.simulate.replay.policies import ALL_POLICIES

    if choice.is_of_logs:
        if choice.worlds or choice.streams or choice.data is not None:
            raise ConfigurationError("--logs replays the platform's own rows; leave out --world, --stream and --data")
        policies = chosen_policies(
            choice.policies, choice.swept, POLICIES_FOR_LOGS, interval=choice.interval, settings=settings
        )
        with _opened(settings) as platform:
            yield _plan_of_logs(platform, choice, policies)
        return
    if choice.since is not None:
        raise ConfigurationError("--since is of the platform's own logs; add --logs")
    if not choice.worlds and not choice.streams:
        raise ConfigurationError("nothing to replay: name a --world (see --list), a --stream, or --logs")
    policies = chosen_policies(choice.policies, choice.swept, ALL_POLICIES, interval=choice.interval)
    yield plan_of_worlds(
        choice.worlds,
        choice.streams,
        policies,
        use_case=settings.use_case,
        data=choice.data,
        n_seeds=choice.n_seeds,
        days=choice.days,
    )


def _plan_of_logs(platform: Platform, choice: Choice, policies: Sequence[str]) -> Plan:
    from selfheal.services.promotion.history import parse_moment
    from selfheal.simulate.replay.logs import deployment_of_logs
    from selfheal.simulate.replay.plans import plan_of_logs

    now, settings = datetime.now(UTC), platform.settings
    since = parse_moment(choice.since) if choice.since else now - timedelta(days=settings.policy_report_days)
    until = now if choice.days is None else min(now, since + timedelta(days=choice.days))
    return plan_of_logs(deployment_of_logs(platform, since=since, until=until, seed=settings.random_seed), policies)


@contextmanager
def _opened(settings: Settings) -> Iterator[Platform]:
    """Yield the platform; while Postgres is away, one whose queries fail, so that the journal is read."""
    from selfheal.services.platform import open_platform

    try:
        platform = open_platform(settings)
    except ServiceUnavailableError:
        platform = open_platform(settings, wait_for_database=False)
    try:
        yield platform
    finally:
        platform.close()


def _columns(
    label: str | None,
    time_column: str | None,
    every: float | None,
    label_delay: float,
    entity: str | None,
    excluded: tuple[str, ...],
) -> Columns | None:
    """Return which columns of the streams are what; None if no label is named, as for known streams."""
    from selfheal.simulate.replay.stream_file import columns_of

    if label is None and (time_column is not None or every is not None):
        raise ConfigurationError("--time and --every are of a --stream whose labels are named; add --label COLUMN")
    return columns_of(time_column, label, every, label_delay, excluded, entity)


def _stream_file(path: Path, columns: Columns | None) -> StreamFile:
    from selfheal.simulate.replay.builders import StreamFile
    from selfheal.simulate.replay.natural import recognised

    return StreamFile(path, columns if recognised(path) is None else None)


def _refuse_full(place: Path) -> None:
    if place.is_file() and place.stat().st_size > MAX_RESULTS_MB * 1_000_000:
        raise ConfigurationError(
            f"{place} has more than {MAX_RESULTS_MB:,} MB of finished replays; name another file with --results, or delete it"
        )


def _print_list() -> None:
    from selfheal.simulate.replay.plans import listing

    found = listing()
    print_table("Worlds", found["worlds"], ("world", "kind", "what_happens"))
    print_table("Policies", found["policies"], ("policy", "what_it_does"))


def _print_result(result: WorldResult) -> None:
    from selfheal.simulate.replay.tables import policy_rows, verdict_sentence

    rows = policy_rows(result)
    print_table(f"{result.name}: {result.description}", rows, tuple(rows[0]))
    console.print(verdict_sentence(result), markup=False, highlight=False)


def _write_json(path: Path, plan: Plan, place: Path, interval: float, about: dict[str, object]) -> None:
    from selfheal.simulate.replay.comparison import summarised
    from selfheal.simulate.replay.runs import finished

    done = finished(plan.run(place, timedelta(hours=interval)), plan.cells)
    worlds = [name for name in plan.descriptions if name not in plan.natural]
    content = about | summarised(done, worlds, plan.natural)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"figures: {path}", markup=False, highlight=False, soft_wrap=True)
