"""The vocabulary of the caller: what it hears and what it asks for. Frozen, pure, complete.

Server events are inputs as they are. A *ticket* is a number under which the application waits for the answer to one
event of its own. Every effect is to be done in the order in which it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from vivavoce.audio.formats import Format
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import FunctionCall

if TYPE_CHECKING:
    from vivavoce.core.conversation import Conversation

    from .updates import Update


# --- inputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """The application sends an event. `ticket` 0 is nobody's: nobody waits for the answer."""

    event: ev.AnyClientEvent
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A tool has answered, or has failed; `output` is what the model is to read."""

    call_id: str
    output: str


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of an item was really played: samples of the item's own format, 0 where it had not begun."""

    item_id: str
    samples: int


@dataclass(frozen=True, slots=True)
class PlaybackStopped:
    """The answer to `StopPlayback`: the items that were not played to their end, the one that was playing first."""

    unfinished: tuple[Heard, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The application ends what the assistant is saying. `heard` is its own truth, where it plays the audio itself."""

    heard: Heard | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The session can be spoken to: for the first time, or again after `Lost`."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is gone; what is to be sent is kept until the next `Connected` or `Restored`."""


@dataclass(frozen=True, slots=True)
class Restored:
    """Another session takes the place of the one that was lost; `conversation` is what it has been told already."""

    conversation: Conversation = field(repr=False)


@dataclass(frozen=True, slots=True)
class WakeUp:
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


@dataclass(frozen=True, slots=True)
class Transmit:
    """Put this on the wire."""

    event: ev.AnyClientEvent


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The event of this ticket was taken; `event` is the server's word, None where it has none for such events."""

    ticket: int
    event: ev.AnyServerEvent | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """The event of this ticket was refused, or was never answered."""

    ticket: int
    error: ev.ErrorDetail


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run a tool; the answer is a `ToolEnded`."""

    call_id: str
    call: FunctionCall
    response_id: str


@dataclass(frozen=True, slots=True)
class CancelTool:
    """The user has interrupted: end the tool, where it wants to be. The answer is a `ToolEnded` all the same."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Play:
    """Play this behind everything before."""

    item_id: str
    audio: bytes
    format: Format


@dataclass(frozen=True, slots=True)
class StopPlayback:
    """Fall silent now, and answer with `PlaybackStopped` before anything else comes in."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the application what has changed."""

    update: Update


CallerEffect: TypeAlias = Transmit | Acknowledge | Refuse | RunTool | CancelTool | Play | StopPlayback | Tell
