"""A node of the small cluster: it runs a pod's container by the engine of this machine, as the pod's specification says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from selfheal.simulate.compose import docker_command

BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}


class Contained(subprocess.Popen[bytes]):
    """The engine's client in the foreground: it ends as the container does, and passes SIGTERM on."""

    name: str

    def kill(self) -> None:
        """Kill the container."""
        if self.poll() is None:
            subprocess.run([*docker_command(), "kill", self.name], capture_output=True, check=False, timeout=60)


@dataclass(frozen=True)
class DockerNode:
    """What is behind the volumes of pods, by the names of claims, Secrets and ConfigMaps, what a test mounts besides, and a network."""

    volumes: Mapping[str, Path]
    besides: Mapping[Path, str]
    network: str

    def __call__(self, pod: Mapping[str, Any], variables: Mapping[str, str], log: Path) -> Contained:
        """Start the container."""
        (container,) = pod["containers"]
        name = f"selfheal-pod-{uuid4().hex[:8]}"
        environment = [word for pair in variables.items() for word in ("--env", "=".join(pair))]
        options = [
            "--rm",
            "--name",
            name,
            "--network",
            self.network,
            *confinement(pod),
            *self._mounts(pod),
            *environment,
        ]
        with log.open("ab") as output:
            started = Contained(
                [*docker_command(), "run", *options, container["image"], *container["args"]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.name = name
        return started

    def _mounts(self, pod: Mapping[str, Any]) -> Iterator[str]:
        (container,) = pod["containers"]
        volumes = {one["name"]: one for one in pod["volumes"]}
        for mount in container["volumeMounts"]:
            source = self._source(volumes[mount["name"]])
            if source is None:
                yield from ("--tmpfs", mount["mountPath"])
            else:
                yield from ("--volume", f"{source}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}")
        for path, place in self.besides.items():
            yield from ("--volume", f"{path}:{place}:ro")

    def _source(self, volume: Mapping[str, Any]) -> Path | None:
        """The folder behind a volume; None: it is empty, and the pod's own."""
        match volume:
            case {"persistentVolumeClaim": {"claimName": name}} | {"secret": {"secretName": name}}:
                return self.volumes[name]
            case {"configMap": {"name": name}}:
                return self.volumes[name]
            case {"emptyDir": _}:
                return None
        raise AssertionError(f"no volume of this kind is known here: {volume}")


def confinement(pod: Mapping[str, Any]) -> Iterator[str]:
    """The engine's words for the security context of a pod, and for its limits."""
    (container,) = pod["containers"]
    whole, own = pod["securityContext"], container["securityContext"]
    yield from ("--user", f"{whole['runAsUser']}:{whole['runAsGroup']}")
    for name in own["capabilities"]["drop"]:
        yield from ("--cap-drop", name)
    if own["readOnlyRootFilesystem"]:
        yield "--read-only"
    if own["allowPrivilegeEscalation"] is False:
        yield from ("--security-opt", "no-new-privileges")
    number, unit = re.fullmatch(r"(\d+)(\w*)", container["resources"]["limits"]["memory"]).groups()  # type: ignore[union-attr]
    yield from ("--memory", str(int(number) * BYTES[unit]))
