"""Postgres' own programs find the platform's server, embedded or not, and are told its password by no argument."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from selfheal.adapters.postgres.client_tools import client_environment, connection_variables, program_for
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.cli import app
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings, load_settings
from selfheal.simulate.demo import settings_environment


def test_every_part_of_an_address_becomes_a_variable_of_libpq() -> None:
    found = connection_variables(
        "postgresql://ada:se%20cret@db.example:6432/selfheal?sslmode=require&options=-c%20x%3D1"
    )
    assert found == {
        "PGHOST": "db.example",
        "PGPORT": "6432",
        "PGUSER": "ada",
        "PGPASSWORD": "se cret",
        "PGDATABASE": "selfheal",
        "PGSSLMODE": "require",
        "PGOPTIONS": "-c x=1",
    }


def test_what_the_caller_has_set_stays_where_the_address_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    environment = client_environment(load_settings(database_url="postgresql://ada@db.example/selfheal"))
    assert environment["PGOPTIONS"] == "-c default_transaction_read_only=on"


@pytest.mark.integration
def test_psql_reaches_the_platforms_database(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = make_settings()
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    count = ["psql", "--no-align", "--tuples-only", "--output", str(tmp_path / "count"), "--command"]
    done = CliRunner().invoke(app, ["postgres", *count, "SELECT count(*) FROM promotions"])
    assert done.exit_code == 0
    assert (tmp_path / "count").read_text().strip() == "1"


def test_the_first_program_that_is_not_older_than_the_server_is_taken(server: EmbeddedServer, tmp_path: Path) -> None:
    url = server.url("postgres")
    with psycopg.connect(url) as connection:
        major = connection.info.server_version // 10_000
    for version in (major - 3, major, major + 1):
        program = tmp_path / str(version) / "pg_dump"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}.2 (Debian {version}.2-1)'\n")
        program.chmod(0o755)

    def chosen(*versions: int) -> str:
        folders = [str(tmp_path / str(version)) for version in versions]
        return program_for("pg_dump", {"PATH": os.pathsep.join(folders)}, url)

    assert chosen(major - 3, major, major + 1) == str(tmp_path / str(major) / "pg_dump")
    assert chosen(major - 3, major + 1) == str(tmp_path / str(major + 1) / "pg_dump")
    with pytest.raises(ConfigurationError, match=f"no pg_dump here is of that version or newer; .* version {major}"):
        chosen(major - 3)


@pytest.mark.integration
def test_a_session_that_may_only_read_changes_nothing(make_settings: Callable[..., Settings]) -> None:
    environment = client_environment(make_settings()) | {"PGOPTIONS": "-c default_transaction_read_only=on"}
    done = subprocess.run(
        ["psql", "--command", "DELETE FROM monitoring_metrics"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "read-only transaction" in done.stderr


@pytest.mark.integration
def test_the_exit_code_is_the_programs_and_an_unknown_program_is_named(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings_environment(make_settings()).items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(app, ["postgres", "psql", "--command", "no sql"]).exit_code == 1
    unknown = CliRunner().invoke(app, ["postgres", "no-such-program"])
    assert isinstance(unknown.exception, ConfigurationError)
    assert "no-such-program" in str(unknown.exception)
