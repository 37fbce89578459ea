"""What does a look's deciding cost, part by part, and does another build decide alike?

    python -m benchmarks.look --data cs-training.csv [--against PATH] [--json look.json] [--quick]

Windows of 50 to 5,000 rows, most of them with 1,440 (a day's), are drawn from the half of the rows that the model has not seen, as in
`benchmarks.drift`: a third of them unchanged, the others with shifts of known columns, broken feeds, lost relations and changed outcomes. Each is judged as a
look judges it, without reading or storing anything, in one process with one thread: CPU milliseconds of each part.

- `whole`: everything that a tick records.
- `deciding`: what leads to the verdict, without long-term drift and without intervals that cannot change it.

With `--against PATH` the code of that checkout, run by this environment, judges the same windows in turns with this one, and every
field of the records is compared. Another build may have other names: only functions that have been there since 4c79abc are called.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.drift.detection import SHIFTS
from benchmarks.drift.population import World
from benchmarks.drift.verdicts import SCENARIOS
from benchmarks.measured import exactly
from selfheal.domain.contract import TRUE_LABEL

REPOSITORY = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).with_name("look_here.py")
CHILD_TIMEOUT_SECONDS = 1_800.0

DAY_ROWS = 1_440
ROWS = (DAY_ROWS, DAY_ROWS, DAY_ROWS, 300, 5_000, 700, 60, 2_500)
REFERENCE_ROWS = (5_000, 5_000, 2_000, 700)
LABELLED_SHARES = (1.0, 0.5, 0.1)
N_WINDOWS, N_WINDOWS_QUICK = 240, 24
N_TURNS, N_TURNS_QUICK = 3, 1

DECISIVE = ("triage.verdict", "triage.episode_id", "drift.is_multivariate_drifted", "drift.feed_problems")
"""Fields whose difference is another decision; so is that of any column's `is_drifted` or `is_missing_rate_drifted`."""


def windows_of(world: World, n_windows: int, seed: int) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    """Return references, and windows: the number of the reference, the rows, the labelled rows, and whether they matured."""
    rng = np.random.default_rng(seed)
    references = [world.reference(rng).iloc[:n_rows].reset_index(drop=True) for n_rows in REFERENCE_ROWS]
    changes = [*(change for change, _, _ in SHIFTS.values()), _lost_relation]
    found = []
    for number in range(n_windows):
        n_rows, is_calm = ROWS[number % len(ROWS)], number % 3 == 0
        if is_calm:
            drawn = world.draw(n_rows, rng)
            inputs, labels = world.inputs.iloc[drawn].reset_index(drop=True), world.labels[drawn]
        elif number % 5 == 4:
            changed, _ = list(SCENARIOS.values())[number % len(SCENARIOS)]
            inputs, labels = changed(world, rng)
        else:
            drawn = world.draw(n_rows, rng)
            inputs, labels = world.inputs.iloc[drawn].reset_index(drop=True), world.labels[drawn]
            inputs = changes[number % len(changes)](inputs, rng)
        if number % 7 == 3 and not is_calm:
            labels = labels | (rng.random(len(labels)) < 0.1)
        rows = world.scored(inputs).assign(**{TRUE_LABEL: np.asarray(labels, dtype=np.int64)})
        share = LABELLED_SHARES[number % len(LABELLED_SHARES)]
        labelled = rows[rng.random(len(rows)) < share]
        found.append(
            {
                "reference": number % len(references),
                "rows": rows,
                "labelled": labelled,
                "is_matured": number % 4 != 3,
                "is_calm_day": is_calm and n_rows == DAY_ROWS,
            }
        )
    exactly("windows", len(found), n_windows)
    return references, found


def _lost_relation(inputs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return inputs.assign(age=rng.permutation(inputs["age"].to_numpy()))


def judged_by(checkout: Path, windows: Path) -> dict[str, Any]:
    """Judge the windows with the code of a checkout, in a process with one thread; return records and CPU milliseconds."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(  # noqa: S603  (our own command)
        [sys.executable, "-P", str(CHILD), str(windows)],
        env=os.environ | one_thread | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
        timeout=CHILD_TIMEOUT_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{checkout} did not judge the windows: {done.stderr[-2_000:]}")
    judged: dict[str, Any] = json.loads(done.stdout)
    exactly("code that judged", judged["code"], str(checkout / "selfheal" / "__init__.py"))
    return judged


def fields_of(record: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a record with its path; elements of a list have their number."""
    if isinstance(record, dict):
        for name, value in record.items():
            yield from fields_of(value, f"{path}.{name}" if path else name)
    elif isinstance(record, list) and record:
        for number, value in enumerate(record):
            yield from fields_of(value, f"{path}[{number}]")
    else:
        yield path, record


def differences(ours: list[Any], theirs: list[Any]) -> dict[str, int]:
    """Return the number of windows in which a field differs, by field; that of `a[1].b` and `a[2].b` is one."""
    found: dict[str, set[int]] = defaultdict(set)
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        one, two = dict(fields_of(mine)), dict(fields_of(other))
        for path in one.keys() | two.keys():
            if one.get(path) != two.get(path):
                found[_without_numbers(path)].add(number)
    return {path: len(numbers) for path, numbers in sorted(found.items())}


def _without_numbers(path: str) -> str:
    return "".join(part.partition("]")[2] if place else part for place, part in enumerate(path.split("[")))


def is_decisive(path: str) -> bool:
    """Return whether another value of this field is another decision."""
    return path in DECISIVE or path.endswith((".is_drifted", ".is_missing_rate_drifted"))


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    against: Annotated[Path | None, typer.Option(help="Another checkout that judges the same windows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few windows: a look, not a figure.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 1,
) -> None:
    """Measure the parts of a look, and compare its records with those of another build."""
    console = Console()
    world = World(data, seed)
    references, windows = windows_of(world, N_WINDOWS_QUICK if quick else N_WINDOWS, seed)
    builds = {"new": REPOSITORY} | ({} if against is None else {"old": against.resolve()})
    judged: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "windows.pickle"
        file.write_bytes(pickle.dumps((references, windows)))
        for _ in range(N_TURNS_QUICK if quick else N_TURNS):
            for name, checkout in builds.items():
                judged[name].append(judged_by(checkout, file))
    cpu_ms = {name: _fastest(turns) for name, turns in judged.items()}
    outcome: dict[str, Any] = {"data": world.description, "n_windows": len(windows), "cpu_ms_per_look": cpu_ms}
    outcome["looks_per_cpu_minute"] = 60_000 / cpu_ms["new"]["deciding, in all, a calm day"]
    outcome["decisions_that_differ_when_only_deciding"] = judged["new"][0]["decisions_that_differ"]
    if against is not None:
        found = differences(judged["new"][0]["records"], judged["old"][0]["records"])
        outcome["fields_that_differ"] = found
        outcome["decisions_that_differ"] = {path: n for path, n in found.items() if is_decisive(path)}
    _show(console, outcome)
    if json_file is not None:
        json_file.write_text(json.dumps(outcome, indent=2))


def _fastest(turns: list[dict[str, Any]]) -> dict[str, float]:
    """Return each part's CPU milliseconds per look in the fastest turn: other load can only add to it."""
    return {part: min(turn["cpu_ms"][part] for turn in turns) for part in turns[0]["cpu_ms"]}


def _show(console: Console, outcome: dict[str, Any]) -> None:
    cpu_ms = outcome["cpu_ms_per_look"]
    table = Table("part of a look", *(f"{name}, CPU ms" for name in cpu_ms), title=f"{outcome['n_windows']} windows")
    for part in cpu_ms["new"]:
        table.add_row(part, *(f"{parts[part]:.2f}" if part in parts else "" for parts in cpu_ms.values()))
    console.print(table)
    console.print(
        f"deciding alone, on a calm day of {DAY_ROWS:,} rows: {outcome['looks_per_cpu_minute']:,.0f} looks per CPU minute"
    )
    n_differing = outcome["decisions_that_differ_when_only_deciding"]
    console.print(f"windows in which deciding alone gives another verdict than the whole: {n_differing}")
    for path, n_windows in outcome.get("fields_that_differ", {}).items():
        mark = " (a decision)" if is_decisive(path) else ""
        console.print(f"differs from the old build in {n_windows} windows: {path}{mark}")


if __name__ == "__main__":
    typer.run(main)
