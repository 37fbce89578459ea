"""The benchmark of policies replays what it says, and its tables have the promised keys."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import heal
from benchmarks.before_after import markdown, side_by_side
from benchmarks.measured import MeasuredOtherwiseError
from selfheal.kit.code_version import code_version
from selfheal.kit.durations import span
from selfheal.kit.json_lines import append_line
from selfheal.simulate.replay.builders import Rebuilder
from selfheal.simulate.replay.catalogue import WORLDS, core_worlds
from selfheal.simulate.replay.peers import oracle
from selfheal.simulate.replay.policies import ALL_POLICIES, POLICIES
from selfheal.simulate.replay.runs import Cell, Run
from selfheal.simulate.replay.stream_file import Columns
from tests.docs.pages import codes, table
from tests.processes import REPOSITORY
from tests.toy_use_case import contract

PROMISED = {
    *("recovered_share", "regret", "detect_h", "heal_h", "false_retrains"),
    *("wrong_promotions", "wrong_promotion_h", "rollbacks"),
}


def test_core_worlds_have_20_seeds_the_others_5_and_streams_one() -> None:
    cells = heal.cells_of(list(WORLDS), ["rainfall"], list(POLICIES), quick=False)
    seeds = {name: {cell.seed for cell in cells if cell.world == name} for name in (*WORLDS, "rainfall")}
    core = {world.name for world in core_worlds()}
    assert {len(seeds[name]) for name in core} == {20}
    assert {len(found) for name, found in seeds.items() if name not in core | {"rainfall"}} == {5}
    assert len(seeds["rainfall"]) == 1
    assert {cell.policy for cell in cells} == set(POLICIES)


def test_a_quick_run_has_one_seed() -> None:
    cells = heal.cells_of(["calm", "sudden"], [], ["never", "oracle"], quick=True)
    assert cells == [Cell(world, 1, policy) for world in ("calm", "sudden") for policy in ("never", "oracle")]


def test_a_run_that_lacks_cells_or_in_which_never_promotes_has_no_figures() -> None:
    cell = Cell("calm", 1, "never")
    figures: dict[str, Any] = {"n_decisions": 40, "promotions": 0}
    heal.check({cell: figures}, [cell])
    for done in ({}, {cell: figures | {"promotions": 1}}, {cell: figures | {"n_decisions": 0}}):
        with pytest.raises(MeasuredOtherwiseError):
            heal.check(done, [cell])


def test_a_users_stream_has_its_columns_named_in_minutes_and_hours() -> None:
    assert heal.columns_of(None, None, None, 24.0, ()) is None
    found = heal.columns_of(None, "up", 30.0, 2.0, ("row",))
    assert found == Columns("up", None, 1_800_000_000, None, ("row",), 7_200_000_000)


def test_a_wrong_column_of_a_users_stream_is_named_before_anything_is_replayed(tmp_path: Path) -> None:
    rows = contract.synthesize(400, 6)
    rows.assign(when=1_770_000_000 + 3_600 * rows.index).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(typer.BadParameter, match="no column 'fails' for --label; the file has: temperature_c"):
        heal.main(tmp_path / "none.csv", stream=[tmp_path / "mine.csv"], time_column="when", label="fails")


def test_the_tables_have_the_policies_in_the_order_of_the_benchmark() -> None:
    cells = {
        Cell("rainfall", 1, policy): {"trainings": 0, "days": 1.0, "cpu_seconds": 1.0} for policy in sorted(POLICIES)
    }
    figures = {
        "n_rows_after": 9,
        "brier": 0.2,
        "log_loss": 0.5,
        "f1": 0.3,
        "auc": None,
        "promotions": 0,
        "labels_used": 0,
    }
    found = heal.summarised({cell: line | figures for cell, line in cells.items()}, [], ["rainfall"])
    assert list(found["streams"]["rainfall"]) == list(POLICIES)
    assert found["days_per_cpu_minute"] == 60.0


def test_the_tables_of_a_json_are_printed_or_put_into_their_place_in_a_page(tmp_path: Path) -> None:
    found = tmp_path / "heal.json"
    found.write_text(json.dumps({"worlds": {}, "streams": {}, "data": "rows.csv"}))
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n{heal.TABLES_BEGIN}\nold\n{heal.TABLES_END}\nafter\n")
    done = CliRunner().invoke(command(), ["--tables", str(found)])
    assert "0 worlds and 0 natural streams from `rows.csv`" in done.output
    for _ in range(2):
        assert CliRunner().invoke(command(), ["--tables", str(found), "--into", str(page)]).exit_code == 0
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("# Page\n")
    assert text.endswith(f"{heal.TABLES_END}\nafter\n")


def test_the_page_of_the_benchmark_has_a_place_for_the_tables() -> None:
    page = (REPOSITORY / "docs/benchmarks.md").read_text()
    assert "the new tables" in heal.with_tables(page, "the new tables")


def test_the_page_of_the_benchmark_explains_every_policy() -> None:
    assert [codes(row[0])[0] for row in table("docs/benchmarks.md", "policy")] == list(ALL_POLICIES)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_tables_of_something_else_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "heal.json").write_text(content)
    with pytest.raises(typer.BadParameter, match="no JSON of this benchmark"):
        heal.main(tables=tmp_path / "heal.json")


def test_without_data_the_option_is_named() -> None:
    with pytest.raises(typer.BadParameter, match="--data is missing"):
        heal.main()


def summary(**changes: Any) -> dict[str, Any]:
    """One policy's figures in a world, as the benchmark writes them."""
    known = {
        **{n: [None, 0.0, None] for n in ("false_retrains", "wrong_promotions", "wrong_promotion_h", "rollbacks")},
        **{"recovered_share": [0.4, 0.5, 0.6], "regret": [9.0, 12.0, 15.0], "heal_h": [None, 48.0, None]},
        "healed_share": 1.0,
    }
    return known | changes


def test_an_earlier_run_stands_beside_this_one_world_by_world(tmp_path: Path) -> None:
    stream = {
        "brier": [None, 0.2, None],
        "f1": [None, 0.5, None],
        "auc": [None, None, None],
        "trainings": [None, 3.0, None],
    }
    now = {
        "worlds": {
            "sudden": {"never": summary(), "ours": summary(recovered_share=[0.8, 0.9, 1.0], heal_h=[None, 12.0, None])},
            "calm": {"ours": summary(recovered_share=[None, None, None], heal_h=[None, None, None], healed_share=None)},
            "new_world": {"ours": summary()},
            "others_only": {"never": summary()},
        },
        "streams": {"elec2": {"ours": stream | {"brier": [None, 0.15, None]}}},
        "data": "rows.csv",
    }
    before = {
        "worlds": {
            "sudden": {"ours": summary(false_retrains=[0.5, 1.5, 2.5])},
            "calm": {"ours": summary(wrong_promotions=[None, 1.0, None])},
            "old_world": {"ours": summary()},
        },
        "streams": {"elec2": {"ours": stream}},
    }
    found = side_by_side(before, now)
    assert set(found["worlds"]) == {"sudden", "calm"}
    assert found["worlds"]["sudden"]["recovered_share"] == {"before": [0.4, 0.5, 0.6], "now": [0.8, 0.9, 1.0]}
    assert (found["only_before"], found["only_now"]) == (["old_world"], ["new_world"])
    assert markdown(found).splitlines()[2:4] == [
        "| `sudden` | 12.0 (9.0 to 15.0) → 12.0 (9.0 to 15.0) | 50 % (40 to 60) → 90 % (80 to 100) | 2.0 d → 0.5 d | "
        "1.5 → 0 | 0 → 0 |",
        "| `calm` | 12.0 (9.0 to 15.0) → 12.0 (9.0 to 15.0) | 50 % (40 to 60) → - | 2.0 d → - | 0 → 0 | 1 → 0 |",
    ]
    assert "| `elec2` | 0.2000 → 0.1500 | 0.5000 → 0.5000 | - → - | 3 → 3 |" in markdown(found)
    files = {"now.json": now, "before.json": before}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content | {"worlds": {}} if name == "now.json" else content))
    arguments = ["--tables", str(tmp_path / "now.json"), "--before", str(tmp_path / "before.json")]
    done = CliRunner().invoke(command(), arguments)
    assert heal.BEFORE_AFTER in done.output
    assert "| `elec2` | 0.2000 → 0.1500" in done.output


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"worlds": 3}'])
def test_an_earlier_run_of_something_else_is_refused_before_anything_is_replayed(tmp_path: Path, content: str) -> None:
    (tmp_path / "before.json").write_text(content)
    with pytest.raises(typer.BadParameter, match="no JSON of this benchmark"):
        heal.main(tmp_path / "none.csv", before=tmp_path / "before.json")


def test_the_rest_of_a_run_is_estimated_by_policy_from_the_replays_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heal, "REPORT_EVERY_SECONDS", 0.0)
    cells = [Cell("calm", seed, policy) for seed in (1, 2) for policy in ("never", "ours")]
    run, said = Run(Rebuilder(heal.USE_CASE), tmp_path / "cells.jsonl"), list[str]()
    remaining = heal.Remaining(run, cells, 1, said.append)
    expected = heal.CPU_S_PER_DAY["ours"] * WORLDS["calm"].days
    assert said[0].startswith(f"4 of 4 replays; about {span(timedelta(seconds=2 * expected))} on 1 idle core")
    append_line(run.results, {"fingerprint": run.fingerprint(cells[1]), "cpu_seconds": 3_600.0})
    remaining.report()
    assert said[1] == "1 of 4 replays are done, about 1 h left"


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(heal.main)
    return app


def test_the_command_writes_the_promised_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "HINDSIGHT_RETRAININGS", (2,))
    monkeypatch.setattr(heal, "USE_CASE", "tests.toy_use_case:contract")
    data, stream, out = tmp_path / "rows.csv", tmp_path / "elec2.csv", tmp_path / "heal.json"
    contract.synthesize(2_500, 5).to_csv(data, index=False)
    numbers = contract.synthesize(2_400, 6)
    lines = [
        f"{a:.3f},{b:.3f},1,2,3,4,{int(y)}"
        for a, b, y in zip(numbers["load_ratio"], numbers["restarts"], numbers["true_label"], strict=True)
    ]
    stream.write_text("\n".join(["period,nswprice,nswdemand,vicprice,vicdemand,transfer,class", *lines]) + "\n")
    worlds = ("--world", "sudden_old_champion", "--world", "calm_50_a_day")
    policies = ("--policy", "never", "--policy", "oracle")
    arguments = [
        "--data",
        str(data),
        "--json",
        str(out),
        "--stream",
        str(stream),
        *worlds,
        *policies,
        "--processes",
        "0",
        "--quick",
        "--no-parity",
    ]
    done = CliRunner().invoke(command(), arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert set(found["worlds"]["sudden_old_champion"]["oracle"]) >= PROMISED
    assert found["worlds"]["sudden_old_champion"]["oracle"]["recovered_share"][1] == pytest.approx(1.0)
    assert set(found["streams"]["elec2"]["oracle"]) >= {"brier", "f1", "auc", "trainings"}
    assert found["days_per_cpu_minute"] >= 500
    assert found["code"] == [code_version()]
    old = out.with_suffix(".cells.jsonl")
    old.write_text(old.read_text().replace(code_version(), "1.0.0+other"))
    again = CliRunner().invoke(command(), [*arguments, "--before", str(out)])
    assert "results of other code: 1.0.0+other" in again.output
    beside = json.loads(out.read_text())["before_after"]
    assert beside["code_before"] == [code_version()]
