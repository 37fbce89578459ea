"""Timeline of the demo: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from selfheal.simulate.outcome import DemoOutcome
    from selfheal.simulate.traffic import TrafficStats

EVENTS_SHOWN = 14
VERDICT_STYLES = {
    "stable": "green",
    "benign_shift": "yellow",
    "harmful_shift": "bold red",
    "broken_feed": "bold red",
    "insufficient": "dim",
}
STATUS_STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "NOT_APPLICABLE": "dim"}


class Timeline:
    """Shows the current state and the events as they occur. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._phase = "starting"
        self._state: dict[str, str] = {}
        self._gates: list[dict[str, Any]] = []
        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._last: dict[str, str] = {}
        self._live = Live(self, console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __enter__(self) -> Timeline:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich__(self) -> RenderableType:
        state = Table.grid(padding=(0, 2))
        for name, value in self._state.items():
            state.add_row(Text(name, style="dim"), Text.from_markup(value))
        parts: list[RenderableType] = [state]
        if self._gates:
            parts.append(gate_table(self._gates))
        parts.append(Text.from_markup("\n".join(self._events)))
        return Panel(Group(*parts), title=f"{self._clock()}  {self._phase}", title_align="left")

    def phase(self, name: str) -> None:
        """Begin a phase of the demo."""
        self._phase = name
        self.event(f"[bold]{name}[/]")

    def event(self, text: str) -> None:
        """Show an event with the time since the start."""
        line = f"[dim]{self._clock()}[/] {text}"
        self._events.append(line)
        if self._live is None:
            self._console.print(line, highlight=False)
        else:
            self._live.console.print(line, highlight=False)

    def warn(self, text: str) -> None:
        """Show a warning, but not the same one twice in a row. `text` is plain, not markup."""
        self._tell("warning", f"[red]{escape(text)}[/]")

    def traffic(self, stats: TrafficStats, version: int | None) -> None:
        """Show how many predictions and labels were sent."""
        failures = f", [red]{stats.failed_requests} failed[/]" if stats.failed_requests else ", none failed"
        rate = stats.rate_per_second()
        self._state["traffic"] = (
            f"{rate:.0f} requests/s, {stats.predictions:,} predictions, {stats.labels:,} labels{failures}"
        )
        self._state["serving"] = f"version {version}"

    def show_drift(self, metadata: dict[str, Any]) -> None:
        """Show the drift that the newest tick found."""
        ratio = metadata.get("feature_drift_ratio")
        shown = "unknown (too few rows)" if ratio is None else f"{ratio:.0%} of the features"
        self._state["drift"] = shown
        self._tell("drift", f"drift: {shown}: {escape(str(metadata.get('drifted_features')))}")

    def show_verdict(self, metadata: dict[str, Any]) -> None:
        """Show the newest tick's verdict."""
        verdict = str(metadata.get("verdict"))
        shown = f"[{VERDICT_STYLES.get(verdict, 'none')}]{verdict.replace('_', ' ')}[/]"
        self._state["verdict"] = shown
        reasons = str(metadata.get("reasons", "")).removeprefix("- ").split("\n- ")
        self._tell("verdict", f"verdict: {shown}", f": {escape(reasons[0])}")

    def show_decision(self, metadata: dict[str, Any]) -> None:
        """Show a decision on retraining."""
        shown = escape(f"{metadata.get('action')} ({metadata.get('reason')})")
        self._state["decision"] = shown
        self._tell("decision", f"decision: [bold]{shown}[/], attempt {metadata.get('attempt')}")

    def show_gates(self, metadata: dict[str, Any]) -> None:
        """Show the gates of a verdict as a table."""
        self._gates = list(metadata.get("gates") or [])
        self._tell("gates", f"gates: [bold]{metadata.get('action')}[/]: {escape(str(metadata.get('reason')))}")
        if self._live is None:
            self._console.print(gate_table(self._gates))

    def print_verdict(self, outcome: DemoOutcome) -> None:
        """Print the result: what the loop achieved, or that it did not."""
        if self._live is not None and self._gates:
            self._console.print(gate_table(self._gates))
        table = Table(title="On later drifted rows that neither version was trained on", title_justify="left")
        for name in ("", "version before", "version after"):
            table.add_column(name)
        table.add_row("version", _number(outcome.version_before), _number(outcome.version_after))
        table.add_row("F1", _number(outcome.f1_before), _number(outcome.f1_after))
        table.add_row("AUC-ROC", _number(outcome.auc_before), _number(outcome.auc_after))
        self._console.print(table)
        self._console.print(
            f"{outcome.predictions:,} predictions, {outcome.failed_requests} failed requests; drift to alert "
            f"{_number(outcome.seconds_drift_to_alert)} s, alert to served {_number(outcome.seconds_alert_to_served)} s, "
            f"{_number(outcome.seconds_total)} s in all; data: {outcome.dataset}"
        )
        if outcome.healed:
            self._console.print("[bold green]Healed: the API serves a better version, without any manual step.[/]")
        else:
            self._console.print(
                "[bold red]Not healed.[/] The API did not come to serve a better version without failures."
            )

    def _tell(self, subject: str, text: str, detail: str = "") -> None:
        """Show an event if it differs from the last one of its subject; the detail does not count as a difference."""
        if self._last.get(subject) != text:
            self._last[subject] = text
            self.event(text + detail)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes:02}:{seconds:02}"


def gate_table(gates: list[dict[str, Any]]) -> Table:
    """Lay out the gates of a verdict."""
    table = Table(title="Gates", title_justify="left")
    for name in ("gate", "status", "why"):
        table.add_column(name)
    for gate in gates:
        status = str(gate.get("status"))
        name = str(gate.get("gate")).replace("_", " ")
        table.add_row(name, Text(status, style=STATUS_STYLES.get(status, "")), escape(str(gate.get("sentence"))))
    return table


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
