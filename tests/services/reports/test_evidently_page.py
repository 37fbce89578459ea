"""The note on Evidently's page: which figures decide, and what is not shown there."""

from __future__ import annotations

import pytest

from selfheal.services.reports.evidently_page import with_note

PAGE = '<!doctype html><html><head></head><body class="light"><div id="root"></div></body></html>'


def test_the_note_is_the_first_thing_on_the_page() -> None:
    html = with_note(PAGE, (), "x-overview.html")
    assert html.startswith('<!doctype html><html><head></head><body class="light"><div id="selfheal-note"')
    assert '<a href="x-overview.html">overview</a>' in html
    assert html.endswith('<div id="root"></div></body></html>')
    assert "Not on this page" not in html


def test_a_column_that_is_not_on_the_page_is_named_there() -> None:
    assert "<b>Not on this page:</b> load_ratio, &lt;b&gt;." in with_note(
        PAGE, ("load_ratio", "<b>"), "x-overview.html"
    )


@pytest.mark.parametrize("page", ["", "<div>no body</div>"])
def test_a_page_of_another_form_has_the_note_all_the_same(page: str) -> None:
    html = with_note(page, ("load_ratio",), "x-overview.html")
    assert html.startswith('<div id="selfheal-note"')
    assert html.endswith(page)
