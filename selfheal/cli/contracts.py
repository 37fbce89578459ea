"""Commands on a use case and its data: a dry run of the bootstrap, and export of labelled rows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from selfheal.cli.app import JsonFlag, app, console, opened_platform
from selfheal.cli.printing import print_json, print_table
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from selfheal.adapters.datasets import Dataset
    from selfheal.services.contract_rehearsal import Finding

MARKS = {"ok": "[green]ok[/]     ", "note": "[yellow]note[/]   ", "problem": "[bold red]problem[/]"}
COLUMNS = ("input", "kind", "limits", "unit", "may_be_missing", "missing_pct", "min", "median", "max")
PROBLEM_EXIT_CODE = 1


@app.command("check-contract", rich_help_panel="Upkeep")
def check_contract(
    use_case: Annotated[str | None, typer.Argument(help="module:contract; default: USE_CASE.")] = None,
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: what a bootstrap would use.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rehearse a bootstrap in seconds: contract, data, estimator. Nothing is written."""
    from selfheal.adapters.datasets import load_dataset
    from selfheal.domain.contract import load_contract
    from selfheal.services import contract_rehearsal

    given = {"use_case": use_case, "data": data}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    contract = load_contract(settings.use_case)
    dataset = load_dataset(settings, contract)
    findings = contract_rehearsal.check_contract(contract, settings, dataset)
    if as_json:
        columns = contract_rehearsal.column_summary(contract, dataset.frame)
        print_json({"contract": contract.name, "columns": columns, "findings": [asdict(one) for one in findings]})
    else:
        _print(contract.name, contract_rehearsal.column_summary(contract, dataset.frame), dataset, findings)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(PROBLEM_EXIT_CODE)


@app.command("export-data", rich_help_panel="Upkeep")
def export_data(
    csv: Annotated[Path, typer.Argument(help="File to write; one that is there stays as it is.")],
    rows: Annotated[int, typer.Option(min=1, max=5_000_000, help="How many at most: the newest.")] = 1_000_000,
    as_json: JsonFlag = False,
) -> None:
    """Write labelled predictions of a sound feed to a CSV that a bootstrap reads, oldest first."""
    from selfheal.adapters.postgres.predictions import labelled_rows
    from selfheal.domain.contract import TRUE_LABEL

    with opened_platform(load_settings()) as platform:
        contract = platform.contract
        found = labelled_rows(platform.store, max_rows=rows, sound_only=True)
    whole = {feature.name: "Int64" for feature in contract.inputs if feature.kind == "int"}
    columns = found[[*contract.input_names, TRUE_LABEL]].astype(whole).rename(columns={TRUE_LABEL: contract.label.name})
    try:
        columns.to_csv(csv, index=False, mode="x")
    except OSError as error:
        raise ConfigurationError(f"{csv} cannot be written ({error.strerror}); name a new file") from error
    if as_json:
        print_json({"file": csv, "rows": len(columns)})
    else:
        console.print(f"{len(columns):,} labelled predictions are in {csv}", soft_wrap=True)


def _print(name: str, columns: list[dict[str, object]], dataset: Dataset, findings: list[Finding]) -> None:
    print_table(f"{name}: inputs in {dataset.source}", columns, COLUMNS)
    for finding in findings:
        console.print(f"{MARKS[finding.level]} {escape(finding.text)}", soft_wrap=True, highlight=False)
