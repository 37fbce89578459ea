"""Names: which a feature or an entity's key may have, and when two of them are one.

Belongs here: rules on one name alone. Does not belong here: that a name is declared twice (`selfheal.domain.contract`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TAKEN_NAMES = frozenset(
    {
        *(
            "prediction_id",
            "created_at",
            "model_version",
            "prediction",
            "probability",
            "threshold",
            "request_source",
            "journal_segment",
        ),
        *("latency_ms", "explain", "split", "origin", "weight", "_entity"),
    }
)
"""Names of columns and fields beside the features, in requests, journal, tables and training sets: reserved."""

REQUEST_FIELDS = frozenset({"prediction_id", "request_source", "explain"})
"""Fields of a request beside the inputs: no alias of an input may be one of them."""

SQL_NAMES = frozenset({*("cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"), *("of_bucket", "of_version")})
"""Names that a column of `prediction_logs` cannot have: Postgres has the first six in every table, and the others are
variables of the functions that maintain the rollups (migration 0004). Any other name changes nothing: our queries
qualify their columns, and what they add to features begins with `_`, which no feature does."""

FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""Valid without quotes as a JSON field, a Postgres column (at most 63 characters) and a CSV column."""


def fold_name(name: str) -> str:
    """Normalise a name for comparison: strip surrounding blanks, replace `-` by `_`."""
    return name.strip().replace("-", "_")


def problems_of_feature_name(name: str) -> Iterator[str]:
    """Yield why a feature cannot have this name, as sentences with the remedy."""
    if not FEATURE_NAME.fullmatch(name):
        yield f"{name!r} cannot name a feature: use a letter, then lower-case letters, digits and _, 63 at most"
    if name in TAKEN_NAMES - REQUEST_FIELDS:
        yield f"{name!r} is a column of the platform's own; name the feature otherwise, with {name!r} as alias"
    if name in REQUEST_FIELDS:
        yield f"{name!r} is a field of every request; name the feature otherwise"
    if name in SQL_NAMES:
        yield f"{name!r} has another meaning in Postgres; name the feature otherwise, with {name!r} as alias"


def problems_of_entity_name(name: str) -> Iterator[str]:
    """Yield why the key of an entity that is no input cannot have this name, as sentences with the remedy."""
    if not FEATURE_NAME.fullmatch(name):
        yield f"{name!r} cannot name an entity: use a letter, then lower-case letters, digits and _, 63 at most"
    if name in TAKEN_NAMES:
        yield f"{name!r} is a name of the platform's own; name the entity otherwise"
