"""Both ends of a session without a network: the session machine and the caller, stepped by hand.

    pair = Pair()
    pair.ask(events.ResponseCreate())
    pair.settle()
    assert pair.caller.conversation.items == pair.server.conversation.items

Messages travel as frames through both codecs and wait in two queues until they are delivered, engines' reports in the
rehearsal's streams, calls of tools in `calls`: a test decides what happens next. The clock is one for both ends, and
moves only by `after`. Invariant: no message is lost or overtaken, but by `lose`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import UNSET, structs

from vivavoce.client.player import VirtualPlayer
from vivavoce.core.caller import Caller, CallerLimits
from vivavoce.core.caller.answers import Answers
from vivavoce.core.caller.messages import (
    Acknowledge,
    Ask,
    CallerEffect,
    CallerInput,
    CancelTool,
    Connected,
    Lost,
    Play,
    PlaybackStopped,
    Refuse,
    Restored,
    RunTool,
    StopPlayback,
    Tell,
    ToolEnded,
    Transmit,
    WakeUp,
)
from vivavoce.core.caller.restoring import restoration
from vivavoce.core.caller.updates import Update
from vivavoce.core.conversation import Conversation
from vivavoce.core.messages import Close, Effect, Gone, Opened, Send
from vivavoce.core.session import Session
from vivavoce.engines import Pipeline
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ClientCodec, Dialect, ServerCodec
from vivavoce.protocol.items import FunctionCall

from .playbook import WAKE_UPS_MAX, Moment, counting_ids
from .rehearsal import Rehearsal

__all__ = ["Pair"]

STEPS_MAX = 100_000
"""Steps of one `settle`; more is taken for ends that never come to rest."""

Outcome = Acknowledge | Refuse


def plain_session(ids: Callable[[str], str]) -> Session:
    """A session machine with everything at its default."""
    return Session(id=ids("sess"), model="scripted", ids=ids, expires_at=0)


class Pair:
    """A server's session and a client's caller, and what is between them."""

    def __init__(
        self,
        new_session: Callable[[Callable[[str], str]], Session] = plain_session,
        *,
        dialect: Dialect = "ga",
        pipeline: Pipeline | None = None,
        runs: Callable[[str], bool] = lambda name: False,
        limits: CallerLimits | None = None,
        text_fallback: bool = True,
        witness: Callable[[ev.AnyClientEvent | ev.AnyServerEvent | ev.Unknown | Update], object] | None = None,
    ) -> None:
        self.now_ms = 0
        self.dialect = dialect
        self.to_server: deque[bytes] = deque()
        self.to_client: deque[bytes] = deque()
        self.calls: dict[str, FunctionCall] = {}
        """Tools that run, by call id."""
        self.cancelled_calls: set[str] = set()
        """Those of them that were told to end."""
        self.outcomes: dict[int, list[Outcome]] = {}
        """What became of each ticket."""
        self.updates: list[Update] = []
        self.is_connected = True
        self._new_session = new_session
        self._pipeline = pipeline
        self._witness = witness or (lambda message: None)
        self._server_ids = counting_ids()
        self._client_numbers = counting_ids()
        self.player = VirtualPlayer(lambda: self.now_ms / 1000)
        """Plays what the caller says, by the clock of the pair."""
        self.caller = Caller(ids=self._ids, runs=runs, plays=True, text_fallback=text_fallback, limits=limits)
        self._begin()
        self.hear(Connected())

    def _ids(self, prefix: str) -> str:
        return self._client_numbers(f"{prefix}_of_client")  # unlike the server's own

    def _begin(self) -> None:
        self.server_codec, self.client_codec = ServerCodec(self.dialect), ClientCodec(self.dialect)
        self.server = self._new_session(self._server_ids)
        self.rehearsal = Rehearsal(self.server, self._pipeline, witness=self._sent)
        self.rehearsal.now_ms = self.now_ms
        self.rehearsal.say(Opened())

    # --- what the application does ------------------------------------------------------------------------------------

    def ask(self, event: ev.AnyClientEvent) -> int:
        """Send an event; the ticket under which `outcomes` has the answer. Raises `LocalProtocolError`."""
        ticket = len(self.outcomes) + 1
        if not isinstance(event.event_id, str):
            event = structs.replace(event, event_id=self._ids("event"))
        if isinstance(event, ev.ConversationItemCreate) and event.item.id is UNSET:
            event = structs.replace(event, item=structs.replace(event.item, id=self._ids("mine")))
        self.hear(Ask(event, ticket))
        self.outcomes.setdefault(ticket, [])
        return ticket

    def end_tool(self, call_id: str, output: str = "{}") -> None:
        """A tool answers."""
        del self.calls[call_id]
        self.cancelled_calls.discard(call_id)
        self.hear(ToolEnded(call_id, output))

    def hear(self, input: CallerInput) -> None:
        """Give the caller an input, and do what it asks for."""
        self._do(self.caller.handle(input, self.now_ms))

    def _do(self, effects: list[CallerEffect]) -> None:
        for effect in effects:
            match effect:
                case Transmit():
                    self._witness(effect.event)
                    self.to_server.append(self.client_codec.encode(effect.event))
                case Acknowledge() | Refuse():
                    self.outcomes.setdefault(effect.ticket, []).append(effect)
                case RunTool():
                    self.calls[effect.call_id] = effect.call
                case CancelTool():
                    self.cancelled_calls.add(effect.call_id)
                case Play():
                    self.player.play(effect.item_id, effect.audio, effect.format)
                case StopPlayback():
                    self.hear(PlaybackStopped(self.player.stop()))
                case Tell():
                    self._witness(effect.update)
                    self.updates.append(effect.update)

    # --- what lies between --------------------------------------------------------------------------------------------

    def _sent(self, moment: Moment) -> None:
        """What the session machine sends."""
        if isinstance(moment.message, Send):
            frame = self.server_codec.encode(moment.message.event)
            if frame is not None:
                self.to_client.append(frame)

    def reach_server(self) -> list[Effect]:
        """Deliver the next message of the client."""
        event = self.server_codec.decode(self.to_server.popleft().decode())
        assert not isinstance(event, tuple)  # only the overview dialect has such messages
        return self.rehearsal.say(event)

    def reach_client(self) -> ev.AnyServerEvent | ev.Unknown:
        """Deliver the next message of the server."""
        event = self.client_codec.decode(self.to_client.popleft())
        self._witness(event)
        self.hear(event)
        return event

    # --- time ---------------------------------------------------------------------------------------------------------

    def after(self, ms: int) -> None:
        """Let time pass, for players and deadlines; messages and reports wait."""
        target, woken = self.now_ms + ms, 0
        while True:
            dues = [due for due in (self.server.deadline(), self.caller.deadline()) if due is not None]
            if not dues or min(dues) > target:
                break
            woken = woken + 1 if min(dues) <= self.now_ms else 0
            assert woken <= WAKE_UPS_MAX, "one end has a deadline that never moves"
            self.now_ms = max(self.now_ms, min(dues))
            self.rehearsal.wake_until(self.now_ms)
            if (due := self.caller.deadline()) is not None and due <= self.now_ms:
                self.hear(WakeUp())
        self.now_ms = target
        self.rehearsal.wake_until(target)

    def settle(self) -> None:
        """Deliver everything, let engines and tools finish, until neither end has anything to say."""
        for _ in range(STEPS_MAX):
            if self.to_server:
                self.reach_server()
            elif self.to_client:
                self.reach_client()
            elif self.rehearsal.streams:
                self.rehearsal.deliver(self.rehearsal.streams[0])
            elif self.calls:
                self.end_tool(next(iter(self.calls)))
            else:
                return
        raise AssertionError(f"the two ends do not come to rest in {STEPS_MAX} steps")

    # --- connections --------------------------------------------------------------------------------------------------

    def lose(self) -> None:
        """Cut the line; what is on its way is lost, and the server's session with it."""
        self.rehearsal.say(Gone())
        self.to_server.clear()
        self.to_client.clear()
        self.is_connected = False
        self.hear(Lost())

    def hang(self) -> None:
        """The line is dead for a while; nothing is lost."""
        self.is_connected = False
        self.hear(Lost())

    def resume(self) -> None:
        """The line is alive again."""
        self.is_connected = True
        self.hear(Connected())

    def tell(self) -> Conversation:
        """Begin another session and tell it what was before; the conversation that a client makes of its answers."""
        events = restoration(self.caller.memory, self.caller.configured, self._ids)
        self._begin()
        settled: list[CallerEffect] = []
        answers, conversation = Answers(settled.append, 0), Conversation()
        for number, event in enumerate(events, 1):
            answers.expect(event, number, self.now_ms)
            self.to_server.append(self.client_codec.encode(event))
        while self.to_server:
            self.reach_server()
        while self.to_client:
            heard = self.client_codec.decode(self.to_client.popleft())
            conversation.apply(heard)
            if isinstance(heard, ev.ErrorEvent):
                answers.refused(heard.error)
            elif not isinstance(heard, ev.Unknown):
                answers.take(heard)
        assert not len(answers), "the new session has not answered all that it was told"
        refused = [effect.error.message for effect in settled if isinstance(effect, Refuse)]
        assert not refused, f"the new session does not take what it is told: {refused}"
        return conversation

    def restore(self, conversation: Conversation | None = None) -> None:
        """Go on in another session."""
        fresh = self.tell() if conversation is None else conversation
        self.is_connected = True
        self.hear(Restored(fresh))

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is on its way, and nobody works."""
        return not (self.to_server or self.to_client or self.rehearsal.streams or self.calls)

    @property
    def closed(self) -> Close | None:
        """Whether the server has ended the session, and how."""
        return self.rehearsal.closed
