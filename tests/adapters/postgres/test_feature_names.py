"""What a feature is called changes nothing: the same traffic under other names gives the same answers.

Names are drawn from whatever could have a meaning of its own: all words of our SQL, Postgres's keywords, columns of our
tables, Python's keywords, and the attributes of the libraries that a row passes through.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pandas as pd
import psycopg
import pydantic
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

from selfheal.adapters import postgres
from selfheal.adapters.datasets import load_csv
from selfheal.adapters.journal import (
    CHECKSUM_COLUMN,
    LABEL_COLUMNS,
    LABEL_JOURNAL,
    PREDICTION_META_COLUMNS,
    prediction_journal,
)
from selfheal.adapters.postgres import journal_seals, predictions, retention, ticks
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.ingest import ingest, lag_bytes
from selfheal.adapters.postgres.journal_audit import journal_check
from selfheal.adapters.postgres.label_delays import label_delay_sample
from selfheal.adapters.postgres.open import open_store
from selfheal.adapters.postgres.store import Store
from selfheal.adapters.postgres.tables import build_tables
from selfheal.domain.contract import (
    TRUE_LABEL,
    Columns,
    DerivedFeature,
    Feature,
    FloatArray,
    Label,
    ModelContract,
)
from selfheal.domain.names import FEATURE_NAME, SQL_NAMES, TAKEN_NAMES
from selfheal.kit.errors import ConfigurationError
from serving.schemas.requests import example_row
from serving.scoring.request_parser import RequestParser
from tests import toy_use_case
from tests.conftest import settings_for
from tests.times import T0
from tests.traffic import SECOND, journal_labels, journal_predictions

N_ROWS, N_LABELLED = 60, 40
KNOWN = (
    "hour",
    "number",
    "since",
    "until",
    "slice",
    "snapshot",
    "is_found",
    "is_equal",
    "p",
    "l",
    "is_labelled",
    "index",
)
"""Names that broke something once."""

_numbers = count(1)


def words_of_our_sql() -> Iterator[str]:
    """Every word of every text in the modules that talk to Postgres."""
    for path in Path(postgres.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from re.findall(r"\b[a-z][a-z0-9_]*", node.value)


@cache
def nasty_names() -> tuple[str, ...]:
    tables = build_tables(toy_use_case.contract).metadata.tables.values()
    candidates = {
        *words_of_our_sql(),
        *RESERVED_WORDS,
        *(column.name for table in tables for column in table.columns),
        *(table.name for table in tables),
        *(*PREDICTION_META_COLUMNS, *LABEL_COLUMNS, CHECKSUM_COLUMN, "id", "index"),
        *(*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"),
        *(*dir(pydantic.BaseModel), *dir(pd.DataFrame), *dir(dict), *dir(object)),
        *("target", "prediction", "datetime", "constructor", "nan", "inf", "null", "true"),
        *("a" * 63, "a" * 62, "a" * 62 + "b"),
    }
    candidates -= {*toy_use_case.contract.feature_names}  # the database that each walk starts from has these columns
    return tuple(sorted(name for name in candidates if FEATURE_NAME.fullmatch(name) and may_name_a_feature(name)))


def may_name_a_feature(name: str) -> bool:
    try:
        contract_of([name])
    except ConfigurationError:
        return False
    return True


def contract_of(names: list[str]) -> ModelContract:
    """A contract whose features have these names, the last one of several derived."""
    inputs, derived = (names[:-1], names[-1:]) if len(names) > 1 else (names, [])

    def derive(columns: Columns) -> dict[str, FloatArray]:
        return dict.fromkeys(derived, columns[inputs[0]] + 1.0)

    return ModelContract(
        name="named",
        description="does a name matter?",
        label=Label("outcome_of_it_all", ""),
        inputs=tuple(
            Feature(name, "int" if i % 3 == 0 else "float", 0, 1_000, "", name, 7, is_nullable=i % 5 == 4)
            for i, name in enumerate(inputs)
        ),
        derived=tuple(DerivedFeature(name, "int", "", "the first + 1", "") for name in derived),
        derive=derive,
    )


def rows_of(contract: ModelContract) -> pd.DataFrame:
    """The same rows whatever the names are."""
    rng = np.random.default_rng(4)
    columns = {}
    for feature in contract.inputs:
        values = rng.integers(0, 1_000, N_ROWS).astype(np.float64)
        if feature.is_nullable:
            values[rng.random(N_ROWS) < 0.2] = np.nan
        columns[feature.name] = values
    return pd.DataFrame(columns).assign(**{TRUE_LABEL: rng.integers(0, 2, N_ROWS)})


IDS = [UUID(int=(0x7 << 76) | (i * 0x9E3779B97F4A7C15)) for i in range(1, N_ROWS + 1)]


@dataclass(frozen=True)
class Walk:
    """A database of its own for each walk, made from one that is migrated."""

    server: EmbeddedServer
    migrated: str
    folder: Path

    def __call__(self, contract: ModelContract) -> dict[str, Any]:
        name = f"named{next(_numbers)}"
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}_platform TEMPLATE {self.migrated} STRATEGY FILE_COPY")
        data_dir = self.folder / name
        store = open_store(settings_for(self.server, data_dir, name), contract)
        try:
            return dict(answers(store, data_dir)) | dict(answers_of_requests(contract, data_dir))
        finally:
            store.close()
            with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name}_platform WITH (FORCE)")


def plain(frame: pd.DataFrame) -> list[list[Any]]:
    """Values without the names, missing ones as None."""
    return [[None if pd.isna(value) else value for value in row] for row in frame.to_numpy().tolist()]


def answers(store: Store, data_dir: Path) -> Iterator[tuple[str, Any]]:
    """What each query that could know of a feature's name says, from the journal to verification."""
    contract, rows = store.contract, rows_of(store.contract)
    journal = prediction_journal(contract)
    scores = np.linspace(0.05, 0.95, N_ROWS)
    journal_predictions(data_dir, contract, rows, scores, step=timedelta(minutes=3), prediction_ids=IDS)
    journal_labels(
        data_dir, IDS[:N_LABELLED], rows[TRUE_LABEL].tolist()[:N_LABELLED], received_at=T0 + timedelta(hours=2)
    )
    for kind in (journal, LABEL_JOURNAL):
        result = ingest(store, kind, data_dir)
        yield kind.name, (result.n_new, result.corrupt, lag_bytes(store, kind, data_dir))
        yield f"{kind.name} sealed", len(journal_seals.seal_finished(store, kind, data_dir))

    since, end = T0 - SECOND, T0 + timedelta(hours=4)
    window = predictions.window_of(store, 1, since)
    assert window is not None
    yield "window", (window.n_predictions, window.n_labels)
    yield "proxies", predictions.proxy_metrics(store, window)
    yield "rows", plain(predictions.window_rows(store, window, N_ROWS))
    yield "sample", plain(predictions.window_rows(store, window, 20))
    yield "newest", plain(predictions.newest_rows(store, window, 10))
    yield "newest of version", plain(predictions.newest_of_version(store, 1, 50))
    labelled = predictions.labelled_rows(store, max_rows=N_ROWS, sound_only=True)
    yield "labelled", plain(labelled)
    yield "counts", predictions.count_labels(store, since=T0 + timedelta(minutes=7), sound_only=True)
    yield "delays", plain(label_delay_sample(store, 1, since, end))
    yield "unseen", ticks.unseen_since(store, 1)
    stored = predictions.stored_predictions(store, [str(one) for one in IDS[:2]])
    yield "stored", [[row[name] for name in contract.feature_names] for row in stored]

    with journal_check(store) as check:
        check.add_snapshot(0, labelled)
        check.begin()
        for kind, compare in ((journal, check.predictions), (LABEL_JOURNAL, check.labels)):
            for path in kind.files(data_dir):
                chunk = journal_chunk(path)
                yield f"verified {kind.name}", compare(*chunk, *((None,) if kind is journal else ()))
        yield "differing", check.differing()
        yield "snapshots", [tuple(row) for row in check.snapshot_results()]
    yield "deleted", retention.delete_unlabelled_predictions(store, end)
    yield "left", [predictions.summary_of_predictions(store), predictions.count_orphan_labels(store)]


def journal_chunk(path: Path) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    from selfheal.adapters.journal import read_chunk

    chunk = read_chunk(path, 0)
    return chunk.columns, chunk.lines


def answers_of_requests(contract: ModelContract, data_dir: Path) -> Iterator[tuple[str, Any]]:
    """What a request and a file with these names are read as."""
    parser, body = RequestParser(contract), example_row(contract)
    row = parser.row(orjson.dumps(body))
    (piece,) = parser.batch(orjson.dumps({"instances": [body, body]}))
    yield "request", [row, *piece]
    yield (
        "documented",
        list(parser.row_model.model_json_schema()["properties"])
        == [
            *("request_source", "prediction_id", "explain"),
            *contract.input_names,
        ],
    )
    rows = rows_of(contract).rename(columns={TRUE_LABEL: contract.label.name})
    path = data_dir / "rows.csv"
    rows.to_csv(path, index=False)
    yield "file", plain(load_csv(path, contract))


@pytest.fixture(scope="module")
def walk(server: EmbeddedServer, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(server, migrated, tmp_path_factory.mktemp("names"))


@pytest.fixture(scope="module")
def usual(walk: Walk) -> Callable[[int], dict[str, Any]]:
    """The answers under names that mean nothing, by number of features."""
    return cache(lambda n: walk(contract_of([f"feature_{i}" for i in range(n)])))


N_NAMES = 200
NAMES = st.lists(st.sampled_from(nasty_names()), min_size=N_NAMES, max_size=N_NAMES, unique=True)


@given(names=NAMES)
@example(names=[*KNOWN, *nasty_names()[: N_NAMES - len(KNOWN)]])
@settings(
    max_examples=2, phases=[Phase.explicit, Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_a_feature_is_called_changes_no_answer(
    walk: Walk, usual: Callable[[int], dict[str, Any]], names: list[str]
) -> None:
    names = list(dict.fromkeys(names))
    found, expected = walk(contract_of(names)), usual(len(names))
    assert {ask for ask in expected if found[ask] != expected[ask]} == set()


def test_nearly_every_word_may_name_a_feature() -> None:
    words = {name for name in words_of_our_sql() if FEATURE_NAME.fullmatch(name)}
    refused = {name for name in words if not may_name_a_feature(name)}
    assert refused == (TAKEN_NAMES | SQL_NAMES | {TRUE_LABEL}) & words
    assert len(nasty_names()) > 1_000


@pytest.mark.parametrize("name", sorted(SQL_NAMES))
def test_a_name_that_postgres_gives_another_meaning_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{name!r} has another meaning in Postgres; name the feature otherwise"
    ):
        contract_of(["amount", name])


def test_the_refused_names_are_those_that_postgres_refuses(server: EmbeddedServer) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        own = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'pg_class'::regclass AND attnum < 0"
        )
        system = {name for (name,) in own}
        assert system <= SQL_NAMES
