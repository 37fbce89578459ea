"""Journal lines are copied without the whole numbers that their columns cannot hold, and otherwise as they are."""

from __future__ import annotations

import pytest

from selfheal.adapters.storable_lines import blanked_lines

COLUMNS = ("prediction_id", "ratio", "fee", "wear")


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        (b"7", True),
        (b"-7", True),
        (b"", True),
        (b"2147483647", True),
        (b"-2147483648", True),
        (b"2147483648", False),
        (b"-2147483649", False),
        (b"-9223372036854775808", False),
        (b"1e3", True),
    ],
)
def test_a_whole_number_of_more_than_32_bits_is_left_out(value: bytes, is_kept: bool) -> None:
    line = b"a,2147483648.5,3000000000," + value
    found = blanked_lines(COLUMNS, (line,), {"wear"})
    assert found.keys() == (set() if is_kept else {0})
    if not is_kept:
        assert found[0].line == b"a,2147483648.5,3000000000,"
        assert found[0].values == f"wear = {int(value):,}"


def test_lines_are_known_by_their_place_and_name_every_value() -> None:
    lines = (b"a,1,1,1", b"b,1,3000000000,4000000000", b"c,1,1,1")
    found = blanked_lines(COLUMNS, lines, {"fee", "wear"})
    assert {place: one.line for place, one in found.items()} == {1: b"b,1,,"}
    assert found[1].values == "fee = 3,000,000,000, wear = 4,000,000,000"


def test_a_file_of_an_older_contract_has_no_such_column() -> None:
    assert blanked_lines(COLUMNS[:2], (b"a,3000000000",), {"wear"}) == {}
