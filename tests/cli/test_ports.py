"""Which ports `selfheal up` takes: the set ones or none; else the next free ones, also beside another `up` that starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from selfheal.cli import supervisor
from selfheal.cli.ports import listeners, published_ports, reserved_ports, with_published_ports
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings, load_settings
from selfheal.simulate.demo import free_ports

FIELDS = ("api_port", "dagster_port", "code_server_port", "mlflow_port")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def with_defaults(folder: Path, **ports: int) -> Settings:
    """Settings as if these ports were the defaults: nobody has set one."""
    settings = load_settings(data_dir=folder)
    for name, port in ports.items():
        object.__setattr__(settings, name, port)
    return settings


@contextmanager
def taken(port: int, host: str = "127.0.0.1") -> Iterator[None]:
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
        yield


def ports_of(settings: Settings) -> dict[str, int]:
    return {listener.field: listener.port for listener in listeners(settings)}


@pytest.mark.parametrize("field", FIELDS)
def test_a_port_that_is_set_and_busy_is_named_with_the_setting_that_chooses_another(tmp_path: Path, field: str) -> None:
    settings = load_settings(data_dir=tmp_path, **dict(zip(FIELDS, free_ports(4), strict=True)))
    port = getattr(settings, field)
    with reserved_ports(settings) as same:
        assert ports_of(same) == ports_of(settings)
    with (
        taken(port),
        pytest.raises(ConfigurationError, match=rf"{port} \(Address already in use\).*{field.upper()}"),
        reserved_ports(settings),
    ):
        pass


@pytest.mark.parametrize("field", FIELDS)
def test_where_no_port_is_set_the_next_free_one_is_taken(tmp_path: Path, field: str) -> None:
    settings = with_defaults(tmp_path, **dict(zip(FIELDS, free_ports(4), strict=True)))
    with taken(getattr(settings, field)), reserved_ports(settings) as found:
        assert getattr(found, field) > getattr(settings, field)
        assert len(set(ports_of(found).values())) == len(FIELDS), "no two share one"


def test_a_second_platform_finds_other_ports_before_the_first_one_listens(tmp_path: Path) -> None:
    settings = with_defaults(tmp_path, **dict(zip(FIELDS, free_ports(4), strict=True)))
    with reserved_ports(settings) as first, reserved_ports(settings) as second:
        assert set(ports_of(first).values()).isdisjoint(ports_of(second).values())
    with reserved_ports(settings) as alone:
        assert ports_of(alone) == ports_of(first), "the ports are free again"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_a_host_may_be_an_ipv6_address(tmp_path: Path, host: str) -> None:
    settings = load_settings(data_dir=tmp_path, api_host=host, **dict(zip(FIELDS, free_ports(4), strict=True)))
    with reserved_ports(settings):
        pass
    with taken(settings.api_port, "::1"), pytest.raises(ConfigurationError, match="API_PORT"), reserved_ports(settings):
        pass


def test_a_host_that_is_not_of_this_machine_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, api_host="192.0.2.1")
    with pytest.raises(ConfigurationError, match="API_HOST") as caught, reserved_ports(settings):
        pass
    assert "\n" not in str(caught.value)


def test_other_terminals_know_the_ports_while_the_platform_is_up(tmp_path: Path) -> None:
    settings = with_defaults(tmp_path, api_port=free_ports(1)[0])
    with taken(settings.api_port), reserved_ports(settings) as found, published_ports(found):
        elsewhere = load_settings(data_dir=tmp_path)
        assert ports_of(with_published_ports(elsewhere)) == ports_of(found)
        assert supervisor.child_environment(elsewhere)["API_PORT"] == str(found.api_port)
        set_here = load_settings(data_dir=tmp_path, api_port=8123)
        assert with_published_ports(set_here).api_port == 8123, "what is set wins"
    assert with_published_ports(elsewhere) == elsewhere
