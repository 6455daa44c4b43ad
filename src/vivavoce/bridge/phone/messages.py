"""The vocabulary of Twilio Media Streams, both ways, as frozen structs: what `<Connect><Stream>` says over a WebSocket.

Numbers travel as text, audio as base64 of µ-law at 8 kHz. `parse` reads whatever end's messages, `encode` writes them;
the simulated phone uses the same two. Invariant: a message of a kind that is not known is no mistake, a broken one is.
"""

from __future__ import annotations

from typing import Final

import msgspec

from vivavoce.errors import RemoteProtocolError

MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""Largest message that is read; Twilio's own have 250 bytes."""

Number = str | int
"""Twilio writes numbers as text; others who speak its protocol do not always."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    pass


class _Message(_Part, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag_field="event"):
    sequence_number: Number = ""
    stream_sid: str = ""

    @property
    def number(self) -> int:
        """Its place among the messages of the stream; 0 where it has none."""
        return _int(self.sequence_number, "sequenceNumber")


class MediaFormat(_Part, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """How the audio is written; Twilio has one way."""

    encoding: str = ""
    sample_rate: int = 0
    channels: int = 0


class StartDetails(_Part, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Which call this is."""

    account_sid: str = ""
    stream_sid: str = ""
    call_sid: str
    tracks: tuple[str, ...] = ()
    custom_parameters: dict[str, str] = {}
    media_format: MediaFormat = MediaFormat()


class Sound(_Part, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A piece of audio. `timestamp` is in ms since the stream began, `chunk` counts the pieces from 1."""

    track: str = ""
    chunk: Number = ""
    timestamp: Number = ""
    payload: bytes

    @property
    def at_ms(self) -> int | None:
        """Where in the stream it begins; None where that is not said."""
        return None if self.timestamp == "" else _int(self.timestamp, "media.timestamp")


class Key(_Part, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A key that was pressed: 0 to 9, `*`, `#`, A to D."""

    track: str = ""
    digit: str


class Name(_Part, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a mark is called."""

    name: str


class StopDetails(_Part, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Which call is over."""

    account_sid: str = ""
    call_sid: str = ""


class Connected(_Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="connected"):
    """The first message."""

    protocol: str = ""
    version: str = ""


class Start(_Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="start"):
    """The second, once."""

    start: StartDetails


class Media(_Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="media"):
    """Audio: of the caller to us, every 20 ms; or ours, to be played behind what is playing."""

    media: Sound


class Dtmf(_Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="dtmf"):
    """The caller has pressed a key."""

    dtmf: Key


class Mark(_Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="mark"):
    """From us: say so when all audio before has been played. To us: it has been, or was cleared."""

    mark: Name


class Clear(_Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="clear"):
    """From us: play no more of what there is. Its marks come back at once."""


class Stop(_Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="stop"):
    """The stream is over: the call has ended, or goes on without us."""

    stop: StopDetails = StopDetails()


class Other(_Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="other"):
    """One of a kind that is not known. Its number counts all the same."""


AnyMessage = Connected | Start | Media | Dtmf | Mark | Clear | Stop | Other


class _Kind(_Part, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    event: str
    sequence_number: Number = ""
    stream_sid: str = ""


_decoder: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)
_kind = msgspec.json.Decoder(_Kind)
_KINDS = {"connected", "start", "media", "dtmf", "mark", "clear", "stop"}
encode = msgspec.json.Encoder().encode


def parse(frame: str | bytes) -> AnyMessage:
    """The message in a frame. Raises `RemoteProtocolError`."""
    try:
        return _decoder.decode(frame)
    except msgspec.ValidationError as error:
        problem = str(error)
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(f"expected a message of Twilio Media Streams in JSON: {error}") from None
    try:
        named = _kind.decode(frame)
        kind = named.event
        if kind not in _KINDS:
            return Other(sequence_number=named.sequence_number, stream_sid=named.stream_sid)
    except msgspec.MsgspecError:
        kind = "message"
    raise RemoteProtocolError(f"a {kind} that Twilio would not send: {problem}")


def _int(text: Number, field: str) -> int:
    if text == "":
        return 0
    try:
        return int(text)
    except ValueError:
        raise RemoteProtocolError(f"{field}: expected a number, not {str(text)[:20]!r}") from None
