"""The server as a program, and inside one: uvicorn with the options that a voice server wants.

`running` is a context manager in the caller's event loop, for tests, notebooks and commands; `serve` owns the process.
Invariant: at the end, however it comes, running responses may finish, sockets close with 1001, models are freed, and
the port is free.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from vivavoce.engines import Pipeline
from vivavoce.errors import SettingsError
from vivavoce.protocol.codec import FRAME_BYTES_MAX

from .app import create_app
from .auth import check_binding
from .console import takes_calls
from .doors import HttpDoor, WebSocketDoor
from .logs import write_logs
from .picows_door import PicowsDoor
from .pipelines import Progress
from .sessions import STOP_S
from .settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

SOCKET_STALL_MS = 60_000
"""The kernel drops a connection whose peer acknowledges nothing for so long, also when nobody writes any more."""

BACKLOG = 128

_BINDING_HINTS = {
    errno.EADDRINUSE: "; is it served already? Choose another port, or 0 for any free one",
    errno.EACCES: "; ports below 1024 may be reserved: choose a higher one, or 0 for any free one",
    errno.EADDRNOTAVAIL: "; the host has to be an address of this machine",
}

TALKATIVE = ("httpx", "httpcore", "httpx2", "httpcore2", "mcp", "aioice", "aiortc", "sqlalchemy")
"""Libraries that log what they send."""

DOORS: Mapping[str, type[WebSocketDoor]] = {"uvicorn": WebSocketDoor, "picows": PicowsDoor}
"""Who speaks WebSocket, by the setting `websocket`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens. `url` is what a client takes as its base URL; `pipelines` are by name."""

    url: str
    host: str
    port: int
    pipelines: Mapping[str, Pipeline]
    app: Starlette


TICK_S = 1.0
"""How often uvicorn is given the time."""


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    pipelines: Mapping[str, Pipeline] | None = None,
    progress: Progress | None = None,
    warm: bool = True,
) -> AsyncIterator[Server]:
    """A server in this process and event loop, until the block ends.

    `pipelines` replaces those that the settings name. `progress(pipeline, role, is_ready)` is called as models load;
    with `warm` the block begins when all are loaded. Raises `SettingsError`, `EngineMissing`, `EngineError`.
    """
    check_binding(settings)
    app = create_app(settings, pipelines)
    with listening(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        app.state.sessions.server = f"{socket.gethostname()}:{port}"
        loading = app.state.pipelines.warm_up(progress)
        uvicorn_server = Uvicorn(_config(app, settings))
        serving = asyncio.create_task(uvicorn_server.serve(sockets=[listener]), name="serving")
        try:
            await uvicorn_server.listens.wait()
            if warm:
                await asyncio.shield(loading)
            shown = f"[{host}]" if ":" in host else host
            yield Server(f"http://{shown}:{port}/v1", host, port, app.state.pipelines.by_name, app)
        finally:
            # uvicorn closes sockets before anything else; the sessions must have ended by then.
            await app.state.sessions.drain(settings.drain_ms_max / 1000)
            uvicorn_server.stop()
            await serving


def serve(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; a second one does not wait for running responses. Returns the exit code.

    That is 1 where a pipeline cannot be loaded, which the log has told then.
    """
    write_logs(settings.log_level, settings.log_format)
    silence_libraries()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_until_stopped(settings))


def silence_libraries() -> None:
    """They log every request with its URL, and so the keys in it; at no level of ours is that wanted."""
    for library in TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
    # Tracebacks of lost connections to a database; the log of sessions says of that what there is to say.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


async def _until_stopped(settings: Settings) -> int:
    stopped = asyncio.Event()
    with ExitStack() as signals:  # which also counts a second one, while responses end
        async with running(settings, warm=False) as server:
            sessions = server.app.state.sessions

            def stop() -> None:
                if stopped.is_set():
                    sessions.stop()
                stopped.set()

            signals.enter_context(told_by_signals(stop))
            where = server.url.replace("http", "ws", 1)
            log.info("listening on %s/realtime, default pipeline %r", where, settings.pipeline)
            if settings.console:
                calls = "to talk to it" if takes_calls(settings) else "to look; talking there needs vivavoce[webrtc]"
                log.info("open %s/ %s", server.url.removesuffix("/v1"), calls)
            return await _load_and_wait(server, stopped)


async def _load_and_wait(server: Server, stopped: asyncio.Event) -> int:
    loading = server.app.state.pipelines.warm_up()
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not stopped.is_set():
        if loading.exception() is not None:
            stopping.cancel()
            return 1
        log.info("ready")
    await stopping
    log.info("stopping")
    return 0


@contextmanager
def told_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM call `stop` in the event loop."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # on Windows; there the loop wakes up for a signal, but has no word for it
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    try:
        yield
    finally:
        for number, earlier in zip(numbers, before, strict=True):
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, earlier)


# --- uvicorn ----------------------------------------------------------------------------------------------------------


class Uvicorn(uvicorn.Server):
    """uvicorn, with its signals left to us, an event for the moment when it listens, and one to stop at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End it."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Keep the Date header fresh, once a second, until it is stopped; the original looks ten times a second."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._stopping.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets=sockets)
        self.listens.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: a server inside a program does not take the program's Ctrl-C."""
        yield


def _config(app: Starlette, settings: Settings) -> uvicorn.Config:
    ping_s = settings.ping_interval_ms / 1000 or None  # §1.6
    return uvicorn.Config(
        app,
        http=HttpDoor,
        ws=DOORS[settings.websocket],
        ws_max_size=FRAME_BYTES_MAX,
        ws_ping_interval=ping_s,
        ws_ping_timeout=ping_s,
        ws_per_message_deflate=settings.compression,
        lifespan="on",
        log_config=None,
        log_level=logging.WARNING,  # its lower levels log whole URLs, and with them keys
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(STOP_S),
    )


@contextmanager
def listening(address: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens until the block ends. Raises `SettingsError` where it cannot."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # The protocol is named, because asyncio switches Nagle's delay off only where it sees that a socket is TCP.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        if os.name == "posix":
            # Windows binds a port again without it, and with it would share one that another program listens on.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Accepted sockets take it over. Without it a peer that never reads could keep its socket for ever.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SOCKET_STALL_MS)
        try:
            listener.bind((address, port))
        except OSError as error:
            hint = _BINDING_HINTS.get(error.errno or 0, "")
            raise SettingsError(f"host, port: cannot bind {address}:{port}: {error.strerror or error}{hint}") from None
        listener.listen(BACKLOG)
        listener.setblocking(False)
        yield listener


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, which takes a fifth less CPU, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
