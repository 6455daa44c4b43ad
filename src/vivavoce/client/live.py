"""A response as it comes: its items, and in each item its chunks, side by side (nested iteration).

Fed by the session with the events of one response. Invariant: whoever begins to iterate late gets everything from the
beginning; what nobody holds is not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from vivavoce.core.caller.updates import Delta
from vivavoce.errors import ResponseFailed
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import FunctionCall, Item, Message, OutputAudio, OutputText, Response, UnknownItem

from .streams import Stream

CHUNKS_MAX = 100_000
"""Chunks of an item, and items of a response, that wait for who iterates."""
BEGIN_S_MAX = 5.0
"""Where the server plays: time after the end of a response in which its speech begins. Then there is none."""


class _Over(Exception):
    """Nothing comes any more."""


class LiveItem:
    """One item of a response. `async for chunk in item` gives `Delta`s with text, audio, transcript or arguments."""

    def __init__(self, item: Item, response: LiveResponse) -> None:
        self._response: LiveResponse | None = response  # who is fed only as long as somebody holds it
        self.id = given(item.id, "")
        self.item = item
        self._chunks: Stream[Delta] = Stream(CHUNKS_MAX, response._on_wait)

    def __repr__(self) -> str:
        item = self.item
        kind = item.fields.get("type") if isinstance(item, UnknownItem) else type(item).__struct_config__.tag
        return f"<LiveItem {self.id} {kind}, {'in progress' if self._response is not None else 'complete'}>"

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Delta]:
        while True:
            try:
                yield await self._chunks.get()
            except _Over:
                return

    @property
    def is_call(self) -> bool:
        """Whether it is a function call."""
        return isinstance(self.item, FunctionCall)

    async def audio(self) -> AsyncIterator[bytes]:
        """Its speech, piece by piece."""
        async for chunk in self:
            if chunk.audio is not None:
                yield chunk.audio

    async def words(self) -> AsyncIterator[str]:
        """What it says, written or spoken, piece by piece."""
        async for chunk in self:
            if (words := chunk.text if chunk.text is not None else chunk.transcript) is not None:
                yield words

    def _put(self, delta: Delta) -> None:
        self._chunks.put(delta)

    def _finish(self, item: Item | None = None) -> None:
        self.item = item or self.item
        self._response = None
        self._chunks.end(_Over())


class LiveResponse:
    """One response, from `response.created` on. Iterate it for its items; `await` it for its end.

    `await response` gives the final `Response`; `text()`, `audio()` wait for the end as well. Where nothing had come
    before the session was lost, or before speech failed, it goes on as the response that was asked for in its place,
    under that one's id. Raises `ResponseFailed` where it failed, was lost with the connection, or never came to an end.

    Where the server plays (WebRTC), speech comes as it is played, and goes on when the response is over: `audio()`, and
    who iterates the chunks of what is spoken, wait for the end of that.
    """

    def __init__(
        self, response: Response, on_wait: Callable[[], None] = lambda: None, *, is_played: bool = False
    ) -> None:
        self.id = response.id
        self._is_played = is_played
        self._has_sounded = False
        self._quiet: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not is_played:
            self._quiet.set_result(None)
        self.response = response
        self._on_wait = on_wait
        self._awaiting = 0
        self._items: Stream[LiveItem] = Stream(CHUNKS_MAX, on_wait)
        self._known: dict[str, LiveItem] = {}
        self._words: list[str] = []
        self._audio = bytearray()
        self._done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<LiveResponse {self.id} {self.status}>"

    @property
    def status(self) -> str:
        """`in_progress`, and in the end `completed`, `cancelled`, `incomplete` or `failed`."""
        return given(self.response.status, "in_progress")

    @property
    def is_done(self) -> bool:
        """Whether it is over, however."""
        return self._done.done()

    def __aiter__(self) -> AsyncIterator[LiveItem]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[LiveItem]:
        while True:
            try:
                yield await self._items.get()
            except _Over:
                return

    def __await__(self) -> Generator[Any, None, Response]:
        self._awaiting += 1
        self._on_wait()
        try:
            return (yield from asyncio.shield(self._done).__await__())  # a generator of ours, so that it holds us
        finally:
            self._awaiting -= 1

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for more of it."""
        is_read = self._items.is_waited_for or any(item._chunks.is_waited_for for item in self._known.values())
        return is_read or self._awaiting > 0

    async def done(self) -> Response:
        """The response when it is over, with its status, items and usage."""
        return await self

    async def text(self) -> str:
        """All that it says, written or spoken, once it is over."""
        await self
        return "".join(self._words)

    async def audio(self) -> bytes:
        """All of its speech, once it is over; raw samples in the session's output format."""
        await self
        self._awaiting += 1
        self._on_wait()
        try:
            await asyncio.shield(self._quiet)
        finally:
            self._awaiting -= 1
        return bytes(self._audio)

    async def words(self) -> AsyncIterator[str]:
        """What it says, piece by piece."""
        async for item in self:
            async for words in item.words():
                yield words

    # --- fed by the session -------------------------------------------------------------------------------------------

    def _take(self, event: ev.AnyServerEvent) -> None:
        match event:
            case ev.ResponseOutputAudioDelta():
                self._audio += event.delta
                self._put(event.item_id, Delta(audio=event.delta))
            case ev.ResponseOutputTextDelta():
                self._words.append(event.delta)
                self._put(event.item_id, Delta(text=event.delta))
            case ev.ResponseOutputAudioTranscriptDelta():
                self._words.append(event.delta)
                self._put(event.item_id, Delta(transcript=event.delta))
            case ev.ResponseFunctionCallArgumentsDelta():
                self._put(event.item_id, Delta(arguments=event.delta))
            case ev.ResponseOutputItemAdded():
                self._add(event.item)
            case ev.ResponseOutputItemDone():
                item = self._known.get(given(event.item.id, "")) or self._add(event.item)
                item.item = event.item
                if not (self._is_played and _is_spoken(event.item)):
                    item._finish()
            case ev.OutputAudioBufferStarted():
                self._has_sounded = True
            case ev.OutputAudioBufferStopped() | ev.OutputAudioBufferCleared():
                self._hush()
            case ev.ResponseDone():
                self._finish(event.response)

    def _add(self, item: Item) -> LiveItem:
        live = LiveItem(item, self)
        self._known[live.id] = live
        self._items.put(live)
        return live

    def _put(self, item_id: str, delta: Delta) -> None:
        if (item := self._known.get(item_id)) is not None:
            item._put(delta)

    def _finish(self, response: Response) -> None:
        self.response = response
        if not self._words:
            self._words = [_words(item) for item in response.output]
        self._items.end(_Over())
        if not self._will_sound:
            self._hush()
        elif not self._has_sounded:
            asyncio.get_running_loop().call_later(BEGIN_S_MAX, self._hush_unless_begun)
        if self._done.done():
            return
        if response.status == "failed":
            self._done.set_exception(failure_of(response))
            self._done.exception()  # nobody need await it
        else:
            self._done.set_result(response)

    def _fail(self, error: Exception) -> None:
        self._end()
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()

    def _end(self) -> None:
        self._items.end(_Over())
        self._hush()

    @property
    def _will_sound(self) -> bool:
        """Whether more of it is to be heard, now that all of it has been made."""
        if self._quiet.done() or not any(map(_is_spoken, self.response.output)):
            return False
        return self._has_sounded or self.status in ("completed", "incomplete")

    def _hush_unless_begun(self) -> None:
        if not self._has_sounded:
            self._hush()

    def _hush(self) -> None:
        """Nothing more of it is to be heard."""
        if not self._quiet.done():
            self._quiet.set_result(None)
        self._finish_items()

    def _finish_items(self) -> None:
        for item in self._known.values():
            item._finish()

    def _replace(self, response: Response) -> None:
        """It was lost, or its speech has failed, before anything had come; this one was asked for in its place."""
        self._finish_items()
        self._known.clear()
        self.id, self.response = response.id, response


def _is_spoken(item: Item) -> bool:
    return isinstance(item, Message) and any(isinstance(part, OutputAudio) for part in item.content)


def failure_of(response: Response) -> ResponseFailed:
    """Why a response failed, as an exception."""
    details = given(response.status_details, None)
    error = given(details.error, None) if details else None
    code = given(error.code, None) if error else None
    message = (given(error.message, None) if error else None) or "the response failed; the server does not say why"
    return ResponseFailed(message, code=code, response_id=response.id)


def _words(item: Item) -> str:
    parts = item.content if isinstance(item, Message) else ()
    texts = (
        part.text if isinstance(part, OutputText) else given(part.transcript, None) or ""
        for part in parts
        if isinstance(part, OutputText | OutputAudio)
    )
    return "".join(texts)
