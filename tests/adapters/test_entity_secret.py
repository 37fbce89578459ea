"""The secret of pseudonyms: the setting's, or one that a data folder makes once and only its owner can read."""

from __future__ import annotations

import stat
from pathlib import Path

from pydantic import SecretStr

from selfheal.adapters.entity_secret import FILE_NAME, entity_secret
from selfheal.settings import default_settings


def test_a_data_folder_makes_its_secret_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = default_settings().model_copy(update={"data_dir": tmp_path})
    found = entity_secret(settings)
    assert entity_secret(settings) == found
    assert len(found) == 64
    other = default_settings().model_copy(update={"data_dir": tmp_path / "other"})
    assert entity_secret(other) != found
    assert stat.S_IMODE((tmp_path / "audit" / FILE_NAME).stat().st_mode) == 0o600


def test_a_secret_that_is_set_counts_everywhere(tmp_path: Path) -> None:
    settings = default_settings().model_copy(
        update={"data_dir": tmp_path, "entity_secret": SecretStr("one for all hosts")}
    )
    assert entity_secret(settings) == b"one for all hosts"
    assert not list(tmp_path.iterdir())
