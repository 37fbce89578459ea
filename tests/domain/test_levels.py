"""Levels of a category: which texts are one level, what stands for them in a matrix, and how the journal writes them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfheal.adapters.journal import encode_lines, level_values
from selfheal.domain.levels import (
    MAX_LEVEL_CHARACTERS,
    code_of,
    escaped,
    is_level,
    level_problem,
    matrix,
    spelling,
    texts_of,
    unescaped,
)

COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


def test_two_ways_to_type_an_accent_are_one_level_and_another_case_is_another() -> None:
    assert COMPOSED != DECOMPOSED
    assert code_of(COMPOSED) == code_of(DECOMPOSED)
    assert len({code_of(text) for text in ("Web", "web", "web ", "WEB")}) == 4
    assert texts_of([COMPOSED, DECOMPOSED, None, np.nan]).tolist() == [COMPOSED, COMPOSED, None, None]


def test_a_code_is_the_same_in_every_process_and_exact_in_a_float() -> None:
    program = "from selfheal.domain.levels import code_of; print(int(code_of('R\\u00e9gion 1')))"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert float(found) == code_of("R\u00e9gion 1")
    codes = [code_of(f"level {number}") for number in range(50_000)]
    assert len(set(codes)) == 50_000
    assert all(code == int(code) < 2**53 for code in codes)


def test_a_matrix_has_codes_and_a_frame_without_texts_is_as_before() -> None:
    frame = pd.DataFrame({"plan": ["a", None, np.nan], "charge": [1.0, 2.0, np.nan], "n": [1, 2, 3]})
    found = matrix(frame, ["n", "plan", "charge"])
    np.testing.assert_array_equal(found, [[1, code_of("a"), 1], [2, np.nan, 2], [3, np.nan, np.nan]])
    np.testing.assert_array_equal(matrix(frame, ["charge", "n"]), frame[["charge", "n"]].to_numpy())
    with pytest.raises(ValueError, match="could not convert string to float"):  # a site that forgets to encode fails
        frame["plan"].to_numpy(dtype=np.float64)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("web", None),
        ("3", None),
        ("NA", None),
        ("a" * MAX_LEVEL_CHARACTERS, None),
        ("a" * (MAX_LEVEL_CHARACTERS + 1), "has 129 characters: send a name of at most 128"),
        ("", "is blank: leave out what is missing, or send null"),
        (" \u3000", "is blank: leave out what is missing, or send null"),
        ("a\nb", "has a control character: remove it"),
        ("a\x00", "has a control character: remove it"),
        ("\ud800", "has a control character: remove it"),
    ],
)
def test_a_level_is_a_short_text_that_can_be_printed(text: str, problem: str | None) -> None:
    assert level_problem(text) == problem
    assert is_level(text) is (problem is None)
    assert not is_level(3)


def test_a_spelling_knows_neither_case_nor_blanks_nor_punctuation() -> None:
    assert len({spelling(text) for text in ("Month-to-month", "month to month ", "MONTH_TO_MONTH")}) == 1
    assert spelling("a") != spelling("b")
    assert spelling("+") != spelling("-")


@example(["x]", "[y"])  # as the end of a record and the beginning of the next one
@example([None, "]", "["])
@example(["null", "\u2028x"])
@given(st.lists(st.text(min_size=1).filter(is_level) | st.none(), min_size=2, max_size=4))
def test_what_the_journal_writes_is_one_field_of_one_line_and_comes_back(texts: list[str | None]) -> None:
    line = encode_lines([("an id", *level_values(texts), 1.5)]).decode()
    fields = line.removesuffix("\n").split(",")
    assert len(fields) == len(texts) + 3  # the id, the number and the checksum
    assert [unescaped(field) or None for field in fields[1:-2]] == texts


def test_a_plain_level_is_written_as_it_is() -> None:
    assert [escaped(text) for text in ("web", "Région 1", "a;b|c[d]")] == ["web", "Région 1", "a;b|c[d]"]
    assert unescaped(escaped('100%2C "x" \\')) == '100%2C "x" \\'
