"""The vocabulary of the caller: what it hears and what it asks for. Frozen, pure, complete.

Server events are inputs as they are. A *ticket* is a number under which the application waits for the answer to one
event of its own. Every effect is to be done in the order in which it was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from vivavoce.audio.formats import Format
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import FunctionCall

if TYPE_CHECKING:
    from vivavoce.core.conversation import Conversation

    from .updates import Update


# --- inputs -----------------------------------------------------------------------------------------------------------


class Ask(msgspec.Struct, frozen=True):
    """The application sends an event. `ticket` 0 is nobody's: nobody waits for the answer."""

    event: ev.AnyClientEvent
    ticket: int = 0


class ToolEnded(msgspec.Struct, frozen=True):
    """A tool has answered, or has failed; `output` is what the model is to read."""

    call_id: str
    output: str


class Heard(msgspec.Struct, frozen=True):
    """How much of an item was really played: samples of the item's own format, 0 where it had not begun."""

    item_id: str
    samples: int


class PlaybackStopped(msgspec.Struct, frozen=True):
    """The answer to `StopPlayback`: the items that were not played to their end, the one that was playing first."""

    unfinished: tuple[Heard, ...] = ()


class Interrupt(msgspec.Struct, frozen=True):
    """The application ends what the assistant is saying. `heard` is its own truth, where it plays the audio itself."""

    heard: Heard | None = None


class Connected(msgspec.Struct, frozen=True):
    """The session can be spoken to: for the first time, or again after `Lost`."""


class Lost(msgspec.Struct, frozen=True):
    """The connection is gone; what is to be sent is kept until the next `Connected` or `Restored`."""


class Restored(msgspec.Struct, frozen=True):
    """Another session takes the place of the one that was lost; `conversation` is what it has been told already."""

    conversation: Conversation


class WakeUp(msgspec.Struct, frozen=True):
    """`deadline()` has come."""


CallerInput: TypeAlias = (
    ev.AnyServerEvent
    | ev.Unknown
    | Ask
    | ToolEnded
    | PlaybackStopped
    | Interrupt
    | Connected
    | Lost
    | Restored
    | WakeUp
)

# --- effects ----------------------------------------------------------------------------------------------------------


class Transmit(msgspec.Struct, frozen=True):
    """Put this on the wire."""

    event: ev.AnyClientEvent


class Acknowledge(msgspec.Struct, frozen=True):
    """The event of this ticket was taken; `event` is the server's word, None where it has none for such events."""

    ticket: int
    event: ev.AnyServerEvent | None = None


class Refuse(msgspec.Struct, frozen=True):
    """The event of this ticket was refused, or was never answered."""

    ticket: int
    error: ev.ErrorDetail


class RunTool(msgspec.Struct, frozen=True):
    """Run a tool; the answer is a `ToolEnded`."""

    call_id: str
    call: FunctionCall
    response_id: str


class CancelTool(msgspec.Struct, frozen=True):
    """The user has interrupted: end the tool, where it wants to be. The answer is a `ToolEnded` all the same."""

    call_id: str


class Play(msgspec.Struct, frozen=True):
    """Play this behind everything before."""

    item_id: str
    audio: bytes
    format: Format


class StopPlayback(msgspec.Struct, frozen=True):
    """Fall silent now, and answer with `PlaybackStopped` before anything else comes in."""


class Tell(msgspec.Struct, frozen=True):
    """Tell the application what has changed."""

    update: Update


CallerEffect: TypeAlias = Transmit | Acknowledge | Refuse | RunTool | CancelTool | Play | StopPlayback | Tell
