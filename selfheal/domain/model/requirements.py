"""The packages that a model file needs, pinned as they are installed here."""

from __future__ import annotations

from importlib.metadata import version

PACKAGES = ("scikit-learn", "skops", "numpy", "scipy", "pandas")


def model_requirements() -> tuple[str, ...]:
    """`name==version` each: what a model trained here is opened with elsewhere, and what makes it answer as it did."""
    return tuple(f"{name}=={version(name)}" for name in PACKAGES)
