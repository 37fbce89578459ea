"""Secrets as files, as Docker, Kubernetes and systemd provide them: a source of settings, for pydantic-settings.

A setting that is a secret (`SecretStr`) is also read from the file that `NAME_FILE` names, and from a file of its own name in
SECRETS_DIR. pydantic's own source of the kind passes over what it cannot read; here that stops the start. No message contains
what is in a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from selfheal.kit.errors import ConfigurationError

MAX_BYTES = 65_536
"""Of one file: far more than the longest list of keys, so that a wrong path does not fill the memory."""

SUFFIX = "_file"


class SecretFiles(PydanticBaseSettingsSource):
    """The source: one file per setting."""

    def __init__(self, settings_cls: type[BaseSettings], files: Mapping[str, tuple[str, Path]]) -> None:
        """Take `files`: by the setting's name, what names the file, for messages, and its path."""
        super().__init__(settings_cls)
        self._files = files

    @property
    def paths(self) -> dict[str, str]:
        """The path of each setting's file."""
        return {name: str(path) for name, (_, path) in self._files.items()}

    def __call__(self) -> dict[str, str]:
        """Return the secrets that the files contain.

        Raises:
            ConfigurationError: naming every file that cannot be used.
        """
        secrets, problems = {}, []
        for name, (label, path) in self._files.items():
            try:
                secrets[name] = read_secret(path)
            except ConfigurationError as error:
                problems.append(f"{label}={path}: {error}")
        if problems:
            raise ConfigurationError("wrong setting: " + "; ".join(problems))
        return secrets

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Return nothing: pydantic asks for single fields only if `__call__` is its own."""
        return None, field_name, False


def secret_sources(
    settings_cls: type[BaseSettings],
    given_folder: Path | str | None,
    environment: EnvSettingsSource,
    dotenv: EnvSettingsSource,
) -> list[SecretFiles]:
    """Return the files that the environment names, those that `.env` names, and those in SECRETS_DIR.

    Raises:
        ConfigurationError: if a secret is given twice in one place, or SECRETS_DIR cannot be listed.
    """
    folders = (given_folder, environment.env_vars.get("secrets_dir"), dotenv.env_vars.get("secrets_dir"))
    folder = next((Path(one) for one in folders if one), None)
    return [
        SecretFiles(settings_cls, files)
        for files in (
            named_files(settings_cls, environment.env_vars),
            named_files(settings_cls, dotenv.env_vars),
            files_in(settings_cls, folder),
        )
    ]


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


def secret_names(settings_cls: type[BaseSettings]) -> list[str]:
    """Return the settings that are secrets."""
    fields = settings_cls.model_fields.items()
    return [name for name, field in fields if SecretStr.__name__ in str(field.annotation)]


def named_files(settings_cls: type[BaseSettings], variables: Mapping[str, str | None]) -> dict[str, tuple[str, Path]]:
    """Return the files that variables `NAME_FILE` name, by the setting's name.

    Args:
        variables: by lower-case names, without those that are empty.

    Raises:
        ConfigurationError: if a setting is given as a value and as a file.
    """
    files = {}
    for name in secret_names(settings_cls):
        path = variables.get(name + SUFFIX)
        if not path:
            continue
        label = (name + SUFFIX).upper()
        if variables.get(name):
            raise ConfigurationError(f"wrong setting: {name.upper()} and {label} are both set; unset one of them")
        files[name] = label, Path(path).expanduser()
    return files


def files_in(settings_cls: type[BaseSettings], folder: Path | None) -> dict[str, tuple[str, Path]]:
    """Return the files of SECRETS_DIR that are named like a setting, in lower or upper case, by the setting's name.

    An empty file counts as absent, like an empty variable.

    Raises:
        ConfigurationError: if the folder cannot be listed.
    """
    if folder is None:
        return {}
    try:
        present = {path.name: path for path in folder.expanduser().iterdir()}
        found = ((name, present.get(name) or present.get(name.upper())) for name in secret_names(settings_cls))
        files = {name: path for name, path in found if path is not None and (not path.is_file() or path.stat().st_size)}
    except OSError as error:
        raise ConfigurationError(
            f"wrong setting: SECRETS_DIR={folder}: cannot be listed ({error.strerror}); set it to a folder of files, or unset it"
        ) from None
    return {name: (name.upper(), path) for name, path in files.items()}
