"""Pseudonyms: equal for equal keys, different under another secret, and never taken for a number."""

from __future__ import annotations

import pytest

from selfheal.domain.entity_key import PSEUDONYM_CHARACTERS, pseudonym


@pytest.mark.parametrize("key", ["A-1", "ü", 0, -(2**63) + 1])
def test_a_key_has_one_pseudonym_of_fixed_length_that_does_not_show_it(key: str | int) -> None:
    found = pseudonym(key, b"secret")
    assert found == pseudonym(key, b"secret") != pseudonym(key, b"another")
    assert len(found) == PSEUDONYM_CHARACTERS
    assert found[0] == "e"
    assert str(key) not in found or len(str(key)) < 3


def test_a_number_and_its_text_are_one_key() -> None:
    assert pseudonym(17, b"secret") == pseudonym("17", b"secret") != pseudonym("017", b"secret")
