"""One relayed session: two legs joined, with back-pressure between them, counted, and ended together.

A message goes from the socket that brought it into the other one, in one call; only what is taped, paced, inspected or
paid for is looked at. Invariants: while more waits for one side than may, the other is not read; when one side ends,
the other is told how, after everything that came before; `run` leaves no task, timer or socket behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from vivavoce.protocol.events import ErrorDetail, ErrorEvent
from vivavoce.protocol.items import Usage
from vivavoce.protocol.wire import encode
from vivavoce.server.ids import ids
from vivavoce.server.quota import Quota
from vivavoce.transports.taping import TapeWriter

from .inspection import Inspection
from .ledger import POLICY, Spending
from .legs import CLOSE_S_MAX, LOST, Ear, Leg, Message
from .peeking import type_of

GOING_AWAY, INTERNAL, BAD_GATEWAY = 1001, 1011, 1014
_UNSENDABLE = frozenset({1004, LOST, 1015})

KEY_REFUSED = "upstream_refused"
REFUSED = "The service did not accept the key of the relay."

RESPONSE_DONE, ERROR = b"response.done", b"error"
TRANSCRIBED = b"conversation.item.input_audio_transcription.completed"
CREATED = frozenset({b"session.created", b"transcription_session.created"})
"""What a service says first, once it has taken the key."""
_WATCHED = CREATED | {RESPONSE_DONE, TRANSCRIBED, ERROR}

log = logging.getLogger(__name__)


class _Response(msgspec.Struct):
    usage: Usage | None = None


class _Done(msgspec.Struct):
    response: _Response


class _Duration(msgspec.Struct):
    seconds: float = 0.0


class _Transcribed(msgspec.Struct):
    usage: _Duration | None = None


@dataclass(frozen=True, slots=True)
class PassageLimits:
    """How long a session may last and stall, in seconds, and how much its client may say; None is no limit."""

    stall_s: float
    session_s: float | None = None
    messages_per_s: float | None = None


class Passage:
    """A session that passes. `client` and `service` are its legs, which `run` joins.

    `key_taken` is told whether the service has taken the key, `secret`, by what it says.
    """

    def __init__(
        self,
        session_id: str,
        client: Leg,
        service: Leg,
        spending: Spending,
        limits: PassageLimits,
        *,
        tape: TapeWriter | None = None,
        secret: bytes = b"",
        key_taken: Callable[[bool], None] = lambda is_taken: None,
    ) -> None:
        self.id = session_id
        self._client, self._service = client, service
        self.spending, self._limits = spending, limits
        pace = limits.messages_per_s
        self._pace = None if pace is None else Quota(max(pace, 1.0), pace)
        self._tape, self._secret, self._key_taken = tape, secret, key_taken
        self._is_refused = False
        self._inspection: Inspection | None = None
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._client_holds: set[str] = set()
        self._service_holds: set[str] = set()
        self._new_id = ids()
        self.on_end: list[Callable[[], None]] = []
        self.messages_up = self.messages_down = self.bytes_up = self.bytes_down = 0
        self.ended_by = ""
        """`client`, `service`, or the code of what the relay ended it for; empty while it lasts."""
        self._over: asyncio.Future[None] = self._loop.create_future()

    def inspect(self, inspection: Inspection) -> None:
        """Look at what passes, from now on."""
        self._inspection = inspection

    async def run(self, join: Callable[[Ear, Ear], None]) -> None:
        """Carry the session to its end. `join` joins the legs: the ear for the client's, and that for the service's."""
        if self._limits.session_s is not None:
            said = "Your session hit the maximum duration of this relay."
            self._later("duration", self._limits.session_s, lambda: self.fail("session_expired", said, GOING_AWAY))
        if self._tape is not None:
            self._tape.note("connected")
        try:
            join(
                Ear(self._client_said, self._client_over, self._client_full),
                Ear(self._server_said, self._service_over, self._service_full),
            )
            await self._over
        finally:
            self.end(GOING_AWAY, "The relay is stopping.", by="relay")

    # --- messages -----------------------------------------------------------------------------------------------------

    def _client_said(self, message: Message) -> None:
        self.messages_up += 1
        self.bytes_up += len(message)
        if self._pace is not None:
            self._mind_the_pace(self._pace)
        if self._tape is not None:
            self._tape.message("client", str(message, "utf-8", "replace"))
        if self._inspection is None:
            self._service.send(message)
        else:
            self._inspected(self._inspection.client_said, message)

    def _server_said(self, message: Message) -> None:
        self.messages_down += 1
        self.bytes_down += len(message)
        why = None
        if (kind := type_of(message)) in _WATCHED:
            message, why = self._watched(kind, bytes(message))
        if self._inspection is None:
            self.to_client(message)
        else:
            self._inspected(self._inspection.server_said, message)
        if why is not None:
            self.fail("budget_exceeded", why, POLICY)

    def _inspected(self, said: Callable[[bytes], None], message: Message) -> None:
        """A policy that fails, or a message that nobody foresaw, ends its session and no other."""
        try:
            said(bytes(message))
        except Exception:
            log.exception("%s: a message could not be inspected", self.id)
            self.fail("relay_failed", "The relay has failed.", INTERNAL, kind="server_error")

    def to_client(self, message: Message) -> None:
        """A message as the client is to get it."""
        if self._tape is not None:
            self._tape.message("server", str(message, "utf-8", "replace"))
        self._client.send(message)

    def to_service(self, message: Message) -> None:
        """A message as the service is to get it."""
        self._service.send(message)

    def _watched(self, kind: bytes, message: bytes) -> tuple[bytes, str | None]:
        """The message, and why the session has to end, where a budget is spent."""
        with suppress(msgspec.DecodeError):
            if kind == RESPONSE_DONE:
                usage = msgspec.json.decode(message, type=_Done).response.usage
                return message, None if usage is None else self.spending.used(usage)
            if kind == TRANSCRIBED:
                duration = msgspec.json.decode(message, type=_Transcribed).usage
                return message, None if duration is None else self.spending.transcribed(duration.seconds)
            if kind in CREATED:
                self._key_taken(True)
                return message, None
            return self._without_key(message), None
        return message, None

    def _without_key(self, message: bytes) -> bytes:
        """An error about the key is about the relay's, of which the client is to know nothing."""
        event: dict[str, Any] = msgspec.json.decode(message)
        error = event.get("error")
        is_about_key = isinstance(error, dict) and error.get("code") == "invalid_api_key"
        if isinstance(error, dict) and (is_about_key or (self._secret and self._secret in message)):
            log.error("%s: the service refuses the relay's key", self.id)
            if not self._is_refused:
                self._is_refused = True
                self._key_taken(False)
            error |= {"type": "server_error", "code": KEY_REFUSED, "message": REFUSED, "param": None}
            return encode(event)
        return message

    def _mind_the_pace(self, pace: Quota) -> None:
        now = self._loop.time()
        pace.spend(1, now)
        if (wait_s := pace.seconds_until(1, now)) > 0 and "pace" not in self._client_holds:
            self._hold_client("pace", True)
            self._later("pace", wait_s, lambda: self._hold_client("pace", False))

    # --- back-pressure ------------------------------------------------------------------------------------------------

    def _client_full(self, is_full: bool) -> None:
        """The client takes no more for now: the service is not read."""
        self._service_holds = self._held(self._service, self._service_holds, "full", is_full)
        said = "The client has stopped reading."
        self._mind_the_stall("client stall", is_full, lambda: self.end(POLICY, said, by="client_stalled"))

    def _service_full(self, is_full: bool) -> None:
        self._hold_client("full", is_full)
        said = "The service has stopped reading."
        self._mind_the_stall(
            "service stall", is_full, lambda: self.fail("upstream_stalled", said, BAD_GATEWAY, kind="server_error")
        )

    def _hold_client(self, why: str, is_held: bool) -> None:
        self._client_holds = self._held(self._client, self._client_holds, why, is_held)

    def _held(self, leg: Leg, reasons: set[str], why: str, is_held: bool) -> set[str]:
        reasons = reasons | {why} if is_held else reasons - {why}
        if not self.ended_by:
            leg.hold(bool(reasons))
        return reasons

    def _mind_the_stall(self, name: str, is_full: bool, end: Callable[[], None]) -> None:
        if is_full:
            self._later(name, self._limits.stall_s, end)
        elif (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def _later(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        if self.ended_by:
            return
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        self._timers[name] = self._loop.call_later(delay_s, call)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _client_over(self, code: int, reason: str) -> None:
        to_service = GOING_AWAY if code in _UNSENDABLE else code
        self._finish("client", code, reason, service=(to_service, reason), client=None)

    def _service_over(self, code: int, reason: str) -> None:
        if self.ended_by:
            return
        if code in _UNSENDABLE:
            said = "The connection to the service was lost."
            self.fail("upstream_lost", said, BAD_GATEWAY, by="service_lost", kind="server_error")
            return
        if self._is_refused:  # the close names the key as well, and a client would take its own for a wrong one
            code, reason = BAD_GATEWAY, REFUSED
        elif self._secret and self._secret.decode(errors="replace") in reason:
            reason = ""
        self._finish("service", code, reason, service=None, client=(code, reason))

    def fail(self, code: str, message: str, close: int, *, by: str = "", kind: str = "invalid_request_error") -> None:
        """End the session with an `error` event for the client, and these closes."""
        if self.ended_by:
            return
        event = ErrorEvent(event_id=self._new_id("event"), error=ErrorDetail(type=kind, code=code, message=message))
        self.to_client(encode(event))
        self._finish(by or code, close, message, service=(GOING_AWAY, ""), client=(close, message))

    def end(self, code: int, reason: str, *, by: str = "policy") -> None:
        """End the session: both sides are told this."""
        self._finish(by, code, reason, service=(GOING_AWAY, reason), client=(code, reason))

    def _finish(
        self,
        by: str,
        code: int,
        reason: str,
        *,
        service: tuple[int, str] | None,
        client: tuple[int, str] | None,
    ) -> None:
        if self.ended_by:
            return
        self.ended_by = by
        for timer in self._timers.values():
            timer.cancel()
        if self._tape is not None:
            by_end = "client" if by == "client" else "server"
            self._tape.note("closed", by=by_end, code=code, reason=reason)
        if service is not None:
            self._service.close(*service)
        if client is not None:
            self._client.close(*client)
        for call in self.on_end:
            call()
        if not self._over.done():
            self._over.set_result(None)


__all__ = ["BAD_GATEWAY", "CLOSE_S_MAX", "GOING_AWAY", "Passage"]
