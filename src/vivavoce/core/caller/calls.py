"""Which functions the model has called, which of them are answered, and when the model is to see the answers.

A call runs as soon as its arguments are complete, while the response may still be going on. Invariants: a call is run
once and answered once; a response whose calls are all ours brings one follow-up of its own kind, when it is done and
they are answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe, given
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, Item, Response

from .messages import CallerEffect, CancelTool, RunTool


@dataclass(slots=True)
class Round:
    """The calls of one response."""

    response_id: str
    params: Maybe[ev.ResponseParams] = UNSET
    """What the response does otherwise than the session says; the one that follows it does so, too."""
    told: set[str] = field(default_factory=set)
    """Calls that the server has told of, which it may do more than once."""
    open: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    """Items that hold the answers."""
    has_foreign: bool = False
    """Whether the application answers one of them by itself; then it asks for the answer, too."""
    is_done: bool = False
    is_cancelled: bool = False


class Calls:
    """The function calls of one caller. `runs(name)` says whether a function is ours, `params(response_id)` how a
    response was asked for."""

    def __init__(
        self,
        runs: Callable[[str], bool],
        ask: Callable[[CallerEffect], None],
        send: Callable[[ev.AnyClientEvent], None],
        new_id: Callable[[str], str],
        params: Callable[[str], Maybe[ev.ResponseParams]],
        follow_up: Callable[[frozenset[str], Maybe[ev.ResponseParams]], None],
    ) -> None:
        self._runs = runs
        self._ask = ask
        self._send = send
        self._new_id = new_id
        self._params = params
        self._follow_up = follow_up
        self._rounds: dict[str, Round] = {}

    @property
    def open(self) -> tuple[str, ...]:
        """Calls that run."""
        return tuple(call_id for round in self._rounds.values() for call_id in round.open)

    def item_done(self, response_id: str, item: Item) -> None:
        """An item of a response is complete; where it is a call of ours, run it."""
        if not isinstance(item, FunctionCall) or item.status == "incomplete":
            return
        call_id = given(item.call_id, None) or ""
        round = self._rounds.get(response_id)
        if round is None:
            round = self._rounds[response_id] = Round(response_id, self._params(response_id))
        if call_id in round.told:
            return
        round.told.add(call_id)
        if not call_id or not self._runs(item.name):
            round.has_foreign = True
        else:
            round.open.add(call_id)
            self._ask(RunTool(call_id, item, response_id))

    def response_done(self, response: Response) -> None:
        """The response is over; calls that only its end tells of are run now."""
        for item in response.output:
            self.item_done(response.id, item)
        if round := self._rounds.get(response.id):
            round.is_done = True
            round.is_cancelled = response.status in ("cancelled", "failed")
            self._settle(round)

    def ended(self, call_id: str, output: str) -> None:
        """A tool has answered."""
        round = next((round for round in self._rounds.values() if call_id in round.open), None)
        if round is None:
            return
        item = FunctionCallOutput(id=self._new_id("item"), call_id=call_id, output=output)
        round.open.discard(call_id)
        round.outputs.add(given(item.id, ""))
        self._send(ev.ConversationItemCreate(event_id=self._new_id("event"), item=item))
        self._settle(round)

    def interrupted(self) -> None:
        """The user speaks: tools that want to be are ended."""
        for call_id in self.open:
            self._ask(CancelTool(call_id))

    def moved(self) -> None:
        """The session was lost, and with it the responses that were running."""
        for round in list(self._rounds.values()):
            if not round.is_done:
                round.is_done = True
                self._settle(round)

    def _settle(self, round: Round) -> None:
        if not round.is_done or round.open:
            return
        del self._rounds[round.response_id]
        if round.outputs and not round.has_foreign and not round.is_cancelled:
            self._follow_up(frozenset(round.outputs), round.params)
