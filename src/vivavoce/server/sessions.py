"""The sessions of one server: who may begin one, on which pipeline, and what becomes of all of them at a stop.

Every connection comes through `serve`, whatever transport it is on. Invariants: a refused client gets an `error` event
and a close (reference §1.5); every session is known here while it lives, so that `drain` can reach it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from vivavoce.core.session import Session
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol.codec import ServerCodec
from vivavoce.protocol.events import ErrorEvent
from vivavoce.transports import Transport

from .auth import TRY_AGAIN, Asked, Keys, Refusal
from .ids import ids
from .pipelines import Pipelines
from .runtime import Runtime
from .settings import Settings

GOING_AWAY = 1001
INTERNAL = 1011

STOP_S = 5.0
"""Time for the closing itself at a stop, once the running responses had theirs."""

log = logging.getLogger(__name__)


class Sessions:
    """Admits clients, runs their sessions, ends them.

    `wall_s` gives unix seconds, for `expires_at` alone; `new_ids` gives a source of ids for each session.
    """

    def __init__(
        self,
        settings: Settings,
        pipelines: Pipelines,
        *,
        wall_s: Callable[[], float] = time.time,
        new_ids: Callable[[], Callable[[str], str]] = ids,
    ) -> None:
        self._settings = settings
        self._pipelines = pipelines
        self._keys = Keys(settings)
        self._wall_s = wall_s
        self._new_ids = new_ids
        self._tasks: set[asyncio.Task[object]] = set()
        self._running: set[Runtime] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.is_stopping = False

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Runtime]:
        return iter(tuple(self._running))

    async def serve(self, asked: Asked, transport: Transport) -> None:
        """Run a session to its end, or tell the client why there is none."""
        task = asyncio.current_task()
        assert task is not None
        try:
            self._check(asked)
            self._tasks.add(task)
            self._idle.clear()
            await self._run(asked, transport)
        except Refusal as refusal:
            await self._refuse(asked, transport, refusal)
        finally:
            self._tasks.discard(task)
            if not self._tasks:
                self._idle.set()

    async def drain(self, grace_s: float) -> None:
        """Begin no session any more, let the running responses end, close every connection with 1001."""
        self.is_stopping = True
        for runtime in list(self._running):
            runtime.drain()
        if await self._is_idle_within(grace_s):
            return
        log.warning("%d sessions did not end within %g s and are closed", len(self), grace_s)
        self.stop()
        if not await self._is_idle_within(STOP_S):
            for task in list(self._tasks):
                task.cancel()

    def stop(self) -> None:
        """Close every connection with 1001, running responses or not."""
        for runtime in list(self._running):
            runtime.stop(GOING_AWAY, "The server is stopping.")

    async def _is_idle_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return self._idle.is_set()

    # --- one session --------------------------------------------------------------------------------------------------

    def _check(self, asked: Asked) -> None:
        self._keys.check(asked)
        asked.model()
        if self.is_stopping:
            raise _stopping()
        if len(self._tasks) >= self._settings.sessions_max:
            raise Refusal(
                TRY_AGAIN,
                "too_many_sessions",
                f"This server runs {self._settings.sessions_max} sessions at once, all are taken; try again later.",
                type="rate_limit_error",
            )

    async def _run(self, asked: Asked, transport: Transport) -> None:
        await self._wait_for_pipelines()
        settings, model, new_id = self._settings, asked.model(), self._new_ids()
        session_id = new_id("sess")
        session = Session(
            id=session_id,
            model=model,
            ids=new_id,
            expires_at=int(self._wall_s()) + settings.session_limits.session_ms_max // 1000,
            limits=settings.session_limits,
        )
        runtime = Runtime(
            session,
            self._pipelines.for_model(model),
            ServerCodec(asked.dialect),
            transport,
            session_id=session_id,
            limits=settings.connection_limits,
        )
        self._running.add(runtime)
        log.info("%s: begins, model %r, dialect %s", session_id, model, asked.dialect)
        try:
            await runtime.run()
        finally:
            self._running.discard(runtime)
            log.info("%s: has ended", session_id)

    async def _wait_for_pipelines(self) -> None:
        try:
            await self._pipelines.ready(self._settings.warm_up_ms_max / 1000)
        except TimeoutError:
            loading = ", ".join(self._pipelines.loading)
            raise Refusal(
                TRY_AGAIN, "still_loading", f"Still loading: {loading}; try again later.", type="server_error"
            ) from None
        except Exception as error:
            message = "The models of this server could not be loaded; its log says why."
            raise Refusal(INTERNAL, "pipeline_failed", message, type="server_error") from error
        if self.is_stopping:
            raise _stopping()

    async def _refuse(self, asked: Asked, transport: Transport, refusal: Refusal) -> None:
        log.info("refused: %s", refusal.close.reason)
        frame = ServerCodec(asked.dialect).encode(ErrorEvent(event_id=self._new_ids()("event"), error=refusal.detail))
        assert frame is not None
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await transport.send(frame)
                await transport.close(refusal.close.code, refusal.close.reason)


def _stopping() -> Refusal:
    return Refusal(GOING_AWAY, "server_stopping", "The server is stopping.", type="server_error")
