"""Postgres addresses (DSN, connection string): whatever libpq and hosting platforms write, in the one form that every driver reads.

libpq itself parses: several hosts, sockets, `host=... dbname=...`, `postgres://`. What it, or the driver of Dagster and MLflow,
would refuse at the first connection is refused here. An address holds a password: messages name its parts, never their text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from selfheal.kit.errors import ConfigurationError

SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
PLAIN_HOST = re.compile(r"[A-Za-z0-9._-]+")
UNKNOWN_OPTION = re.compile(r'invalid (?:URI query parameter|connection option):? "(\w+)"')
PASSWORD = re.compile(r"(?P<before>://[^/?#\s:]*:|\bpassword=)(?:[^/?#\s&]+(?=@)|(?<=password=)[^\s&]+)", re.IGNORECASE)
IN_NETLOC = {"user", "password", "dbname"}
ALLOWED = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
"""Of libpq, which reads them at the first connection only."""

FORM = "postgresql://user:password@host:port/database, or libpq's `host=... dbname=...`"
ENCODE = "characters such as @ : / % in its user and password are written %40 %3A %2F %25"


def parse_postgres_url(text: str) -> dict[str, str]:
    """Return the parts of an address by libpq's names: host, port, user, password, dbname, sslmode, ...

    Raises:
        ConfigurationError: saying what is wrong and what is allowed, without a secret.

    >>> parse_postgres_url("postgres://ada@one,two:6432/db?sslmode=require")
    {'user': 'ada', 'dbname': 'db', 'host': 'one,two', 'port': ',6432', 'sslmode': 'require'}
    """
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import parse_dsn

    try:
        parts: dict[str, str] = dict(parse_dsn(_in_words_of_libpq(text.strip())))
    except (ProgrammingError, UnicodeError) as error:
        unknown = UNKNOWN_OPTION.search(str(error))
        if unknown:
            raise ConfigurationError(f"has the option {unknown[1]!r}, which libpq does not know; remove it") from None
        raise ConfigurationError(f"must be of the form {FORM}; {ENCODE}") from None
    _check_hosts(parts)
    for name, allowed in ALLOWED.items():
        if name in parts and parts[name] not in allowed:
            raise ConfigurationError(f"has a wrong {name}; allowed are {', '.join(allowed)}")
    return parts


def postgres_url(parts: Mapping[str, str], database: str) -> str:
    """Return the `postgresql://` URL of a database on the server of `parts`, as libpq and SQLAlchemy read it alike.

    Several hosts, and sockets, stand in the query.

    >>> postgres_url({"host": "one,two", "port": ",6432", "user": "ada", "password": "a/b"}, "db")
    'postgresql://ada:a%2Fb@/db?host=one%2Ctwo&port=%2C6432'
    """
    rest = {name: value for name, value in parts.items() if name not in IN_NETLOC}
    if "port" in rest and "," not in rest["port"]:  # SQLAlchemy wants as many ports as hosts
        rest["port"] = ",".join([rest["port"]] * (1 + rest.get("host", "").count(",")))
    server = ""
    if PLAIN_HOST.fullmatch(rest.get("host", "")):
        server = rest.pop("host")
        if "port" in rest:
            server += f":{rest.pop('port')}"
    user = quote(parts.get("user", ""), safe="")
    if parts.get("password"):
        user += f":{quote(parts['password'], safe='')}"
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in rest.items())
    return f"postgresql://{user}{'@' if user else ''}{server}/{quote(database, safe='')}" + (
        f"?{query}" if query else ""
    )


def _in_words_of_libpq(text: str) -> str:
    """Return the address without SQLAlchemy's name of a driver.

    Raises:
        ConfigurationError: if it is no address of Postgres.
    """
    found = SCHEME.match(text)
    if found is None:
        if re.match(r"[a-z_]+\s*=", text):
            return text
        raise ConfigurationError(f"must be of the form {FORM}")
    scheme = found["scheme"].lower().split("+")[0]
    if scheme not in {"postgresql", "postgres"}:
        raise ConfigurationError(f"must be of the form {FORM}, not {found['scheme']}://")
    return f"postgresql://{text[found.end() :]}"


def _check_hosts(parts: Mapping[str, str]) -> None:
    hosts = parts.get("hostaddr", parts.get("host", "")).split(",")
    ports = parts.get("port", "").split(",")
    if any("@" in host for host in hosts) or ("user" not in parts and "@" in parts.get("dbname", "")):
        raise ConfigurationError(f"has an @ in the host or database: {ENCODE}")
    if any(port and not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65_535) for port in ports):
        raise ConfigurationError(f"has a port that is no number from 1 to 65535; {ENCODE}")
    if any(host.count(":") == 1 for host in hosts):
        raise ConfigurationError(
            "has a port in `?host=`; several hosts are written one:5432,two:5432 before the database"
        )
    if len(ports) not in {1, len(hosts)}:
        raise ConfigurationError("must have one port, or one for each of its hosts")


def without_password(text: str) -> str:
    """Return a text with the passwords of the addresses in it hidden.

    >>> without_password("http://ada:s3cr3t@mlflow:5000")
    'http://ada:***@mlflow:5000'
    >>> without_password("host=h password=s3cr3t"), without_password("0.5")
    ('host=h password=***', '0.5')
    """
    return PASSWORD.sub(r"\g<before>***", text)
