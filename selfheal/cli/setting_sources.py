"""Where settings come from: environment, `.env`, a file of a secret, or their default."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from selfheal.kit.secret_files import secret_files
from selfheal.settings import FORMER_NAMES, Settings, names_of_files


def settings_sources(settings: Settings) -> dict[str, str]:
    """Return the source of each setting: `environment`, `.env`, `default`, or the file of a secret.

    `settings` must come from `load_settings()` in this process, without overrides.
    """
    kind = type(settings)
    environment, dotenv = EnvSettingsSource(kind), DotEnvSettingsSource(kind)
    files = secret_files(names_of_files(kind), {}, environment.env_vars, dotenv.env_vars)
    of_environment, of_file, in_folder = ({name: str(one.path) for name, one in each.items()} for each in files)
    layers: list[dict[str, str]] = [  # what counts most last
        dict.fromkeys(kind.model_fields, "default"),
        in_folder,
        of_file,
        dict.fromkeys(_present_names(dotenv()), ".env"),
        of_environment,
        dict.fromkeys(_present_names(environment()), "environment"),
    ]
    found = {name: source for layer in layers for name, source in layer.items()}
    return {name: found[name] for name in kind.model_fields}


def _present_names(given: Iterable[str]) -> list[str]:
    """Return settings by their present names, whichever name was used."""
    present = {former: name for name, former in FORMER_NAMES.items()}
    return [present.get(name, name) for name in given]
