"""A run of `benchmarks.heal` beside an earlier one, such as of an older release: our policy, world by world.

Belongs here: which figures stand side by side. Does not belong here: replaying (`benchmarks.heal`), and single figures as text
(`selfheal.simulate.replay.wording`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfheal.simulate.replay.policies import OURS
from selfheal.simulate.replay.wording import cost_text, count_text, days_text, score_text, share_text

FIGURES = (
    *("recovered_share", "regret", "heal_h", "healed_share"),
    *("false_retrains", "wrong_promotions", "wrong_promotion_h", "rollbacks"),
)
STREAM_FIGURES = ("brier", "f1", "auc", "trainings")

HEADING = ("world", "regret", "share recovered", "healed after", "false retrainings", "wrong promotions")
STREAM_HEADING = ("stream", "Brier", "F1", "AUC", "trainings")

Pairs = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By world and figure: what it was `before`, and what it is `now`."""


def side_by_side(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of our policy in both runs, of the worlds and streams that both have.

    Args:
        before, now: what `benchmarks.heal` writes with `--json`.
    """
    return {
        "worlds": _pairs(before["worlds"], now["worlds"], FIGURES),
        "streams": _pairs(before.get("streams", {}), now.get("streams", {}), STREAM_FIGURES),
        "only_before": sorted(_of_ours(before) - _of_ours(now)),
        "only_now": sorted(_of_ours(now) - _of_ours(before)),
    }


def _of_ours(found: Mapping[str, Any]) -> set[str]:
    return {name for part in ("worlds", "streams") for name, by in found.get(part, {}).items() if OURS in by}


def _pairs(before: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        world: {name: {"before": before[world][OURS].get(name), "now": figures[OURS].get(name)} for name in names}
        for world, figures in now.items()
        if OURS in figures and OURS in before.get(world, {})
    }


def markdown(found: Mapping[str, Any]) -> str:
    """Return the tables of `side_by_side`; in each cell what was before, an arrow, and what is now."""
    parts = []
    if found["worlds"]:
        parts.append(_table(HEADING, [_world_row(name, pairs) for name, pairs in found["worlds"].items()]))
    if found["streams"]:
        parts.append(_table(STREAM_HEADING, [_stream_row(name, pairs) for name, pairs in found["streams"].items()]))
    for key, words in (("only_before", "earlier"), ("only_now", "later")):
        if found[key]:
            parts.append(f"Only in the {words} run: {', '.join(f'`{name}`' for name in found[key])}.")
    return "\n\n".join(parts) + "\n"


def _world_row(name: str, pairs: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    healed = [days_text(pairs["heal_h"][when], pairs["healed_share"][when]) for when in ("before", "now")]
    return (
        f"`{name}`",
        _both(pairs["regret"], cost_text),
        _both(pairs["recovered_share"], share_text),
        _arrow(*healed),
        _both(pairs["false_retrains"], count_text),
        _both(pairs["wrong_promotions"], count_text),
    )


def _stream_row(name: str, pairs: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    scores = (_both(pairs[figure], score_text) for figure in ("brier", "f1", "auc"))
    return (f"`{name}`", *scores, _both(pairs["trainings"], count_text))


def _both(pair: Mapping[str, Any], text: Any) -> str:
    return _arrow(*(text(pair[when] or (None, None, None)) for when in ("before", "now")))


def _arrow(before: str, now: str) -> str:
    return f"{before} → {now}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
