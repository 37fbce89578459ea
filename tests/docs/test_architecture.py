"""The diagrams and tables of docs/architecture.md name what exists, and all that matters; the imports are as they are drawn."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import pairwise
from types import ModuleType

import pytest

from selfheal.adapters.postgres.tables import build_tables
from selfheal.credit_risk import contract
from selfheal.domain import records
from selfheal.services.promotion.going_live import PROMOTION_STEPS
from selfheal_assets.definitions import defs
from tests.docs.pages import codes, fenced, table
from tests.processes import REPOSITORY

PAGE = "docs/architecture.md"
TABLES = set(build_tables(contract).metadata.tables)
DAGSTERS = {
    *(job.name for job in defs.get_repository_def().get_all_jobs()),
    *(sensor.name for sensor in defs.get_repository_def().sensor_defs),
    *(schedule.name for schedule in defs.get_repository_def().schedule_defs),
    *(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()),
}
MAX_FLOORS = 8
"""Of the imports between packages: a house in which one finds one's way."""

MAX_DEPTH = 3
"""Of the packages that the tree must show."""

NAMES_OF_OTHERS = {"sequenceDiagram", "FastAPI", "MLflow", "MONITORING_INTERVAL", "API_WORKERS", "gRPC"}
DOTTED = re.compile(r"\b[a-z_]+(?:\.[a-z_]+)+\b")
SNAKE = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
CAMEL = re.compile(r"\b[A-Z][a-z]+(?:[A-Z]\w*)+\b|\b\w*[a-z][A-Z]\w*\b")


def is_module(name: str) -> bool:
    """A module of ours, by its full name or, within `selfheal`, without that."""
    for full in (name, f"selfheal.{name}"):
        path = REPOSITORY / full.replace(".", "/")
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            return True
    return False


@pytest.mark.parametrize("number", range(5))
def test_a_diagram_names_only_modules_tables_records_and_steps_that_exist(number: int) -> None:
    diagram = fenced(PAGE, "mermaid")[number]
    assert {name for name in DOTTED.findall(diagram) if not is_module(name)} == set()
    without_modules = DOTTED.sub("", diagram)
    known = TABLES | DAGSTERS | set(PROMOTION_STEPS) | {"selfheal_assets"}
    assert set(SNAKE.findall(without_modules)) - known == set()
    named = set(CAMEL.findall(without_modules)) - NAMES_OF_OTHERS
    assert {name for name in named if not hasattr(records, name)} == set()


def test_all_diagrams_are_looked_at() -> None:
    assert len(fenced(PAGE, "mermaid")) == 5


def test_the_way_of_the_data_passes_every_table_but_those_that_stand_still_or_prove_it() -> None:
    way = fenced(PAGE, "mermaid")[1]
    proofs = {"journal_seals", "overruled_labels"}
    assert {name for name in TABLES if name not in way} == {"reference_data", "journal_positions"} | proofs


def test_going_live_is_drawn_step_by_step_as_the_code_takes_them() -> None:
    drawn = [step for step in SNAKE.findall(fenced(PAGE, "mermaid")[2]) if step in PROMOTION_STEPS]
    single_words = {"register", "validate", "commit"}
    steps = re.findall(r": (\w+)", fenced(PAGE, "mermaid")[2])
    assert [step for step in steps if step in PROMOTION_STEPS] == list(PROMOTION_STEPS)
    assert set(drawn) | single_words == set(PROMOTION_STEPS)


def test_the_table_of_jobs_lists_every_job_and_the_page_every_sensor_and_schedule() -> None:
    listed = {name for row in table(PAGE, "job") for name in codes(row[0])}
    repository = defs.get_repository_def()
    assert listed == {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    text = (REPOSITORY / PAGE).read_text()
    for definition in (*repository.sensor_defs, *repository.schedule_defs):
        assert f"`{definition.name}`" in text


def drawn_tree() -> dict[str, bool]:
    """The paths of the tree on the page, and whether each is a folder."""
    (tree,) = fenced(PAGE, "text")
    found: dict[str, bool] = {}
    folders: list[tuple[int, str]] = []
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        name = line.split()[0]
        folders = [(depth, folder) for depth, folder in folders if depth < indent]
        path = "".join([*(folder for _, folder in folders), name])
        found[path] = name.endswith("/")
        if name.endswith("/"):
            folders.append((indent, name))
    return found


def test_the_tree_names_what_exists() -> None:
    for path, is_folder in drawn_tree().items():
        assert (REPOSITORY / path).is_dir() if is_folder else (REPOSITORY / path).is_file(), path


def test_the_tree_leaves_no_package_out() -> None:
    packages = {
        f"{path.parent.relative_to(REPOSITORY).as_posix()}/"
        for top in ("selfheal", "selfheal_assets", "serving")
        for path in (REPOSITORY / top).rglob("__init__.py")
        if len(path.relative_to(REPOSITORY).parts) <= MAX_DEPTH + 1
    }
    assert packages - set(drawn_tree()) == set()


# The imports


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_graph", REPOSITORY / "docs/import_graph.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def test_imports_stay_on_few_floors_without_circles_and_never_point_upwards(drawing: ModuleType) -> None:
    graph = drawing.read_imports()
    assert drawing.circles(graph) == []
    assert drawing.upward_arrows(graph, drawing.read_layers()) == []
    assert max(drawing.floors(graph).values()) <= MAX_FLOORS


def test_an_import_upwards_or_between_siblings_is_seen(drawing: ModuleType) -> None:
    layers = [[{"top"}, {"left", "right"}, {"bottom"}]]
    arrows = [("top.a", "left"), ("left", "bottom"), ("bottom", "top.a"), ("right", "left"), ("bottom", "other")]
    graph = drawing.ImportGraph(
        ("bottom", "left", "other", "right", "top.a"), {arrow: ((arrow[0], arrow[1]),) for arrow in arrows}
    )
    assert drawing.upward_arrows(graph, layers) == [("bottom", "top.a"), ("right", "left")]
    assert drawing.circles(graph) == [["bottom", "left", "top.a"]]
    with pytest.raises(ValueError, match="import each other"):
        drawing.floors(graph)


def test_a_floor_is_the_longest_chain_of_imports(drawing: ModuleType) -> None:
    arrows = [("a", "b"), ("b", "c"), ("a", "c")]
    graph = drawing.ImportGraph(("a", "b", "c"), {arrow: (arrow,) for arrow in arrows})
    assert drawing.floors(graph) == {"a": 3, "b": 2, "c": 1}
    assert drawing.direct_arrows(graph) == [("a", "b"), ("b", "c")]


def test_the_picture_of_the_imports_is_todays(drawing: ModuleType) -> None:
    assert drawing.PICTURE.read_text() == drawing.draw(drawing.read_imports()), "run `make imports`"


def test_the_layers_are_drawn_as_import_linter_holds_them(drawing: ModuleType) -> None:
    layers = drawing.read_layers()[0]
    ranks = {name: rank for rank, layer in enumerate(layers) for name in layer}
    diagram = fenced(PAGE, "mermaid")[4]
    assert {name for name in ranks if name not in diagram} == set()
    for line in diagram.splitlines():
        steps = [re.findall(r"[a-z_.]+", step) for step in line.split("-->")]
        for above, below in pairwise(steps):
            assert all(ranks[upper] < ranks[lower] for upper in above for lower in below), line


def test_make_imports_prints_floors_and_writes_the_picture(tmp_path_factory: pytest.TempPathFactory) -> None:
    picture = tmp_path_factory.mktemp("imports") / "imports.svg"
    done = subprocess.run(
        [sys.executable, "docs/import_graph.py", "--out", str(picture)],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"^floors: \d+$", done.stdout, re.MULTILINE)
    assert "circles: 0" in done.stdout
    assert picture.read_text().startswith("<svg ")
