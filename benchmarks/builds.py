"""Another checkout of this repository beside this one (`--against PATH`): each as processes of its own environment.

Belongs here: checking the checkout, and starting a build's commands, API, Postgres and ticks on a data folder of its own.
Does not belong here: turns and statistics (`benchmarks.ratio`) and what is measured.

Module names differ between builds, so only the stable interfaces are used: the commands `bootstrap` and `postgres`,
`python -m serving`, REST, settings in the environment, and the names of tables and columns; also
`benchmarks.monitoring_scale.tick_here`, which every build since 8598769 has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import typer
from sqlalchemy import URL, create_engine

from benchmarks.ratio import SIDES, Side
from benchmarks.stage import STOP_TIMEOUT_SECONDS, start, stop, wait_until_ready
from selfheal.adapters.datasets import Dataset, load_dataset
from selfheal.domain.contract import ModelContract, load_contract
from selfheal.kit.child_processes import log_end, with_our_programs
from selfheal.kit.errors import InvalidDataError
from selfheal.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

REPOSITORY = Path(__file__).resolve().parents[1]
INSTALL = "make .venv/.run"
NEEDED = ("selfheal/__init__.py", "serving/__main__.py", "benchmarks/monitoring_scale.py")
COMMAND_TIMEOUT_SECONDS = 900.0
DRAIN_TIMEOUT_SECONDS = 300.0
IMPORT_TIMEOUT_SECONDS = 60.0
MAX_ERROR_CHARACTERS = 2_000


@dataclass(frozen=True)
class Build:
    """A checkout with its environment, and a folder that only this build writes to."""

    side: Side
    checkout: Path
    python: Path
    folder: Path

    @property
    def revision(self) -> str:
        """Return the commit by `git describe`, with `-dirty` after uncommitted changes; `unknown` without git."""
        command = ["git", "-C", str(self.checkout), "describe", "--always", "--dirty", "--abbrev=10"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return "unknown"
        return done.stdout.strip()

    @property
    def log(self) -> Path:
        """Return the path of the log of this build's processes."""
        return self.folder / "log.txt"

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of this build's processes: its code, its data folder, and no setting of the caller.

        Settings of the caller's environment are set to blank, which selects their defaults; a `.env` is not read, because
        processes run in `folder`. So both builds run with the same settings, and neither can reach another database.
        """
        blank = {name.upper(): "" for name in Settings.model_fields}
        own = {"PYTHONPATH": str(self.checkout), "DATA_DIR": str(self.folder / "data"), "LOG_LEVEL": "WARNING"}
        return blank | own | settings

    def run(self, arguments: Sequence[str], **settings: str) -> str:
        """Run this build's Python with these arguments and return what it printed.

        Raises:
            RuntimeError: if it fails, or takes longer than `COMMAND_TIMEOUT_SECONDS`.
        """
        what = f"{self.python} {' '.join(arguments)}"
        try:
            done = subprocess.run(  # noqa: S603  (our own commands, no shell)
                [str(self.python), *arguments],
                env=with_our_programs(os.environ | self.environment(**settings), self.python),
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"the {self.side} build did not finish within {COMMAND_TIMEOUT_SECONDS:g} s: {what}"
            ) from None
        if done.returncode:
            raise RuntimeError(f"the {self.side} build failed: {what}: {done.stderr[-MAX_ERROR_CHARACTERS:]}")
        return done.stdout

    def bootstrap(self, data: Path | None) -> None:
        """Train version 1 on the CSV (None: on the build's synthetic rows) and put it into production."""
        self.run(["-m", "selfheal", "bootstrap", "--json"], DATA="" if data is None else str(data.resolve()))

    @contextmanager
    def postgres(self) -> Iterator[Engine]:
        """Keep this build's Postgres running until the context ends; yield an engine on the platform's database."""
        answer = 'printf "%s\\n%s\\n%s\\n" "$PGHOST" "$PGUSER" "$PGDATABASE"; exec cat'
        command = [str(self.python), "-m", "selfheal", "postgres", "sh", "-c", answer]
        with self.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  (our own command)
                command,
                env=with_our_programs(os.environ | self.environment(), self.python),
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdin is not None and process.stdout is not None
        try:
            host, user, database = (process.stdout.readline().strip() for _ in range(3))
            if not host:
                raise RuntimeError(
                    f"the {self.side} build's Postgres did not start; the end of {self.log}:\n{log_end(self.log)}"
                )
            url = URL.create("postgresql+psycopg", username=user, database=database, query={"host": host})
            engine = create_engine(url)
            try:
                yield engine
            finally:
                engine.dispose()
        finally:
            process.stdin.close()  # `cat` ends, and the command with it
            try:
                process.wait(timeout=STOP_TIMEOUT_SECONDS)
            finally:
                process.kill()
                process.stdout.close()

    @contextmanager
    def api(self, port: int) -> Iterator[None]:
        """Serve this build's API on the port until the context ends; enter the context once it can score."""
        command = [str(self.python), "-m", "serving"]
        process = start(command, self.log, self.environment(API_PORT=str(port)), self.folder)
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}/health/ready", self.log)
            yield
        finally:
            stop(process)

    def tick(self) -> dict[str, float]:
        """Return the cost of a tick on the data folder, measured by this build's own benchmark in a fresh process."""
        code = "from benchmarks.monitoring_scale import tick_here; tick_here()"
        figures: dict[str, float] = json.loads(self.run(["-c", code]).splitlines()[-1])
        return figures


def two_builds(old_checkout: Path, folder: Path) -> dict[Side, Build]:
    """Return both builds, each with a folder of its own below `folder`; the new one is this checkout."""
    checkouts = {"old": (old_checkout, python_of(old_checkout)), "new": (REPOSITORY, Path(sys.executable))}
    builds: dict[Side, Build] = {}
    for side in SIDES:
        (folder / side).mkdir()
        checkout, python = checkouts[side]
        builds[side] = Build(side, checkout, python, folder / side)
    return builds


def labelled_rows(data: Path | None, folder: Path) -> tuple[ModelContract, Dataset]:
    """Return the contract and the rows of the CSV (None: synthetic ones), under the default settings of both builds.

    Raises:
        typer.BadParameter: if the file is missing or violates the contract.
    """
    defaults = {name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()}
    settings = load_settings(**defaults | {"data": data, "data_dir": folder})
    contract = load_contract(settings.use_case)
    try:
        return contract, load_dataset(settings, contract)
    except InvalidDataError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error


def python_of(checkout: Path) -> Path:
    """Return the path of a checkout's Python interpreter."""
    return checkout / ".venv" / "bin" / "python"


def checked_checkout(path: Path | None) -> Path | None:
    """Return the absolute path of a checkout that can be run; None stays None.

    Raises:
        typer.BadParameter: if something is missing at the path; the message says how to get it.
    """
    if path is None:
        return None
    checkout = path.expanduser().resolve()
    if not checkout.is_dir():
        raise typer.BadParameter(f"{path} is not a folder; make one with `git worktree add {path} COMMIT`")
    missing = [name for name in NEEDED if not (checkout / name).is_file()]
    if missing:
        raise typer.BadParameter(
            f"{path} is not a checkout of selfheal that can be measured: it lacks {', '.join(missing)}; name the folder "
            "that holds them, at commit 8598769 or later"
        )
    if not python_of(checkout).exists():
        raise typer.BadParameter(f"{path} has no environment of its own; make it with `cd {path} && {INSTALL}`")
    if checkout == REPOSITORY:
        raise typer.BadParameter(f"{path} is this checkout itself; name another one")
    _refuse_foreign_code(path, checkout)
    return checkout


def _refuse_foreign_code(path: Path, checkout: Path) -> None:
    """Refuse an environment that imports another checkout's code, as a copied environment does."""
    remedy = f"make it anew with `cd {path} && rm -rf .venv && {INSTALL}`"
    code = (
        "import importlib.util as u; print(*(u.find_spec(name).origin for name in ('selfheal', 'serving')), sep='\\n')"
    )
    try:
        done = subprocess.run(  # noqa: S603  (our own command)
            [str(python_of(checkout)), "-c", code],
            env=os.environ | {"PYTHONPATH": str(checkout)},
            cwd=checkout,
            capture_output=True,
            text=True,
            check=True,
            timeout=IMPORT_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise typer.BadParameter(f"the environment of {path} does not find selfheal ({error}); {remedy}") from error
    for origin in done.stdout.splitlines():
        if not Path(origin).resolve().is_relative_to(checkout):
            raise typer.BadParameter(f"the environment of {path} runs the code in {Path(origin).parents[1]}; {remedy}")


def wait_until_drained(port: int) -> None:
    """Wait until Postgres has everything that the API acknowledged, so that copying counts for the turn that caused it.

    Raises:
        TimeoutError: if that takes longer than `DRAIN_TIMEOUT_SECONDS`.
    """
    deadline = time.monotonic() + DRAIN_TIMEOUT_SECONDS
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        while time.monotonic() < deadline:
            health = client.get("/health").json()
            if health["journal_lag_bytes"] == 0:
                return
            time.sleep(0.1)
    raise TimeoutError(
        f"the journal was not copied to Postgres within {DRAIN_TIMEOUT_SECONDS:g} s: {health['problems']}"
    )


def score(port: int, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the probabilities that the API on this port gives for the rows."""
    answer = httpx.post(f"http://127.0.0.1:{port}/predict/batch", json={"instances": list(rows)}, timeout=120)
    answer.raise_for_status()
    return [float(prediction["probability"]) for prediction in answer.json()["predictions"]]
