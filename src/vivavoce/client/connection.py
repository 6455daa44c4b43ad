"""One bare connection: typed events out and in, and the conversation that they add up to.

For tests and tools that want to see exactly what is on the wire; applications use `connect`.

Parses each frame once, folds it into the conversation, hands it on. Invariant: when an event is seen, the conversation
already contains it.
"""

from __future__ import annotations

from types import TracebackType

from vivavoce.core.conversation import Conversation
from vivavoce.errors import ConnectionClosed, ConnectionFailed
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe
from vivavoce.protocol.client_codec import ClientCodec, Dialect
from vivavoce.protocol.config import SessionConfig, SessionResource
from vivavoce.protocol.items import Item
from vivavoce.transports import Transport

from .restoring import server_error

NORMAL_CODES = frozenset({1000, 1001})
"""Close codes that end an iteration without an exception."""

ServerMessage = ev.AnyServerEvent | ev.Unknown


class Connection:
    """An open connection. Iterate it for events; send with `send` or one of the named methods."""

    def __init__(self, transport: Transport, dialect: Dialect = "ga") -> None:
        self.conversation = Conversation()
        self._transport = transport
        self._codec = ClientCodec(dialect)
        self._first: ServerMessage | None = None

    @property
    def session(self) -> SessionResource | None:
        """The configuration in force, as the server last stated it."""
        return self.conversation.session

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(self, event: ev.AnyClientEvent) -> None:
        """Send one event. Raises `ConnectionClosed`."""
        await self._transport.send(self._codec.encode(event))

    async def update_session(self, session: SessionConfig) -> None:
        """`session.update`: change the given fields."""
        await self.send(ev.SessionUpdate(session=session))

    async def append_audio(self, audio: bytes) -> None:
        """`input_audio_buffer.append`: more of the user's audio, in the session's input format."""
        await self.send(ev.InputAudioBufferAppend(audio=audio))

    async def commit_audio(self) -> None:
        """`input_audio_buffer.commit`: the buffer becomes a user item."""
        await self.send(ev.InputAudioBufferCommit())

    async def create_item(self, item: Item, *, after: Maybe[str] = UNSET) -> None:
        """`conversation.item.create`: `after` is an item's id, "root" for the first place, absent for the end."""
        await self.send(ev.ConversationItemCreate(item=item, previous_item_id=after))

    async def create_response(self, response: Maybe[ev.ResponseParams] = UNSET) -> None:
        """`response.create`: ask for an answer."""
        await self.send(ev.ResponseCreate(response=response))

    async def cancel_response(self, response_id: Maybe[str] = UNSET) -> None:
        """`response.cancel`: stop an answer."""
        await self.send(ev.ResponseCancel(response_id=response_id))

    async def truncate(self, item_id: str, audio_end_ms: int, content_index: int = 0) -> None:
        """`conversation.item.truncate`: the user heard no more than this of an answer."""
        await self.send(
            ev.ConversationItemTruncate(item_id=item_id, content_index=content_index, audio_end_ms=audio_end_ms)
        )

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def recv(self) -> ServerMessage:
        """The next event. Raises `ConnectionClosed` at the end."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        event = self._codec.decode(await self._transport.receive())
        self.conversation.apply(event)
        return event

    def __aiter__(self) -> Connection:
        """Every event until the connection ends; raises `ConnectionClosed` where the end was not a normal one."""
        return self

    async def __anext__(self) -> ServerMessage:
        try:
            return await self.recv()
        except ConnectionClosed as closed:
            if closed.code in NORMAL_CODES:
                raise StopAsyncIteration from None
            raise

    # --- opening and closing ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Wait for the first event, so that a refused connection is told here and not later.

        Servers refuse after the handshake, with an `error` event and a close (reference §1.5). Raises `ServerError` or
        `ConnectionFailed`.
        """
        try:
            first = await self.recv()
        except ConnectionClosed as closed:
            raise ConnectionFailed(f"the server closed at once: {closed.code} {closed.reason}".rstrip()) from closed
        if isinstance(first, ev.ErrorEvent):
            await self.close()
            raise server_error(first.error)
        self._first = first

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection; doing it twice is harmless."""
        await self._transport.close(code, reason)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
