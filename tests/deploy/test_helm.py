"""Rules of the Helm chart: what it renders is valid, confined, and has every setting that is given.

Helm and the validator come with `make manifests`; where they are not there, the tests are skipped, saying so.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

from selfheal.cli.single_process import PROGRAMS
from selfheal.kit import health_probe
from selfheal.kit.api_keys import new_api_key
from selfheal.settings import default_settings, load_settings, secret_names
from tests.deploy.chart import CHART, VALUES, manifests, pods, rendering, training_pod
from tests.deploy.pod_security import violations
from tests.deploy.tools import HELM, KUBERNETES_PACKAGES
from tests.environment import forget_settings

KUBERNETES = ("1.34", "1.35", "1.36", "1.37")
OF_AN_OPERATOR = {"ServiceMonitor"}
IN_PODS = ("values.yaml", "ci/scaled-values.yaml")
"""Values with which each run that trains has a pod of its own."""

ONE_SHOTS = {"migration", "bootstrap"}
OF_THE_CHART = {
    "api_host",
    "api_port",
    "code_server_host",
    "code_server_port",
    "dagster_port",
    "data_dir",
    "mlflow_port",
    "secrets_dir",
    "training_pod_file",
    "training_runs_in",
}
"""Settings that follow from what the chart renders; it, or the image, sets them."""

SETTINGS = type(default_settings())
"""With the settings that gates declare."""

pytestmark = pytest.mark.kubernetes
each_set_of_values = pytest.mark.parametrize("values", VALUES)


def test_only_settings_that_exist_are_set() -> None:
    for values in VALUES:
        settings = yaml.safe_load((CHART / values).read_text()).get("settings", {})
        assert {name.lower() for name in settings} <= SETTINGS.model_fields.keys()


@HELM.needed
@each_set_of_values
def test_every_process_has_a_pod_and_trainings_have_pods_or_a_trainer(values: str) -> None:
    elsewhere = {"mlflow"} if "external" in values else set()
    trains = {"training"} if values in IN_PODS else {"trainer"}
    found = pods(values)
    assert found.keys() == PROGRAMS.keys() - elsewhere - {"trainer"} | trains | ONE_SHOTS
    for name in found.keys() - {*ONE_SHOTS, "training"}:
        assert found[name]["containers"][0]["args"][:2] == ["start", name]
    assert "args" not in found.get("training", found["bootstrap"] | {"containers": [{}]})["containers"][0]


@HELM.needed
@each_set_of_values
def test_the_restricted_profile_of_pod_security_holds(values: str) -> None:
    assert [(component, violations(pod)) for component, pod in pods(values).items() if violations(pod)] == []


@HELM.needed
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hostPID",), True),
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "runAsUser"), 0),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("volumes", 0), {"name": "node", "hostPath": {"path": "/"}}),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "capabilities", "add"), ["SYS_ADMIN"]),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False),
        (("containers", 0, "securityContext"), None),
        (("containers", 0, "ports"), [{"containerPort": 1, "hostPort": 1}]),
        (("containers", 0, "resources", "limits"), {}),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_pod_that_violates_the_profile_is_found(path: tuple[str | int, ...], value: Any) -> None:
    pod = copy.deepcopy(pods("values.yaml")["daemon"])
    place: Any = pod
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert violations(pod)


@HELM.needed
@each_set_of_values
def test_only_who_starts_and_ends_pods_has_an_account_and_it_may_do_nothing_else(values: str) -> None:
    rendered, found = manifests(values), pods(values)
    with_account = {"daemon", "webserver"} if values in IN_PODS else set()
    assert {name for name, pod in found.items() if pod["automountServiceAccountToken"]} == with_account
    roles = {name: one["rules"] for (kind, name), one in rendered.items() if kind == "Role"}
    assert roles.keys() == {f"demo-{name}" for name in with_account}
    assert not {"ClusterRole", "ClusterRoleBinding"} & {kind for kind, _ in rendered}
    for name in with_account:
        account = found[name]["serviceAccountName"]
        assert ("ServiceAccount", account) in rendered
        binding = rendered["RoleBinding", account]
        assert binding["roleRef"]["name"] == account
        assert [subject["name"] for subject in binding["subjects"]] == [account]
    verbs = {verb for rules in roles.values() for rule in rules for verb in rule["verbs"]}
    resources = {resource for rules in roles.values() for rule in rules for resource in rule["resources"]}
    assert verbs <= {"create", "get", "list", "delete"}
    assert resources <= {"jobs", "jobs/status", "pods", "pods/log", "events"}


@HELM.needed
@each_set_of_values
def test_every_pod_that_stays_is_probed(values: str) -> None:
    for component, pod in pods(values).items():
        (container,) = pod["containers"]
        assert (component in {*ONE_SHOTS, "training"}) == ("livenessProbe" not in container)
        if component not in {*ONE_SHOTS, "training", "api"}:
            assert container["readinessProbe"]["exec"]["command"] == ["selfheal-probe", component]
    api = pods(values)["api"]["containers"][0]
    assert api["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert api["livenessProbe"]["httpGet"]["path"] == "/health/live", "an API without a model is not restarted for that"


@HELM.needed
def test_every_setting_goes_from_the_values_to_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values file -> ConfigMap -> variables of each container, and Secret -> files -> the settings that a process reads."""
    given = {name: other_value(name, field) for name, field in SETTINGS.model_fields.items()}
    secrets = {name: given.pop(name) for name in secret_names(SETTINGS)}
    for name in OF_THE_CHART:
        given.pop(name)
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump({"settings": {name.upper(): value for name, value in given.items()}}))

    rendered = manifests(path)
    for component, pod in pods(path).items():
        (container,) = pod["containers"]
        source = "demo-migration" if component == "migration" else "demo-settings"
        assert container["envFrom"] == [{"configMapRef": {"name": source}}]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["secrets"] == "/run/secrets", "SECRETS_DIR of the image"
        assert mounts["data"] == "/var/lib/selfheal", "DATA_DIR of the image"
    before_the_release = rendered["ConfigMap", "demo-migration"]["data"]
    assert before_the_release == {name.upper(): value for name, value in given.items()}
    variables = rendered["ConfigMap", "demo-settings"]["data"]
    assert all(isinstance(value, str) for value in variables.values())

    forget_settings(monkeypatch)
    (tmp_path / "secrets").mkdir()
    for name, value in secrets.items():
        (tmp_path / "secrets" / name).write_text(value)
    (tmp_path / "pod.yaml").write_text(rendered["ConfigMap", "demo-training"]["data"]["training-pod.yaml"])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv("TRAINING_POD_FILE", str(tmp_path / "pod.yaml"))
    settings, defaults = load_settings(), default_settings()
    unchanged = [name for name in given if getattr(settings, name) == getattr(defaults, name)]
    assert unchanged == []
    for name, value in secrets.items():
        assert getattr(settings, name).get_secret_value() == value, name


@HELM.needed
@pytest.mark.parametrize("name", secret_names(SETTINGS))
def test_a_secret_among_the_settings_is_refused_with_the_place_where_it_belongs(name: str, tmp_path: Path) -> None:
    """A ConfigMap is for everybody to read who may look at the namespace."""
    said = refusal({"settings": {name.upper(): "s3cr3t"}}, tmp_path)
    assert f"settings.{name.upper()} is a secret" in said
    assert f"into the Secret selfheal, as the key {name}" in said
    assert "s3cr3t" not in said


@HELM.needed
@pytest.mark.parametrize("name", sorted(OF_THE_CHART))
def test_a_setting_that_would_contradict_the_pods_is_refused(name: str, tmp_path: Path) -> None:
    assert f"settings.{name.upper()} follows from the chart" in refusal({"settings": {name.upper(): "1"}}, tmp_path)


@HELM.needed
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"setings": {"LOG_LEVEL": "DEBUG"}}, "setings"),
        ({"api": {"replica": 3}}, "replica"),
        ({"training": {"runsIn": "pod"}}, "runsIn"),
        ({"settings": {"monitoring_interval": 60}}, "monitoring_interval"),
        ({"settings": {"MONITORING_INTERVAL": [60]}}, "MONITORING_INTERVAL"),
    ],
)
def test_a_value_that_the_chart_does_not_know_is_refused(wrong: dict[str, Any], named: str, tmp_path: Path) -> None:
    """Helm passes over what no template asks for."""
    assert named in refusal(wrong, tmp_path)


def refusal(values: dict[str, Any], folder: Path) -> str:
    """What Helm says of values that it must not render."""
    path = folder / "wrong.yaml"
    path.write_text(yaml.safe_dump(values))
    done = rendering(str(path))
    assert done.returncode != 0
    return done.stderr


@HELM.needed
def test_a_process_listens_on_the_port_that_its_pod_and_its_service_have(tmp_path: Path) -> None:
    ports = {"code-server": 4001, "webserver": 3001, "mlflow": 5001}
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump({"processes": {name: {"port": port} for name, port in ports.items()}}))
    rendered, found = manifests(path), pods(path)
    variables = rendered["ConfigMap", "demo-settings"]["data"]
    for name, port in (ports | {"api": 8000}).items():
        variable = health_probe.LISTENING[name].port_variable
        assert variables[variable] == str(port)
        (opened,) = found[name]["containers"][0]["ports"]
        assert opened["containerPort"] == port
        (service,) = rendered["Service", f"demo-{name}"]["spec"]["ports"]
        assert (service["port"], service["targetPort"]) == (port, opened["name"])


@HELM.needed
@each_set_of_values
def test_the_schemas_are_upgraded_before_anything_of_a_release_is_there(values: str) -> None:
    """A hook that fails leaves the old release serving. It runs before the release's settings and volume exist."""
    rendered = manifests(values)
    job = rendered["Job", "demo-migration"]
    of_the_release = {
        name
        for (kind, name), one in rendered.items()
        if not hooks(one) and kind in {"ConfigMap", "PersistentVolumeClaim"}
    }
    assert hooks(job) == hooks(rendered["ConfigMap", "demo-migration"]) == {"pre-install", "pre-upgrade"}
    weights = [
        one["metadata"]["annotations"].get("helm.sh/hook-weight", "0") for one in rendered.values() if hooks(one)
    ]
    assert sorted(map(int, weights)) == [-1, 0], "the variables are there before the Job"
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["migrate"]
    used = re.findall(r"'(?:name|claimName)': '([^']+)'", str([container["envFrom"], pod["volumes"]]))
    assert not of_the_release & set(used)
    assert job["spec"]["activeDeadlineSeconds"] > 0


def hooks(manifest: Mapping[str, Any]) -> set[str]:
    """The moments at which Helm creates it; none: with the release."""
    annotation = manifest["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    return set(annotation.split(",")) - {""}


@HELM.needed
@each_set_of_values
def test_an_api_that_is_told_to_end_answers_until_the_service_has_heard_of_it(values: str) -> None:
    """Else a client is refused at each step of an upgrade."""
    pod = pods(values)["api"]
    seconds = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 5 <= seconds < pod["terminationGracePeriodSeconds"] - 30, "30 s are the API's own time to end"


WORDS = {
    "api_key": new_api_key(),
    "api_keys": new_api_key(),
    "asset_owners": "team:risk",
    "assets_url": "s3://bucket/assets",
    "dask_scheduler": "tcp://scheduler:8786",
    "data_decimal": ",",
    "data_delimiter": ";",
    "database_url": "postgresql://user:password@host:5432/selfheal",
    "mlflow_tracking_uri": "http://mlflow:5000",
    "mlops_db_name": "another",
    "use_case": "package.module:contract",
    **dict.fromkeys(
        ("notify_urls", "notify_urls_critical", "notify_urls_info", "notify_urls_warning"), "json://host/path"
    ),
    **dict.fromkeys(("api_public_url", "dagster_public_url", "mlflow_public_url"), "https://example.com/"),
    "otel_exporter_otlp_endpoint": "http://collector:4318",
    "monitoring_max_lookback": "800",
    "training_jobs": "2",
}
"""Settings with a text of a certain form, or that depend on another."""


def other_value(name: str, field: FieldInfo) -> str:
    """A valid value that is not the default, as it is written."""
    kind = field.annotation
    kinds = typing.get_args(kind) or (kind,)
    if name in WORDS:
        return WORDS[name]
    if typing.get_origin(kind) is typing.Literal:
        return str(next(one for one in reversed(kinds) if one != field.default))
    if bool in kinds:
        return str(not field.default)
    if int in kinds or float in kinds:
        low, high = bounds_of(field)
        other = next(one for one in (low + 1, low + 0.01, high) if one != field.default and low < one <= high)
        return str(int(other) if int in kinds else other)
    return f"another-{name}"


def bounds_of(field: FieldInfo) -> tuple[float, float]:
    """The least and the largest number that is allowed; a little less than an open end."""
    found = {
        name: float(getattr(one, name))
        for one in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(one, name)
    }
    return found.get("ge", found.get("gt", 0.0)), found.get("le", 0.9 * found.get("lt", 1e9))


@HELM.needed
def test_a_number_in_the_values_is_the_number_that_the_process_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To Helm each number is a float, and 5000000 as text is 5e+06."""
    fields = {name: field for name, field in SETTINGS.model_fields.items() if name not in OF_THE_CHART}
    largest = {name: int(bounds_of(field)[1]) for name, field in fields.items() if field.annotation is int}
    assert max(largest.values()) >= 1_000_000
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump({"settings": {name.upper(): number for name, number in largest.items()}}))
    variables = manifests(path)["ConfigMap", "demo-settings"]["data"]
    forget_settings(monkeypatch)
    for name in largest:
        monkeypatch.setenv(name.upper(), variables[name.upper()])
    settings = load_settings()
    assert {name: getattr(settings, name) for name in largest} == largest


@HELM.needed
def test_the_clients_of_a_bucket_get_their_variables_and_their_secret_as_a_file() -> None:
    """They read no settings of ours; a file of credentials is theirs (`AWS_SHARED_CREDENTIALS_FILE`)."""
    given = yaml.safe_load((CHART / "ci/external-values.yaml").read_text())["environment"]
    variables = manifests("ci/external-values.yaml")["ConfigMap", "demo-settings"]["data"]
    assert given.items() <= variables.items()
    for pod in pods("ci/external-values.yaml").values():
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert given["AWS_SHARED_CREDENTIALS_FILE"].startswith(mounts["secrets"])


@HELM.needed
@each_set_of_values
def test_secrets_are_mounted_as_files_and_in_no_variable(values: str) -> None:
    name = "own" if "external" in values else "selfheal"
    for pod in pods(values).values():
        (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        assert secret["secretName"] == name
        assert "env" not in pod["containers"][0]
    assert "Secret" not in {kind for kind, _ in manifests(values)}


@HELM.needed
def test_each_replica_of_the_api_has_a_journal_of_its_own_that_outlives_its_pod() -> None:
    api = manifests("values.yaml")["StatefulSet", "demo-api"]["spec"]
    assert [claim["metadata"]["name"] for claim in api["volumeClaimTemplates"]] == ["journal"]
    mounts = {one["name"]: one["mountPath"] for one in api["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["journal"] == f"{mounts['data']}/audit"


@HELM.needed
def test_only_this_release_reaches_what_asks_for_no_key() -> None:
    rendered = manifests("ci/scaled-values.yaml")
    policies = {name: one["spec"] for (kind, name), one in rendered.items() if kind == "NetworkPolicy"}
    own = {"app.kubernetes.io/name": "selfheal", "app.kubernetes.io/instance": "demo"}
    assert policies["demo"]["podSelector"] == {"matchLabels": own}
    assert policies["demo"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": own}}]}]
    opened = re.findall(r"code-server|daemon|trainer|bootstrap", str([policies["demo-api"], policies["demo-pages"]]))
    assert opened == []
    described = training_pod(rendered)
    assert described is not None
    assert own.items() <= described["template"]["metadata"]["labels"].items(), "pods of trainings are of this release"


def with_memory(pod: Mapping[str, Any]) -> str:
    return str(pod["containers"][0]["resources"]["limits"]["memory"])


@HELM.needed
def test_a_training_has_resources_and_nodes_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    training = {
        "resources": {"limits": {"memory": "64Gi"}},
        "nodeSelector": {"pool": "large"},
        "tolerations": [{"key": "large"}],
    }
    path.write_text(yaml.safe_dump({"training": training, "nodeSelector": {"pool": "small"}}))
    found = pods(path)
    assert with_memory(found["training"]) == "64Gi"
    assert found["training"]["nodeSelector"] == {"pool": "large"}
    assert found["training"]["tolerations"] == [{"key": "large"}]
    assert with_memory(found["daemon"]) != "64Gi"
    assert found["daemon"]["nodeSelector"] == {"pool": "small"}


@HELM.needed
def test_a_change_of_settings_or_of_the_training_pod_starts_every_process_again(tmp_path: Path) -> None:
    """A process reads both once."""
    before = checksums("values.yaml")
    for number, change in enumerate(
        (
            {"environment": {"AWS_DEFAULT_REGION": "x"}},
            {"settings": {"LOG_LEVEL": "DEBUG"}},
            {"image": {"tag": "2"}},
            {"training": {"nodeSelector": {"a": "b"}}},
        )
    ):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(change))
        after = checksums(str(path))
        assert after.keys() == before.keys()
        assert [name for name in before if before[name] == after[name]] == []


def checksums(values: str) -> dict[tuple[str, str], str]:
    return {
        name: one["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        for name, one in manifests(values).items()
        if name[0] in {"Deployment", "StatefulSet"}
    }


@HELM.needed
@KUBERNETES_PACKAGES.needed
@pytest.mark.parametrize("version", KUBERNETES)
@each_set_of_values
def test_the_manifests_are_valid(values: str, version: str) -> None:
    import kubernetes_validate

    rendered = manifests(values)
    described = training_pod(rendered)
    unknown = set()
    for one in [*rendered.values(), *([] if described is None else [described])]:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(one["kind"])
    assert unknown <= OF_AN_OPERATOR


@KUBERNETES_PACKAGES.needed
def test_the_versions_are_the_four_newest_that_the_validator_knows_and_it_finds_mistakes() -> None:
    import kubernetes_validate
    from kubernetes_validate.utils import all_versions, major_minor

    known = tuple(dict.fromkeys(map(major_minor, all_versions())))
    assert known[-len(KUBERNETES) :] == KUBERNETES
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"prot": 1}]}}
    for version in KUBERNETES:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, version, strict=True)
