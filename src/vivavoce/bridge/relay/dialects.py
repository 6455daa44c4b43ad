"""Two dialects on one session: what is said in one, said in the other, by the tables and codecs of `protocol`.

`ClientSide` and `ServiceSide` each stand between GA and one end that speaks something else; what is the same in both
passes as it came, what has only another name is renamed in place. Invariant: nothing is left out in silence. A field
that cannot be expressed is told to `tell` once, an event that cannot be is answered with an error; `strict` makes
errors of both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.client_codec import ClientCodec, has_temperature
from vivavoce.protocol.codec import ServerCodec, ServerDialect
from vivavoce.protocol.config import RealtimeSessionResource
from vivavoce.protocol.dialects import beta
from vivavoce.protocol.dialects.beta_codec import BETA_READER, complaint
from vivavoce.protocol.events import ErrorDetail, Unknown
from vivavoce.protocol.items import FunctionCall, Item
from vivavoce.protocol.wire import as_json, encode, write
from vivavoce.server.ids import ids

from .peeking import renamed, type_of

Json = dict[str, Any]
Tell = Callable[[str, str], None]
"""Told of a field that was left out: its path, and why."""

ITEMS_MAX = 1_000
"""Items of which something is remembered until they are done. Beyond it the oldest is forgotten."""
REMOVALS_MAX = 64
"""Fields of one event that may be left out. Beyond it the event is refused."""

SPOKEN_DIFFERENTLY: Final = frozenset(
    {b"session.update", b"transcription_session.update", b"conversation.item.create", b"response.create"}
)
"""What clients say otherwise in beta than in GA."""
_IMPLIED: Final = frozenset({"conversation.item.done"})
"""What beta says by other events."""
_NAMES_TO_GA: Final = {name.encode(): ga for ga, name in beta.EVENT_NAMES.items()}
_NAMES_TO_BETA: Final = {ga.encode(): name for ga, name in beta.EVENT_NAMES.items()}
_TO_READ: Final = frozenset(
    name.encode()
    for name in beta.TRANSLATED_BY_FIELDS | {"transcription_session.created", "transcription_session.updated"}
)


class Misunderstood(Exception):
    """An event that cannot go on; `detail` answers it."""

    def __init__(self, detail: ErrorDetail) -> None:
        super().__init__(detail.message)
        self.detail = detail


class ClientSide:
    """A client that speaks beta or the overview's dialect, before a relay that speaks GA."""

    def __init__(self, dialect: ServerDialect, tell: Tell, *, strict: bool) -> None:
        self._is_beta = dialect == "beta"
        self._codec, self._ga = ServerCodec(dialect), ClientCodec("ga")
        self._tell, self._strict = tell, strict
        self._new_id = ids()
        self._conversation_id: str | None = None

    def heard(self, frame: bytes) -> list[bytes]:
        """What the client says, in GA. Raises `Misunderstood`."""
        if self._is_beta and type_of(frame) not in SPOKEN_DIFFERENTLY:
            return [frame]
        said = self._codec.decode(frame.decode(errors="replace"))
        if isinstance(said, ErrorDetail):
            raise Misunderstood(said)
        return [self._in_ga(event) for event in (said if isinstance(said, tuple) else (said,))]

    def said(self, frame: bytes) -> list[bytes]:
        """What GA tells, as the client hears it."""
        kind = type_of(frame)
        if self._is_beta:
            if (name := _NAMES_TO_BETA.get(kind)) is not None:
                return [renamed(frame, name)]
            if kind not in _TO_READ:
                return [] if self._is_left_out(kind.decode()) else [frame]
        event = self._ga.decode(frame)
        if isinstance(event, Unknown):
            return [frame]
        if isinstance(event, ev.SessionCreated):
            return self._created(event)
        if isinstance(event, ev.ResponseCreated | ev.ResponseDone) and given(event.response.conversation_id, None):
            response = msgspec.structs.replace(event.response, conversation_id=self._conversation_id)
            event = msgspec.structs.replace(event, response=response)
        told = self._codec.encode(event)
        return [] if told is None else [told]

    def _created(self, event: ev.SessionCreated) -> list[bytes]:
        """Beta announces a conversation, too, of which GA says no more than its id in responses."""
        told = self._codec.encode(event)
        frames = [] if told is None else [told]
        if isinstance(event.session, RealtimeSessionResource):
            self._conversation_id = self._new_id("conv")
            conversation = ev.ConversationResource(id=self._conversation_id, object="realtime.conversation")
            created = ev.ConversationCreated(event_id=self._new_id("event"), conversation=conversation)
            told = self._codec.encode(created)
            frames += [] if told is None else [told]
        return frames

    def _in_ga(self, event: Any) -> bytes:
        if has_temperature(event):
            self._leave_out(event, "temperature", "GA has no temperature")
        return write(event)

    def _leave_out(self, event: Any, name: str, why: str) -> None:
        path = f"{'response' if isinstance(event, ev.ResponseCreate) else 'session'}.{name}"
        if self._strict:
            raise Misunderstood(_inexpressible(path, why, given(event.event_id, None)))
        self._tell(path, why)

    def _is_left_out(self, kind: str) -> bool:
        if kind not in beta.GA_ONLY:
            return False
        if kind not in _IMPLIED:
            self._tell(kind, "beta has no such event")
        return True


class ServiceSide:
    """A service that speaks beta, behind a relay that speaks GA."""

    def __init__(self, tell: Tell, *, strict: bool) -> None:
        self._ga = ServerCodec("ga")
        self._tell, self._strict = tell, strict
        self._new_id = ids()
        self._before: OrderedDict[str, str | None] = OrderedDict()
        self._names: OrderedDict[str, str] = OrderedDict()

    def said(self, frame: bytes) -> list[bytes]:
        """What GA's client says, in beta. Raises `Misunderstood`."""
        if type_of(frame) not in SPOKEN_DIFFERENTLY:
            return [frame]
        event = self._ga.decode(frame.decode(errors="replace"))
        if isinstance(event, ErrorDetail):
            raise Misunderstood(event)
        assert not isinstance(event, tuple), "only the overview dialect says several events in one"
        fields = beta.client_event_from_ga(as_json(event))
        path, why = "", ""
        for _ in range(REMOVALS_MAX):
            if (wrong := complaint(fields)) is None:
                return [encode(fields)]
            path, why = given(wrong.param, None) or "", wrong.message
            is_optional = path.startswith(("session.", "response.")) and not path.startswith("response.input")
            if self._strict or not is_optional or not _removed(fields, path):
                break
            self._tell(path, "beta has no such setting")
        raise Misunderstood(_inexpressible(path, why, given(event.event_id, None)))

    def heard(self, frame: bytes) -> list[bytes]:
        """What the service tells, in GA."""
        kind = type_of(frame)
        if kind == b"conversation.created":
            return []
        if (name := _NAMES_TO_GA.get(kind)) is not None:
            return [renamed(frame, name)]
        if kind not in _TO_READ:
            return [frame]
        event = BETA_READER.read(frame)
        match event:
            case Unknown():
                return [frame]
            case ev.ConversationItemAdded():
                return self._added(event)
            case ev.ResponseOutputItemAdded(item=FunctionCall(id=item_id, name=called)):
                _remember(self._names, given(item_id, None) or "", called)
            case ev.ResponseOutputItemDone():
                return self._done(event)
            case ev.ResponseFunctionCallArgumentsDone():
                event = msgspec.structs.replace(event, name=self._names.pop(event.item_id, event.name))
            case ev.ErrorEvent():
                event = msgspec.structs.replace(event, error=_error_in_ga(event.error))
        return [write(event)]

    def _added(self, event: ev.ConversationItemAdded) -> list[bytes]:
        """Beta announces an item once, GA a second time when it is complete."""
        before = given(event.previous_item_id, None)
        if getattr(event.item, "status", None) == "in_progress":
            _remember(self._before, given(event.item.id, None) or "", before)
            return [write(event)]
        return [write(event), self._item_done(event.item, before)]

    def _done(self, event: ev.ResponseOutputItemDone) -> list[bytes]:
        item_id = given(event.item.id, None) or ""
        self._names.pop(item_id, None)
        if item_id not in self._before:
            return [write(event)]
        return [self._item_done(event.item, self._before.pop(item_id)), write(event)]

    def _item_done(self, item: Item, before: str | None) -> bytes:
        return write(ev.ConversationItemDone(event_id=self._new_id("event"), item=item, previous_item_id=before))


def _remember(memory: OrderedDict[str, Any], item_id: str, value: Any) -> None:
    memory[item_id] = value
    if len(memory) > ITEMS_MAX:
        memory.popitem(last=False)


def _inexpressible(path: str, why: str, event_id: str | None) -> ErrorDetail:
    return ErrorDetail(
        type="invalid_request_error",
        code="not_expressible",
        message=f"The service speaks another dialect, which cannot express '{path}': {why}",
        param=path or None,
        event_id=event_id,
    )


def _error_in_ga(error: ErrorDetail) -> ErrorDetail:
    """An error whose place is named in beta's words, in GA's."""
    param = given(error.param, None) or ""
    for place, (word, *_) in beta.BETA_IN_GA.items():
        if word.name is not None and (param == place or param.startswith((place + ".", place + "["))):
            named = word.name + param[len(place) :]
            message = error.message.replace(f"'{param}'", f"'{named}'")
            return msgspec.structs.replace(error, param=named, message=message)
    return error


def _removed(fields: Json, path: str) -> bool:
    """Take a field out of an event; says whether it was there. What stands in a list goes as a whole element."""
    inner, bracket, rest = path.partition("[")
    *way, last = inner.split(".")
    holder: Any = fields
    for step in way:
        holder = holder.get(step) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or last not in holder:
        return False
    index = rest.partition("]")[0]
    if not bracket:
        del holder[last]
    elif isinstance(holder[last], list) and index.isdigit() and int(index) < len(holder[last]):
        del holder[last][int(index)]
    else:
        return False
    return True
