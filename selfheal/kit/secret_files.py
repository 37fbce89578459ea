"""Secrets as files, as Docker, Kubernetes and systemd provide them.

A setting that is a secret is also read from the file that `NAME_FILE` names, and from a file of its own name in SECRETS_DIR.
pydantic's own source of the kind passes over what it cannot read; here that stops the start. No message contains what is in a file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from selfheal.kit.errors import ConfigurationError

MAX_BYTES = 65_536
"""Of one file: far more than the longest list of keys, so that a wrong path does not fill the memory."""

SUFFIX = "_file"


class SecretFile(NamedTuple):
    """Where a secret is, and what named the place, for messages."""

    label: str
    path: Path


Variables: TypeAlias = Mapping[str, str | None]
"""By lower-case names, without those that are empty."""


def secret_files(
    names: Collection[str], given: Mapping[str, Any], environment: Variables, dotenv: Variables
) -> tuple[dict[str, SecretFile], ...]:
    """Return the files that the environment names, those that `.env` names, and those in SECRETS_DIR, by the setting's name.

    Args:
        names: of the settings that are secrets.
        given: settings that count more than the environment.

    Raises:
        ConfigurationError: if a secret is given twice in one place, or SECRETS_DIR cannot be listed.
    """
    folders = (one.get("secrets_dir") for one in (given, environment, dotenv))
    folder = next((Path(one) for one in folders if one), None)
    return named_files(names, environment), named_files(names, dotenv), files_in(names, folder)


def named_files(names: Collection[str], variables: Variables) -> dict[str, SecretFile]:
    """Return the files that variables `NAME_FILE` name, by the setting's name.

    Raises:
        ConfigurationError: if a setting is given as a value and as a file.
    """
    files = {}
    for name in names:
        path = variables.get(name + SUFFIX)
        if not path:
            continue
        label = (name + SUFFIX).upper()
        if variables.get(name):
            raise ConfigurationError(f"wrong setting: {name.upper()} and {label} are both set; unset one of them")
        files[name] = SecretFile(label, Path(path).expanduser())
    return files


def files_in(names: Collection[str], folder: Path | None) -> dict[str, SecretFile]:
    """Return the files of SECRETS_DIR that are named like a secret, in lower or upper case, by the setting's name.

    An empty file counts as absent, like an empty variable.

    Raises:
        ConfigurationError: if the folder cannot be listed.
    """
    if folder is None:
        return {}
    try:
        present = {path.name: path for path in folder.expanduser().iterdir()}
        found = ((name, present.get(name) or present.get(name.upper())) for name in names)
        files = {name: path for name, path in found if path is not None and (not path.is_file() or path.stat().st_size)}
    except OSError as error:
        raise ConfigurationError(
            f"wrong setting: SECRETS_DIR={folder}: cannot be listed ({error.strerror}); set it to a folder of files, or unset it"
        ) from None
    return {name: SecretFile(name.upper(), path) for name, path in files.items()}


def read_secrets(files: Mapping[str, SecretFile]) -> dict[str, str]:
    """Return the secrets that the files contain.

    Raises:
        ConfigurationError: naming every file that cannot be used.
    """
    secrets, problems = {}, []
    for name, (label, path) in files.items():
        try:
            secrets[name] = read_secret(path)
        except ConfigurationError as error:
            problems.append(f"{label}={path}: {error}")
    if problems:
        raise ConfigurationError("wrong setting: " + "; ".join(problems))
    return secrets


def read_secret(path: Path) -> str:
    """Return the text of a file of one line, without the white space around it.

    Raises:
        ConfigurationError: if there is no such file, or it may not be read, is empty, too large, or not one line of text.
    """
    try:
        if not path.is_file():  # a pipe would be empty for the next process that reads it
            raise ConfigurationError(
                "is not a file" if path.exists() else "does not exist; write the secret to that file"
            )
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read ({error.strerror}); let the user that runs the platform read it"
        ) from None
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"is larger than {MAX_BYTES:,} bytes; write the secret alone to that file")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ConfigurationError("is not text in UTF-8; write the secret alone to that file") from None
    if not text:
        raise ConfigurationError("is empty; write the secret to that file, or remove the file and what names it")
    if not text.isprintable():
        raise ConfigurationError("is not one line of text; write the secret alone to that file")
    return text
