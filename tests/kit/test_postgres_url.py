"""Rules of Postgres' addresses: what libpq and platforms write means the same to every driver, or is refused in one line."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg2.extensions import parse_dsn
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.engine import make_url

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.kit.errors import ConfigurationError
from selfheal.kit.postgres_url import parse_postgres_url, postgres_url

SECRET = "s3cr3t"

WRITTEN = {
    "Heroku, Render, Railway": "postgres://u:p@ec2-1.example:5432/d",
    "SQLAlchemy": "postgresql+asyncpg://u:p@h/d",
    "an environment file with its line end": " postgresql://u:p@h/d\n",
    "two hosts and what they must be": "postgresql://u@one,two:6432/d?target_session_attrs=read-write",
    "a socket": "postgresql:///d?host=/run/postgresql",
    "a socket in the place of the host": "postgresql://u@%2Frun%2Fpostgresql/d",
    "a socket whose folder has a space": "postgresql:///d?host=/my%20data/postgres&port=5432",
    "an IPv6 address": "postgresql://u@[::1]:5433/d",
    "libpq's own words": "host=h user=u password='two words' dbname=d sslmode=verify-full sslrootcert='/a b/ca.pem'",
    "a service": "service=production",
    "nothing but the local server": "postgresql://",
    "a port alone": "postgresql://:6432/d",
    "a password with every character": "postgresql://u:%40%2F%3A%25%23%3F%20%26%3D%2B%C3%A9@h/d",
    "a password that needs no escape for libpq": "postgresql://u:a#b?c@h/d",
    "user and password as options": "postgresql://h/d?user=u&password=p",
    "Neon": "postgresql://u:p@ep-1.example/d?sslmode=require&channel_binding=require&options=endpoint%3Dep-1",
    "an address in numbers": "postgresql://h/d?hostaddr=10.0.0.1",
    "JDBC's way to ask for TLS": "postgresql://h/d?ssl=true",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_every_driver_reads_in_the_url_what_libpq_reads_in_the_address(text: str) -> None:
    parts = parse_postgres_url(text)
    expected = parts | {"dbname": "new"}
    url = postgres_url(parts, "new")
    assert {name: str(value) for name, value in conninfo_to_dict(url).items()} == expected, "psycopg"
    assert parse_dsn(url) == expected, "psycopg2"
    _, by_sqlalchemy = dialect().create_connect_args(make_url(url))
    assert {name: str(value) for name, value in by_sqlalchemy.items()} == expected, "SQLAlchemy"


def test_one_port_for_several_hosts_is_that_of_each() -> None:
    url = postgres_url(parse_postgres_url("host=one,two port=6432 user=u"), "d")
    assert url == "postgresql://u@/d?host=one%2Ctwo&port=6432%2C6432"


REFUSED = {
    "no address": (SECRET, "of the form"),
    "empty": ("", "of the form"),
    "quotes that an environment file kept": (f'"postgresql://u:{SECRET}@h/d"', "of the form"),
    "another database": (f"mysql://u:{SECRET}@h/d", "not mysql://"),
    "JDBC": (f"jdbc:postgresql://h/d?user=u&password={SECRET}", "of the form"),
    "an @ in the password": (f"postgresql://u:p@{SECRET}@h/d", "%40"),
    "a / in the password": (f"postgresql://u:{SECRET}/p@h/d", "%2F"),
    "a / after digits in the password": (f"postgresql://u:12/{SECRET}@h/d", "%2F"),
    "a % in the password": (f"postgresql://u:{SECRET}%@h/d", "%25"),
    "Prisma's option": (f"postgresql://u:{SECRET}@h/d?schema=public", "'schema', which libpq does not know"),
    "an unknown word": (f"host=h pasword={SECRET}", "'pasword', which libpq does not know"),
    "node-postgres' TLS": (f"postgresql://u:{SECRET}@h/d?sslmode=no-verify", "wrong sslmode; allowed are disable, "),
    "a wrong wish": (f"postgresql://u:{SECRET}@h/d?target_session_attrs=master", "wrong target_session_attrs"),
    "a port too high": (f"postgresql://u:{SECRET}@h:65536/d", "port"),
    "a port of words": (f"postgresql://u:{SECRET}@h:db/d", "port"),
    "ports that do not fit": (f"host=a,b,c port=1,2 password={SECRET}", "one port, or one for each"),
    "SQLAlchemy's several hosts": (f"postgresql://u:{SECRET}@/d?host=a:1&host=b:2", "one:5432,two:5432"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_in_one_line_without_a_secret(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_postgres_url(text)
    message = str(caught.value)
    assert said in message
    assert SECRET not in message
    assert "\n" not in message


def test_of_several_hosts_the_one_that_answers_is_used_by_psycopg(server: EmbeddedServer) -> None:
    answering = parse_postgres_url(server.url("postgres"))
    hosts = {"host": f"/nowhere,{answering['host']}", "port": f"5432,{answering['port']}"}
    with psycopg.connect(postgres_url(answering | hosts, "postgres")) as connection:
        assert connection.info.host == answering["host"]
