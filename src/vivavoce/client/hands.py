"""The caller's hands: what it asks for is done here, and what happens is brought to it, with the time.

server event, wish, report → `Caller.handle` → effects → outgoing, player, tools, application. The only interpreter of
the caller's effects. Invariants: what comes in is taken to its end before the next does; every ticket is settled once,
at the latest by `end`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from vivavoce.core.caller.messages import (
    Acknowledge,
    Ask,
    CallerEffect,
    CallerInput,
    CancelTool,
    Heard,
    Play,
    PlaybackStopped,
    Refuse,
    RunTool,
    StopPlayback,
    Tell,
    Transmit,
    WakeUp,
)
from vivavoce.core.caller.tags import untagged
from vivavoce.core.caller.updates import Failed
from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given

from .outgoing import Outgoing
from .restoring import server_error
from .surroundings import Owner, ServerMessage, Surroundings

log = logging.getLogger(__name__)

NOT_IN_DIALECT = "not_in_dialect"
"""The code of an error about an event that was never sent, because the dialect cannot say it."""


class Hands:
    """Those of one caller, for one session."""

    def __init__(self, owner: Owner, given: Surroundings, outgoing: Outgoing) -> None:
        self.owner = owner
        self.given = given
        self.events = 0
        """How many have come; by which is seen that something has."""
        self.is_turn_given = False
        """Whether somebody has got what they waited for, and is to go on before the next event is taken."""
        self._outgoing = outgoing
        self._tickets: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._clock = asyncio.get_running_loop().time
        self._began_s = self._clock()
        self._alarm: asyncio.TimerHandle | None = None
        self._is_mute = False
        self._is_over = False

    @property
    def _now_ms(self) -> int:
        return int((self._clock() - self._began_s) * 1000 + 0.5)

    @property
    def is_waited_for(self) -> bool:
        """Whether an answer is still to come, so that the server must be read."""
        return bool(self._tickets)

    def give_turn(self) -> None:
        """Somebody has got what they waited for: they go on before the next event, which may be what they want next."""
        self.is_turn_given = True

    # --- to the caller ------------------------------------------------------------------------------------------------

    def handle(self, input: CallerInput) -> None:
        """Hand an input to the caller and do what it asks for. Raises `LocalProtocolError` for an `Ask`."""
        self._do(self.given.caller.handle(input, self._now_ms))
        self._set_alarm()

    def ask(self, event: ev.AnyClientEvent) -> asyncio.Future[Any]:
        """Send an event; the future holds the server's answer. Raises `LocalProtocolError`."""
        self._number += 1
        number = self._number
        future = self._tickets[number] = asyncio.get_running_loop().create_future()
        try:
            self.handle(Ask(event, number))
        except BaseException:
            self._tickets.pop(number, None)
            raise
        return future

    def take(self, event: ServerMessage) -> None:
        """An event of the server: first the caller, whose conversation then holds it, then the application."""
        self.events += 1
        effects = self.given.caller.handle(event, self._now_ms)
        if isinstance(event, ev.ResponseCreated | ev.ResponseDone):
            event = untagged(event)
        if not effects:
            if type(event) is not ev.ErrorEvent:  # one that nobody is to care about
                self.owner.heard(event)
            if type(event) is not ev.ResponseOutputAudioDelta:  # which is never the reason for a deadline
                self._set_alarm()
            return
        if isinstance(event, ev.ErrorEvent):
            effects = [effect for effect in effects if not _repeats(effect, event)]
        settled = [effect for effect in effects if isinstance(effect, Acknowledge | Refuse)]
        self._do([effect for effect in effects if not isinstance(effect, Acknowledge | Refuse | Tell)])
        self.owner.heard(event)
        self._do([effect for effect in effects if isinstance(effect, Tell)])
        self._do(settled)
        self._set_alarm()

    def end(self, closed: ConnectionClosed) -> None:
        """Nothing comes any more."""
        self._is_over = True
        if self._alarm is not None:
            self._alarm.cancel()
        for future in self._tickets.values():
            if not future.done():
                future.set_exception(ConnectionClosed(closed.code, closed.reason))
        self._tickets.clear()

    # --- what it asks for ---------------------------------------------------------------------------------------------

    def _do(self, effects: Sequence[CallerEffect]) -> None:
        for effect in effects:
            match effect:
                case Play():
                    self._play(effect)
                case Transmit():
                    self._transmit(effect.event)
                case Acknowledge():
                    if (future := self._tickets.pop(effect.ticket, None)) is not None and not future.done():
                        future.set_result(effect.event)
                        self.give_turn()
                case Refuse():
                    if (future := self._tickets.pop(effect.ticket, None)) is not None and not future.done():
                        is_ours = effect.error.code == NOT_IN_DIALECT
                        future.set_exception(
                            LocalProtocolError(effect.error.message) if is_ours else server_error(effect.error)
                        )
                case StopPlayback():
                    self._do(self.given.caller.handle(PlaybackStopped(self._stop_playing()), self._now_ms))
                case Tell():
                    self.owner.told(effect.update)
                case RunTool() | CancelTool():
                    self.owner.runs(effect)

    def _play(self, effect: Play) -> None:
        """A player that fails is told of once; the session goes on without sound."""
        if self.given.player is None or self._is_mute:
            return
        try:
            self.given.player.play(effect.item_id, effect.audio, effect.format)
        except Exception as error:
            self._has_no_player(error)

    def _stop_playing(self) -> tuple[Heard, ...]:
        try:
            return self.given.player.stop() if self.given.player is not None else ()
        except Exception as error:
            self._has_no_player(error)
            return ()

    def _has_no_player(self, error: Exception) -> None:
        if self._is_mute:
            return
        self._is_mute = True
        log.error("the player has failed; the session goes on without it", exc_info=error)
        message = f"The player has failed: {error}"
        self.owner.told(Failed(ev.ErrorDetail(type="vivavoce", code="player_failed", message=message)))

    def _transmit(self, event: ev.AnyClientEvent) -> None:
        try:
            frame = self.given.codec.encode(event)
        except LocalProtocolError as error:  # the dialect cannot say it
            detail = ev.ErrorDetail(
                type="vivavoce", code=NOT_IN_DIALECT, message=str(error), event_id=given(event.event_id, None)
            )
            self._do(self.given.caller.handle(ev.ErrorEvent(error=detail), self._now_ms))
            return
        self.owner.sent(event)
        self._outgoing.put(frame)

    # --- its alarm clock ----------------------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """One timer, for the earliest deadline; it rings in vain rather than being moved with every event."""
        due_ms = self.given.caller.deadline()
        if due_ms is None or self._is_over:
            return
        due_s = self._began_s + due_ms / 1000
        if self._alarm is not None:
            if self._alarm.when() <= due_s:
                return
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        due_ms = self.given.caller.deadline()
        if due_ms is not None and self._now_ms >= due_ms:
            self.handle(WakeUp())
        self._set_alarm()


def _repeats(effect: CallerEffect, event: ev.ErrorEvent) -> bool:
    """The application gets the error itself; it need not be told of it again."""
    update = effect.update if isinstance(effect, Tell) else None
    return getattr(update, "error", None) is event.error
