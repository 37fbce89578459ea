"""Rules of the Helm chart: what it renders is valid, confined, and has every setting that is given.

Helm is not a package of PyPI; where it is not there (`HELM` names it), the tests are skipped, saying so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfheal.cli.single_process import PROGRAMS
from selfheal.settings import Settings
from tests.processes import REPOSITORY

CHART = REPOSITORY / "deploy/helm/selfheal"
VALUES = ("values.yaml", "ci/scaled-values.yaml", "ci/external-values.yaml")
KUBERNETES = ("1.34", "1.35", "1.36", "1.37")
OF_AN_OPERATOR = {"ServiceMonitor"}
HELM = os.environ.get("HELM") or shutil.which("helm")
VALIDATOR = os.environ.get("KUBERNETES_VALIDATE") or shutil.which("kubernetes-validate")

needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not there; HELM may name it")
each_set_of_values = pytest.mark.parametrize("values", VALUES)


@cache
def text_of(values: str, *options: str) -> str:
    assert HELM is not None
    command = [HELM, "template", "demo", str(CHART), "--values", str(CHART / values), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rendered(values: str, *options: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The manifests, by kind and name."""
    found = [one for one in yaml.safe_load_all(text_of(values, *options)) if one]
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(by_name) == len(found), "two of one name"
    return by_name


def pods(values: str) -> dict[str, dict[str, Any]]:
    """The specifications of pods, by component."""
    return {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["spec"]
        for one in rendered(values).values()
        if "template" in one.get("spec", {})
    }


def test_only_settings_that_exist_are_set() -> None:
    for values in VALUES:
        settings = yaml.safe_load((CHART / values).read_text()).get("settings", {})
        assert {name.lower() for name in settings} <= Settings.model_fields.keys()


@needs_helm
@each_set_of_values
def test_every_process_has_a_pod(values: str) -> None:
    without = {"mlflow"} if "external" in values else set()
    found = pods(values)
    assert found.keys() == PROGRAMS.keys() - without | {"bootstrap"}
    for name in found.keys() - {"bootstrap"}:
        assert found[name]["containers"][0]["args"][:2] == ["start", name]


@needs_helm
@each_set_of_values
def test_the_restricted_profile_of_pod_security_holds(values: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, as far as a pod can violate it here."""
    for component, pod in pods(values).items():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), component
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert all(volume.keys() & {"persistentVolumeClaim", "secret", "emptyDir"} for volume in pod["volumes"])
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert all(port.get("hostPort") is None for port in container.get("ports", []))


@needs_helm
@each_set_of_values
def test_every_pod_that_stays_is_probed(values: str) -> None:
    for component, pod in pods(values).items():
        (container,) = pod["containers"]
        assert (component == "bootstrap") == ("livenessProbe" not in container)
        if component not in {"bootstrap", "api"}:
            assert container["readinessProbe"]["exec"]["command"] == ["selfheal-probe", component]
    api = pods(values)["api"]["containers"][0]
    assert api["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert api["livenessProbe"]["httpGet"]["path"] == "/health/live", "an API without a model is not restarted for that"


@needs_helm
def test_every_setting_goes_from_the_values_to_every_process() -> None:
    names = [
        name.upper()
        for name in Settings.model_fields
        if name not in {"api_host", "code_server_host", "training_runs_in"}
    ]
    options = [option for name in names for option in ("--set-string", f"settings.{name}=value-of-{name}")]
    manifests = rendered("values.yaml", *options)
    stored = manifests["ConfigMap", "demo-settings"]["data"]
    assert {name: stored[name] for name in names} == {name: f"value-of-{name}" for name in names}
    for pod in pods("values.yaml").values():
        assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": "demo-settings"}}]


@needs_helm
@each_set_of_values
def test_secrets_are_mounted_as_files_and_in_no_variable(values: str) -> None:
    name = "own" if "external" in values else "selfheal"
    for pod in pods(values).values():
        (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        assert secret["secretName"] == name
        assert "env" not in pod["containers"][0]
    assert "kind: Secret" not in text_of(values)


@needs_helm
def test_each_replica_of_the_api_has_a_journal_of_its_own_that_outlives_its_pod() -> None:
    api = rendered("values.yaml")["StatefulSet", "demo-api"]["spec"]
    assert [claim["metadata"]["name"] for claim in api["volumeClaimTemplates"]] == ["journal"]
    mounts = {one["name"]: one["mountPath"] for one in api["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["journal"] == f"{mounts['data']}/audit"


@needs_helm
def test_only_this_release_reaches_what_asks_for_no_key() -> None:
    policies = {
        name: one["spec"] for (kind, name), one in rendered("ci/scaled-values.yaml").items() if kind == "NetworkPolicy"
    }
    own = {"app.kubernetes.io/name": "selfheal", "app.kubernetes.io/instance": "demo"}
    assert policies["demo"]["podSelector"] == {"matchLabels": own}
    assert policies["demo"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": own}}]}]
    opened = re.findall(r"code-server|daemon|trainer|bootstrap", str([policies["demo-api"], policies["demo-pages"]]))
    assert opened == []


@needs_helm
@pytest.mark.skipif(VALIDATOR is None, reason="kubernetes-validate is not there; PyPI has it")
@pytest.mark.parametrize("version", KUBERNETES)
@each_set_of_values
def test_the_manifests_are_valid(values: str, version: str, tmp_path: Path) -> None:
    assert VALIDATOR is not None
    path = tmp_path / "manifests.yaml"
    path.write_text(text_of(values))
    command = [VALIDATOR, "--strict", "-k", version, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    unknown = set(re.findall(r"Couldn't find schema for kind (\w+)", said))
    assert unknown <= OF_AN_OPERATOR
    assert said.count(" passed ") + len(unknown) == len(rendered(values))
