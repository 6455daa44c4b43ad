"""One open conversation, seen from the client: typed events out and in, and the conversation that they add up to.

Parses each frame once, folds it into the conversation, hands it on. Invariant: when an event is seen, the conversation
already contains it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator, Mapping
from ssl import SSLContext
from types import TracebackType

from vivavoce.core.conversation import Conversation
from vivavoce.errors import ConnectionClosed, ConnectionFailed, ServerError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe
from vivavoce.protocol.codec import ClientCodec, Dialect
from vivavoce.protocol.config import SessionConfig, SessionResource
from vivavoce.protocol.items import Item
from vivavoce.transports import Transport
from vivavoce.transports.websocket import OPEN_TIMEOUT_S, dial

from .endpoint import OPENAI_URL, Endpoint, endpoint, is_same_host

MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""Largest message that is accepted; a retrieved item carries all of its audio."""
NORMAL_CODES = frozenset({1000, 1001})
"""Close codes that end an iteration without an exception."""

ServerMessage = ev.AnyServerEvent | ev.Unknown

_LIKELY_CAUSES = {
    "invalid_api_key": "check the key, and that it belongs to this endpoint",
    "invalid_model": "the endpoint does not know this model; Azure wants the name of the deployment",
    "missing_model": "name a model: connect(model=...)",
    "beta_api_shape_disabled": 'the endpoint has retired the beta dialect; connect with dialect="ga"',
}


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
        `ConnectionFailed`, with the likely cause.
        """
        try:
            first = await self.recv()
        except ConnectionClosed as closed:
            raise ConnectionFailed(f"the server closed at once: {closed.code} {closed.reason}".rstrip()) from closed
        if isinstance(first, ev.ErrorEvent):
            await self.close()
            raise _refusal(first.error)
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


def _refusal(error: ev.ErrorDetail) -> ServerError:
    code = error.code if isinstance(error.code, str) else None
    cause = _LIKELY_CAUSES.get(code or "")
    message = f"{error.message} ({cause})" if cause else error.message
    param = error.param if isinstance(error.param, str) else None
    event_id = error.event_id if isinstance(error.event_id, str) else None
    return ServerError(message, type=error.type, code=code, param=param, event_id=event_id)


class Connecting:
    """A connection that is asked for: `async with` closes it at the end, `await` leaves that to you."""

    def __init__(
        self, target: Endpoint, dialect: Dialect, *, ssl: SSLContext | None, proxy: str | None, open_timeout_s: float
    ) -> None:
        self._target = target
        self._dialect: Dialect = dialect
        self._ssl = ssl
        self._proxy = proxy
        self._open_timeout_s = open_timeout_s
        self._connection: Connection | None = None

    async def _open(self) -> Connection:
        transport = await dial(
            self._target.url,
            headers=self._target.headers,
            ssl=self._ssl,
            proxy=self._proxy,
            open_timeout_s=self._open_timeout_s,
            message_bytes_max=MESSAGE_BYTES_MAX,
        )
        connection = Connection(transport, self._dialect)
        try:
            async with asyncio.timeout(self._open_timeout_s):
                await connection.open()
        except TimeoutError:
            await transport.close()
            raise ConnectionFailed(
                f"the server accepted the connection and then said nothing for {self._open_timeout_s:g} s; it may "
                "still be loading its models, or be no Realtime endpoint"
            ) from None
        except BaseException:
            await transport.close()
            raise
        return connection

    def __await__(self) -> Generator[None, None, Connection]:
        return self._open().__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self._open()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()


def connect(
    model: str | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    dialect: Dialect = "ga",
    headers: Mapping[str, str] | None = None,
    ssl: SSLContext | None = None,
    proxy: str | None = None,
    open_timeout_s: float = OPEN_TIMEOUT_S,
) -> Connecting:
    """Connect to a Realtime endpoint: `async with connect("gpt-realtime") as connection: …`.

    `url` is a base URL or a whole one, with ws(s) or http(s); without it `OPENAI_BASE_URL` or OpenAI's own is used.
    `api_key` defaults to `OPENAI_API_KEY`, which goes to the host of `OPENAI_BASE_URL` (or OpenAI's own) and to no
    other: for any other `url` the key has to be given. `open_timeout_s` is the time for the handshake, and again for
    the server's first event. Raises `ConnectionFailed` or `ServerError` where no connection comes about.
    """
    home = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    if api_key is None and is_same_host(url or home, home):
        api_key = os.environ.get("OPENAI_API_KEY")
    target = endpoint(
        url or home,
        model=model,
        api_key=api_key,
        dialect=dialect,
        headers=headers,
    )
    return Connecting(target, dialect, ssl=ssl, proxy=proxy, open_timeout_s=open_timeout_s)
