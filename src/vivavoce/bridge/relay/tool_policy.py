"""Tools that the relay answers: the model calls them, the client sees neither them nor their calls.

Their definitions are added to what clients say of tools, their calls run here, and the answers go to the service, with
one follow-up, by the rules of the client's own mind (`core/caller/calls.py`). Invariant: no item of such a call, no
definition and no error about them reaches the client; what names such an item as its predecessor names the one before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence, Set
from typing import Any

import msgspec

from vivavoce.client.tool_calls import ToolCalls
from vivavoce.client.tools import Tool
from vivavoce.core.caller.calls import Calls
from vivavoce.core.caller.messages import CallerEffect, CancelTool, RunTool, ToolEnded
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe
from vivavoce.protocol.client_codec import ClientCodec
from vivavoce.protocol.wire import encode, write
from vivavoce.server.ids import ids

from .policy import Json, Refused, Verdict, Visit

HIDDEN_MAX = 4_096
"""Items whose being hidden is remembered. Beyond it the oldest is forgotten."""
HELD_MAX = 16
"""Responses that a client may ask for while calls run. One more is refused."""

log = logging.getLogger(__name__)

FOLLOWED = ("output_modalities", "instructions", "audio", "tools", "tool_choice", "max_output_tokens", "prompt")
"""What a follow-up takes over from the response before it."""
_ABOUT_ITEMS = frozenset({"conversation.item.added", "conversation.item.done", "conversation.item.created"})


class RelayTools:
    """The tools of one session. `called` is told of every call."""

    client_types: Set[str] = frozenset({"session.update", "response.create"})
    server_types: Set[str] = _ABOUT_ITEMS | {
        "session.created",
        "session.updated",
        "input_audio_buffer.committed",
        "input_audio_buffer.speech_started",
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.done",
        "error",
    }

    def __init__(self, visit: Visit, tools: Sequence[Tool], called: Callable[[], None]) -> None:
        self._visit, self._called = visit, called
        self._tools = ToolCalls(visit)
        for tool in tools:
            self._tools.add(tool)
        self._definitions: list[Json] = [msgspec.to_builtins(tool.definition) for tool in tools]
        self._new_id = ids()
        self._codec = ClientCodec("ga")
        self._calls = Calls(self._runs, self._ask, self._send, self._new_id, self._how_asked, self._follow_up)
        self._hidden: OrderedDict[str, str | None] = OrderedDict()
        self._call_ids: OrderedDict[str, None] = OrderedDict()
        self._held: deque[Json] = deque()
        self._active: str | None = None
        self._how: Json = {}  # how the response is wanted that was asked for last, or runs
        self._asked: str | None = None
        self._is_due = False
        self._ending: asyncio.Task[None] | None = None
        visit.on_end.append(self._end)

    # --- what is said -------------------------------------------------------------------------------------------------

    def client_said(self, event: Json) -> Verdict:
        """Add the tools to the client's; let its response wait for calls that run."""
        if event["type"] == "response.create":
            if not self._calls.open:
                self._note_how(event)
                return None
            if len(self._held) >= HELD_MAX:
                raise Refused("Too many responses are asked for while functions run.", code="rate_limit_exceeded")
            self._held.append(event)
            return []
        session = event.get("session")
        if not isinstance(session, dict) or not isinstance(session.get("tools"), list):
            return None
        taken = [tool for tool in session["tools"] if isinstance(tool, dict) and tool.get("name") in self._tools]
        if taken:
            raise Refused(f"There is a tool named {taken[0]['name']!r} already.", param="session.tools")
        return {**event, "session": {**session, "tools": [*session["tools"], *self._definitions]}}

    def server_said(self, event: Json) -> Verdict:
        """Run what is ours, hide it, and pass the rest on."""
        match event["type"]:
            case "session.created" | "session.updated":
                return _without_tools(event, self._tools)
            case "response.created":
                self._begins(event["response"])
            case "response.done":
                return self._ends(event)
            case "error":
                return self._refused(event)
            case "input_audio_buffer.speech_started":
                self._calls.interrupted()
                self._how = {}  # what answers speech is as the session says
            case "response.function_call_arguments.delta" | "response.function_call_arguments.done":
                return [] if event.get("item_id") in self._hidden else None
        return self._about_item(event)

    def _about_item(self, event: Json) -> Verdict:
        item, before = event.get("item"), event.get("previous_item_id")
        if isinstance(item, dict) and self._is_ours(item):
            item_id = str(item.get("id", ""))
            if item_id not in self._hidden or event["type"] in _ABOUT_ITEMS:
                _remember(self._hidden, item_id, self._visible(before))
            if event["type"] == "response.output_item.done":
                done = self._codec.decode(encode(event))
                if isinstance(done, ev.ResponseOutputItemDone):
                    self._calls.item_done(done.response_id, done.item)
            return []
        visible = self._visible(before)
        return None if visible == before else {**event, "previous_item_id": visible}

    def _visible(self, item_id: Any) -> Any:
        """The item itself, or the next one before it that the client knows."""
        for _ in range(len(self._hidden)):
            if item_id not in self._hidden:
                break
            item_id = self._hidden[item_id]
        return item_id

    def _is_ours(self, item: Json) -> bool:
        if item.get("type") == "function_call" and item.get("name") in self._tools:
            _remember(self._call_ids, str(item.get("call_id", "")), None)
            return True
        return item.get("type") == "function_call_output" and item.get("call_id") in self._call_ids

    # --- responses ----------------------------------------------------------------------------------------------------

    def _begins(self, response: Json) -> None:
        if response.get("conversation_id", "") is not None:
            self._active = response.get("id")
            self._is_due = False  # it sees every answer that was given before

    def _note_how(self, event: Json) -> None:
        """A follow-up is of the kind of the response that called: spoken or written, and the like."""
        how = event.get("response")
        self._how = {name: how[name] for name in FOLLOWED if name in how} if isinstance(how, dict) else {}

    def _how_asked(self, response_id: str) -> Maybe[ev.ResponseParams]:
        return UNSET  # it is noted here in the words of the wire

    def _ends(self, event: Json) -> Verdict:
        response: Json = event["response"]
        if self._active == response.get("id"):
            self._active = None
        done = self._codec.decode(encode(event))
        if isinstance(done, ev.ResponseDone):
            self._calls.response_done(done.response)
        self._ask_when_due()
        output = response.get("output") or []
        kept = [item for item in output if not (isinstance(item, dict) and self._is_ours(item))]
        return None if len(kept) == len(output) else {**event, "response": {**response, "output": kept}}

    def _refused(self, event: Json) -> Verdict:
        """An error about an event of ours is for the log."""
        error: Json = event["error"] if isinstance(event.get("error"), dict) else {}
        event_id = error.get("event_id")
        if event_id is None or not str(event_id).startswith("relay_"):
            return None
        if event_id == self._asked and error.get("code") == "conversation_already_has_active_response":
            self._is_due = True
        else:
            log.warning("%s: the service refused an event of the relay's tools: %s", self._visit.id, error.get("code"))
        return []

    def _follow_up(self, outputs: frozenset[str], params: Maybe[ev.ResponseParams]) -> None:
        self._is_due = True
        self._ask_when_due()

    def _ask_when_due(self) -> None:
        if self._is_due and self._active is None:
            self._is_due, self._asked = False, self._new_id("relay")
            how = {"response": self._how} if self._how else {}
            self._visit.to_service({"type": "response.create", "event_id": self._asked, **how})

    # --- calls --------------------------------------------------------------------------------------------------------

    def _runs(self, name: str) -> bool:
        return name in self._tools

    def _ask(self, effect: CallerEffect) -> None:
        if isinstance(effect, RunTool):
            self._called()
            self._tools.run(effect, self._answered)
        elif isinstance(effect, CancelTool):
            self._tools.interrupt(effect)

    def _answered(self, ended: ToolEnded) -> None:
        self._calls.ended(ended.call_id, ended.output)
        while self._held and not self._calls.open:
            event = self._held.popleft()
            self._note_how(event)
            self._visit.to_service(event)

    def _send(self, event: ev.AnyClientEvent) -> None:
        fields: Json = msgspec.json.decode(write(event))
        self._visit.to_service(fields | {"event_id": self._new_id("relay")})

    def _end(self) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._tools.end(), name=f"tools of {self._visit.id}")


def _without_tools(event: Json, names: ToolCalls) -> Verdict:
    session: Json = event["session"]
    tools = session.get("tools") or []
    kept = [tool for tool in tools if not (isinstance(tool, dict) and tool.get("name") in names)]
    return None if len(kept) == len(tools) else {**event, "session": {**session, "tools": kept}}


def _remember(memory: OrderedDict[str, Any], key: str, value: Any) -> None:
    memory[key] = value
    if len(memory) > HIDDEN_MAX:
        memory.popitem(last=False)
