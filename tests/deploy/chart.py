"""What Helm renders of deploy/helm/selfheal."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import HELM
from tests.processes import REPOSITORY

CHART = REPOSITORY / "deploy/helm/selfheal"
VALUES = ("values.yaml", "ci/scaled-values.yaml", "ci/external-values.yaml")
"""The chart's own, and two that people might have: a busy cluster, and everything elsewhere."""

RELEASE = "demo"


@cache
def text_of(*values: str) -> str:
    """The manifests as text; a later file of values wins. Paths are below the chart, or absolute."""
    done = rendering(*values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendering(*values: str) -> subprocess.CompletedProcess[str]:
    """What Helm answers."""
    given = [option for path in values for option in ("--values", str(CHART / path))]
    command = [HELM.found(), "template", RELEASE, CHART, *given]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def manifests(*values: str | Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The manifests, by kind and name."""
    found = [one for one in yaml.safe_load_all(text_of(*map(str, values))) if one]
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(by_name) == len(found), "two of one name"
    return by_name


def training_pod(rendered: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any] | None:
    """The PodTemplate of runs that train, if they have pods of their own."""
    config_map = rendered.get(("ConfigMap", f"{RELEASE}-training"))
    return None if config_map is None else dict(yaml.safe_load(config_map["data"]["training-pod.yaml"]))


def pods(*values: str | Path) -> dict[str, dict[str, Any]]:
    """The specifications of pods, by component; that of a training too."""
    rendered = manifests(*values)
    templates = [one["spec"]["template"] for one in rendered.values() if "template" in one.get("spec", {})]
    described = training_pod(rendered)
    templates += [] if described is None else [described["template"]]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"] for one in templates}
