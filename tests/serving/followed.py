"""A champion that is kept the version in production, as the service has it, without the service around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selfheal.services.platform import open_platform
from selfheal.settings import Settings
from serving.champion.follower import Follower
from serving.champion.holder import ChampionHolder


@contextmanager
def following(settings: Settings) -> Iterator[ChampionHolder]:
    """A holder whose follower runs while the context is open."""
    platform = open_platform(settings, wait_for_database=False)
    holder = ChampionHolder(platform)
    follower = Follower(platform, holder)
    try:
        follower.start()
        yield holder
    finally:
        follower.stop()
        platform.close()


def served(holder: ChampionHolder) -> int | None:
    return None if holder.current is None else holder.current.version.version
