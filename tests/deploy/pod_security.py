"""The restricted profile of pod security, as far as it can be read off a pod's specification, and two habits of our own.

https://kubernetes.io/docs/concepts/security/pod-security-standards/; the habits: a read-only root file system, and limited memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
OF_THE_NODE = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")


def violations(pod: Mapping[str, Any]) -> list[str]:
    """What the profile forbids in a pod's specification; none if it keeps the profile."""
    return [*_of_the_pod(pod), *(found for one in _containers(pod) for found in _of_a_container(one, pod))]


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for kind in ("initContainers", "containers", "ephemeralContainers") for one in pod.get(kind) or []]


def _of_the_pod(pod: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name} is set" for name in OF_THE_NODE if pod.get(name))
    for volume in pod.get("volumes") or []:
        kinds = volume.keys() - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume['name']} is {', '.join(sorted(kinds))}"
    context = pod.get("securityContext") or {}
    if context.get("sysctls"):
        yield "sysctls are set"


def _of_a_container(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    """The container's own context wins over the pod's."""
    name = container["name"]
    own = container.get("securityContext") or {}
    context = {**(pod.get("securityContext") or {}), **own}
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield f"{name} may run as root"
    if (context.get("seccompProfile") or {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield f"{name} has no seccomp profile"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield f"{name} may gain privileges"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []) or set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield f"{name} has capabilities"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield f"{name} has a port of the node"
    if own.get("readOnlyRootFilesystem") is not True:
        yield f"{name} may write to its image"
    if "memory" not in ((container.get("resources") or {}).get("limits") or {}):
        yield f"{name} may take all memory"
