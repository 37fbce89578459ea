"""`make imports`: draw which package imports which, from import-linter's graph.

A node is a package at depth 2 (`selfheal.domain`, `serving.scoring`) or a module at the root of a package (`serving.app`,
`selfheal.settings`). Entry points (`__main__`) and imports for type checking are left out, as import-linter leaves them out. A node's
floor is the length of the longest chain of imports below it, itself included: a node that imports no other is on floor 1. An arrow
points upwards if it leads from a layer of the contracts in pyproject.toml to a higher one, or to a sibling that it must not know.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import mean

import grimp

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "docs/images/imports.svg"
PACKAGES = ("selfheal", "selfheal_assets", "serving")
DEPTH = 2
SWEEPS = 24
"""Passes over the floors that order their boxes; a drawing of some 30 boxes settles in fewer."""


@dataclass(frozen=True)
class ImportGraph:
    """Nodes, and for each arrow between two of them the imports it stands for, as (importer, imported)."""

    nodes: tuple[str, ...]
    arrows: Mapping[tuple[str, str], tuple[tuple[str, str], ...]]
    _imported: dict[str, set[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        imported: dict[str, set[str]] = {node: set() for node in self.nodes}
        for importer, other in self.arrows:
            imported[importer].add(other)
        object.__setattr__(self, "_imported", imported)

    def imported_by(self, node: str) -> set[str]:
        """Return the nodes that a node imports."""
        return self._imported[node]

    def reached_from(self, node: str) -> set[str]:
        """Return every node at the end of a chain of imports that starts at a node."""
        reached: set[str] = set()
        pending = list(self._imported[node])
        while pending:
            following = pending.pop()
            if following not in reached:
                reached.add(following)
                pending.extend(self._imported[following])
        return reached


def main() -> int:
    """Print floors, arrows upwards and circles; write the picture. Return 1 if there is an arrow upwards or a circle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURE, help="where the picture goes (default: docs/images)")
    out: Path = parser.parse_args().out
    graph = read_imports()
    found_circles, found_upwards = circles(graph), upward_arrows(graph, read_layers())
    for line in report(graph, found_circles, found_upwards):
        print(line)  # noqa: T201
    if found_circles:
        return 1
    out.write_text(draw(graph))
    print(f"picture: {out}")  # noqa: T201
    return int(bool(found_upwards))


# Reading


def read_imports() -> ImportGraph:
    """Return the graph of the three packages as they are on disk."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    modules = sorted(module for module in graph.modules if not module.endswith(".__main__"))
    arrows: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for importer in modules:
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            if node_of(importer) != node_of(imported):
                arrows.setdefault((node_of(importer), node_of(imported)), []).append((importer, imported))
    nodes = {node_of(module) for module in modules} - (set(PACKAGES) - {node for arrow in arrows for node in arrow})
    return ImportGraph(tuple(sorted(nodes)), {arrow: tuple(imports) for arrow, imports in arrows.items()})


def node_of(module: str) -> str:
    """Return the node of a module: its name, cut at depth 2."""
    return ".".join(module.split(".")[:DEPTH])


def read_layers() -> list[list[set[str]]]:
    """Return import-linter's contracts of layers: the highest layer first, each layer a set of siblings."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    return [
        [{name.strip("() ") for name in layer.replace(":", "|").split("|")} for layer in contract["layers"]]
        for contract in contracts
        if contract["type"] == "layers"
    ]


# Judging


def circles(graph: ImportGraph) -> list[list[str]]:
    """Return the groups of nodes that import each other, each group once."""
    reached = {node: graph.reached_from(node) for node in graph.nodes}
    groups = {
        frozenset(other for other in graph.nodes if node in reached[other] and other in reached[node])
        for node in graph.nodes
        if node in reached[node]
    }
    return sorted(sorted(group) for group in groups)


def floors(graph: ImportGraph) -> dict[str, int]:
    """Return the floor of each node, from 1. The graph must have no circle.

    Raises:
        ValueError: if it has one.
    """
    if circles(graph):
        raise ValueError(f"no floors: these packages import each other: {circles(graph)}")
    known: dict[str, int] = {}
    while len(known) < len(graph.nodes):
        for node in graph.nodes:
            if node not in known and graph.imported_by(node) <= known.keys():
                known[node] = 1 + max((known[other] for other in graph.imported_by(node)), default=0)
    return known


def upward_arrows(graph: ImportGraph, contracts: Iterable[list[set[str]]]) -> list[tuple[str, str]]:
    """Return the arrows from a lower layer to a higher one, and those between siblings of one layer."""
    found: set[tuple[str, str]] = set()
    for layers in contracts:
        ranks = {name: rank for rank, layer in enumerate(layers) for name in layer}
        for importer, imported in graph.arrows:
            above, below = rank_of(importer, ranks), rank_of(imported, ranks)
            if above is None or below is None:
                continue
            are_siblings = above[1] == below[1] and above[0] != below[0]
            if above[1] > below[1] or are_siblings:
                found.add((importer, imported))
    return sorted(found)


def rank_of(node: str, ranks: Mapping[str, int]) -> tuple[str, int] | None:
    """Return the layer that a node belongs to, by name and rank (0 is the highest); None if no layer names it."""
    for name in (node, node.split(".", maxsplit=1)[0]):
        if name in ranks:
            return name, ranks[name]
    return None


def direct_arrows(graph: ImportGraph) -> list[tuple[str, str]]:
    """Return the arrows that do not follow from longer chains: what a picture needs."""
    return sorted(
        (importer, imported)
        for importer, imported in graph.arrows
        if not any(imported in graph.reached_from(other) for other in graph.imported_by(importer))
    )


# Showing


def report(graph: ImportGraph, circular: list[list[str]], upward: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines that `make imports` prints."""
    if not circular:
        by_floor = floors(graph)
        for floor in range(max(by_floor.values()), 0, -1):
            yield f"{floor}  {'  '.join(node for node in graph.nodes if by_floor[node] == floor)}"
        yield ""
        yield f"floors: {max(by_floor.values())}"
    yield f"packages: {len(graph.nodes)}, arrows: {len(graph.arrows)}"
    yield f"arrows upwards: {len(upward)}"
    for arrow in upward:
        yield from (f"  {importer} imports {imported}" for importer, imported in graph.arrows[arrow])
    yield f"circles: {len(circular)}"
    for group in circular:
        yield f"  {' <-> '.join(group)}"
        inside = [arrow for arrow in graph.arrows if set(arrow) <= set(group)]
        yield from (
            f"    {importer} imports {imported}" for arrow in inside for importer, imported in graph.arrows[arrow]
        )


BOX_HEIGHT, ROW_HEIGHT, GAP, MARGIN, CHARACTER_WIDTH = 30, 92, 22, 24, 7.4
"""Of the picture, in pixels."""

STYLE = """
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328; }
  text.floor { font-size: 11px; fill: #6e7781; }
  rect { stroke-width: 1.2; rx: 6px; }
  .selfheal rect { fill: #ddf4ff; stroke: #0969da; }
  .selfheal_assets rect { fill: #fff1e5; stroke: #bc4c00; }
  .serving rect { fill: #dafbe1; stroke: #1a7f37; }
  path { fill: none; stroke: #8c959f; stroke-width: 1.1; }
  marker path { fill: #8c959f; stroke: none; }
  .paper { fill: #ffffff; stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    text.floor { fill: #9198a1; }
    .selfheal rect { fill: #12283f; stroke: #4493f8; }
    .selfheal_assets rect { fill: #3b2512; stroke: #db6d28; }
    .serving rect { fill: #12301d; stroke: #3fb950; }
    path { stroke: #656c76; }
    marker path { fill: #656c76; }
    .paper { fill: #0d1117; }
  }
"""


def _px(length: float) -> str:
    """Return a length in whole pixels; the same on every Python, although they add floats up differently."""
    return f"{round(length, 3):.0f}"


def draw(graph: ImportGraph) -> str:
    """Return the picture as SVG: a row per floor, the arrows that do not follow from others."""
    by_floor = floors(graph)
    arrows = direct_arrows(graph)
    rows = ordered_rows(graph, by_floor, arrows)
    widths = {node: len(node) * CHARACTER_WIDTH + 20 for node in graph.nodes}
    full = max(sum(widths[node] + GAP for node in row) - GAP for row in rows) + 2 * MARGIN + 30
    places: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        spare = full - 2 * MARGIN - 30 - sum(widths[node] for node in row)
        left = MARGIN + 30 + spare / (len(row) + 1)
        for node in row:
            places[node] = left, MARGIN + number * ROW_HEIGHT
            left += widths[node] + spare / (len(row) + 1)
    height = MARGIN * 2 + (len(rows) - 1) * ROW_HEIGHT + BOX_HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_px(full)} {height}" role="img"'
        ' aria-label="Which package imports which">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect class="paper" width="{_px(full)}" height="{height}"/>',
    ]
    for importer, imported in arrows:
        (x, y), (to_x, to_y) = places[importer], places[imported]
        x, to_x, y = x + widths[importer] / 2, to_x + widths[imported] / 2, y + BOX_HEIGHT
        bend = min(ROW_HEIGHT * 0.4, (to_y - y) / 2)
        lines.append(
            f'<path d="M{_px(x)} {_px(y)}C{_px(x)} {_px(y + bend)} {_px(to_x)} {_px(to_y - bend)} {_px(to_x)} {_px(to_y)}"'
            ' marker-end="url(#tip)"/>'
        )
    for number, row in enumerate(rows):
        y = MARGIN + number * ROW_HEIGHT
        lines.append(f'<text class="floor" x="{MARGIN - 10}" y="{y + 20}">{len(rows) - number}</text>')
        for node in row:
            left = places[node][0]
            middle = left + widths[node] / 2
            lines.append(
                f'<g class="{node.split(".")[0]}"><rect x="{_px(left)}" y="{y}" width="{_px(widths[node])}"'
                f' height="{BOX_HEIGHT}"/><text x="{_px(middle)}" y="{y + 20}" text-anchor="middle">{escape(node)}</text></g>'
            )
    return "\n".join([*lines, "</svg>", ""])


def ordered_rows(graph: ImportGraph, by_floor: Mapping[str, int], arrows: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the rows, highest floor first, with neighbours of arrows close to each other (barycentre heuristic)."""
    rows = [[node for node in graph.nodes if by_floor[node] == floor] for floor in range(max(by_floor.values()), 0, -1)]
    near: dict[str, set[str]] = {node: set() for node in graph.nodes}
    for importer, imported in arrows:
        near[importer].add(imported)
        near[imported].add(importer)
    place = {node: (number + 0.5) / len(row) for row in rows for number, node in enumerate(row)}
    for _ in range(SWEEPS):
        for row in rows:
            row.sort(key=lambda node: (mean(place[other] for other in near[node]) if near[node] else 1.0, node))
            place.update({node: (number + 0.5) / len(row) for number, node in enumerate(row)})
    assert all(by_floor[above] > by_floor[below] for above, below in pairwise(row[0] for row in rows))
    return rows


if __name__ == "__main__":
    sys.exit(main())
