"""Errors at the command line as one line: what went wrong and what to do about it. Problems of a file have a line each.

The platform's own errors say both. Listed here are other errors that a person can cause or fix: a wrong option, a server that
stopped during the command, a full disk. Any other error is a bug, which needs its traceback.
"""

from __future__ import annotations

from typing import Any

from selfheal.kit.errors import SelfhealError, UnfitFileError

REMEDIES = {
    "sqlalchemy.exc.OperationalError": "Postgres does not answer: {error}; check DATABASE_URL or POSTGRES_*, and try again",
    "psycopg.OperationalError": "Postgres does not answer: {error}; check DATABASE_URL or POSTGRES_*, and try again",
    "sqlalchemy.exc.InternalError": "Postgres refuses it: {error}; see that it is the server that accepts changes, and try again",
    "mlflow.exceptions.MlflowException": "MLflow refuses or does not answer: {error}; check MLFLOW_TRACKING_URI and try again",
    "httpx.HTTPError": "no answer: {error}; is the platform up (`selfheal up`)?",
    "builtins.ConnectionError": "no answer: {error}; is the platform up (`selfheal up`)?",
    "concurrent.futures.process.BrokenProcessPool": "a worker process ended before its work was done, most likely for lack of memory; "
    "give fewer --processes",
    "builtins.OSError": "{error}; see that the disk has room and the folder may be written",
}
"""Remedies by class name, so that no library is imported only to report an error."""

MAX_CHARACTERS = 240


def one_line(error: BaseException) -> str | None:
    """Return the error as one line for people (the report on a file: a line per problem); None if it is a bug."""
    if isinstance(error, UnfitFileError):
        return "\n".join(" ".join(line.split()) for line in str(error).splitlines())
    if isinstance(error, SelfhealError):
        return " ".join(str(error).split())
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    remedy = next((REMEDIES[name] for name in names if name in REMEDIES), None)
    return None if remedy is None else remedy.format(error=_first_words(error))


def usage_line(error: Any) -> str:
    """Return what is wrong with a command, argument or option (typer's `UsageError`), and where to find the right ones.

    Empty if there was none at all: then the help has been printed.
    """
    message = " ".join(error.format_message().split()).removeprefix("Invalid value: ").rstrip(".")
    where = "selfheal" if error.ctx is None else error.ctx.command_path
    return f"{message}; see `{where} --help`" if message else ""


def _first_words(error: BaseException) -> str:
    """Return the error without its address list, SQL or chain of causes."""
    original = getattr(error, "orig", None) or error
    text = " ".join(str(original).split())
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
