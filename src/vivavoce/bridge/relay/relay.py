"""The relay itself: who comes is let in, the service is reached, and a passage carries the session to its end.

Knows nothing of how clients connect; `door` brings sockets and `app` ASGI connections. Invariants: a place is taken
before the service is reached and given back however the session ends; every passage is known here while it lasts.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vivavoce.client.tools import Tool
from vivavoce.core.messages import EXPELLED
from vivavoce.engines.health import EngineHealth
from vivavoce.server.auth import GOING_AWAY, Asked, Keys, Refusal
from vivavoce.server.ids import ids
from vivavoce.server.logs import FIELDS, SESSION
from vivavoce.server.minting import Mint
from vivavoce.server.records import EndedLately, SessionRecord, shown
from vivavoce.server.session_log import session_log
from vivavoce.server.sessions import EXPELLED as SAID_TO_EXPELLED
from vivavoce.server.sessions import POLICY
from vivavoce.server.taped import Tapes

from .gate import Gate, Passenger
from .inspection import Inspection
from .ledger import Client, Ledger
from .legs import CLOSE_S_MAX, Ear, SocketLeg, TransportLeg
from .opening import Opening
from .passage import INTERNAL, KEY_REFUSED, Passage, PassageLimits
from .policy import AllowList, Policy, PolicyFactory, Visit, policies_named
from .records import RelayedSession
from .settings import RelaySettings
from .tool_policy import RelayTools
from .upstream import reach, secret_of, trust_of

log = logging.getLogger(__name__)

ANYTHING = ("*",)
UPSTREAM = "upstream"
"""By what name the service is in the health of the relay."""
OURS = (502, 504)
"""The statuses by which the relay itself says what is wrong with the service; others are the service's own."""


@dataclass(slots=True)
class Opened:
    """A session whose service is reached and whose client waits."""

    id: str
    passenger: Passenger
    client: Client
    service: SocketLeg


class Relay:
    """Carries sessions. `policies` are asked after those of the settings, `tools` are answered here.

    `wall_s` gives unix seconds, for short-lived keys; `environment` has the service's key where the settings have none.
    Raises `SettingsError` for policies that cannot be had.
    """

    def __init__(
        self,
        settings: RelaySettings,
        *,
        policies: Sequence[PolicyFactory] = (),
        tools: Sequence[Tool] = (),
        wall_s: Callable[[], float] = time.time,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.gate = Gate(settings, wall_s=wall_s, environment=environment)
        self.mint = Mint(self.gate)
        self.ledger = Ledger(settings, time.monotonic)
        self._factories = (*policies_named(settings.policies), *policies)
        self._tools = tuple(tools)
        self._tapes = Tapes(settings)
        self._trust = trust_of(settings.upstream)
        self._passages: dict[str, Passage] = {}
        self._live: dict[str, RelayedSession] = {}
        self._wall_s = wall_s
        self.server = f"{socket.gethostname()}/{secrets.token_hex(4)}"
        """By what name the log of sessions knows this relay; a port that is its own is a better one."""
        self.log = session_log(settings, wall_s=wall_s)
        self.ended = EndedLately()
        self.health = EngineHealth()
        """Of the service, `UPSTREAM`: whether it was reached, and took the relay's key."""
        self._tasks: set[asyncio.Task[object]] = set()
        self._new_id = ids()
        self.is_stopping = False

    def __len__(self) -> int:
        return len(self._passages)

    @asynccontextmanager
    async def opened(self, asked: Asked, address: str) -> AsyncIterator[Opened]:
        """A session for a client from this address, its service reached, until the block ends. Raises `Refusal`."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            self._require_going_on()
            passenger = self.gate.admit(asked, address)
            with self.ledger.place(passenger.client_id, passenger.admitted.key_id) as client:
                service = await self._reached(passenger)
                try:
                    self._require_going_on()  # to reach a service may take long
                    yield Opened(self._new_id("sess"), passenger, client, service)
                finally:
                    service.close(GOING_AWAY, "")
                    await _gone(service)
        except Refusal as refusal:
            is_the_services = refusal.__cause__ is not None and refusal.status not in OURS
            code = None if is_the_services else refusal.body["error"]["code"]
            self.ledger.counters.refusals.add(1, str(code or refusal.status))
            raise
        finally:
            self._tasks.discard(task)

    def _require_going_on(self) -> None:
        if self.is_stopping:
            raise Refusal(GOING_AWAY, "server_stopping", "The relay is stopping.", type="server_error")

    @property
    def places_left(self) -> int:
        """How many sessions may still begin."""
        return self.settings.sessions_max - self.ledger.open

    async def _reached(self, passenger: Passenger) -> SocketLeg:
        try:
            return await reach(
                passenger.endpoint,
                trust=self._trust,
                timeout_s=self.settings.connect_ms_max / 1000,
                ping_s=self.settings.ping_interval_ms / 1000,
                message_bytes_max=self.settings.message_bytes_max,
            )
        except Refusal as refusal:
            log.warning("%r: %s", passenger.endpoint, refusal.__cause__ or refusal)
            if refusal.status in OURS:
                self.health.failed(UPSTREAM, refusal.body["error"]["code"] or str(refusal.status))
            else:  # it has answered, and what is wrong is this session's own
                self.health.worked(UPSTREAM)
            raise

    def _note_key(self, is_taken: bool) -> None:
        """A service may take a handshake and refuse its key afterwards, so it was reached when it says that it was."""
        if is_taken:
            self.health.worked(UPSTREAM)
        else:
            self.health.failed(UPSTREAM, KEY_REFUSED)

    async def carry(self, opened: Opened, leg: SocketLeg | TransportLeg) -> None:
        """Carry an opened session whose client's handshake is done to its end."""
        passage = self._passage(opened, leg)
        over: asyncio.Future[SessionRecord] = asyncio.get_running_loop().create_future()
        live = RelayedSession(passage, opened.passenger, self.server, self._wall_s(), over)
        began_s = asyncio.get_running_loop().time()
        carrying: asyncio.Future[None]
        if isinstance(leg, TransportLeg):
            carrying = asyncio.create_task(leg.run(), name=f"client's leg of {opened.id}")
        else:
            carrying = leg.gone

        def join(client: Ear, service: Ear) -> None:
            opened.service.join(service)
            leg.join(client)

        token = SESSION.set(opened.id)
        self._passages[passage.id] = passage
        self._live[passage.id] = live
        try:
            self._note_begin(opened, live)
            await passage.run(join)
        except Exception:
            passage.fail("relay_failed", "The relay has failed.", INTERNAL, kind="server_error")
            raise
        finally:
            del self._passages[passage.id], self._live[passage.id]
            self._settle(passage)
            record = live.record(self._wall_s(), "ended")
            self.ended.add(record)
            if self.log is not None:
                self.log.end(live, record)
            over.set_result(record)
            await self._tapes.end(opened.id)
            await asyncio.wait((carrying,))
            carrying.result()
            lasted_s = asyncio.get_running_loop().time() - began_s
            end = (lasted_s, passage.ended_by, _costs(passage))
            log.info("%s: has ended after %.1f s: %s%s", opened.id, *end, extra={FIELDS: shown(record)})
            SESSION.reset(token)

    def _note_begin(self, opened: Opened, live: RelayedSession) -> None:
        if self.log is not None:
            self.log.begin(live)
        admitted, fields = opened.passenger.admitted, shown(live.record(self._wall_s()))
        said = (admitted.kind, admitted.model, opened.client.id)
        log.info("%s: begins, %s, model %r, client %r", opened.id, *said, extra={FIELDS: fields})

    def stop(self) -> None:
        """Begin no session any more; end all that there are, with 1001."""
        self.is_stopping = True
        for passage in list(self._passages.values()):
            passage.end(GOING_AWAY, "The relay is stopping.", by="relay")

    async def drain(self) -> None:
        """`stop`, and wait until everything is let go."""
        self.stop()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=2 * CLOSE_S_MAX)
            for task in late:
                task.cancel()
        if self.log is not None:
            await self.log.close()

    # --- for operators ------------------------------------------------------------------------------------------------

    def open_log(self) -> None:
        """Begin to write the log of sessions, where there is one."""
        if self.log is not None:
            self.log.open(self.server)

    @property
    def keys(self) -> Keys:
        """The keys that are accepted."""
        return self.gate.keys

    def listed(self) -> list[SessionRecord]:
        """Every session that passes."""
        now = self._wall_s()
        return [live.record(now) for live in self._live.values()]

    def listed_one(self, session_id: str) -> SessionRecord | None:
        """The session with this id, where it passes."""
        live = self._live.get(session_id)
        return None if live is None else live.record(self._wall_s())

    async def expel(self, session_id: str) -> SessionRecord | None:
        """End a session: the client is told why, the service that it is over. None: no such session passes."""
        live = self._live.get(session_id)
        if live is None:
            return None
        log.info("%s: is closed by an operator", session_id)
        live.passage.fail(EXPELLED, SAID_TO_EXPELLED, POLICY)
        await asyncio.wait((live.over,), timeout=CLOSE_S_MAX)
        return live.over.result() if live.over.done() else live.record(self._wall_s())

    def metrics(self) -> str:
        """What the relay has done, as Prometheus reads it."""
        for passage in self._passages.values():
            self._count(passage)
        return self.ledger.counters.text()

    # --- leaves -------------------------------------------------------------------------------------------------------

    def _passage(self, opened: Opened, leg: SocketLeg | TransportLeg) -> Passage:
        settings, passenger = self.settings, opened.passenger
        session_s = None if settings.session_ms_max is None else settings.session_ms_max / 1000
        limits = PassageLimits(settings.stall_ms_max / 1000, session_s, settings.client_messages_per_second_max)
        passage = Passage(
            opened.id,
            leg,
            opened.service,
            self.ledger.spending(opened.client, passenger.admitted.model),
            limits,
            tape=self._tapes.begin(passenger.admitted, opened.id),
            secret=secret_of(passenger.endpoint).encode(),
            key_taken=self._note_key,
        )
        inspection = Inspection(
            passenger.dialect,
            passenger.endpoint.dialect,
            passage.to_client,
            passage.to_service,
            strict=settings.strict,
            warned=self._warned,
        )
        policies = self._policies(opened, passage, inspection)
        if policies or passenger.dialect != passenger.endpoint.dialect:
            inspection.set_policies(policies)
            passage.inspect(inspection)
        return passage

    def _policies(self, opened: Opened, passage: Passage, inspection: Inspection) -> list[Policy]:
        """The policies of one session, in the order in which a client's event meets them."""
        admitted = opened.passenger.admitted
        visit = Visit(
            id=opened.id,
            client=opened.client.id,
            key_id=admitted.key_id,
            model=admitted.model,
            kind=admitted.kind,
            safety_identifier=admitted.safety_identifier,
            to_service=inspection.inject_to_service,
            to_client=inspection.inject_to_client,
            end=passage.end,
            on_end=passage.on_end,
        )
        policies: list[Policy] = []
        if self.settings.session_fields != ANYTHING:
            policies.append(AllowList(self.settings.session_fields))
        policies += [make(visit) for make in self._factories]
        if self._tools and admitted.kind == "realtime":
            policies.append(RelayTools(visit, self._tools, self._called))
        configured = admitted.configured
        if configured is not None and configured == type(configured)():
            configured = None  # a key that was made for a model alone
        if configured is not None or (self._tools and admitted.kind == "realtime"):
            policies.append(Opening(visit, configured, [tool.definition for tool in self._tools]))
        return policies

    def _warned(self) -> None:
        self.ledger.counters.warnings.add(1)

    def _called(self) -> None:
        self.ledger.counters.tool_calls.add(1)

    def _count(self, passage: Passage) -> None:
        """Move what a passage has counted to the relay's counters."""
        counters = self.ledger.counters
        counters.messages.add(passage.messages_up, "client")
        counters.messages.add(passage.messages_down, "service")
        counters.message_bytes.add(passage.bytes_up, "client")
        counters.message_bytes.add(passage.bytes_down, "service")
        passage.messages_up = passage.messages_down = passage.bytes_up = passage.bytes_down = 0

    def _settle(self, passage: Passage) -> None:
        self._count(passage)
        self.ledger.counters.ends.add(1, passage.ended_by)


async def _gone(leg: SocketLeg) -> None:
    """Wait until a leg has let its socket go, which it does by itself once it is closed."""
    await asyncio.wait((leg.gone,))


def _costs(passage: Passage) -> str:
    """What a session used, for the log."""
    spending = passage.spending
    price = f", cost {spending.cost:.6f}" if spending.price else ""
    return f", {spending.input_tokens} tokens in, {spending.output_tokens} out{price}"


__all__ = ["Opened", "Relay"]
