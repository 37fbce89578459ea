"""What worker processes of a run build deployments from: named worlds on labelled rows, and natural streams.

Belongs here: small, picklable descriptions; each process reads the rows once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from selfheal.adapters.datasets import load_csv
from selfheal.domain.contract import load_contract
from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.build import Source, build, source_of
from selfheal.simulate.replay.catalogue import WORLDS, shortened, world_named
from selfheal.simulate.replay.deployment import Deployment
from selfheal.simulate.replay.natural import SHIPPED, natural_deployment, read_named
from selfheal.simulate.replay.stream import Stream
from selfheal.simulate.replay.stream_file import Columns

SYNTHETIC_ROWS = 20_000
SYNTHETIC_SEED = 20


@dataclass(frozen=True)
class StreamFile:
    """A natural stream that a user names: its file, and its columns unless the file is a known stream."""

    path: Path
    columns: Columns | None = None


@dataclass(frozen=True)
class Rebuilder:
    """Builds the deployments of named worlds and natural streams.

    Args:
        use_case: the contract of the data, as `package.module:contract`.
        data: labelled rows; None: the contract's synthetic stand-in.
        streams: natural streams by name.
        days_after: shorten all worlds to so many days after the change, and streams to their first so many; None: as they are.
    """

    use_case: str
    data: Path | None = None
    streams: tuple[tuple[str, StreamFile], ...] = ()
    days_after: float | None = None

    def build(self, name: str, seed: int) -> Deployment:
        """Return the deployment of a world or stream for a seed.

        Raises:
            ConfigurationError: if there is no such world or stream.
        """
        if name in WORLDS:
            world = world_named(name)
            world = world if self.days_after is None else shortened(world, self.days_after)
            return build(world, _source(self.use_case, self.data), seed)
        return natural_deployment(name, self._stream(name), seed, days=self.days_after)

    def fingerprint(self, name: str) -> str:
        """Return the world's declaration and the digest of the rows, or of the stream's file."""
        if name in WORLDS:
            return f"{self.use_case} {_digest(self.data)} {self.days_after} {world_named(name)!r}"
        file = dict(self.streams).get(name)
        whole = f"{name} {_digest(file.path if file else None)} {file.columns if file else None}"
        return whole if self.days_after is None else f"{whole} {self.days_after}"

    def _stream(self, name: str) -> Stream:
        file = dict(self.streams).get(name)
        if file is not None:
            return _read_stream(file)
        if name in SHIPPED:
            return SHIPPED[name]()
        raise ConfigurationError(
            f"there is no world or stream {name!r}; worlds: {', '.join(WORLDS)}; streams: {', '.join(SHIPPED)}"
        )


def named_streams(files: tuple[StreamFile, ...]) -> tuple[tuple[str, StreamFile], ...]:
    """Return files with the names of their streams; two of one name are numbered.

    Raises:
        InvalidDataError: if a file cannot be read, or needs its columns named.
    """
    found: dict[str, StreamFile] = {}
    for file in files:
        name = plain = read_named(file.path, file.columns)[0]
        number = 2
        while name in found or name in WORLDS:
            name, number = f"{plain}_{number}", number + 1
        found[name] = replace(file, path=file.path.resolve())
    return tuple(found.items())


@lru_cache(maxsize=2)
def _source(use_case: str, data: Path | None) -> Source:
    contract = load_contract(use_case)
    if data is not None:
        return source_of(load_csv(data, contract), contract, data.name)
    if contract.synthesize is None:
        raise ConfigurationError(f"{contract.name!r} has no synthetic stand-in; name a labelled CSV with --data")
    return source_of(
        contract.synthesize(SYNTHETIC_ROWS, SYNTHETIC_SEED), contract, f"synthetic rows, seed {SYNTHETIC_SEED}"
    )


@lru_cache(maxsize=2)
def _read_stream(file: StreamFile) -> Stream:
    return read_named(file.path, file.columns)[1]


@lru_cache(maxsize=16)
def _digest(path: Path | None) -> str:
    if path is None:
        return "none"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
