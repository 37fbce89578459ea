"""Rules of API_KEYS: what an entry is, what is refused, and that no message shows a key."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.kit.api_keys import (
    ALL_SCOPES,
    Scope,
    first_plain_key,
    hashed_entry,
    new_api_key,
    parse_api_keys,
    parse_scopes,
)
from selfheal.kit.errors import ConfigurationError

DIGEST = "ab" * 32
names = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
scope_sets = st.frozensets(st.sampled_from(Scope), min_size=1)


@given(st.lists(st.tuples(names, scope_sets), max_size=5, unique_by=lambda entry: entry[0]))
def test_what_is_made_is_read_again(made: list[tuple[str, frozenset[Scope]]]) -> None:
    keys = [new_api_key() for _ in made]
    text = ", ".join(hashed_entry(name, scopes, key) for (name, scopes), key in zip(made, keys, strict=True))
    parsed = parse_api_keys(text)
    assert [(key.name, key.scopes) for key in parsed] == made
    assert [key.digest for key in parsed] == [hashlib.sha256(key.encode()).digest() for key in keys]


def test_a_plain_key_may_do_everything_and_is_named_by_its_digest() -> None:
    (key,) = parse_api_keys(" a-plain-key-of-some-length ,")
    digest = hashlib.sha256(b"a-plain-key-of-some-length").digest()
    assert (key.name, key.scopes, key.digest) == (f"key-{digest.hex()[:8]}", ALL_SCOPES, digest)
    assert "plain-key" not in repr(key)


@pytest.mark.parametrize(("key", "is_short"), [("x" * 15, True), ("x" * 16, False)])
def test_a_plain_key_that_can_be_guessed_is_marked(key: str, is_short: bool) -> None:
    assert parse_api_keys(key)[0].is_short is is_short


def test_a_new_key_cannot_be_guessed_and_needs_no_quoting_anywhere() -> None:
    made = {new_api_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) > 43 and key.replace("_", "").replace("-", "").isalnum() for key in made)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"good:read:{DIGEST},scorer:scores:{DIGEST}", "entry 2 (scorer): 'scores' is not a scope"),
        (f"scorer::{DIGEST}", "entry 1 (scorer): '' is not a scope"),
        (f"scorer:score+:{DIGEST}", "entry 1 (scorer): '' is not a scope"),
        (f"a:read:{DIGEST},a:read:{'cd' * 32}", "entry 2 (a) repeats the name or the key of entry 1"),
        (f"a:read:{DIGEST},b:read:{DIGEST.upper()}", "entry 2 (b) repeats the name or the key of entry 1"),
        ("twice-the-same-key,twice-the-same-key", "repeats the name or the key of entry 1"),
        (f":read:{DIGEST}", "entry 1 is neither"),
        (f"two words:read:{DIGEST}", "entry 1 is neither"),
        (f"{'n' * 65}:read:{DIGEST}", "entry 1 is neither"),
        (f"a:read:{DIGEST}:more", "entry 1 is neither"),
        (f"a:read:{DIGEST[:-1]}", "entry 1 is neither"),
        (f"a:read:{DIGEST}\n", None),  # the blanks around an entry go
        ("k" * 257, "entry 1 is not a key"),
        ("k" * 256, None),
        ("a key of several words", "entry 1 is not a key"),
        ("schlüssel-mit-umlaut", "entry 1 is not a key"),
    ],
)
def test_a_wrong_entry_is_told_by_its_place(text: str, told: str | None) -> None:
    if told is None:
        assert len(parse_api_keys(text)) == 1
        return
    with pytest.raises(ConfigurationError) as caught:
        parse_api_keys(text)
    assert told in str(caught.value)


SECRET_PART = "s3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"{SECRET_PART}:with:colons",
        f"{SECRET_PART}:colon",
        f"scorer:score:{SECRET_PART}",
        f"scorer:{SECRET_PART}",
        f"{SECRET_PART} with blanks",
        f"{SECRET_PART},{SECRET_PART}",
    ],
)
def test_a_refusal_never_shows_what_may_be_a_key(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_api_keys(text)
    assert SECRET_PART not in str(caught.value)


def test_scopes_may_be_joined_by_either_sign() -> None:
    assert parse_scopes("score,label") == parse_scopes("score + label") == {Scope.SCORE, Scope.LABEL}


@pytest.mark.parametrize("name", ["", "with:colon", "with,comma", "n" * 65, "new\nline"])
def test_no_entry_is_made_that_could_not_be_read_again(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        hashed_entry(name, ALL_SCOPES, "key")
    with pytest.raises(ConfigurationError, match="scope"):
        hashed_entry("name", frozenset(), "key")


def test_the_first_plain_key_is_the_one_of_our_own_clients() -> None:
    assert first_plain_key(f"a:read:{DIGEST}, plain-one, plain-two") == "plain-one"
    assert first_plain_key(f"a:read:{DIGEST}") is None
