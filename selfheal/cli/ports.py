"""Ports of `selfheal up`: those that are set must be free; where none is set, the next free one is taken, and said.

A port is reserved from the start: until its process listens, minutes may pass in which another `up` would find it free.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.errors import ConfigurationError
from selfheal.services.addresses import addresses, code_server

if TYPE_CHECKING:
    from selfheal.settings import Settings

MAX_TRIES = 100
"""Ports above the default that are tried before giving up."""

FILE_NAME = ".up.ports.json"
"""Below DATA_DIR: the ports of the platform that is up, for commands in other terminals."""


@dataclass(frozen=True)
class Listener:
    """One port that `up` needs: what listens, by which field of the settings, and on which host."""

    name: str
    field: str
    host: str
    port: int

    @property
    def setting(self) -> str:
        """The environment variable that chooses the port."""
        return self.field.upper()


def listeners(settings: Settings) -> list[Listener]:
    """Return everything that `up` listens on, Dagster's code server included, which no person opens."""
    return [
        Listener(address.name, address.setting.lower(), address.host, address.port)
        for address in (*addresses(settings), code_server(settings))
    ]


@contextmanager
def reserved_ports(settings: Settings) -> Iterator[Settings]:
    """Reserve the ports while the block runs; yield the settings with those that were found.

    Raises:
        ConfigurationError: naming a port that is set and taken, and the setting that chooses another.
    """
    chosen: dict[str, int] = {}
    with ExitStack() as reserved:
        for listener in listeners(settings):
            is_set = listener.field in settings.model_fields_set
            chosen[listener.field] = _reserve(listener, 1 if is_set else MAX_TRIES, set(chosen.values()), reserved)
        yield settings.model_copy(update=chosen)


@contextmanager
def published_ports(settings: Settings) -> Iterator[None]:
    """Write the ports down while the block runs, for commands in other terminals."""
    path = settings.data_dir / FILE_NAME
    write_atomic(path, json.dumps({listener.field: listener.port for listener in listeners(settings)}).encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def with_published_ports(settings: Settings) -> Settings:
    """Return the settings with the ports that this folder's `up` has found, where none is set."""
    try:
        published = json.loads((settings.data_dir / FILE_NAME).read_bytes())
        ports = {listener.field: int(published[listener.field]) for listener in listeners(settings)}
    except (OSError, ValueError, KeyError, TypeError):
        return settings
    return settings.model_copy(update={n: p for n, p in ports.items() if n not in settings.model_fields_set})


def port_variables(settings: Settings) -> dict[str, str]:
    """Return the environment that tells a process of the platform which ports are set, or were found."""
    known = with_published_ports(settings)
    return {one.setting: str(one.port) for one in listeners(known) if one.field in known.model_fields_set}


def _reserve(listener: Listener, tries: int, taken: set[int], reserved: ExitStack) -> int:
    """Return the first free port from the listener's on; another `up` sees it as taken from now on."""
    problem = "no port is left"
    for port in range(listener.port, min(listener.port + tries, 65_536)):
        if port in taken:
            continue
        try:
            _bind_once(listener.host, port)
            reserved.enter_context(_claimed(port))
        except OSError as error:
            problem = error.strerror or str(error)
        else:
            return port
    raise ConfigurationError(
        f"{listener.name} cannot listen on {listener.host}:{listener.port} ({problem}); stop what uses it, or set "
        f"{listener.setting} to a free port"
        + (" (API_HOST chooses the address)" if listener.field == "api_port" else "")
    )


def _bind_once(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


@contextmanager
def _claimed(port: int) -> Iterator[None]:
    """Claim the port among all `up` of this machine: an abstract Unix socket, which is no file and dies with its process.

    Only Linux has them: elsewhere two `up` that start in the same minutes may choose the same port.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as claim:
        if sys.platform == "linux":
            claim.bind(f"\0selfheal-port-{port}")
        yield
