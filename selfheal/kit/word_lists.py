"""Lists of words in one line, as settings hold them: comma-separated, quoted where a word has a comma or a quote itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from selfheal.kit.errors import ConfigurationError


def parse_words(text: str) -> tuple[str, ...]:
    """Return the words without surrounding blanks; empty ones are left out.

    Raises:
        ConfigurationError: if a quote is opened and not closed.

    >>> parse_words('?, n/a, "a, b"')
    ('?', 'n/a', 'a, b')
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error:
        raise ConfigurationError("a quote is opened and not closed; write words as in a CSV line: one,two") from None
    return tuple(word.strip() for row in rows for word in row if word.strip())


def words_text(words: Iterable[str]) -> str:
    """Return the words in one line that `parse_words` reads.

    >>> words_text(("?", "a, b"))
    '?,"a, b"'
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(words)
    return line.getvalue()
