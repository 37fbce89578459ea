"""Tables of a comparison: rows for a terminal, and Markdown for docs/benchmarks.md. Pure.

Belongs here: which figures a table shows, and in which order; worlds in which ours loses come first. None is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfheal.simulate.replay.comparison import STANDING_WORDS, Standing, WorldResult, standing, worst_first
from selfheal.simulate.replay.policies import ORACLE
from selfheal.simulate.replay.wording import (
    UNKNOWN_FIGURE,
    cost_text,
    count_text,
    days_text,
    score_text,
    share_text,
    with_bounds,
)

WORLD_COLUMNS = ("policy", "cost", "recovered", "healed", "noticed", "trainings", "promotions", "wrong", "rollbacks")
STREAM_COLUMNS = ("policy", "cost", "brier", "f1", "auc", "trainings", "promotions")


def policy_rows(result: WorldResult) -> list[dict[str, str]]:
    """Return a row of text per policy of one world: what it cost and what it did."""
    return [_policy_row(result, policy) for policy in result.lines]


def _policy_row(result: WorldResult, policy: str) -> dict[str, str]:
    figures = result.figures[policy]
    row = {"policy": policy, "cost": cost_text(result.cost(policy))}
    counts = {name: count_text(figures[name]) for name in ("trainings", "promotions")}
    if result.is_natural:
        return row | {name: score_text(figures[name]) for name in ("brier", "f1", "auc")} | counts
    return {
        **row,
        "recovered": share_text(figures["recovered_share"]),
        "healed": days_text(figures["heal_h"], figures["healed_share"]),
        "noticed": days_text(figures["detect_h"], figures["detected_share"]),
        **counts,
        "wrong": count_text(figures["wrong_promotions"]),
        "rollbacks": count_text(figures["rollbacks"]),
    }


def verdict_sentence(result: WorldResult) -> str:
    """Return in one sentence how ours does in a world, or which policy costs least if ours was not replayed."""
    if result.standing is Standing.NOT_REPLAYED:
        cheapest = result.cheapest()
        return "" if cheapest is None or len(result.lines) < 2 else f"Of these policies, {cheapest} costs least."
    costs = {name: mean for name, (_, mean, _) in result.against.items() if mean is not None}
    if not costs:
        return "No other policy was replayed on the same rows."
    rival = max(costs, key=lambda name: costs[name])
    gap = cost_text(result.against[rival])
    if result.standing is Standing.LOSES:
        return f"Ours loses: it costs {gap} more than {rival}."
    if result.standing is Standing.BEHIND:
        doubt = "; one deployment has no bounds" if result.n_seeds == 1 else ", which may be chance"
        return f"Ours costs {gap} more than {rival}{doubt}."
    return f"No policy costs less than ours; {rival} comes closest."


# Markdown


def markdown_tables(found: Mapping[str, Any]) -> str:
    """Return the tables of `benchmarks.heal`'s JSON, the worlds in which ours loses at the top."""
    worlds, streams, against = found["worlds"], found["streams"], found.get("ours_against", {})
    parts = [_about(found)]
    if worlds:
        parts += [_standings(worlds, against), _world_table(worlds, against)]
    if streams:
        parts.append(_stream_table(streams))
    return "\n\n".join(parts) + "\n"


def _about(found: Mapping[str, Any]) -> str:
    seeds = sorted({figures["seeds"] for world in found["worlds"].values() for figures in world.values()})
    facts = (
        f"{len(found['worlds'])} worlds and {len(found['streams'])} natural streams from `{found.get('data', 'unknown')}`",
        f"{_numbers(seeds)} seeds" if seeds else "",
        f"a decision every {found.get('interval_hours', 6.0):g} h",
        f"{found['wall_s'] / 3_600:.1f} h of wall time" if "wall_s" in found else "",
    )
    return f"Measured on {', '.join(fact for fact in facts if fact)}. In brackets: 95 % bounds over seeds."


def _numbers(values: Sequence[int]) -> str:
    return " or ".join(str(value) for value in values)


def _standings(worlds: Mapping[str, Any], against: Mapping[str, Any]) -> str:
    names = {one: [name for name in worlds if standing(against.get(name, {})) is one] for one in Standing}
    lines = [f"- {STANDING_WORDS[one]}: {len(found)} of {len(worlds)} worlds" for one, found in names.items() if found]
    if names[Standing.LOSES]:
        lines[0] += f" ({', '.join(f'`{name}`' for name in names[Standing.LOSES])})"
    return "\n".join(lines)


def _world_table(worlds: Mapping[str, Any], against: Mapping[str, Any]) -> str:
    ordered = worst_first({name: against.get(name, {}) for name in worlds})
    rows = [
        (
            f"`{name}`" if place == 0 else "",
            STANDING_WORDS[standing(against.get(name, {}))] if place == 0 else "",
            policy,
            cost_text(figures["regret"]),
            share_text(figures["recovered_share"]),
            days_text(figures["heal_h"], figures["healed_share"]),
            days_text(figures["detect_h"], figures["detected_share"]),
            *(count_text(figures[key]) for key in ("false_retrains", "wrong_promotions")),
            with_bounds((None, figures["wrong_promotion_h"][1], None), "{:.0f} h"),
            count_text(figures["rollbacks"]),
        )
        for name in ordered
        for place, (policy, figures) in enumerate(worlds[name].items())
        if policy != ORACLE
    ]
    heading = (
        *("world", "ours", "policy", "regret (Brier x rows)", "share recovered", "healed after", "noticed after"),
        *("false retrainings", "wrong promotions", "they served", "rollbacks"),
    )
    return _markdown(heading, rows)


def _stream_table(streams: Mapping[str, Any]) -> str:
    rows = [
        (
            f"`{name}`" if place == 0 else "",
            policy,
            cost_text(figures.get("regret", (None, None, None))),
            *(score_text(figures[key]) for key in ("brier", "f1", "auc")),
            count_text(figures["trainings"]),
        )
        for name, by_policy in streams.items()
        for place, (policy, figures) in enumerate(by_policy.items())
    ]
    return _markdown(("stream", "policy", "regret (Brier x rows)", "Brier", "F1", "AUC", "trainings"), rows)


def _markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def overview_row(result: WorldResult) -> dict[str, str]:
    """Return one line about a world: how ours stands, what it cost, and what the best other policy cost."""
    ours = result.ours
    rival = result.cheapest(but=(ORACLE,) if ours is None else (ORACLE, ours))
    return {
        "ours": STANDING_WORDS[result.standing],
        "cost_of_ours": UNKNOWN_FIGURE if ours is None else cost_text(result.cost(ours)),
        "best_other": UNKNOWN_FIGURE if rival is None else rival,
        "cost_of_best_other": UNKNOWN_FIGURE if rival is None else cost_text(result.cost(rival)),
    }
