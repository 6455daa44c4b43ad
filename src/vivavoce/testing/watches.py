"""What the referee has to know about things that run beside the conversation: MCP tools, playback, rate limits.

Each watch takes every event of the server and looks at those of its own kind; `Referee` asks them in turn. `require`
objects in the referee's name. Invariant: a watch knows nothing but what came over the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import Item, McpApprovalRequest, McpApprovalResponse, McpCall, McpListTools

__all__ = ["LimitsWatch", "PlaybackWatch", "ToolWatch"]

Require = Callable[[bool, str], None]


@dataclass(slots=True)
class _Call:
    """One call of an MCP tool. Without a response it is one that the user approved, or one that a client put there."""

    response_id: str | None
    output_index: int
    approval: str | None
    has_arguments: bool
    stage: Literal["added", "running", "completed", "failed"] = "added"


class ToolWatch:
    """Imports of tools, approvals and calls (reference §4.4 T17)."""

    def __init__(self, require: Require) -> None:
        self._require = require
        self._imports: dict[str, Literal["added", "running", "over"]] = {}
        self._calls: dict[str, _Call] = {}
        self._asked: set[str] = set()
        self._approved: set[str] = set()
        self._broken_off: set[str] = set()
        """Responses with a call that failed before it began."""

    def take(self, event: ev.AnyServerEvent) -> None:
        """The next event."""
        match event:
            case ev.ResponseOutputItemAdded():
                self._added(event.item, event.response_id, event.output_index)
            case ev.ConversationItemAdded():
                self._added(event.item, None, 0)
            case ev.ConversationItemDone() | ev.ResponseOutputItemDone():
                self._done(event.item)
            case ev.ConversationItemDeleted():
                self._calls.pop(event.item_id, None)  # an import goes on without its item
            case ev.McpListToolsInProgress():
                self._require(self._imports.get(event.item_id) == "added", "an import is announced, and begins once")
                self._imports[event.item_id] = "running"
            case ev.McpListToolsCompleted() | ev.McpListToolsFailed():
                self._require(self._imports.get(event.item_id) == "running", "only an import that began can be over")
                self._imports[event.item_id] = "over"
            case ev.ResponseMcpCallArgumentsDone():
                if event.item_id in self._calls:
                    self._calls[event.item_id].has_arguments = True
            case ev.ResponseMcpCallInProgress() | ev.ResponseMcpCallCompleted() | ev.ResponseMcpCallFailed():
                self._called(event)
            case ev.ResponseDone() if event.response.id in self._broken_off:
                self._require(event.response.status != "completed", "a call that never began must not be completed")

    def is_free(self, item_id: str) -> bool:
        """Whether an item belongs to no response, though it is not done: then it can be deleted."""
        return item_id in self._imports or (item_id in self._calls and self._calls[item_id].response_id is None)

    def end(self) -> None:
        """Nothing more will come."""
        imports = sorted(item_id for item_id, stage in self._imports.items() if stage == "running")
        self._require(not imports, f"imports of tools without an end: {imports}")
        calls = sorted(item_id for item_id, call in self._calls.items() if call.stage == "running")
        self._require(not calls, f"calls of tools without an end: {calls}")

    def _added(self, item: Item, response_id: str | None, output_index: int) -> None:
        is_output, item_id = response_id is not None, given(getattr(item, "id", ""), "")
        match item:
            case McpListTools():
                self._imports[item_id] = "added"
            case McpCall() if item_id not in self._calls:
                approval = given(item.approval_request_id, None)
                self._calls[item_id] = _Call(response_id, output_index, approval, has_arguments=not is_output)
            case McpApprovalRequest() if is_output:
                self._asked.add(item_id)
            case McpApprovalResponse():
                self._require(item.approval_request_id in self._asked, "an approval must have been asked for, once")
                self._asked.discard(item.approval_request_id)
                if item.approve:
                    self._approved.add(item.approval_request_id)

    def _done(self, item: Item) -> None:
        item_id = given(getattr(item, "id", ""), "")
        if isinstance(item, McpListTools):
            self._require(self._imports.get(item_id) != "running", "an import must be over before its item is done")
            return
        call = self._calls.get(item_id) if isinstance(item, McpCall) else None
        if call is None or not isinstance(item, McpCall):
            return
        is_ours = call.response_id is not None or call.stage != "added"
        self._require(
            not is_ours or call.stage in ("completed", "failed"), "a call must be over before its item is done"
        )
        has_output, has_error = given(item.output, None) is not None, given(item.error, None) is not None
        if is_ours:
            self._require(has_error == (call.stage == "failed"), "a call that failed, and no other, must have an error")
            self._require(has_output == (call.stage == "completed"), "a call that completed must have an output")

    def _called(
        self, event: ev.ResponseMcpCallInProgress | ev.ResponseMcpCallCompleted | ev.ResponseMcpCallFailed
    ) -> None:
        call = self._calls.get(event.item_id)
        self._require(call is not None, "a call must be announced as an item")
        assert call is not None
        self._require(event.output_index == call.output_index, f"output_index must be {call.output_index}")
        match event:
            case ev.ResponseMcpCallInProgress():
                self._require(call.stage == "added", "a call must begin once")
                self._require(call.has_arguments, "the arguments of a call must be done before it begins")
                if call.response_id is None:
                    self._require(call.approval in self._approved, "a call without a response must have been approved")
                    self._approved.discard(call.approval or "")
                call.stage = "running"
            case ev.ResponseMcpCallCompleted():
                self._require(call.stage == "running", "only a call that runs can be completed")
                call.stage = "completed"
            case ev.ResponseMcpCallFailed():
                if call.stage == "added" and call.response_id is not None and call.has_arguments:
                    self._broken_off.add(call.response_id)
                else:
                    self._require(call.stage == "running", "only a call that is not over can fail")
                call.stage = "failed"


class PlaybackWatch:
    """What the server says of its own player (reference §4.4 T8)."""

    def __init__(self, require: Require) -> None:
        self._require = require
        self._audible: set[str] = set()
        """Responses with a part that can be heard."""
        self._over: set[str] = set()
        self._stopped: set[str] = set()
        self._playing: str | None = None
        self._gives_way = False

    def take(self, event: ev.AnyServerEvent) -> None:
        """The next event."""
        gave_way, self._gives_way = self._gives_way, False
        is_start = isinstance(event, ev.OutputAudioBufferStarted)
        self._require(not gave_way or is_start, "playback of a response that goes on stops for another alone")
        match event:
            case ev.ResponseContentPartAdded() if event.part.type == "audio":
                self._audible.add(event.response_id)
            case ev.ResponseDone():
                self._over.add(event.response.id)
            case ev.OutputAudioBufferStarted():
                self._require(self._playing is None, f"{self._playing} is being played already")
                self._require(event.response_id in self._audible, "a response must have audio to be played")
                self._require(event.response_id not in self._stopped, "a response is played to its end once")
                self._playing = event.response_id
            case ev.OutputAudioBufferStopped() | ev.OutputAudioBufferCleared():
                self._require(self._playing == event.response_id, f"{self._playing} is what is being played")
                self._playing = None
                if isinstance(event, ev.OutputAudioBufferStopped):
                    self._gives_way = event.response_id not in self._over
                    if not self._gives_way:
                        self._stopped.add(event.response_id)

    def end(self) -> None:
        """Nothing more will come."""
        self._require(self._playing is None, f"playback of {self._playing} without an end")


class LimitsWatch:
    """Rate limits: stated when a response begins or is done, in each of them or in none (reference §4.4 T20)."""

    def __init__(self, require: Require) -> None:
        self._require = require
        self._before: ev.AnyServerEvent | None = None
        self._is_told: dict[type[ev.ServerEvent], bool] = {}

    def take(self, event: ev.AnyServerEvent) -> None:
        """The next event."""
        before, self._before = self._before, event
        is_limits = isinstance(event, ev.RateLimitsUpdated)
        if isinstance(before, ev.ResponseCreated | ev.ResponseDone):
            is_told = self._is_told.setdefault(type(before), is_limits)
            self._require(is_told == is_limits, "rate limits must be stated with each response, or with none")
        else:
            self._require(not is_limits, "rate limits must be stated when a response begins or is done")
        if isinstance(event, ev.RateLimitsUpdated):
            for limit in event.rate_limits:
                left, most = given(limit.remaining, 0), given(limit.limit, 0)
                self._require(0 <= left <= most, f"of {most} not {left} can be left")
                self._require(given(limit.reset_seconds, 0.0) >= 0, "a limit is full in the future, or now")

    def end(self) -> None:
        """Nothing more will come: of the last response nothing is required, the connection may have ended with it."""
