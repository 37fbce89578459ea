"""The secret of entities' pseudonyms: the setting ENTITY_SECRET, or a random one in DATA_DIR, made once."""

from __future__ import annotations

import stat
from secrets import token_hex
from typing import TYPE_CHECKING

from selfheal.kit.atomic_file import write_once

if TYPE_CHECKING:
    from selfheal.settings import Settings

FILE_NAME = "entity.secret"
SECRET_BYTES = 32
OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


def entity_secret(settings: Settings) -> bytes:
    """Return the secret; without ENTITY_SECRET that of DATA_DIR, which is made at the first call.

    Hosts that share a Postgres must have one secret: without it, an entity would be another one on each of them.
    """
    if settings.entity_secret is not None:
        return settings.entity_secret.get_secret_value().encode()
    path = settings.data_dir / "audit" / FILE_NAME
    return write_once(path, token_hex(SECRET_BYTES).encode(), mode=OWNER_ONLY)
