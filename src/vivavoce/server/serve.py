"""The server as a program, and inside one.

`running` is a context manager in the caller's event loop, for tests, notebooks and commands; `serve` owns the process.
Invariant: at the end, however it comes, running responses may finish, sockets close with 1001, models are freed, and
the port is free.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vivavoce.engines import Pipeline
from vivavoce.protocol.codec import FRAME_BYTES_MAX

from .app import create_app
from .auth import check_binding
from .console import takes_calls
from .hosting import Hosting, hosted, listening
from .logs import write_logs
from .pipelines import Progress
from .sessions import STOP_S
from .settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

TALKATIVE = ("httpx", "httpcore", "httpx2", "httpcore2", "mcp", "aioice", "aiortc", "sqlalchemy")
"""Libraries that log what they send."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens. `url` is what a client takes as its base URL; `pipelines` are by name."""

    url: str
    host: str
    port: int
    pipelines: Mapping[str, Pipeline]
    app: Starlette


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
    drain = partial(app.state.sessions.drain, settings.drain_ms_max / 1000)
    with listening(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        app.state.sessions.server = f"{socket.gethostname()}:{port}"
        loading = app.state.pipelines.warm_up(progress)
        async with hosted(app, listener, _hosting(settings), ends=drain) as url:
            if warm:
                await asyncio.shield(loading)
            yield Server(f"{url}/v1", host, port, app.state.pipelines.by_name, app)


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
        keep_for_good()
        log.info("ready")
    await stopping
    log.info("stopping")
    return 0


def keep_for_good() -> None:
    """Whatever is loaded now stays: garbage collection need not look at it again, which holds all sessions up.

    Measured with the embedded engines: 55 ms for a whole collection, next to nothing after this. For a process that is
    ours alone, since it holds for everything in it.
    """
    gc.collect()
    gc.freeze()


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


def _hosting(settings: Settings) -> Hosting:
    return Hosting(
        websocket=settings.websocket,
        message_bytes_max=FRAME_BYTES_MAX,
        ping_s=settings.ping_interval_ms / 1000 or None,  # §1.6
        compresses=settings.compression,
        has_lifespan=True,
        stop_s=STOP_S,
    )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, which takes a fifth less CPU, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
