"""A migration that has landed is never edited: databases that ran it would lack the change and still count as up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from selfheal.adapters.postgres import decisions, migrate
from selfheal.adapters.postgres.open import open_store
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Action
from selfheal.kit.ids import new_id
from selfheal.settings import Settings
from tests import builders
from tests.adapters.postgres.test_migrate import differences
from tests.times import T0
from tests.toy_use_case import contract

HOUR = timedelta(hours=1)

LANDED = {
    "0001_first_schema": "66b29d1c0dd03c23d4bd0d8d8f888124dcba28e8f3c725f05df6ab3a3e7bab10",
    "0002_label_corrections": "4cc26d8e5f9e02b9970b4c963fa6f342441e645568b041f4c2e52d6af94b1f75",
    "0003_alert_sources": "a85bcbd4e6d17b9af561137ad579e3230a45ce2edd6c1ecc68b9ea81103de7b2",
    "0004_rollups": "f22e76e3beecb49be233a89127645a19789c5bc3ba4b5af721f978532ad44cb1",
    "0005_alert_notices": "151cfecf6b9aa8d15628cd73c006cef6a38fd023478c5934c7abadb77f61ec3e",
    "0006_spoiled_periods": "e905ea57f448ad769e66a3887a17a10efa9015056a214fee70600e1af0681f45",
    "0007_promotions": "15dcc031f29978a93ae7d389428f42dd5cc900ee5dc3083b2348918c32483c5d",
    "0008_label_precedence": "6ecf0b299f6f26bb41d1f299f363870c07c01d9c1eb6d5ff76a8d484c39ce19a",
    "0009_alert_kinds": "a1a7aaf3d5bbd70791324cb0e33dd78713ad10827c71c36248fb2ceb09613c49",
    "0010_label_order": "5fac79eb86599f4277d827386ef2800b9d5bcfe89ab6b3812fc349b2704087cd",
    "0011_journal_seals": "ce28799266e9a030cdd70395e7f993a7ffebff027bcdb9ba3cdd955de8f09adb",
    "0012_edited_migrations": "1d77dfaadd98b83bff14202c358adb3d8c7b878d175a5166b605ad4e30063abf",
    "0013_training_failures": "078d0ec3f86672d70215b01def2d2809e63dd3a9ed7c3451b50695d4b557a78c",
    "0014_first_labels": "8c023e3af1e3b4bb82fbd5b3ef2d5bc4b173f61af6f4a2cc7826424df1309bde",
    "0015_onset": "06b55e9eb051194e5e0c9994bc1562bdc396be0ac0dc6211f0eb3b0dbd95c34d",
    "0016_label_quarantines": "306d5e6cf84eb194c682e1605f4a1bb97e5b7383e82061239cea829e93f57b6f",
    "0017_entities": "0697aa1e9934f297c37558703bd27a014ea0a5f4bdca5485b91a100df7df2dfb",
    "0018_seasons": "2460dbc86604a76397bc805a9b7683a341b727618c3fd96c693716207220e1c6",
    "0019_accepted_periods": "096ae432fdbd2823006094b13e8929d3a88a0d906e013fd56797be988c3a0ffa",
    "0020_cross_fitted": "7b860f716709090e861a64f1f3304fed00f013a1cc4ddfb858c72951188b53dd",
}
"""SHA-256 of each migration's file. A new one gets a line; a line that is here never changes."""

EARLIER_TEXT_OF_0007 = "DROP TABLE probations"
EARLIER_TEXT_OF_0001 = """
    DROP TRIGGER reference_data_is_immutable ON reference_data;
    CREATE TRIGGER reference_data_is_immutable BEFORE UPDATE OR DELETE ON reference_data
    FOR EACH ROW EXECUTE FUNCTION refuse_change()
"""
"""What turns a database into one that ran the text before the edit."""

TRIGGERS = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings, contract)
    yield opened
    opened.close()


def triggers(connection: Connection) -> list[str]:
    return list(connection.execute(text(TRIGGERS)).scalars())


def test_no_landed_migration_is_edited_and_every_migration_is_pinned() -> None:
    files = (migrate.MIGRATIONS / "versions").glob("[0-9]*.py")
    assert {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == LANDED


@pytest.mark.parametrize("revision", ["0007", "0008", "0009"])
def test_a_database_that_ran_an_earlier_text_of_a_migration_gets_what_was_added_to_it(
    store: Store, revision: str
) -> None:
    from alembic import command

    with store.engine.begin() as connection:
        expected = triggers(connection)
        command.downgrade(migrate.alembic_config(store, connection), revision)
        connection.execute(text(EARLIER_TEXT_OF_0007))
        connection.execute(text(EARLIER_TEXT_OF_0001))
        assert triggers(connection) != expected
    migrate.migrate(store)
    with store.engine.connect() as connection:
        assert differences(store, connection) == []
        assert triggers(connection) == expected


def test_labels_stored_as_corrections_that_replaced_nothing_are_first_labels_after_the_upgrade(store: Store) -> None:
    """Of what another journal file's label replaced, the first one is known: `overruled_labels` has it."""
    from alembic import command

    alone, replaced, confirmed = (new_id() for _ in range(3))
    label = "(prediction_id, true_label, labelled_at, received_at, label_source, is_correction, journal_segment)"
    values = "(:id, :label, :at, :at, 'job', :is_correction, :segment)"
    with store.engine.begin() as connection:
        command.downgrade(migrate.alembic_config(store, connection), "0013")
        for prediction_id, was in ((alone, None), (replaced, 0), (confirmed, 1)):
            row = {"id": prediction_id, "label": 1, "at": T0 + HOUR, "is_correction": True, "segment": 2}
            connection.execute(text(f"INSERT INTO label_store {label} VALUES {values}"), row)
            if was is not None:
                earlier = row | {"label": was, "at": T0, "is_correction": False, "segment": 1}
                connection.execute(text(f"INSERT INTO overruled_labels {label} VALUES {values}"), earlier)
    migrate.migrate(store)
    with store.engine.connect() as connection:
        query = text("SELECT prediction_id, first_received_at, first_label FROM label_store")
        found = {row[0]: (row[1], row[2]) for row in connection.execute(query)}
    assert found == {alone: (None, None), replaced: (T0, 0), confirmed: (T0, 1)}


def test_declarations_in_the_chain_are_not_rewritten_by_a_downgrade(store: Store) -> None:
    """What is below them has no word for them, so that the chain would seem edited."""
    from alembic import command

    decisions.append(store, builders.decision(action=Action.DECLARE, declared="seasonal:load_ratio"))
    with (
        pytest.raises(RuntimeError, match=r"1 declarations.*restore a backup"),
        store.engine.begin() as connection,
    ):
        command.downgrade(migrate.alembic_config(store, connection), "0017")
    assert decisions.chain_problems(store) == []


def test_verdicts_with_a_digest_that_earlier_releases_do_not_know_are_not_rewritten_by_a_downgrade(
    store: Store,
) -> None:
    from alembic import command

    decisions.append(store, builders.decision(action=Action.REJECT, cross_fitted_sha256="c" * 64))
    with (
        pytest.raises(RuntimeError, match=r"1 verdicts on cross-fitted challengers.*restore a backup"),
        store.engine.begin() as connection,
    ):
        command.downgrade(migrate.alembic_config(store, connection), "0019")
    assert decisions.chain_problems(store) == []
