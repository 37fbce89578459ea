"""Commands on a use case and its data: a report on a file, a dry run of the bootstrap, and export of labelled rows."""

from __future__ import annotations

from csv import QUOTE_MINIMAL, QUOTE_NONNUMERIC
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from selfheal.cli.app import JsonFlag, app, console, opened_platform
from selfheal.cli.printing import fit_progress, print_json, print_rows, print_table, printable
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from selfheal.adapters.datasets import Dataset
    from selfheal.domain.contract import ModelContract
    from selfheal.domain.labelled_file.report import DataReport
    from selfheal.services.contract_rehearsal import Finding

MARKS = {"ok": "[green]ok[/]     ", "note": "[yellow]note[/]   ", "problem": "[bold red]problem[/]"}
COLUMNS = ("input", "kind", "limits", "unit", "may_be_missing", "missing_pct", "min", "median", "max")
PROBLEM_EXIT_CODE = 1


@app.command("check-data", rich_help_panel="Upkeep")
def check_data(
    csv: Annotated[Path | None, typer.Argument(help="Labelled CSV; default: what a bootstrap would use.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Report on labelled data: each column, what is wrong, and the settings that mend it. Nothing is written."""
    from selfheal.adapters.datasets import inspect_dataset
    from selfheal.domain.contract import load_contract

    settings = load_settings(**({"data": csv} if csv else {}))
    report, dataset = inspect_dataset(settings, load_contract(settings.use_case), all_rows=True)
    if as_json:
        print_json(_data_record(report, dataset))
    else:
        _print_data(report, dataset)
    if dataset is None:
        raise typer.Exit(PROBLEM_EXIT_CODE)


@app.command("check-contract", rich_help_panel="Upkeep")
def check_contract(
    use_case: Annotated[str | None, typer.Argument(help="module:contract; default: USE_CASE.")] = None,
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: what a bootstrap would use.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rehearse a bootstrap: contract, data, training, gates. Nothing is written."""
    from selfheal.adapters.datasets import load_dataset
    from selfheal.domain.contract import load_contract
    from selfheal.services import contract_rehearsal

    given = {"use_case": use_case, "data": data}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    contract = load_contract(settings.use_case)
    dataset = load_dataset(settings, contract)
    with fit_progress("Rehearsal") as on_fits:
        findings = contract_rehearsal.check_contract(contract, settings, dataset, on_fits)
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
    """Write labelled predictions of a sound feed to a CSV that a bootstrap reads, oldest first.

    Texts are in quotes, or a file's reader would take blanks before them away. A level that means a missing value in a file, such as
    NA, is named.
    """
    from selfheal.adapters.datasets import data_format
    from selfheal.adapters.postgres.predictions import labelled_rows
    from selfheal.domain.contract import TRUE_LABEL

    with opened_platform(load_settings()) as platform:
        is_missing = data_format(platform.settings).missing_reader()
        contract = platform.contract
        found = labelled_rows(platform.store, max_rows=rows, sound_only=True)
    typed = {"int": "Int64", "bool": "boolean"}
    whole = {feature.name: typed[feature.kind] for feature in contract.inputs if feature.kind in typed}
    columns = found[[*contract.input_names, TRUE_LABEL]].astype(whole).rename(columns={TRUE_LABEL: contract.label.name})
    try:
        quoting: Literal[0, 2] = QUOTE_NONNUMERIC if contract.category_names else QUOTE_MINIMAL
        columns.to_csv(csv, index=False, mode="x", quoting=quoting)
    except OSError as error:
        raise ConfigurationError(f"{csv} cannot be written ({error.strerror}); name a new file") from error
    misread = _levels_misread(columns, contract, is_missing)
    if as_json:
        print_json({"file": csv, "rows": len(columns), "read_as_missing": misread})
        return
    console.print(f"{len(columns):,} labelled predictions are in {csv}", soft_wrap=True)
    for name, levels in misread.items():
        shown = printable(", ".join(map(repr, levels)))
        remedy = "write it in another way, where it is sent and in the file"
        text = f"{name}: the level {shown} means a missing value in a file; {remedy}"
        console.print(text, soft_wrap=True, markup=False, highlight=False)


def _levels_misread(
    rows: pd.DataFrame, contract: ModelContract, is_missing: Callable[[str], bool]
) -> dict[str, list[str]]:
    """Return the levels of each category that a file's reader takes for a missing value."""
    found = {
        name: sorted(filter(is_missing, rows[name].dropna().unique()))
        for name in contract.input_names
        if name in contract.category_names
    }
    return {name: levels for name, levels in found.items() if levels}


def _data_record(report: DataReport | None, dataset: Dataset | None) -> dict[str, Any]:
    """Return what `check-data` found; what is not known of a file with problems is null."""
    return {
        **_summary(dataset),
        "is_valid": dataset is not None,
        "columns": [] if dataset is None else _quantiles(dataset),
        "findings": [] if report is None else [asdict(finding) for finding in report.findings],
        "settings": {} if report is None else dict(report.settings),
    }


def _print_data(report: DataReport | None, dataset: Dataset | None) -> None:
    if dataset is not None:
        print_rows("Valid", _summary(dataset))
        print_table("Columns", _quantiles(dataset), ("column", "missing_pct", "q5", "q50", "q95", "max"))
    if report is None:
        return
    summary = f"{report.source}: {report.n_rows:,} rows, {len(report.problems)} to mend"
    console.print(printable(summary), soft_wrap=True, markup=False, highlight=False)
    for finding in report.findings:
        console.print(f"{MARKS[finding.level]} {escape(printable(finding.sentence))}", soft_wrap=True, highlight=False)
    if report.settings:
        console.print("\nSettings that mend what settings can, as lines of .env:", highlight=False)
        for line in report.setting_lines:
            typer.echo(line)


def _summary(dataset: Dataset | None) -> dict[str, Any]:
    if dataset is None:
        return {"data": None, "positive_rate": None, "sha256": None}
    from selfheal.domain.contract import TRUE_LABEL

    rate = float(dataset.frame[TRUE_LABEL].mean())
    return {"data": dataset.description, "positive_rate": rate, "sha256": dataset.sha256}


def _quantiles(dataset: Dataset) -> list[dict[str, Any]]:
    frame = dataset.frame
    return [
        {
            "column": name,
            "missing_pct": round(100 * float(frame[name].isna().mean()), 2),
            **_spread(frame[name]),
        }
        for name in frame.columns
    ]


def _spread(column: pd.Series) -> dict[str, Any]:
    """Return quantiles and the highest value; of a category the commonest level in the middle."""
    from selfheal.domain.levels import is_text

    if is_text(column.dtype):
        commonest = column.mode()
        return {"q5": None, "q50": None if commonest.empty else commonest.iloc[0], "q95": None, "max": None}
    found = {f"q{q:g}": round(float(column.quantile(q / 100)), 4) for q in (5, 50, 95)}
    return found | {"max": round(float(column.max()), 4)}


def _print(name: str, columns: list[dict[str, object]], dataset: Dataset, findings: list[Finding]) -> None:
    print_table(f"{name}: inputs in {dataset.source}", columns, COLUMNS)
    for finding in findings:
        console.print(f"{MARKS[finding.level]} {escape(finding.text)}", soft_wrap=True, highlight=False)
