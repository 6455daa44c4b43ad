"""A telephone at Twilio, simulated: it speaks Media Streams to the letter, and knows to the sample what was heard.

The caller's voice goes out every 20 ms, silence where nothing is said; what comes back is played in its own time, marks
are echoed when the playback reaches them, `clear` ends it and brings them at once. All waiting is on timers of the
event loop, so on virtual time a call takes no time. `PhoneWeather` and a seed make delay, jitter and wrong order.

    async with PhoneCall(transport) as phone:
        phone.say(ulaw)
        await phone.until(lambda: phone.spells)
        phone.hang_up()
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import urlencode, urljoin
from xml.etree import ElementTree

from vivavoce.audio.formats import ULAW_8K
from vivavoce.bridge.phone.messages import (
    Clear,
    Connected,
    Dtmf,
    Key,
    Mark,
    Media,
    MediaFormat,
    Name,
    Other,
    Sound,
    Start,
    StartDetails,
    Stop,
    StopDetails,
    encode,
    parse,
)
from vivavoce.bridge.phone.twilio import sign
from vivavoce.errors import ConnectionClosed, ConnectionFailed, RemoteProtocolError
from vivavoce.transports import Transport

__all__ = ["PhoneCall", "PhoneWeather", "Spell", "ring"]

PIECE_MS: Final = 20
PIECE_BYTES: Final = ULAW_8K.bytes_of(PIECE_MS)
SILENCE: Final = b"\xff"
BUFFERED_S_MAX: Final = 600.0
"""What Twilio keeps to play. What goes beyond it is thrown away, and counted."""
ACCOUNT_SID: Final = "AC" + "0" * 32
HANDSHAKE_S_MAX: Final = 10.0

Out = Connected | Start | Media | Dtmf | Mark | Stop | Other


@dataclass(frozen=True, slots=True)
class PhoneWeather:
    """What the network does to messages, each way."""

    delay_s: float = 0.0
    """Every message takes so long."""
    jitter_s: float = 0.0
    """And up to so much more."""
    is_shuffled: bool = False
    """Whether what the phone says may overtake what it said before, as far as the jitter goes."""
    buffer_s: float = 0.0
    """How long the carrier holds audio back that comes while nothing is playing."""


@dataclass(slots=True)
class Spell:
    """A stretch of audio that was played without a gap. `began_s` is on the clock of the event loop."""

    began_s: float
    audio: bytearray

    @property
    def ended_s(self) -> float:
        """When its last sample had been played."""
        return self.began_s + len(self.audio) / ULAW_8K.rate_hz


@dataclass(frozen=True, slots=True)
class _Piece:
    begins_s: float
    audio: bytes


class PhoneCall:
    """One call, from the carrier's end of its WebSocket. Use it as a context manager; the end is a hang-up."""

    def __init__(
        self,
        transport: Transport,
        *,
        call_sid: str = "CA" + "1" * 32,
        parameters: Mapping[str, str] | None = None,
        weather: PhoneWeather | None = None,
        seed: int = 0,
    ) -> None:
        self.call_sid = call_sid
        self.stream_sid = "MZ" + call_sid[2:]
        self.marks: list[tuple[str, float]] = []
        """Marks that were echoed, and when they were reached."""
        self.clears_s: list[float] = []
        """When the playback was cleared."""
        self.dropped_s = 0.0
        self.closed: ConnectionClosed | None = None
        """How the other side has ended the call."""
        self._transport = transport
        self._parameters = dict(parameters or {})
        self._weather = weather or PhoneWeather()
        self._random = Random(seed)  # noqa: S311
        self._loop = asyncio.get_running_loop()
        self._began_s = 0.0
        self._number = 0
        self._chunks = 0
        self._speech = bytearray()
        self._spells: list[Spell] = []
        self._pieces: deque[_Piece] = deque()
        self._plays_until_s = 0.0
        self._pending: deque[tuple[Mark, asyncio.TimerHandle]] = deque()
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()  # bounded by the call: 50 messages a second
        self._leaving: deque[Out] = deque()
        self._arriving: deque[Media | Mark | Clear] = deque()
        self._last_sent_s = 0.0
        self._last_heard_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._is_over = False

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> PhoneCall:
        self._began_s = self._plays_until_s = self._loop.time()
        self._send(Connected(protocol="Call", version="1.0.0"))
        self._send(
            Start(
                sequence_number=self._next(),
                stream_sid=self.stream_sid,
                start=StartDetails(
                    account_sid=ACCOUNT_SID,
                    stream_sid=self.stream_sid,
                    call_sid=self.call_sid,
                    tracks=("inbound",),
                    custom_parameters=self._parameters,
                    media_format=MediaFormat(encoding="audio/x-mulaw", sample_rate=ULAW_8K.rate_hz, channels=1),
                ),
            )
        )
        for work in (self._write, self._read, self._speak):
            self._tasks.append(asyncio.create_task(work(), name=f"phone {work.__name__}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._weather.delay_s + self._weather.jitter_s + 1.0):
                await self._outgoing.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self._pending:
            waiting[1].cancel()
        await self._transport.close(1000)

    # --- what the caller does -----------------------------------------------------------------------------------------

    def say(self, ulaw: bytes) -> None:
        """Speak, after what is being said already."""
        self._speech += ulaw

    @property
    def is_speaking(self) -> bool:
        """Whether something is still to be said."""
        return bool(self._speech)

    def press(self, key: str) -> None:
        """Press a key."""
        self._say(Dtmf(sequence_number=self._next(), stream_sid=self.stream_sid, dtmf=_key(key)))

    def hang_up(self) -> None:
        """End the call. Doing it twice is harmless."""
        if not self._is_over and self.closed is None:
            self._is_over = True
            details = StopDetails(account_sid=ACCOUNT_SID, call_sid=self.call_sid)
            self._say(Stop(sequence_number=self._next(), stream_sid=self.stream_sid, stop=details))

    # --- what the caller hears ----------------------------------------------------------------------------------------

    @property
    def spells(self) -> list[Spell]:
        """What was heard until now, in stretches between which there was nothing to hear."""
        self._settle()
        now_s, spells = self._loop.time(), self._spells[:]
        for piece in self._pieces:
            if heard := _until(piece, now_s):
                last = spells.pop() if spells and _follows(spells[-1], piece) else Spell(piece.begins_s, bytearray())
                spells.append(Spell(last.began_s, last.audio + heard))
        return spells

    def _settle(self) -> None:
        """What was played to its end does not change any more."""
        now_s = self._loop.time()
        while self._pieces and len(_until(self._pieces[0], now_s)) == len(self._pieces[0].audio):
            piece = self._pieces.popleft()
            if not self._spells or not _follows(self._spells[-1], piece):
                self._spells.append(Spell(piece.begins_s, bytearray()))
            self._spells[-1].audio += piece.audio

    @property
    def heard(self) -> bytes:
        """All that was heard until now, without the silence between."""
        return b"".join(spell.audio for spell in self.spells)

    @property
    def is_playing(self) -> bool:
        """Whether there is something left to be heard."""
        return self._plays_until_s > self._loop.time()

    async def until(self, holds: Callable[[], object], s_max: float = 600.0) -> None:
        """Wait until this holds; it is looked at whenever something comes, is reached, or 20 ms have passed."""
        async with asyncio.timeout(s_max), self._changed:
            await self._changed.wait_for(lambda: bool(holds()))

    # --- out ----------------------------------------------------------------------------------------------------------

    def _next(self) -> str:
        self._number += 1
        return str(self._number)

    def _say(self, message: Out) -> None:
        """Send it as the network lets it through."""
        delay_s = self._weather.delay_s + self._random.uniform(0, self._weather.jitter_s)
        at_s = self._loop.time() + delay_s
        if self._weather.is_shuffled:
            self._loop.call_at(at_s, self._send, message)
            return
        self._last_sent_s = max(self._last_sent_s, at_s)
        self._leaving.append(message)  # timers for the same moment come in any order, messages must not
        self._loop.call_at(self._last_sent_s, lambda: self._send(self._leaving.popleft()))

    def _send(self, message: Out) -> None:
        self._outgoing.put_nowait(encode(message))

    async def _write(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                frame = await self._outgoing.get()
                await self._transport.send(frame)
                self._outgoing.task_done()

    async def _speak(self) -> None:
        while not self._is_over and self.closed is None:
            piece = bytes(self._speech[:PIECE_BYTES])
            del self._speech[:PIECE_BYTES]
            self._chunks += 1
            sound = Sound(
                track="inbound",
                chunk=str(self._chunks),
                timestamp=str((self._chunks - 1) * PIECE_MS),
                payload=piece.ljust(PIECE_BYTES, SILENCE),
            )
            await self._until_s(self._began_s + self._chunks * PIECE_MS / 1000)
            self._say(Media(sequence_number=self._next(), stream_sid=self.stream_sid, media=sound))
            await self._stir()

    async def _until_s(self, at_s: float) -> None:
        await asyncio.sleep(max(at_s - self._loop.time(), 0))

    # --- in -----------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._transport.receive()
                message = parse(frame)
                if not isinstance(message, Media | Mark | Clear) or message.stream_sid != self.stream_sid:
                    raise RemoteProtocolError(f"Twilio does not take this: {str(frame)[:100]}")
                delay_s = self._weather.delay_s + self._random.uniform(0, self._weather.jitter_s)
                self._last_heard_s = max(self._last_heard_s, self._loop.time() + delay_s)
                self._arriving.append(message)
                self._loop.call_at(self._last_heard_s, lambda: self._take(self._arriving.popleft()))
        except ConnectionClosed as closed:
            self.closed = closed
            await self._stir()

    def _take(self, message: Media | Mark | Clear) -> None:
        now_s = self._loop.time()
        match message:
            case Media():
                is_idle = self._plays_until_s <= now_s
                begins_s = now_s + self._weather.buffer_s if is_idle else self._plays_until_s
                length_s = len(message.media.payload) / ULAW_8K.rate_hz
                if begins_s + length_s - now_s > BUFFERED_S_MAX:
                    self.dropped_s += length_s
                    return
                self._pieces.append(_Piece(begins_s, message.media.payload))
                self._plays_until_s = begins_s + length_s
            case Mark():
                timer = self._loop.call_at(max(self._plays_until_s, now_s), self._reach)
                self._pending.append((message, timer))
            case Clear():
                self._clear(now_s)

    def _clear(self, now_s: float) -> None:
        self.clears_s.append(now_s)
        self._settle()
        cut = (_Piece(piece.begins_s, _until(piece, now_s)) for piece in self._pieces)
        self._pieces = deque(piece for piece in cut if piece.audio)
        self._plays_until_s = now_s
        while self._pending:
            self._pending[0][1].cancel()
            self._reach()

    def _reach(self) -> None:
        mark, _ = self._pending.popleft()
        self.marks.append((mark.mark.name, self._loop.time()))
        self._say(Mark(sequence_number=self._next(), stream_sid=self.stream_sid, mark=Name(name=mark.mark.name)))

    async def _stir(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _until(piece: _Piece, now_s: float) -> bytes:
    """What was heard of it until now."""
    return piece.audio[: max(round((now_s - piece.begins_s) * ULAW_8K.rate_hz), 0)]


def _follows(spell: Spell, piece: _Piece) -> bool:
    """Whether there was nothing between."""
    return abs(spell.ended_s - piece.begins_s) < 0.5 / ULAW_8K.rate_hz


def _key(key: str) -> Key:
    if len(key) != 1 or key not in "0123456789*#ABCD":
        raise ValueError(f"a phone has the keys 0 to 9, *, #, and A to D; not {key!r}")
    return Key(track="inbound_track", digit=key)


async def ring(
    webhook_url: str,
    *,
    auth_token: str | None = None,
    caller: str = "+15550001111",
    called: str = "+15552223333",
    call_sid: str = "CA" + "1" * 32,
    dial: Callable[[str], Awaitable[Transport]] | None = None,
    weather: PhoneWeather | None = None,
    seed: int = 0,
) -> PhoneCall:
    """Call a phone app as Twilio does: its webhook, signed with `auth_token`, then the stream that the TwiML names.

    Raises `ConnectionFailed` where the webhook does not answer with a stream.
    """
    import httpx

    form = {"AccountSid": ACCOUNT_SID, "CallSid": call_sid, "From": caller, "To": called, "Direction": "inbound"}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if auth_token is not None:
        headers["X-Twilio-Signature"] = sign(auth_token, webhook_url, form.items())
    async with httpx.AsyncClient(timeout=HANDSHAKE_S_MAX) as client:
        answer = await client.post(webhook_url, content=urlencode(form), headers=headers)
    stream = ElementTree.fromstring(answer.text).find("./Connect/Stream") if answer.is_success else None  # noqa: S314
    if stream is None:
        raise ConnectionFailed(
            f"the webhook answers {answer.status_code}: {answer.text[:200]}", status=answer.status_code
        )
    parameters = {one.get("name", ""): one.get("value", "") for one in stream.findall("Parameter")}
    transport = await (dial or _dial)(urljoin(webhook_url, stream.get("url", "")))
    return PhoneCall(transport, call_sid=call_sid, parameters=parameters, weather=weather, seed=seed)


async def _dial(url: str) -> Transport:
    from vivavoce.transports.websocket import dial

    return await dial(url)
