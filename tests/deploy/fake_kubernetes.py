"""A small API server of Kubernetes: it admits or refuses a Job as a cluster would, and has its pod run on this machine.

It knows what dagster-k8s calls: Jobs and their pods. Refused is what is not of the API's schema, not of the restricted profile, or
not of the account's role. A pod is a process here (`as_process`), or a container (`tests.deploy.docker_node`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.deploy.pod_security import violations
from tests.local_server import served

PATH = re.compile(
    r"/(?P<api>api/v1|apis/batch/v1)/namespaces/(?P<namespace>[^/]+)/(?P<kind>\w+)(/(?P<name>[^/]+)(/(?P<part>\w+))?)?$"
)
VERBS = {"POST": "create", "GET": "get", "DELETE": "delete"}

Rules = Sequence[Mapping[str, Any]]

Node = Callable[[Mapping[str, Any], Mapping[str, str], Path], subprocess.Popen[bytes]]
"""Starts the container of a pod's specification with these variables; what it prints goes to the file."""


class ProcessGroup(subprocess.Popen[bytes]):
    """A process and its children, which end with it, as those of a pod do."""

    def kill(self) -> None:
        """Kill all of them."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)


def as_process(pod: Mapping[str, Any], variables: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """No image is pulled: its entry point, `selfheal`, is that of this environment."""
    (container,) = pod["containers"]
    entry_point = container.get("command") or [sys.executable, "-m", "selfheal"]
    with log.open("ab") as output:
        return ProcessGroup(
            [*entry_point, *container["args"]],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@dataclass
class Job:
    """A Job that was admitted, and the process of its pod."""

    body: dict[str, Any]
    process: subprocess.Popen[bytes]

    @property
    def status(self) -> dict[str, int]:
        code = self.process.poll()
        return {"active": 1} if code is None else {"succeeded" if code == 0 else "failed": 1}


@dataclass
class Cluster:
    """A namespace: what accounts may do in it, the variables of its ConfigMaps, and its Jobs by name."""

    namespace: str
    roles: Mapping[str, Rules]
    config_maps: Mapping[str, Mapping[str, str]]
    log: Path
    node: Node
    jobs: dict[str, Job] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    is_overloaded: bool = False
    address: str = ""

    def kubeconfig(self, account: str) -> Path:
        """A file with which a client of that account finds the server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.address}}],
            "users": [{"name": account, "user": {"token": account}}],
            "contexts": [
                {"name": "fake", "context": {"cluster": "fake", "user": account, "namespace": self.namespace}}
            ],
        }
        path = self.log.with_name(f"{account}.kubeconfig")
        path.write_text(yaml.safe_dump(config))
        return path

    def may(self, account: str, verb: str, group: str, resource: str) -> bool:
        rules = self.roles.get(account, ())
        return any(
            verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"] for rule in rules
        )

    def admit(self, body: dict[str, Any]) -> None:
        """Start the pod of a Job.

        Raises:
            ValueError: if the Job is not valid, or not admitted.
        """
        import kubernetes_validate

        try:
            kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            raise ValueError(f"invalid: {error.message}") from None
        pod = body["spec"]["template"]["spec"]
        found = violations(pod)
        if found:
            raise ValueError(f"violates PodSecurity: {'; '.join(found)}")
        self.jobs[body["metadata"]["name"]] = Job(body, self._start(pod))

    def _start(self, pod: dict[str, Any]) -> subprocess.Popen[bytes]:
        (container,) = pod["containers"]
        variables: dict[str, str] = {}
        for source in container.get("envFrom", []):
            variables.update(self.config_maps[source["configMapRef"]["name"]])
        variables.update({one["name"]: one["value"] for one in container.get("env", [])})
        return self.node(pod, variables, self.log)

    def close(self) -> None:
        """Kill what still runs."""
        for job in self.jobs.values():
            job.process.kill()
            job.process.wait()


class Handler(BaseHTTPRequestHandler):
    """Answers as the API server does; the bearer token is the account's name."""

    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def answer(self, status: int, body: Mapping[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, status: int, why: str) -> None:
        self.cluster.refused.append(why)
        self.answer(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": why, "code": status})

    def serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        url = urlsplit(self.path)
        asked = PATH.match(url.path)
        if self.cluster.is_overloaded:
            self.refuse(429, "too many requests")
            return
        if asked is None or asked["namespace"] != self.cluster.namespace:
            self.refuse(404, f"there is no {url.path}")
            return
        account = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        verb = "list" if self.command == "GET" and asked["name"] is None else VERBS[self.command]
        resource = asked["kind"] + (f"/{asked['part']}" if asked["part"] else "")
        if not self.cluster.may(account, verb, "batch" if asked["api"].startswith("apis") else "", resource):
            self.refuse(403, f"{account!r} may not {verb} {resource}")
            return
        self.do(verb, asked["kind"], asked["name"] or "", parse_qs(url.query), body)

    do_GET = do_POST = do_DELETE = serve  # noqa: N815

    def do(self, verb: str, kind: str, name: str, query: dict[str, list[str]], body: dict[str, Any]) -> None:
        jobs = self.cluster.jobs
        if verb == "create":
            try:
                self.cluster.admit(body)
            except ValueError as error:
                self.refuse(422, str(error))
                return
            self.answer(201, body)
        elif kind == "pods" and verb == "list":
            owner = query["labelSelector"][0].removeprefix("job-name=")
            self.answer(
                200,
                {
                    "kind": "PodList",
                    "apiVersion": "v1",
                    "items": [{"metadata": {"name": owner}}] if owner in jobs else [],
                },
            )
        elif name not in jobs:
            self.refuse(404, f"there is no Job {name}")
        elif verb == "get":
            self.answer(200, jobs[name].body | {"status": jobs[name].status})
        else:
            jobs[name].process.terminate()
            self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})


@contextmanager
def cluster_in(
    folder: Path,
    namespace: str,
    roles: Mapping[str, Rules],
    config_maps: Mapping[str, Mapping[str, str]],
    node: Node = as_process,
) -> Iterator[Cluster]:
    """An API server on this machine, and what runs in its cluster, until the context ends."""
    found = Cluster(namespace, roles, config_maps, folder / "pods.log", node)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": found}))
    server.daemon_threads = True
    with served(server):
        found.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield found
        finally:
            found.close()
