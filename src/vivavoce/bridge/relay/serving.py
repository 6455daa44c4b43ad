"""The relay as a program, and inside one.

`running` is a context manager in the caller's event loop; `serve` owns the process. Invariant: at the end, however it
comes, every session is closed with 1001 and the port is free.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from vivavoce.client.endpoint import shown
from vivavoce.client.tools import Tool
from vivavoce.server.hosting import Hosting, hosted, listening
from vivavoce.server.logs import write_logs
from vivavoce.server.serve import loop_factory, silence_libraries, told_by_signals

from .app import app_of
from .legs import CLOSE_S_MAX
from .policy import PolicyFactory
from .relay import Relay
from .settings import RelaySettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A relay that listens. `url` is what a client takes as its base URL."""

    url: str
    port: int
    relay: Relay


@asynccontextmanager
async def running(
    settings: RelaySettings,
    *,
    policies: Sequence[PolicyFactory] = (),
    tools: Sequence[Tool] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """A relay in this process and event loop, until the block ends. Raises `SettingsError`.

    `environment` None is that of the process; it has the service's key where the settings have none.
    """
    relay = Relay(settings, policies=policies, tools=tools, environment=environment)
    how = Hosting(
        message_bytes_max=settings.message_bytes_max, ping_s=settings.ping_interval_ms / 1000, stop_s=CLOSE_S_MAX
    )
    with listening(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        relay.server = f"{socket.gethostname()}:{port}"
        relay.open_log()
        async with hosted(app_of(relay), listener, how, ends=relay.drain) as url:
            yield Running(f"{url}/v1", port, relay)


def serve(settings: RelaySettings, *, tools: Sequence[Tool] = ()) -> int:
    """Relay until SIGINT or SIGTERM. Returns the exit code."""
    write_logs(settings.log_level, settings.log_format)
    silence_libraries()
    logging.getLogger("picows").setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_until_stopped(settings, tools))


async def _until_stopped(settings: RelaySettings, tools: Sequence[Tool]) -> int:
    stopped = asyncio.Event()
    with ExitStack() as signals:
        async with running(settings, tools=tools) as relay:
            signals.enter_context(told_by_signals(stopped.set))
            where = relay.url.replace("http", "ws", 1)
            log.info("relaying %s/realtime to %s", where, shown(settings.upstream))
            await stopped.wait()
            log.info("stopping")
    return 0
