"""The report on a comparison of policies: one HTML page, one picture a world, drawn by the plotly.js beside the page.

Belongs here: the content of the page and its order; a reader needs no other document. `report_figures` makes the pictures, `tables` the
figures as text. Pure: results in, text out. All text from outside (names of files, values of settings) is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

from selfheal.simulate.replay.comparison import STANDING_WORDS, Standing, WorldResult
from selfheal.simulate.replay.policies import NEVER, ORACLE, description_of
from selfheal.simulate.replay.report_figures import (
    DARK_INK,
    LAYOUT,
    MARKS,
    SMOOTHED_DAYS,
    colours_of,
    world_figure,
    world_height,
)
from selfheal.simulate.replay.tables import overview_row, policy_rows, verdict_sentence

TEMPLATE = Path(__file__).with_name("report.html")

SYMBOLS = {"triangle-up": "▲", "circle-open": "○", "diamond": "◆", "x": "✕", "triangle-down-open": "▽"}

HEADINGS = {
    "policy": "policy",
    "cost": "cost",
    "recovered": "share recovered",
    "healed": "healed after",
    "noticed": "noticed after",
    "trainings": "trainings",
    "promotions": "promotions",
    "wrong": "wrong promotions",
    "rollbacks": "rollbacks",
    "brier": "Brier score",
    "f1": "F1",
    "auc": "AUC",
}

GLOSSARY = {
    "cost": "The squared errors that a policy's answers added to those of the {yardstick}, summed over all rows from the change on. "
    "25: as if 100 rows had been answered 50 % off; 0: as good; below 0: better.",
    "share recovered": "Of the loss that the oracle avoids, the share that the policy avoids. 100 %: as good as knowing the change. "
    "0 %: as if nothing had been done. Below 0: it did harm. - where there was nothing to gain.",
    "healed after": "Days from the change until what is in production stays within 20 % of the best attainable. Days to the end "
    "where that did not come.",
    "noticed after": "Days from the change to the first alarm or training. Where nothing is wrong, an alarm is a false one.",
    "wrong promotions": "Promotions of a version that was provably worse than the one it replaced.",
    "Brier score": "The mean squared error of the probabilities. Less is better; F1 and AUC: more is better.",
    "in brackets": "95 % bounds over independent deployments of the same world. One deployment has none.",
}


@dataclass(frozen=True)
class ReportInput:
    """The content of the page.

    Args:
        results: worlds and streams in the order of the page.
        rows_of: what the rows are, for people.
        interval_hours: between two decisions of a policy.
        library, drawing: the names of the scripts beside the page.
    """

    results: Sequence[WorldResult]
    rows_of: str
    interval_hours: float
    written_at: datetime
    release: str
    library: str
    drawing: str


def report_page(page: ReportInput) -> str:
    """Return the page as HTML."""
    policies = list(dict.fromkeys(name for result in page.results for name in result.lines))
    places = [f"world-{number}" for number in range(len(page.results))]
    has_ours = any(result.standing is not Standing.NOT_REPLAYED for result in page.results)
    drawn = {
        "figures": [world_figure(result, place) for result, place in zip(page.results, places, strict=True)],
        "layout": LAYOUT,
        "dark_ink": DARK_INK,
        "is_lazy": True,
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=f"{_count(len(policies), 'policy', 'policies')}, {_count(len(page.results), 'deployment')}: what each would have cost",
        purpose=_purpose(page),
        facts=_facts(page, policies),
        origin=f"Written {page.written_at:%Y-%m-%d %H:%M} UTC · rows: {escape(page.rows_of)} · selfheal {escape(page.release)}",
        summary_title="Where ours is behind, first" if has_ours else "At a glance",
        summary=_summary(page.results, places, has_ours=has_ours),
        policies=_policies(policies),
        glossary=_glossary(page.results),
        worlds_title="What happened, what each policy did, and what it cost",
        marks=_marks(),
        worlds="".join(_world(result, place) for result, place in zip(page.results, places, strict=True)),
        figures=_embedded(drawn),
        library=escape(page.library),
        drawing=escape(page.drawing),
    )


def _purpose(page: ReportInput) -> str:
    return (
        "A policy decides when a model in production is trained again and what is promoted. Each deployment below was lived through "
        f"again under each policy, on a simulated clock with a decision every {page.interval_hours:g} hours: the same predictions, the "
        "same labels, each known no earlier than it was. What a policy cost is counted on the true outcomes."
    )


def _facts(page: ReportInput, policies: Sequence[str]) -> str:
    n_replays = sum(len(by_seed) for result in page.results for by_seed in result.lines.values())
    days = sum(line["days"] for r in page.results for by_seed in r.lines.values() for line in by_seed.values())
    facts = {
        "deployments": f"{len(page.results)}",
        "policies": f"{len(policies)}",
        "replays": f"{n_replays:,}",
        "days replayed": f"{days:,.0f}",
    }
    for standing in (Standing.LOSES, Standing.BEHIND, Standing.LEADS):
        n = sum(result.standing is standing for result in page.results)
        facts |= {f"where {STANDING_WORDS[standing]}": f"{n}"} if n else {}
    return "".join(f"<div><b>{value}</b><span class='soft'>{name}</span></div>" for name, value in facts.items())


def _summary(results: Sequence[WorldResult], places: Sequence[str], *, has_ours: bool) -> str:
    heading = [
        "deployment",
        "what happened",
        *(["ours", "cost of ours"] if has_ours else []),
        "best other policy",
        "its cost",
    ]
    rows = [_summary_row(result, place, has_ours=has_ours) for result, place in zip(results, places, strict=True)]
    return _table(heading if has_ours else [*heading[:2], "best policy", "its cost"], rows)


def _summary_row(result: WorldResult, place: str, *, has_ours: bool) -> list[str]:
    row = overview_row(result)
    link = f"<a href='#{place}-title'>{escape(result.name)}</a>"
    ours = [_badge(result.standing), escape(row["cost_of_ours"])] if has_ours else []
    return [link, escape(result.description), *ours, escape(row["best_other"]), escape(row["cost_of_best_other"])]


def _policies(policies: Sequence[str]) -> str:
    colours = colours_of(policies)
    lines = (
        f"<dt>{_swatch(colours[name])}{escape(name)}</dt><dd>{escape(description_of(name))}</dd>" for name in policies
    )
    return f"<dl>{''.join(lines)}</dl>"


def _glossary(results: Sequence[WorldResult]) -> str:
    yardsticks = {result.yardstick for result in results}
    words = {ORACLE: "oracle", NEVER: "policy that never does anything"}
    yardstick = (
        " or ".join(words[name] for name in (ORACLE, NEVER) if name in yardsticks)
        or "yardstick, which was not replayed"
    )
    is_all_natural = all(result.is_natural for result in results)
    left_out = {"share recovered", "healed after", "noticed after", "wrong promotions"} if is_all_natural else set()
    lines = (
        f"<dt>{name}</dt><dd>{text.format(yardstick=yardstick)}</dd>"
        for name, text in GLOSSARY.items()
        if name not in left_out
    )
    return f"<dl>{''.join(lines)}</dl>"


def _marks() -> str:
    words = " ".join(  # a line can break between two of them
        f"<span><b style='color:{colour}' aria-hidden='true'>{SYMBOLS[symbol]}</b> {word}</span>"
        for word, symbol, colour in MARKS.values()
    )
    return (
        f"Lines: the true Brier score of each policy, mean of {SMOOTHED_DAYS} days; less is better. The dashed line is the change. "
        f"Marks below, of the first deployment: {words}"
    )


def _world(result: WorldResult, place: str) -> str:
    rows = policy_rows(result)
    colours = colours_of(list(result.lines))
    cells = [
        [
            f"{_swatch(colours[row['policy']])}{escape(row['policy'])}",
            *(escape(row[key]) for key in row if key != "policy"),
        ]
        for row in rows
    ]
    seeds = "one deployment" if result.n_seeds == 1 else f"{result.n_seeds} deployments"
    notes = [verdict_sentence(result), f"{seeds[0].upper()}{seeds[1:]}.", _note_on_events(result)]
    return (
        f"<section class='card' aria-labelledby='{place}-title'>"
        f"<div class='head'><h3 id='{place}-title'>{escape(result.name)}</h3>{_badge(result.standing)}</div>"
        f"<p>{escape(_sentence(result.description))}</p><p class='soft'>{escape(' '.join(filter(None, notes)))}</p>"
        f"<div id='{place}' class='plot' style='height:{world_height(result)}px' role='img' "
        f"aria-label='{escape(f'True loss over time and actions of each policy in {result.name}', quote=True)}'></div>"
        f"{_table([HEADINGS[key] for key in rows[0]], cells)}</section>"
    )


def _note_on_events(result: WorldResult) -> str:
    has_all = all("events" in line for by_seed in result.lines.values() for line in by_seed.values())
    return "" if has_all else "Some results are of a release that did not record marks."


def _badge(standing: Standing) -> str:
    if standing is Standing.NOT_REPLAYED:
        return ""
    return f"<span class='badge {standing.value}'>{STANDING_WORDS[standing]}</span>"


def _swatch(colour: str) -> str:
    return f"<span class='swatch' style='background:{colour}'></span>"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; on a phone each row is a block, with its headings beside the values. Cells are HTML already."""
    head = "".join(f"<th scope='col'>{name}</th>" for name in heading)
    body = "".join(
        "<tr>" + "".join(_cell(name, cell) for name, cell in zip(heading, row, strict=True)) + "</tr>" for row in rows
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(name: str, content: str) -> str:
    return f"<td data-of='{name}'><span>{content}</span></td>"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _embedded(value: Mapping[str, object]) -> str:
    """Return JSON that is safe inside a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
