"""Findings of a check: how much was checked, what is wrong, and what could not be checked (which is not sound)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from selfheal.kit.errors import IntegrityError

MAX_SHOWN = 20
"""Largest number of sentences of each kind in a result; the others are only counted."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check. `findings` and `unchecked` are the first `MAX_SHOWN` of `n_findings` and `n_unchecked`."""

    name: str
    n_checked: int
    n_findings: int
    n_unchecked: int
    findings: tuple[str, ...]
    unchecked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """The results of all checks, and the head of the decisions' chain at that time."""

    results: tuple[CheckResult, ...]
    chain_head: str

    @property
    def has_findings(self) -> bool:
        """Return whether anything is wrong."""
        return any(result.n_findings for result in self.results)

    @property
    def is_complete(self) -> bool:
        """Return whether everything could be checked."""
        return not any(result.n_unchecked for result in self.results)

    @property
    def is_sound(self) -> bool:
        """Return whether everything was checked and nothing is wrong."""
        return self.is_complete and not self.has_findings


@dataclass
class Check:
    """A check in progress."""

    name: str
    n_checked: int = 0
    n_findings: int = 0
    n_unchecked: int = 0
    _findings: list[str] = field(default_factory=list)
    _unchecked: list[str] = field(default_factory=list)

    def found(self, sentences: Iterable[str]) -> None:
        """Add a finding."""
        for sentence in sentences:
            self.n_findings += 1
            if len(self._findings) < MAX_SHOWN:
                self._findings.append(sentence)

    def could_not(self, sentence: str) -> None:
        """Add a sentence on what could not be checked, and why."""
        self.n_unchecked += 1
        if len(self._unchecked) < MAX_SHOWN:
            self._unchecked.append(sentence)

    @contextmanager
    def checking(self, what: str, n_things: int = 1) -> Iterator[None]:
        """Count this many things as checked.

        A changed or missing thing is a finding; any other error counts as not checked.
        """
        try:
            yield
        except IntegrityError as error:
            self.n_checked += n_things
            self.found([f"{what}: {error}"])
        except Exception as error:  # one thing that cannot be checked must not stop the other checks
            self.could_not(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}")
        else:
            self.n_checked += n_things

    def result(self) -> CheckResult:
        """Return the check's result."""
        return CheckResult(
            self.name,
            self.n_checked,
            self.n_findings,
            self.n_unchecked,
            tuple(self._findings),
            tuple(self._unchecked),
        )
