"""The real server for tests of any Realtime client: scripted engines, a free port, faults on request.

    with RealServer() as server:
        server.answers("It is sunny.")
        server.cut(after="response.created")
        run_my_client(server.url, server.api_key)
        server.received("session.update")

It runs in a thread of its own, on 127.0.0.1, so that tests may be synchronous, asynchronous, or about a program in
another language (`environment`); `python -m vivavoce.testing.real_server` is the same for test suites that are not in
Python (see `commands`). Invariant: when the block ends no thread, task or socket of it is left.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from vivavoce.protocol.waterfall import Waterfall
from vivavoce.server import Settings, running
from vivavoce.server.serve import Server
from vivavoce.server.settings import settings_of

from .directions import Directions, directed_pipeline
from .faults import Faults
from .record import WAIT_S, Record, Seen, SeenConnection, Sender
from .wire import Wires

__all__ = ["API_KEY", "RealServer"]

API_KEY = "sk-vivavoce-test"
HOUR_MS = 3_600_000
WATERFALLS_MAX = 10_000
"""The latest are kept."""
START_S_MAX = 30.0
STOP_S_MAX = 30.0

_DEFAULTS: Mapping[str, Any] = {
    "host": "127.0.0.1",
    "port": 0,
    "pipeline": "scripted",
    "log_level": "warning",
    "drain_ms_max": 5_000,
    "connection_limits": {"stall_ms_max": HOUR_MS},  # a stall that a test wants is as long as it says
}


class RealServer(Faults):
    """A server for one test. Use it in a `with` block, or call `start` and `close`.

    `pace` is that of `behave`; `api_key` None takes everybody; `settings` are those of `vivavoce.toml`, as plain
    values. Everything here may be used from any thread; what waits has a form for event loops, which ends in `_async`.
    """

    def __init__(
        self, *, pace: float = 0.0, api_key: str | None = API_KEY, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.api_key = api_key or ""
        self._settings = _settings(api_key, settings or {})
        self._directions = Directions(pace)
        self._record = Record()
        self._waterfalls: deque[Waterfall] = deque(maxlen=WATERFALLS_MAX)
        self._thread: threading.Thread | None = None
        self._started: Future[Server] = Future()
        self._stop: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> RealServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> RealServer:
        """Listen. Raises what hinders the server from that."""
        if self._thread is not None:
            raise RuntimeError("this server was started before; make a new one")
        self._thread = threading.Thread(target=self._run, name="vivavoce test server", daemon=True)
        self._thread.start()
        try:
            self._started.result(START_S_MAX)
        except BaseException:
            self._thread.join(STOP_S_MAX)
            raise
        return self

    def close(self) -> None:
        """Lift all faults, end all sessions and wait until nothing is left. Doing it twice is harmless."""
        if self._thread is None or self._stop is None:
            return
        self.lift_all()
        loop, stopped = self._stop
        if self._thread.is_alive():
            loop.call_soon_threadsafe(stopped.set)
            self._thread.join(STOP_S_MAX)
        if self._thread.is_alive():
            raise TimeoutError(
                f"the test server did not end within {STOP_S_MAX:g} s; on its wires:\n{self._record.told()}"
            )

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        stopped = asyncio.Event()
        pipelines = {"scripted": directed_pipeline(self._directions)}
        async with running(self._settings, pipelines=pipelines) as server:
            app = server.app
            assert app.middleware_stack is not None, "a server that listens has built its app"
            app.state.sessions.telemetry.listeners.append(lambda *measured: self._waterfalls.append(measured[-1]))
            app.middleware_stack = Wires(app.middleware_stack, self, self._record)
            self._stop = asyncio.get_running_loop(), stopped
            self._started.set_result(server)
            await stopped.wait()
            app.state.sessions.stop()

    # --- where it is --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:PORT/v1`: what clients take as such."""
        if self._thread is None:
            raise RuntimeError("the server has not been started: use it in a `with` block, or call start()")
        return self._started.result(0).url

    @property
    def websocket_url(self) -> str:
        """`ws://127.0.0.1:PORT/v1/realtime`, to which `?model=NAME` is added."""
        return self.url.replace("http", "ws", 1) + "/realtime"

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables by which a program in any language finds the server: those of OpenAI's libraries, and two more."""
        return {
            "OPENAI_BASE_URL": self.url,
            "OPENAI_API_KEY": self.api_key,
            "REALTIME_URL": self.websocket_url,
            "REALTIME_API_KEY": self.api_key,
        }

    # --- what its engines do: see `Directions` ------------------------------------------------------------------------

    @property
    def script(self) -> Directions:
        """What the engines do; the methods that tests need most are the server's own, too."""
        return self._directions

    def answers(self, *answers: Any) -> None:
        """What the model says next, one text a response; a function is asked with the engine's `Prompt`."""
        self._directions.answers(*answers)

    def calls(self, tool: str, arguments: Mapping[str, Any] | str | None = None, *, saying: str = "") -> None:
        """The model calls `tool` in its next response, after `saying`."""
        self._directions.calls(tool, arguments, saying=saying)

    def hears(self, *transcripts: str) -> None:
        """What the next stretches of the user's speech are heard as."""
        self._directions.hears(*transcripts)

    def behave(self, **how: Any) -> None:
        """Pace and failures of the engines: the keywords of `Directions.behave`."""
        self._directions.behave(**how)

    # --- what it has seen ---------------------------------------------------------------------------------------------

    @property
    def messages(self) -> tuple[Seen, ...]:
        """What went over all wires, both directions, in order; `vivavoce.testing.checks` takes it."""
        return self._record.messages

    @property
    def connections(self) -> tuple[SeenConnection, ...]:
        """Every connection that was tried, in order."""
        return self._record.connections

    @property
    def waterfalls(self) -> tuple[Waterfall, ...]:
        """Where the time of every response went that is over, whether its client asked or not; in the order of the end.

        Of one that the server plays (WebRTC), once its first sound was played, or will not be.
        """
        return tuple(self._waterfalls)

    def received(self, type: str = "*") -> list[Mapping[str, Any]]:
        """The events of this type that have come from clients; `*` stands for anything."""
        return [seen.event for seen in self._record.matching(type, "client")]

    def sent(self, type: str = "*") -> list[Mapping[str, Any]]:
        """The events of this type that clients were sent."""
        return [seen.event for seen in self._record.matching(type, "server")]

    def wait_for(
        self, type: str, *, dir: Sender | None = None, count: int = 1, timeout_s: float = WAIT_S
    ) -> Mapping[str, Any]:
        """The `count`th event of this type, as soon as it is on a wire. Raises `AssertionError` after `timeout_s`."""
        return self._record.wait_for(type, dir=dir, count=count, timeout_s=timeout_s).event

    async def wait_for_async(
        self, type: str, *, dir: Sender | None = None, count: int = 1, timeout_s: float = WAIT_S
    ) -> Mapping[str, Any]:
        """`wait_for`, while the event loop goes on."""
        return await asyncio.to_thread(self.wait_for, type, dir=dir, count=count, timeout_s=timeout_s)

    def wait_until_closed(self, connections: int = 1, *, timeout_s: float = WAIT_S) -> None:
        """Wait until so many connections have ended, since the server began. Raises `AssertionError`."""
        self._record.wait_until_closed(connections, timeout_s)

    async def wait_until_closed_async(self, connections: int = 1, *, timeout_s: float = WAIT_S) -> None:
        """`wait_until_closed`, while the event loop goes on."""
        await asyncio.to_thread(self._record.wait_until_closed, connections, timeout_s)


def _settings(api_key: str | None, given: Mapping[str, Any]) -> Settings:
    """Of the given ones, ours where nothing else was given. Raises `SettingsError`."""
    limits = {**_DEFAULTS["connection_limits"], **given.get("connection_limits", {})}
    keys = {} if api_key is None else {"api_keys": [api_key]}
    return settings_of({**_DEFAULTS, **keys, **given, "connection_limits": limits})


if __name__ == "__main__":
    from vivavoce.testing.commands import main

    raise SystemExit(main())
