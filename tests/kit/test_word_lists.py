"""Lists of words in one line of a setting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.kit.errors import ConfigurationError
from selfheal.kit.word_lists import parse_words, words_text

WORDS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1).filter(lambda word: word.strip() == word)


@given(st.lists(WORDS, max_size=5))
def test_every_list_of_words_survives_as_one_line(words: list[str]) -> None:
    assert parse_words(words_text(words)) == tuple(words)


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_nothing_is_no_word(text: str) -> None:
    assert parse_words(text) == ()


def test_a_quote_that_is_not_closed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="opened and not closed"):
        parse_words('one,"two')
