"""Commands that change which version serves, and that list labels worth having."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer
from rich.markup import escape

from selfheal.cli import completion
from selfheal.cli.app import JsonFlag, Reason, app, console, opened_platform
from selfheal.cli.printing import fit_progress, print_json, print_table, step_progress
from selfheal.domain.monitoring.declarations import Declared
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from selfheal.domain.records import Reproduction
    from selfheal.services.platform import Platform


Version = Annotated[int, typer.Argument(help="A registered version.", autocompletion=completion.versions)]


@app.command(rich_help_panel="Change what serves")
def retrain(reason: Reason, as_json: JsonFlag = False) -> None:
    """Ask for a retraining now; the conditions and the gates decide as ever."""
    from selfheal.cli import supervisor

    settings = load_settings()
    request = {"reason": reason, "actor": getpass.getuser(), "request_id": str(uuid4())}
    began = datetime.now(UTC)
    with opened_platform(settings) as platform:
        with step_progress("Retraining") as on_event:
            supervisor.run_job(settings, "retraining_job", on_event, request)
        _print_decisions(platform, since=began, as_json=as_json)


@app.command(rich_help_panel="Change what serves")
def promote(
    version: Version,
    reason: Reason,
    force: Annotated[bool, typer.Option("--force", help="Without a verdict of the gates.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a registered version into production by hand. It goes on probation."""
    from selfheal.kit.serialization import to_dict
    from selfheal.services.promotion.going_live import force_promote

    if not force:
        raise typer.BadParameter("the gates promote by themselves; promoting by hand needs --force")
    with opened_platform(load_settings()) as platform:
        now = datetime.now(UTC)
        promoted = force_promote(platform, version, reason=reason, actor=getpass.getuser(), now=now)
    if as_json:
        print_json(to_dict(promoted))
        return
    console.print(
        f"Version {promoted.version} is in production on probation; it replaced version {promoted.previous_version} "
        f"(decision {promoted.decision_id})."
    )


@app.command(rich_help_panel="Change what serves")
def rollback(
    reason: Reason,
    to: Annotated[
        int | None,
        typer.Option(help="The version to go back to; default: the predecessor.", autocompletion=completion.versions),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Put an earlier version back into production."""
    from selfheal.kit.serialization import to_dict
    from selfheal.services.promotion.going_live import rollback as roll_back

    with opened_platform(load_settings()) as platform:
        now = datetime.now(UTC)
        version = roll_back(platform, to_version=to, reason=reason, actor=getpass.getuser(), now=now)
    if as_json:
        print_json(to_dict(version))
        return
    console.print(
        f"Version {version.version} is in production again; version {version.previous_version} is not "
        f"(decision {version.decision_id})."
    )


@app.command("release-labels", rich_help_panel="Change what serves")
def release_labels(
    quarantine: Annotated[str, typer.Argument(help="Its id; the alert and `selfheal status` have it.")],
    reason: Reason,
    as_json: JsonFlag = False,
) -> None:
    """Take labels for right that are withheld as suspect: they count again."""
    from selfheal.kit.serialization import to_dict
    from selfheal.services.label_quarantines import release_labels as release

    with opened_platform(load_settings()) as platform:
        found = release(platform, quarantine, reason=reason, actor=getpass.getuser(), now=datetime.now(UTC))
    if as_json:
        print_json(to_dict(found))
        return
    console.print(
        f"The labels of version {found.model_version} received since {found.started_at:%Y-%m-%d %H:%M} UTC count again."
    )


@app.command(rich_help_panel="Change what serves")
def declare(
    what: Annotated[Declared, typer.Argument(help="seasonal or sound; not_seasonal and not_sound withdraw it.")],
    column: Annotated[str, typer.Argument(help="A feature; for sound: an input, or `_rows` for repeated rows.")],
    reason: Reason,
    as_json: JsonFlag = False,
) -> None:
    """Declare that a column moves with the season, or that what the feed check finds in it is no fault."""
    from selfheal.kit.serialization import to_dict
    from selfheal.services import declarations

    with opened_platform(load_settings()) as platform:
        now = datetime.now(UTC)
        decision = declarations.declare(platform, what, column, reason=reason, actor=getpass.getuser(), now=now)
    if as_json:
        print_json(to_dict(decision))
        return
    console.print(f"{escape(column)} is declared {what} from the next tick on (decision {decision.decision_id}).")


@app.command(name="declarations", rich_help_panel="Change what serves")
def list_declarations(
    with_withdrawn: Annotated[bool, typer.Option("--all", help="List those that were withdrawn, too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List what people have declared about columns: what counts now, who said so, when, and why."""
    from selfheal.kit.serialization import to_dict
    from selfheal.services.declarations import declarations

    with opened_platform(load_settings()) as platform:
        found = declarations(platform).all
    rows = [to_dict(one) for one in found if one.is_in_force or with_withdrawn]
    if as_json:
        print_json(rows)
        return
    shown = [row | {"state": "in force" if row["is_in_force"] else "withdrawn"} for row in rows]
    print_table("Declarations", shown, ("subject", "column", "state", "actor", "declared_at", "reason", "decision_id"))


@app.command(rich_help_panel="Change what serves")
def reproduce(
    version: Version,
    as_json: JsonFlag = False,
) -> None:
    """Train a version again from its record and compare; exit 1 if it differs. Nothing is stored.

    Compared to the bit; where code, libraries, processor or BLAS are others than then, to a tolerance that is named.
    """
    from selfheal.kit.serialization import to_dict
    from selfheal.services.verification.reproduction import reproduce as train_again

    with opened_platform(load_settings()) as platform, fit_progress(f"Version {version} again") as on_fits:
        found = train_again(platform, version, on_fits)
    if as_json:
        print_json(to_dict(found) | {"is_identical": found.is_identical, "is_reproduced": found.is_reproduced})
    else:
        for difference in found.differences:
            console.print(f"[red]-[/] {escape(difference)}")
        for change in found.changed_since:
            console.print(f"changed since: {escape(change)}")
        console.print(f"Version {version}, trained again on rows {found.data_sha256[:12]}, {outcome_of(found)}.")
    raise typer.Exit(0 if found.is_reproduced else 1)


def outcome_of(found: Reproduction) -> str:
    """Return how a reproduction came out, as the end of a sentence."""
    if found.is_identical:
        return "is the same to the bit"
    if found.is_reproduced:
        return (
            f"is the same to {found.tolerance:g}: {found.n_rounded} values differ by less, which is rounding, since not all is "
            "as it was then"
        )
    beyond = f" by more than {found.tolerance:g}" if found.tolerance else ""
    return f"differs in {len(found.differences)} places{beyond}"


@app.command("worth-labelling", rich_help_panel="Change what serves")
def worth_labelling(as_json: JsonFlag = False) -> None:
    """List the predictions whose labels would settle an inconclusive verdict soonest: the models disagree on them."""
    from selfheal.kit.serialization import to_dict
    from selfheal.services.live_traffic import wanted_labels

    with opened_platform(load_settings()) as platform:
        wanted = wanted_labels(platform)
    if as_json:
        print_json(to_dict(wanted))
        return
    console.print(escape(wanted.reason))
    columns = ("prediction_id", "created_at", "champion_probability", "challenger_probability")
    print_table("Worth labelling first", [asdict(prediction) for prediction in wanted.predictions], columns)


def _print_decisions(platform: Platform, *, since: datetime, as_json: bool) -> None:
    """Print the decisions since `since`, oldest first."""
    from selfheal.adapters.postgres.decisions import page
    from selfheal.kit.serialization import to_dict

    found = [one for one in reversed(page(platform.store, 2)) if one.decision.created_at >= since]
    if as_json:
        print_json([to_dict(one.decision) | {"challenger_version": one.challenger_version} for one in found])
        return
    for one in found:
        console.print(f"[bold]{one.decision.action}[/]: {escape(one.decision.reason)}")
