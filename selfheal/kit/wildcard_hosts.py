"""Wildcard hosts: the addresses that stand for every address of a machine, and how the machine itself reaches what listens there."""

from __future__ import annotations

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared, not listened on)
"""The hosts that stand for every address of a machine, and its loopback address."""


def reached_host(host: str) -> str:
    """Return the address at which this machine reaches a server that listens on this host.

    >>> reached_host("0.0.0.0"), reached_host("::"), reached_host("api")
    ('127.0.0.1', '::1', 'api')
    """
    return EVERYWHERE.get(host, host)
