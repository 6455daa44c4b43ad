"""A session that is spoken to turn by turn, and opened again where it was lost.

One task hears the events and notes when each came; whoever calls `hold` or `interrupt` drives the microphone, which is
off in between, so that of several conversations only the one that speaks costs anything. Invariant: what goes wrong
with the endpoint becomes the error of a turn; only that it cannot be reached at all is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from vivavoce.client import Session, connect
from vivavoce.client.line import Dial
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import config as cfg
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.client_codec import Dialect
from vivavoce.transports.redaction import plain_url

from .microphone import CHUNK_MS, Microphone
from .speech import Utterance
from .turn import BargeIn, Turn

__all__ = ["Asking", "Conversation", "Endpoint"]

LEAD_IN_MS = 300
"""Heard before the first word of a turn."""
PAUSE_MS = 300
"""Heard after an answer."""
TURN_SECONDS_MAX = 60.0
LISTEN_SECONDS_MAX = 120.0
"""Of an answer that is listened to; longer ones are broken off."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a session is held; `name` is how it is called in results, and has no secrets in it."""

    name: str
    url: str | None = None
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    dialect: Dialect | None = None
    dial: Dial | None = field(default=None, repr=False)

    @classmethod
    def at(cls, url: str, model: str, api_key: str | None = None, dialect: Dialect | None = None) -> Endpoint:
        """An endpoint that is called by its address and model."""
        return cls(f"{plain_url(url)} {model}", url, model, api_key, dialect)

    def session(self, configuration: cfg.RealtimeSession) -> Session:
        """One that ends with its connection."""
        return connect(
            self.model,
            url=self.url,
            api_key=self.api_key,
            dialect=self.dialect,
            dial=self.dial,
            session=configuration,
            reconnect=False,
            text_fallback=False,
        )


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of every endpoint alike. `transcription_model` None leaves out transcripts, `max_output_tokens`
    None the length of an answer to the endpoint."""

    silence_ms: int = 500
    instructions: str | None = None
    transcription_model: str | None = "whisper-1"
    max_output_tokens: int | None = None

    def configuration(self) -> cfg.RealtimeSession:
        """As a session is configured with it."""
        transcription = cfg.Transcription(model=self.transcription_model) if self.transcription_model else None
        detection = cfg.ServerVad(silence_duration_ms=self.silence_ms)
        listening = cfg.AudioInput(transcription=transcription, turn_detection=detection)
        instructions = UNSET if self.instructions is None else self.instructions
        return cfg.RealtimeSession(
            audio=cfg.AudioConfig(input=listening),
            instructions=instructions,
            max_output_tokens=UNSET if self.max_output_tokens is None else self.max_output_tokens,
        )


class Conversation:
    """Use it in an `async with` block. Turns follow each other in one session, but where `is_fresh` in one each."""

    def __init__(self, endpoint: Endpoint, asking: Asking, *, is_fresh: bool = False) -> None:
        self.endpoint = endpoint
        self.late_ms: list[float] = []
        """How late each chunk of the microphone was."""
        self._asking, self._is_fresh = asking, is_fresh
        self._clock = asyncio.get_running_loop().time
        self._session: Session | None = None
        self._microphone = Microphone(self._send)
        self._microphone.late_ms = self.late_ms
        self._listening: asyncio.Task[None] | None = None
        self._turn: Turn | None = None
        self._barge_in: BargeIn | None = None

    async def __aenter__(self) -> Conversation:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, where that is not so. Raises `ConnectionFailed` or `ServerError`."""
        if self._listening is not None and not self._listening.done():
            return
        await self.close()
        session = self.endpoint.session(self._asking.configuration())
        await session.connect()
        self._session, self._listening = session, asyncio.create_task(self._listen(session))

    async def close(self) -> None:
        """End the session. Doing it twice is harmless."""
        session, listening = self._session, self._listening
        self._session = self._listening = None
        if session is not None:
            await session.close()
        if listening is not None:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    async def _listen(self, session: Session) -> None:
        with suppress(ConnectionClosed):
            async for event in session:
                now = self._clock()
                if self._barge_in is not None:
                    self._barge_in.take(event, now)
                if self._turn is not None:
                    self._turn.take(event, now)

    # --- one turn -----------------------------------------------------------------------------------------------------

    async def hold(self, said: Utterance, *, listens_until: float = 0.0) -> Turn:
        """Speak, and wait until the answer is complete; then listen to what is left of it, but no longer than so."""
        await self.open()
        self._microphone.begin()
        turn = Turn(said.name, said.end_ms, self._clock())
        try:
            await self._microphone.hear(LEAD_IN_MS)
            _, ended_at = self._microphone.say(said)
            self._turn = turn = Turn(said.name, said.end_ms, ended_at)
            await self._hear_until(turn, turn.is_over)
            turn.check()
            last = min(turn.plays_until, listens_until, self._clock() + LISTEN_SECONDS_MAX)
            await self._hear_until(turn, lambda now: now >= last)
            await self._microphone.hear(PAUSE_MS)
        except ConnectionClosed as closed:
            turn.error = turn.error or str(closed)
        self._turn = None
        if self._is_fresh:
            await self.close()
        return turn

    async def _hear_until(self, turn: Turn, is_enough: Callable[[float], bool]) -> None:
        """Raises `ConnectionClosed`; a turn that takes too long is left as it is."""
        last = turn.ended_at + TURN_SECONDS_MAX + (LISTEN_SECONDS_MAX if turn.plays_until else 0)
        while not is_enough(now := self._clock()) and now < last:
            if self._listening is None or self._listening.done():
                raise ConnectionClosed(1006, "by the endpoint, in the middle of a turn")
            await self._microphone.hear(CHUNK_MS)

    async def _send(self, audio: bytes) -> None:
        if self._session is None:
            raise ConnectionClosed(1006, "there is no session")
        await self._session.append_audio(audio)

    # --- interruptions ------------------------------------------------------------------------------------------------

    async def interrupt(self, said: Sequence[Utterance], after_ms: int) -> list[BargeIn]:
        """Speak each utterance into the answer to the one before: the first sound `after_ms` after that is first heard.

        One result for each but the first, and fewer where there was no answer to interrupt.
        """
        await self.open()
        self._microphone.begin()
        done: list[BargeIn] = []
        answered: Turn | None = None
        with suppress(ConnectionClosed):
            await self._microphone.hear(LEAD_IN_MS)
            for utterance in said:
                if answered is not None:
                    await self._microphone.hear(max(after_ms - utterance.begin_ms, 0))
                began_at, ended_at = self._microphone.say(utterance)
                if answered is not None:
                    done.append(self._barge(utterance.name, began_at, answered))
                self._turn = turn = Turn(utterance.name, utterance.end_ms, ended_at)
                await self._hear_until(turn, turn.is_settled)
                answered = turn if turn.has_sounded(self._clock()) else None
                self._barge_in = None
        self._turn = self._barge_in = None
        await self.close()  # the last answer still comes
        return done

    def _barge(self, name: str, onset_at: float, answered: Turn) -> BargeIn:
        barge_in = BargeIn(name, answered.response_id, onset_at, was_late="done" in answered.stages)
        self._barge_in = barge_in
        return barge_in
