"""Stored names: keys of records in databases, journals and hash chains that differ from the Python attribute's name.

A stored key is never renamed: rows written with it are hashed, and must remain readable and verifiable.
"""

from __future__ import annotations

from collections.abc import Mapping

STORED_NAMES: Mapping[str, str] = {"verdict_number": "look"}
"""Stored key by attribute; `selfheal.kit.serialization` writes and reads it."""
