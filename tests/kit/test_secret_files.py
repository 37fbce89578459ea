"""Rules of secrets as files: where they are read from, what counts most, and that no refusal reveals one."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from selfheal.cli.app import app
from selfheal.cli.setting_sources import settings_sources
from selfheal.kit.errors import ConfigurationError
from selfheal.kit.secret_files import MAX_BYTES
from selfheal.settings import Settings, load_settings, names_of_files
from selfheal.simulate.demo import settings_environment
from tests.environment import forget_settings

SECRET = "s3cr3t-value-long-enough"
VALUES = (
    {"database_url": f"postgresql://u:{SECRET}@h/d", "assets_url": f"s3://u:{SECRET}@bucket"}
    | dict.fromkeys(("mlflow_tracking_uri", "otel_exporter_otlp_endpoint"), f"https://u:{SECRET}@h")
    | dict.fromkeys(
        ("notify_urls", "notify_urls_critical", "notify_urls_warning", "notify_urls_info"), f"json://h/{SECRET}"
    )
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for files with secrets; `.env` is read from another one."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    forget_settings(monkeypatch)
    (tmp_path / "secrets").mkdir()
    return tmp_path / "secrets"


def revealed(name: str) -> str:
    value = getattr(load_settings(), name)
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


@pytest.mark.parametrize("name", names_of_files(Settings))
def test_every_secret_is_read_from_the_file_that_its_variable_names(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = VALUES.get(name, SECRET)
    path = folder / "anything"
    path.write_text(f"{value}\n")
    monkeypatch.setenv(f"{name.upper()}_FILE", str(path))
    assert revealed(name) == value
    assert settings_sources(load_settings())[name] == str(path)


@pytest.mark.parametrize("name", names_of_files(Settings))
def test_every_secret_is_read_from_the_folder_of_secrets(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = VALUES.get(name, SECRET)
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    for file_name in (name, name.upper()):
        path = folder / file_name
        path.write_text(value)
        assert revealed(name) == value
        assert settings_sources(load_settings())[name] == str(path)
        path.unlink()


def test_the_folder_of_secrets_may_be_named_in_env_file_or_argument(folder: Path) -> None:
    (folder / "api_keys").write_text(SECRET)
    assert load_settings(secrets_dir=folder).api_keys.get_secret_value() == SECRET
    Path(".env").write_text(f"SECRETS_DIR={folder}\n")
    assert revealed("api_keys") == SECRET


def test_kubernetes_links_to_files_in_the_folder_are_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "..2026").mkdir()
    (folder / "..2026" / "api_keys").write_text(SECRET)
    (folder / "..data").symlink_to("..2026")
    (folder / "api_keys").symlink_to("..data/api_keys")
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    assert revealed("api_keys") == SECRET


def test_the_environment_counts_more_than_env_file_and_that_more_than_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("api_keys", "of_env_file", "of_environment"):
        (folder / name).write_text(f"key-{name}")
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    assert revealed("api_keys") == "key-api_keys"
    Path(".env").write_text(f"API_KEYS_FILE={folder / 'of_env_file'}\n")
    assert revealed("api_keys") == "key-of_env_file"
    monkeypatch.setenv("API_KEYS_FILE", str(folder / "of_environment"))
    assert revealed("api_keys") == "key-of_environment"
    assert load_settings(api_keys="given").api_keys.get_secret_value() == "given"
    monkeypatch.delenv("API_KEYS_FILE")
    monkeypatch.setenv("API_KEYS", "plain")
    assert revealed("api_keys") == "plain"
    assert settings_sources(load_settings())["api_keys"] == "environment"


def test_a_secret_that_is_given_twice_in_one_place_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", SECRET)
    monkeypatch.setenv("API_KEYS_FILE", str(folder / "api_keys"))
    assert "API_KEYS and API_KEYS_FILE are both set; unset one" in refusal()
    monkeypatch.setenv("API_KEYS", "")
    (folder / "api_keys").write_text(SECRET)
    assert revealed("api_keys") == SECRET, "an empty value means not set"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (f"{SECRET}\n{SECRET}".encode(), "is not one line of text"),
        (f"{SECRET}\0".encode(), "is not one line of text"),
        (SECRET.encode() + b"\xff", "is not text in UTF-8"),
        (SECRET.encode() * MAX_BYTES, "is larger than 65,536 bytes"),
    ],
)
def test_a_file_that_cannot_be_a_secret_is_refused_with_its_variable_and_path(
    content: bytes | None, problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "file"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("NOTIFY_URLS_FILE", str(path))
    assert f"NOTIFY_URLS_FILE={path}: {problem}" in refusal()


def test_a_folder_or_pipe_in_the_place_of_a_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "api_keys").mkdir()
    os.mkfifo(folder / "api_key")
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    message = refusal()
    assert f"API_KEYS={folder / 'api_keys'}: is not a file" in message
    assert f"API_KEY={folder / 'api_key'}: is not a file" in message, "every wrong file is named at once"


def test_a_file_that_may_not_be_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (folder / "api_keys").write_text(SECRET)
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    monkeypatch.setattr(Path, "open", denied)  # root, who runs some tests, may read every file
    assert f"API_KEYS={folder / 'api_keys'}: cannot be read (Permission denied); let the user" in refusal()


def test_an_empty_file_in_the_folder_means_not_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "notify_urls").touch()
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    assert revealed("notify_urls") == ""
    assert settings_sources(load_settings())["notify_urls"] == "default"


def test_a_folder_of_secrets_that_is_not_there_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(folder / "gone"))
    assert f"SECRETS_DIR={folder / 'gone'}: cannot be listed (No such file or directory)" in refusal()


def test_a_wrong_value_from_a_file_is_refused_without_being_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "database_url").write_text(f"mysql://u:{SECRET}@h/d")
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    assert "DATABASE_URL=***" in refusal()


def test_config_names_the_file_of_a_secret_and_shows_no_password(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "api_keys").write_text(SECRET)
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:{SECRET}@mlflow:5000")
    printed = CliRunner().invoke(app, ["config", "--json"]).stdout
    rows = {row["name"]: row for row in json.loads(printed)}
    assert rows["API_KEYS"]["source"] == str(folder / "api_keys")
    assert rows["MLFLOW_TRACKING_URI"]["value"] == "http://ada:***@mlflow:5000"
    assert SECRET not in printed


@pytest.mark.parametrize("name", names_of_files(Settings))
def test_nothing_that_is_read_from_a_file_is_printed_with_its_secret(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name).write_text(VALUES.get(name, SECRET))
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    printed = CliRunner().invoke(app, ["config", "--json"]).stdout
    assert str(folder / name) in printed
    assert SECRET not in printed


def test_a_wrong_address_is_refused_without_its_password() -> None:
    assert "u:***@h" in refusal(mlflow_tracking_uri=f"postgres://u:{SECRET}@h/d?pgbouncer=true")


def test_a_process_that_is_given_settings_reads_no_other_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's platform, for example, which must not find the user's database."""
    (folder / "database_url").write_text(VALUES["database_url"])
    monkeypatch.setenv("DATABASE_URL_FILE", str(folder / "database_url"))
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    given = load_settings().model_copy(update={"database_url": None, "secrets_dir": None})
    for name, value in settings_environment(given).items():
        monkeypatch.setenv(name, value)
    assert load_settings().database_url is None
