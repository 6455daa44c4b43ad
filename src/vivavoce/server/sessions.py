"""The sessions of one server: who may begin one, on which pipeline, and what becomes of all of them at a stop.

Every connection comes through here, whatever transport it is on: `admitted` gives it a place, `run` lives in it.
Invariants: a refused client gets an `error` event and a close (reference §1.5), or a status where nothing has begun;
every session is known here while it lives, so that `drain` can reach it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from vivavoce.core.playback import Player
from vivavoce.core.refused import Refused
from vivavoce.core.session import Session
from vivavoce.core.stopwatch import Watch
from vivavoce.core.translating import Translating
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol.base import given
from vivavoce.protocol.codec import ServerCodec, TranslationServerCodec
from vivavoce.protocol.config import TranscriptionSession
from vivavoce.protocol.events import ErrorEvent
from vivavoce.protocol.translation import TranslationSession
from vivavoce.transports import Transport

from .admission import Admitted, admission
from .auth import GOING_AWAY, INTERNAL, REQUEST, TRY_AGAIN, Asked, Keys, Refusal
from .client_secrets import Configured, Kind
from .ids import ids
from .logs import FIELDS, SESSION
from .mcp import McpServers
from .media import CallMedia
from .metrics import Gauge
from .pipelines import Pipelines
from .prompts import load_prompts
from .quota import Account, Accounts, Quota
from .records import EndedLately, LiveSession, SessionRecord, shown
from .resuming import Lifeline, Lifelines, Resumable
from .runtime import Codec, Machine, Runtime
from .session_log import session_log
from .settings import Settings
from .surroundings import surroundings
from .taped import Tapes
from .telemetry import About, SessionTelemetry, Telemetry
from .tracing import Tracing
from .work import ToolServers

EXPEL_S = 2.0
"""Time in which a session that an operator closes may tell its client why. Then it is dropped."""
EXPELLED = "An operator has closed this session."
POLICY = 1008

STOP_S = 5.0
"""Time for the closing itself at a stop, once the running responses had theirs."""

NewId = Callable[[str], str]

log = logging.getLogger(__name__)


class Sessions:
    """Admits clients, runs their sessions, ends them.

    `wall_s` gives unix seconds, for `expires_at` and short-lived keys alone; `new_ids` gives a source of ids for each
    session, `tool_servers` its MCP servers, where they are not the real ones.
    """

    def __init__(
        self,
        settings: Settings,
        pipelines: Pipelines,
        *,
        wall_s: Callable[[], float] = time.time,
        new_ids: Callable[[], NewId] = ids,
        tool_servers: Callable[[], ToolServers] | None = None,
    ) -> None:
        self._settings = settings
        self._pipelines = pipelines
        self.wall_s = wall_s
        self.new_ids = new_ids
        self._tool_servers = tool_servers or (lambda: McpServers(allowed_hosts=settings.mcp_hosts))
        self.keys = Keys(settings, wall_s=wall_s)
        self.accounts = Accounts(lambda: _account(settings))
        self._prompts = load_prompts(settings.prompts)
        self._lifelines = Lifelines(settings.resume_ms_max / 1000)
        self._tapes = Tapes(settings)
        self.telemetry = Telemetry(Tracing.installed())
        self._places = 0
        self._tasks: set[asyncio.Task[object]] = set()
        self._running: dict[Runtime, LiveSession] = {}
        self.server = f"{socket.gethostname()}/{secrets.token_hex(4)}"
        """By what name the log of sessions knows this server; a port that is its own is a better one."""
        self.log = session_log(settings, wall_s=wall_s)
        self.ended = EndedLately()
        self.telemetry.add(*self._gauges())
        self._idle = asyncio.Event()
        self._idle.set()
        self.is_stopping = False

    def __len__(self) -> int:
        return len(self._running)

    @property
    def places_left(self) -> int:
        """How many sessions may still begin."""
        return self._settings.sessions_max - self._places

    def __iter__(self) -> Iterator[Runtime]:
        return iter(tuple(self._running))

    def listed(self) -> list[SessionRecord]:
        """Every session that lives, as an operator sees it."""
        now = self.wall_s()
        return [live.record(now) for live in self._running.values()]

    def listed_one(self, session_id: str) -> SessionRecord | None:
        """The session with this id, where it lives."""
        live = self._living(session_id)
        return None if live is None else live.record(self.wall_s())

    def _living(self, session_id: str) -> LiveSession | None:
        return next((live for runtime, live in self._running.items() if runtime.session_id == session_id), None)

    async def expel(self, session_id: str) -> SessionRecord | None:
        """End a session: the client is told, then its connection is closed, and nothing brings it back.

        The record is the last one, or that of a session which is still ending. None: no such session lives.
        """
        live = self._living(session_id)
        if live is None:
            return None
        log.info("%s: is closed by an operator", session_id)
        live.runtime.expel(EXPELLED)
        _, waiting = await asyncio.wait((live.over,), timeout=EXPEL_S)
        if waiting:  # the client takes nothing, or the session is busy
            live.runtime.drop(POLICY, EXPELLED)
            await asyncio.wait((live.over,), timeout=STOP_S)
        return live.over.result() if live.over.done() else live.record(self.wall_s())

    async def serve(self, asked: Asked, transport: Transport) -> None:
        """Run a session on an open connection to its end, or tell the client why there is none.

        Where the session outlives its connections, this is over with the connection.
        """
        try:
            if (found := self.resumable(asked)) is not None:
                await found.carry(transport)
                return
            with self.admitted(asked) as admitted:
                await self.run(admitted, transport)
        except Refusal as refusal:
            await self.refuse(asked, transport, refusal)

    def resumable(self, asked: Asked) -> Resumable | None:
        """The living session that a client comes back to, which has its place. Raises `Refusal`."""
        return self._lifelines.find(asked, self.keys)

    @contextmanager
    def admitted(self, asked: Asked, configured: Configured | None = None) -> Iterator[Admitted]:
        """A place for the session that a client asks for, until the block ends. Raises `Refusal`.

        `configured` is what the client wants to begin with, where it says so when it asks.
        """
        try:
            admitted = self._admit(asked)
        except Refusal as refusal:
            self.telemetry.refused.add(1, given(refusal.detail.code, None) or refusal.detail.type)
            raise
        if configured is not None:
            admitted = replace(admitted, configured=configured)
        self._take_place()
        try:
            yield admitted
        finally:
            self._free_place()

    def _gauges(self) -> Iterator[Gauge]:
        pipelines, log = self._pipelines, self.log
        name, labels = "vivavoce_engine_failures_in_a_row", ("pipeline", "role")
        yield Gauge(name, "Failures of engines since they last worked.", labels, pipelines.failures)
        if (cores := pipelines.cores) is not None:
            waiting = "Calls of engines that wait for a core."
            yield Gauge("vivavoce_cores_waiting", waiting, (), lambda: {(): cores.waiting})
        if log is not None:
            lost = "Sessions whose end is in no log, since the database was away."
            yield Gauge("vivavoce_session_log_lost", lost, (), lambda: {(): log.lost})

    def _take_place(self) -> None:
        self._places += 1
        self._idle.clear()

    def _free_place(self, *_: object) -> None:
        self._places -= 1
        if not self._places:
            self._idle.set()

    async def refuse(self, asked: Asked, transport: Transport, refusal: Refusal) -> None:
        """Tell the client on an open connection why there is no session, and close it."""
        log_refusal(asked, refusal)
        frame = ServerCodec(asked.dialect).encode(ErrorEvent(event_id=self.new_ids()("event"), error=refusal.detail))
        assert frame is not None
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await transport.send(frame)
                await transport.close(refusal.close.code, refusal.close.reason)

    async def drain(self, grace_s: float) -> None:
        """Begin no session any more, let the running responses end, close every connection with 1001."""
        self.is_stopping = True
        for runtime in self:
            runtime.drain()
        if await self._is_idle_within(grace_s):
            return
        log.warning("%d sessions did not end within %g s and are closed", len(self), grace_s)
        self.stop()
        if not await self._is_idle_within(STOP_S):
            late = [task for task in self._tasks if task is not asyncio.current_task()]
            for task in late:
                task.cancel()
            if late:  # engines that ignore their cancellation have time of their own, and the end is to be recorded
                await asyncio.wait(late, timeout=STOP_S)

    def stop(self) -> None:
        """Close every connection with 1001, running responses or not."""
        for runtime in self:
            runtime.stop(GOING_AWAY, "The server is stopping.")

    async def _is_idle_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return self._idle.is_set()

    # --- one session --------------------------------------------------------------------------------------------------

    def _admit(self, asked: Asked) -> Admitted:
        admitted = admission(asked, self.keys.check(asked))
        self.check(admitted.kind, admitted.model)
        if self.is_stopping:
            raise _stopping()
        if self._places >= self._settings.sessions_max:
            raise Refusal(
                TRY_AGAIN,
                "too_many_sessions",
                f"This server runs {self._settings.sessions_max} sessions at once, all are taken; try again later.",
                type="rate_limit_error",
            )
        self._take_from(self.accounts.of(admitted.key_id))
        return admitted

    def check(self, kind: Kind, model: str) -> None:
        """Raises `Refusal` where there are no sessions of this kind, or none with this model."""
        if model and self._settings.unknown_models == "refuse" and model not in self._pipelines.models:
            known = ", ".join(self._pipelines.models)
            raise Refusal(
                REQUEST, "invalid_model", f"There is no model {model!r} on this server; there is {known}.", status=404
            )

    def _take_from(self, account: Account) -> None:
        now = asyncio.get_running_loop().time()
        if account.sessions is None or account.sessions.take(1, now):
            return
        wait_s = max(1, math.ceil(account.sessions.seconds_until(1, now)))
        raise Refusal(
            TRY_AGAIN,
            "rate_limit_exceeded",
            f"A key may begin {self._settings.sessions_per_minute_max} sessions a minute on this server; try again in "
            f"{wait_s} s.",
            type="rate_limit_error",
            retry_after_s=wait_s,
        )

    def machine(
        self,
        admitted: Admitted,
        *,
        id: str,
        new_id: NewId,
        expires_at: int,
        account: Account | None = None,
        player: Player | None = None,
        watch: Watch | None = None,
    ) -> Machine:
        """The session machine for what was admitted: the one place that makes one, of whatever kind.

        `account` None is for a session that will not be run. Raises `Refusal` where the configuration of a short-lived
        key is not possible here.
        """
        pipeline = self._pipelines.for_model(admitted.model)
        given = surroundings(
            self._settings,
            pipeline,
            self._prompts,
            model=admitted.model,
            account=account,
            player=player,
            watch=watch,
            tells_waterfall=admitted.tells_waterfall,
        )
        configured = admitted.configured
        if configured is None and admitted.kind == "transcription":
            configured = TranscriptionSession()
        try:
            if admitted.kind == "translation":
                assert configured is None or isinstance(configured, TranslationSession)
                return Translating(
                    id=id,
                    model=admitted.model,
                    ids=new_id,
                    expires_at=expires_at,
                    limits=self._settings.session_limits,
                    configured=configured,
                    abilities=given.abilities,
                )
            assert not isinstance(configured, TranslationSession)
            return Session(
                id=id,
                model=admitted.model,
                ids=new_id,
                expires_at=expires_at,
                limits=self._settings.session_limits,
                configured=configured,
                surroundings=given,
            )
        except Refused as refused:
            raise Refusal(REQUEST, refused.code, refused.message, param=refused.param) from None

    def rehearsal(self, admitted: Admitted) -> Machine:
        """A machine that nobody listens to, to hear what it says to a configuration. Raises `Refusal`."""
        new_id = self.new_ids()
        return self.machine(admitted, id=new_id("sess"), new_id=new_id, expires_at=0)

    async def run(self, admitted: Admitted, transport: Transport, media: CallMedia | None = None) -> None:
        """Run an admitted session to its end. Raises `Refusal` where its models are not to be had.

        Where it outlives its connection, this is over with the connection, and the session keeps the place. `media` is
        for a session whose audio travels apart.
        """
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.ready()
            if media is None and admitted.is_lasting and self._lifelines.are_offered:
                await self._run_lasting(admitted, transport)
            else:
                new_id = self.new_ids()
                session_id = new_id("sess")
                runtime, watch = self._runtime(admitted, transport, session_id, new_id, media)
                await self._live(admitted, runtime, watch)
        finally:
            self._tasks.discard(task)

    async def _run_lasting(self, admitted: Admitted, transport: Transport) -> None:
        new_id = self.new_ids()
        session_id = new_id("sess")
        lifeline = self._lifelines.begin(admitted.key_id, session_id)
        living = self._runtime(admitted, lifeline.lasting, session_id, new_id)
        session = asyncio.create_task(self._outlive(admitted, *living, lifeline), name=session_id)
        self._tasks.add(session)
        session.add_done_callback(self._tasks.discard)
        try:
            await lifeline.carry(transport)
        finally:
            if not session.done():
                self._take_place()
                session.add_done_callback(self._free_place)

    async def _outlive(self, admitted: Admitted, runtime: Runtime, watch: SessionTelemetry, lifeline: Lifeline) -> None:
        """A session in a task of its own, since no connection lasts as long as it."""
        try:
            with self._lifelines.known(lifeline):
                await self._live(admitted, runtime, watch)
        finally:
            await lifeline.end(GOING_AWAY, "The session has ended.")

    def _runtime(
        self,
        admitted: Admitted,
        transport: Transport,
        session_id: str,
        new_id: NewId,
        media: CallMedia | None = None,
    ) -> tuple[Runtime, SessionTelemetry]:
        settings, pipeline = self._settings, self._pipelines.for_model(admitted.model)
        taped = self._tapes.taped(transport, admitted, session_id)
        if media is not None:
            media.tape = self._tapes.of(session_id)
        expires_at = int(self.wall_s()) + settings.session_limits.session_ms_max // 1000
        account = self.accounts.of(admitted.key_id)
        carrier = "websocket" if media is None else "webrtc"
        watch = self.telemetry.session(About(session_id, admitted.kind, carrier, pipeline.name, admitted.model))
        machine = self.machine(
            admitted, id=session_id, new_id=new_id, expires_at=expires_at, account=account, player=media, watch=watch
        )
        runtime = Runtime(
            machine,
            pipeline,
            _codec(admitted, plays=media is not None),
            taped,
            session_id=session_id,
            limits=settings.connection_limits,
            mcp=self._tool_servers(),
            media=media,
        )
        return runtime, watch

    async def _live(self, admitted: Admitted, runtime: Runtime, watch: SessionTelemetry) -> None:
        session_id, began = runtime.session_id, self.wall_s()
        token = SESSION.set(session_id)
        live = LiveSession(runtime, admitted, watch, self.server, began, asyncio.get_running_loop().create_future())
        self._running[runtime] = live
        if self.is_stopping:  # since its task was made
            runtime.drain()
        try:
            watch.begin(self._unix_ns, lambda: _heard_ms(runtime.session))
            if self.log is not None:
                self.log.begin(live)
            said = (admitted.kind, admitted.model, admitted.dialect, admitted.safety_identifier)
            fields = {FIELDS: shown(live.record(began))}
            log.info("%s: begins, %s, model %r, dialect %s, user %r", session_id, *said, extra=fields)
            del said, fields  # a session lasts
            await runtime.run()
        finally:
            del self._running[runtime]
            watch.end(self._unix_ns)
            record = live.record(self.wall_s(), "ended")
            self.ended.add(record)
            if self.log is not None:
                self.log.end(live, record)
            live.over.set_result(record)
            runtime.let_go()
            await self._tapes.end(session_id)
            end = (record.age_s, record.reason, _costs(record))
            log.info("%s: has ended after %.1f s: %s%s", session_id, *end, extra={FIELDS: shown(record)})
            SESSION.reset(token)

    @property
    def _unix_ns(self) -> int:
        return round(self.wall_s() * 1e9)

    async def ready(self) -> None:
        """Wait until the models are loaded. Raises `Refusal` where that takes too long, or cannot be."""
        try:
            await self._pipelines.ready(self._settings.warm_up_ms_max / 1000)
        except TimeoutError:
            loading = ", ".join(self._pipelines.loading)
            raise Refusal(
                TRY_AGAIN,
                "still_loading",
                f"Still loading: {loading}; try again later.",
                type="server_error",
                status=503,
            ) from None
        except Exception as error:
            message = "The models of this server could not be loaded; its log says why."
            raise Refusal(INTERNAL, "pipeline_failed", message, type="server_error") from error
        if self.is_stopping:
            raise _stopping()


def log_refusal(asked: Asked, refusal: Refusal) -> None:
    """What an operator sees of an attempt that failed; never the key that came along."""
    log.info("refused on %s: %s, %r", asked.surface, refusal.close.reason, refusal.detail.message)


def _account(settings: Settings) -> Account:
    """What a key may use, by the settings."""
    limits = settings.rate_limits
    a_minute = (settings.sessions_per_minute_max, limits.requests_per_minute, limits.tokens_per_minute)
    return Account(*(None if limit is None else Quota.a_minute(limit) for limit in a_minute))


def _codec(admitted: Admitted, *, plays: bool) -> Codec:
    """The server's end of the wire."""
    if admitted.kind == "translation":
        return TranslationServerCodec()
    return ServerCodec(admitted.dialect, playback=plays)


def _heard_ms(machine: Machine) -> int:
    """How much audio its client has sent."""
    return machine.heard_ms if isinstance(machine, Session | Translating) else 0


def _costs(record: SessionRecord) -> str:
    """What the session used, for the log."""
    price = "" if record.cost is None else f", cost {record.cost:.6f}"
    return f", {record.input_tokens} tokens in, {record.output_tokens} out{price}"


def _stopping() -> Refusal:
    return Refusal(GOING_AWAY, "server_stopping", "The server is stopping.", type="server_error")
