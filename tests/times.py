"""Moments that tests agree on."""

from __future__ import annotations

from datetime import UTC, datetime

T0 = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
"""A Monday noon: when the platforms of the tests were bootstrapped."""
