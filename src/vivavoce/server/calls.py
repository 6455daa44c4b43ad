"""The calls of one server: a WebRTC peer, the session behind it, and who else is attached (reference §1.9.5–1.9.7).

A call is admitted as a WebSocket is, lives in a task of its own, and is found by its id, by whoever has the key that
began it. Invariants: a call holds its place exactly as long as it lives; one that is not set up in time, or in which
nothing happens, is over by itself; at its end no task, socket or line of it is left.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vivavoce.errors import ConnectionClosed, RemoteProtocolError

from .admission import Admitted
from .auth import REQUEST, TRY_AGAIN, Asked, Credential, Refusal, is_loopback
from .client_secrets import Configured
from .hub import Hub
from .ids import ids
from .media import CallMedia
from .sessions import Sessions
from .settings import Settings

if TYPE_CHECKING:
    from vivavoce.transports.webrtc import Peer

PREFIX = "rtc"

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Call:
    """One call that lives."""

    id: str
    admitted: Admitted
    hub: Hub
    peer: Peer
    place: ExitStack
    """What it holds as long as it lives."""
    began_s: float = field(default_factory=time.monotonic)

    def hang_up(self, code: int, reason: str) -> None:
        """End it; everything that belongs to it follows."""
        self.hub.end(ConnectionClosed(code, reason))


class Calls:
    """Begins calls, finds them, ends them."""

    def __init__(self, sessions: Sessions, settings: Settings, *, new_id: Callable[[str], str] | None = None) -> None:
        self._sessions = sessions
        self._limits = settings.webrtc
        self._new_id = new_id or ids()
        self._calls: dict[str, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._calls.values()))

    async def begin(
        self, asked: Asked, offer_sdp: str, configured: Configured | None = None, *, client_host: str = ""
    ) -> tuple[str, str]:
        """Answer an offer: the id of the call, and the SDP answer. Raises `Refusal`."""
        place, peer = ExitStack(), None
        try:
            admitted = place.enter_context(self._sessions.admitted(asked, configured))
            place.enter_context(self._place())
            await self._sessions.ready()
            media = CallMedia()
            peer = await self._peer(media, with_loopback=is_loopback(client_host))
            media.play_on(peer.outlet)
            try:
                answer = await peer.answer(offer_sdp)
            except RemoteProtocolError as error:
                raise Refusal(REQUEST, "invalid_offer", str(error)) from None
            hub = Hub(peer.channel, self._new_id, is_filtered=asked.query.get("webrtcfilter") == "on")
        except BaseException:
            place.close()
            if peer is not None:
                await peer.close()
            raise
        call = Call(self._new_id(PREFIX), admitted, hub, peer, place)
        self._calls[call.id] = call
        task = asyncio.create_task(self._live(call, media), name=call.id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return call.id, answer

    def find(self, call_id: str, credential: Credential) -> Call:
        """The call with this id, for whoever has the key that began it. Raises `Refusal`."""
        if credential.secret is not None:
            message = "A short-lived key begins calls and does nothing else; use the key of your server."
            raise Refusal(REQUEST, "insufficient_permissions", message, status=403)
        call = self._calls.get(call_id)
        if call is None or call.admitted.key_id != credential.key_id:
            raise Refusal(REQUEST, "call_not_found", f"There is no call {call_id[:64]!r}; it may be over.", status=404)
        return call

    # --- one call -----------------------------------------------------------------------------------------------------

    def _place(self) -> _Place:
        if self._places >= self._limits.peers_max:
            message = f"This server carries {self._limits.peers_max} calls at once, all are taken; try again later."
            raise Refusal(TRY_AGAIN, "too_many_calls", message, type="rate_limit_error")
        return _Place(self)

    async def _peer(self, media: CallMedia, *, with_loopback: bool) -> Peer:
        if find_spec("aiortc") is None:
            message = "This server has no WebRTC: the extra is missing there; pip install 'vivavoce[webrtc]'."
            raise Refusal(REQUEST, "webrtc_not_available", message, type="server_error", status=501)
        # The first time this loads aiortc, for which no other session should have to wait.
        await asyncio.to_thread(import_module, "vivavoce.transports.webrtc")
        from vivavoce.transports.webrtc import IceServer, Peer

        limits = self._limits
        servers = [] if limits.stun_server is None else [IceServer(limits.stun_server)]
        if limits.turn_server is not None:
            credential = None if limits.turn_credential is None else limits.turn_credential.reveal()
            servers.append(IceServer(limits.turn_server, limits.turn_username, credential))
        return Peer(hear=media.hear, ice_servers=servers, with_loopback=with_loopback, ahead_ms_max=limits.ahead_ms_max)

    async def _live(self, call: Call, media: CallMedia) -> None:
        """A call from its answer to its end."""
        watching = asyncio.create_task(self._watch(call), name=f"watching of {call.id}")
        try:
            admitted = dataclasses.replace(call.admitted, call_id=call.id)
            await self._sessions.run(admitted, call.hub, media)
        except Refusal as refusal:
            log.info("%s: has no session: %s", call.id, refusal.detail.message)
        finally:
            del self._calls[call.id]
            watching.cancel()
            try:
                await call.hub.close()
                await call.peer.close()
            finally:
                call.place.close()

    async def _watch(self, call: Call) -> None:
        """End a call that is not set up, or in which nothing happens."""
        limits, clock = self._limits, asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(limits.setup_ms_max / 1000):
                await call.peer.connected.wait()
                await call.peer.channel.opened.wait()
        except TimeoutError:
            call.hang_up(1001, f"The call was not set up within {limits.setup_ms_max} ms.")
            return
        while True:
            left_s = call.hub.last_s + limits.idle_ms_max / 1000 - clock()
            if left_s <= 0:
                break
            await asyncio.sleep(left_s)
        call.hang_up(1001, f"Nothing has happened in this call for {limits.idle_ms_max} ms.")


class _Place:
    """One of the calls that there may be at once."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __enter__(self) -> None:
        self._calls._places += 1

    def __exit__(self, *_: object) -> None:
        self._calls._places -= 1
