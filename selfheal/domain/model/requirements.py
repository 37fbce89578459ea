"""The packages that a model file needs, pinned as they are installed here."""

from __future__ import annotations

from importlib.metadata import version

PACKAGES = ("scikit-learn", "skops", "numpy", "scipy", "pandas")


def model_requirements() -> tuple[str, ...]:
    """Return one `name==version` for each package needed to open the model elsewhere and get the same scores."""
    return tuple(f"{name}=={version(name)}" for name in PACKAGES)
