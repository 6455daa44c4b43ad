"""The GA dialect at the server's end: its vocabulary, what it forgives, and what it does not say.

Events are read and written as their structs are; here is the rest. The other dialects translate into this one.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable
from functools import partial
from typing import Any, Final, get_args

import msgspec
from msgspec import structs

try:
    from pybase64 import b64encode
except ImportError:  # it comes with the server; whoever has only a client can do without
    b64encode = partial(b2a_base64, newline=False)

from . import events as ev
from .client_codec import has_temperature
from .config import TEMPERATURE
from .events import AnyClientEvent, AnyServerEvent, ErrorDetail
from .leniency import LENIENCIES_OF_GA, reread
from .meant import Path, Words
from .shapes import fields, tag
from .vetting import GA_PARTS_OF_ROLE, misfit
from .violations import Vocabulary, refusal
from .wire import decoder, encode, write

# How a dialect writes an event that it does not write as it is.
Ways = dict[type[msgspec.Struct], Callable[[Any], bytes | None]]

# The order of the list in which the service names them (§3.2); it names two of translation sessions, too.
_GA_NAMES: Final = (
    "session.update",
    "session.close",
    "input_audio_buffer.append",
    "session.input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.truncate",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "response.create",
    "response.cancel",
)


def with_playback(
    events: tuple[Any, ...],
    names: tuple[str, ...],
    words: Callable[[], Words],
    audio: tuple[Path, ...] = (("audio",),),
) -> dict[bool, Vocabulary]:
    """The vocabulary where the server plays what it sends, and where it does not."""
    without = tuple(event for event in events if event is not ev.OutputAudioBufferClear)
    return {
        True: Vocabulary(events, (*names, "output_audio_buffer.clear"), words, audio),
        False: Vocabulary(without, names, words, audio),
    }


def _words_of_beta() -> Words:
    from .dialects.beta import BETA_IN_GA  # late: only for those who use a name of beta

    return BETA_IN_GA


GA: Final = with_playback(get_args(AnyClientEvent), _GA_NAMES, _words_of_beta)
GA_DECODERS: Final = {playback: decoder(vocabulary.events) for playback, vocabulary in GA.items()}
SERVER_STRUCTS: Final = {str(tag(struct)): struct for struct in get_args(AnyServerEvent)}
# What may hold items or parts that stand for the unknown, or fields of our own.
_WITH_PRIVATE: Final = tuple(
    struct for struct in SERVER_STRUCTS.values() if fields(struct).keys() & {"item", "response", "session"}
)


def no_such_event(event: Any) -> None:
    return None


def names_requests(event: ev.RateLimitsUpdated) -> bool:
    """The limits are stated twice a response: with requests and tokens when it begins, and tokens when it is done."""
    return any(limit.name == "requests" for limit in event.rate_limits)


def _late_limits(event: ev.RateLimitsUpdated) -> bytes | None:
    """GA states them when the response is done (§8.15)."""
    return None if names_requests(event) else write(event)


def _speech(event: ev.ResponseOutputAudioDelta) -> bytes:
    """As `encode` writes it. Nearly all that servers say is this, and msgspec takes ten times as long for base64."""
    frame = encode(structs.replace(event, delta=b""))
    return b"".join((frame.removesuffix(b'"}'), b64encode(event.delta), b'"}'))


class GaServer:
    """What GA does with an event beyond reading and writing it."""

    ways: Final[Ways] = dict.fromkeys(_WITH_PRIVATE, write) | {
        ev.ConversationCreated: no_such_event,
        ev.ConversationItemCreated: no_such_event,
        ev.RateLimitsUpdated: _late_limits,
        ev.ResponseOutputAudioDelta: _speech,
    }

    def __init__(self, playback: bool) -> None:
        self.vocabulary = GA[playback]
        self.decoder = GA_DECODERS[playback]

    def settle(self, event: Any, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        if isinstance(event, ErrorDetail) and isinstance(frame, str):
            event = reread(event, frame, self.decoder, self.vocabulary, LENIENCIES_OF_GA)
        if has_temperature(event):
            said = f"Unknown parameter: '{TEMPERATURE}'."
            return refusal("unknown_parameter", said, TEMPERATURE, event.event_id or None)
        if isinstance(event, (ev.ConversationItemCreate, ev.ResponseCreate)):
            return misfit(event, self.vocabulary, GA_PARTS_OF_ROLE) or event
        settled: AnyClientEvent | ErrorDetail = event
        return settled
