"""Stored names: keys of records in databases, journals and hash chains whose attribute has another name in Python.

A stored key is never renamed: rows written with it are hashed, and must read and verify for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

STORED_NAMES: Mapping[str, str] = {"verdict_number": "look"}
"""By attribute: the key under which `selfheal.kit.serialization` writes and reads it."""
