"""Where ours loses stands at the top, by paired differences, and no world is left out."""

from __future__ import annotations

import pytest

from selfheal.simulate.replay.comparison import Standing, by_world, summarised
from selfheal.simulate.replay.runs import Cell
from selfheal.simulate.replay.summary import NO_FIGURE
from selfheal.simulate.replay.tables import markdown_tables, overview_row, policy_rows, verdict_sentence
from tests.simulate.replay.results import N_ROWS, line, results

WORLDS = {
    "won": {"never": [0.30, 0.31, 0.32], "oracle": [0.1, 0.1, 0.1], "ours": [0.15, 0.16, 0.17]},
    "lost": {"never": [0.20, 0.30, 0.40], "oracle": [0.1, 0.1, 0.1], "ours": [0.21, 0.3101, 0.4099]},
    "lost_by_more": {"never": [0.20, 0.30, 0.40], "oracle": [0.1, 0.1, 0.1], "ours": [0.30, 0.401, 0.499]},
    "behind": {"never": [0.20, 0.20, 0.20], "oracle": [0.1, 0.1, 0.1], "ours": [0.18, 0.19, 0.25]},
    "without_ours": {"never": [0.2], "oracle": [0.1], "weekly": [0.15]},
    "alike": {"never": [0.2, 0.3], "oracle": [0.2, 0.3], "ours": [0.2, 0.3]},
}


def test_worlds_in_which_ours_loses_come_first_the_largest_loss_at_the_top() -> None:
    found = results(WORLDS)
    assert [result.name for result in found] == ["lost_by_more", "lost", "behind", "alike", "won", "without_ours"]
    assert {result.name: result.standing for result in found} == {
        "lost_by_more": Standing.LOSES,
        "lost": Standing.LOSES,
        "behind": Standing.BEHIND,
        "alike": Standing.LEADS,
        "won": Standing.LEADS,
        "without_ours": Standing.NOT_REPLAYED,
    }


def test_a_loss_is_paired_by_seed_though_the_seeds_differ_by_far_more() -> None:
    (lost,) = results({"lost": WORLDS["lost"]})
    low, mean, high = lost.against["never"]
    assert low is not None
    assert high is not None
    assert mean == pytest.approx(0.01 * N_ROWS)
    assert high - low < 0.001 * N_ROWS


def test_the_oracle_is_no_rival() -> None:
    (won,) = results({"won": WORLDS["won"]})
    assert set(won.against) == {"never"}
    assert won.cheapest() == "ours"


def test_ours_with_other_settings_is_ours_where_it_is_the_only_one() -> None:
    (alone,), (two,), (beside,) = (
        results({"w": {name: [0.2] for name in ("never", *names)}})
        for names in (["ours A=1"], ["ours A=1", "ours A=2"], ["ours", "ours A=2"])
    )
    assert (alone.ours, two.ours, beside.ours) == ("ours A=1", None, "ours")
    assert set(beside.against) == {"never", "ours A=2"}
    assert two.standing is Standing.NOT_REPLAYED


def test_one_deployment_proves_no_loss() -> None:
    (found,) = results({"once": {"never": [0.2], "ours": [0.3]}})
    assert found.standing is Standing.BEHIND
    assert "100" in verdict_sentence(found)
    assert "one deployment has no bounds" in verdict_sentence(found)
    (behind,) = results({"behind": WORLDS["behind"]})
    assert "may be chance" in verdict_sentence(behind)


def test_costs_are_relative_to_the_oracle_or_else_to_never() -> None:
    (with_oracle,), (without,), (alone,) = (
        results({"w": {"never": [0.3], "oracle": [0.1], "weekly": [0.2]}}),
        results({"w": {"never": [0.3], "weekly": [0.2]}}),
        results({"w": {"weekly": [0.2]}}),
    )
    assert with_oracle.cost("weekly")[1] == pytest.approx(0.1 * N_ROWS)
    assert without.cost("weekly")[1] == pytest.approx(-0.1 * N_ROWS)
    assert alone.cost("weekly") == NO_FIGURE
    assert policy_rows(alone)[0]["cost"] == "-"


def test_policies_keep_the_order_of_the_tables_and_variants_their_own() -> None:
    names = ("ours GATE_LEVEL=0.2", "oracle", "never", "ours GATE_LEVEL=0.1", "weekly")
    cells = by_world({Cell("w", 1, name): line(0.1) for name in names})
    assert list(cells["w"]) == ["never", "weekly", "oracle", "ours GATE_LEVEL=0.2", "ours GATE_LEVEL=0.1"]


def test_a_row_of_a_world_and_one_of_a_stream_have_their_own_figures() -> None:
    (world,) = results({"won": WORLDS["won"]})
    (stream,) = results({"won": WORLDS["won"]}, natural=["won"], change_day=None)
    ours = {row["policy"]: row for row in policy_rows(world)}["ours"]
    assert (ours["recovered"], ours["noticed"], ours["wrong"]) == ("71 % (64 to 81)", "never", "0")
    assert ours["cost"] == "60.0 (35.2 to 84.8)"
    assert policy_rows(stream)[0]["brier"].startswith("0.3100 (")
    assert overview_row(world) == {
        "ours": "no policy costs less than ours",
        "cost_of_ours": "60.0 (35.2 to 84.8)",
        "best_other": "never",
        "cost_of_best_other": "210 (185 to 235)",
    }


def test_the_tables_of_the_benchmark_show_every_world_and_where_ours_loses_first() -> None:
    done = {
        Cell(world, seed, policy): line(brier)
        for world, by_policy in WORLDS.items()
        for policy, briers in by_policy.items()
        for seed, brier in enumerate(briers, start=1)
    }
    done |= {Cell("rain", 1, policy): line(0.2, change_day=None) for policy in ("never", "oracle", "ours")}
    text = markdown_tables(summarised(done, list(WORLDS), ["rain"]) | {"data": "rows.csv", "wall_s": 7_200.0})
    assert "6 worlds and 1 natural streams from `rows.csv`, 1 or 2 or 3 seeds" in text
    assert "- ours loses: 2 of 6 worlds (`lost`, `lost_by_more`)" in text
    places = [
        text.index(f"| `{name}` |") for name in ("lost_by_more", "lost", "behind", "alike", "won", "without_ours")
    ]
    assert places == sorted(places)
    assert "| `rain` | never |" in text
    assert "2.0 h of wall time" in text


def test_results_without_ours_have_tables_too() -> None:
    done = {Cell("w", seed, policy): line(0.2) for seed in (1, 2) for policy in ("never", "oracle")}
    text = markdown_tables(summarised(done, ["w"], []))
    assert "ours was not replayed: 1 of 1 worlds" in text
