"""Nobody is sent to a page, a heading or a picture that is not there; and every page is reached from the index."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import PAGES, anchors, links, resolved, tables_by_heading, text_of
from tests.processes import REPOSITORY

INDEX = "docs/README.md"
LINK_TARGET = re.compile(r"\]\(([^)]+)\)")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target = resolved(page, link)
        assert target.exists(), f"{page} links to {link}"
        heading = link.partition("#")[2]
        if heading:
            name = target.resolve().relative_to(REPOSITORY).as_posix()
            assert heading in anchors(name), f"{page} links to {link}"


def test_the_index_leads_to_every_page_of_the_documentation() -> None:
    linked = {resolved(INDEX, link).resolve() for link in links(INDEX)}
    pages = {path.resolve() for path in (REPOSITORY / "docs").glob("*.md")} - {(REPOSITORY / INDEX).resolve()}
    assert pages - linked == set()


def test_every_decision_of_architecture_is_listed() -> None:
    text = text_of(INDEX)
    for path in (REPOSITORY / "docs/adr").glob("[0-9]*.md"):
        assert path.name == "0000-template.md" or f"adr/{path.name}" in text


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_file_of_ours_that_is_gone(page: str) -> None:
    named = re.findall(r"`((?:tests|selfheal|serving|selfheal_assets|benchmarks|docs)/[\w./]+)`", text_of(page))
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_a_figure_of_the_readme_stands_in_the_page_that_it_links_to() -> None:
    rows = tables_by_heading("README.md")["What it costs"]
    assert len(rows) >= 4
    for row in rows:
        (page,) = {link.partition("#")[0] for link in LINK_TARGET.findall(row[1])}
        text = text_of(page)
        figures = re.findall(r"\d[\d,.]*", LINK_TARGET.sub("", row[1]))
        assert [figure for figure in figures if not re.search(rf"(?<!\d){re.escape(figure)}(?!\d)", text)] == [], row
