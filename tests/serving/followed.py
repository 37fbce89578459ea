"""A champion that follows the version in production, as in the service, without the service around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings
from serving.alerts.latch import AlertLatch
from serving.champion.follower import Follower
from serving.champion.holder import MODEL_REFUSED, ChampionHolder


def holder_of(platform: Platform) -> ChampionHolder:
    return ChampionHolder(platform, AlertLatch(platform, MODEL_REFUSED, records_each_call=True))


@contextmanager
def following(settings: Settings) -> Iterator[ChampionHolder]:
    """A holder whose follower runs while the context is open."""
    platform = open_platform(settings, wait_for_database=False)
    holder = holder_of(platform)
    follower = Follower(platform, holder)
    try:
        follower.start()
        yield holder
    finally:
        follower.stop()
        platform.close()


def served(holder: ChampionHolder) -> int | None:
    return None if holder.current is None else holder.current.version.version
