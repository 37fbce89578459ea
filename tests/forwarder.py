"""A network between a service and the session's Postgres that a test can cut and mend: Postgres itself goes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfheal.settings import Settings
from tests.serving.running import with_database


class Forwarder:
    """Listens on a port of its own, while it is mended, and passes every connection on to a Unix socket."""

    def __init__(self, target: Path) -> None:
        self._target = target
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def mend(self) -> None:
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def cut(self) -> None:
        """Refuses connections from now on, and ends those there are."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(str(self._target))
        own = {writer, there_writer}
        self._writers |= own
        with contextlib.suppress(OSError):
            await asyncio.gather(self._copy(reader, there_writer), self._copy(there_reader, writer))
        self._writers -= own

    @staticmethod
    async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()


@contextmanager
def forwarded(settings: Settings, socket_dir: Path) -> Iterator[tuple[Settings, Forwarder]]:
    """The same settings with a network between, cut at first; MLflow cannot be reached at all."""
    forwarder = Forwarder(socket_dir / ".s.PGSQL.5432")
    away = with_database(settings, f"postgresql://postgres@127.0.0.1:{forwarder.port}/postgres")
    try:
        yield away.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"}), forwarder
    finally:
        forwarder.close()
