"""The session for scripts, notebooks and a REPL: the same calls, which wait, and need no event loop.

    with sync.connect("gpt-realtime", url=…) as session:
        session.on("error", print)
        print(session.ask("Why is the sun so bright?"))

Nothing here is done a second time: every call is one of `vivavoce.Session` on a loop in the background, waited for.
Handlers are called on a thread, one after the other, and may make calls themselves. Invariants: Ctrl-C ends any wait; a
session that is forgotten says goodbye and leaves neither thread nor task.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from vivavoce.client import connect as _connect
from vivavoce.client import live as _live
from vivavoce.client.acks import Ack
from vivavoce.client.audience import ServerMessage
from vivavoce.client.background import Stay, held, wait
from vivavoce.client.receiving import Listening
from vivavoce.client.session import Session as AsyncSession
from vivavoce.client.threads import Threads
from vivavoce.core.caller.updates import Delta
from vivavoce.core.conversation import Conversation
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config
from vivavoce.protocol.items import Item, Response

if TYPE_CHECKING:
    from vivavoce.client.cost import Meter

__all__ = ["LiveItem", "LiveResponse", "Session", "connect"]

P = ParamSpec("P")
T = TypeVar("T")

THREADS_MAX: Final = 256
"""Handlers that run at once; a session runs one at a time."""

_THREADS: Final = Threads(THREADS_MAX, waiting_max=100_000, name="vivavoce handler")
_handling = threading.local()


# --- from calls that are awaited to calls that wait -------------------------------------------------------------------


def _blocking(
    method: Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Session, P], T]:
    """What is awaited, waited for."""

    @functools.wraps(method)
    def blocking(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._session, *args, **kwargs))

    return blocking


def _acknowledged(method: Callable[Concatenate[AsyncSession, P], Ack[T]]) -> Callable[Concatenate[Session, P], T]:
    """What is sent, waited for until the server has answered it; audio, until there is room for more."""

    @functools.wraps(method)
    def acknowledged(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._ask(lambda: method(self._session, *args, **kwargs))

    return acknowledged


def _configuring(
    method: Callable[Concatenate[AsyncSession, P], Ack[config.SessionResource]],
) -> Callable[Concatenate[Session, P], config.SessionResource | None]:
    """What is kept until the session is connected, and then sent: before, there is nothing to return."""

    @functools.wraps(method)
    def configuring(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> config.SessionResource | None:
        if self._was_opened:
            return self._ask(lambda: method(self._session, *args, **kwargs))
        method(self._session, *args, **kwargs)
        return None

    return configuring


def _answered(
    method: Callable[Concatenate[AsyncSession, P], Ack[_live.LiveResponse]],
) -> Callable[Concatenate[Session, P], LiveResponse]:
    """What is answered by a response, waited for until that has begun."""

    @functools.wraps(method)
    def answered(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> LiveResponse:
        return LiveResponse(self._ask(lambda: method(self._session, *args, **kwargs)))

    return answered


def _called(method: Callable[Concatenate[AsyncSession, P], T]) -> Callable[Concatenate[Session, P], T]:
    """What waits for nothing, called on the loop."""

    @functools.wraps(method)
    def called(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._call(lambda: method(self._session, *args, **kwargs))

    return called


def _opened(connect: Callable[P, AsyncSession]) -> Callable[P, Session]:
    @functools.wraps(connect)
    def opened(*args: P.args, **kwargs: P.kwargs) -> Session:
        return Session(connect(*args, **kwargs))

    return opened


def _iterated(source: AsyncIterator[T]) -> Iterator[T]:
    async def following() -> T:
        return await anext(source)

    while True:
        try:
            yield wait(following())
        except StopAsyncIteration:
            return


class _Handler:
    """A callback of the application, on its way to a thread."""

    def __init__(self, callback: Callable[[Any], object], session: AsyncSession) -> None:
        self.callback = callback
        self.session = session
        self.__qualname__ = getattr(callback, "__qualname__", repr(callback))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Handler) and self.callback == other.callback

    def __hash__(self) -> int:
        return hash(self.callback)

    async def __call__(self, event: Any) -> None:
        context = contextvars.copy_context()
        result, error = await asyncio.get_running_loop().run_in_executor(
            _THREADS, lambda: context.run(self._attempt, event)
        )
        if isinstance(error, Exception):
            raise error
        if error is not None:
            raise RuntimeError(f"the handler wanted to end the program: {error!r}") from error
        if inspect.isawaitable(result):
            await result

    def _attempt(self, event: Any) -> tuple[object, BaseException | None]:
        """An error as a value: a future does not take each."""
        _handling.session = self.session
        try:
            return self.callback(event), None
        except BaseException as error:
            return None, error
        finally:
            _handling.session = None


# --- what there is ----------------------------------------------------------------------------------------------------


class LiveItem:
    """One item of a response. `for chunk in item` gives `Delta`s with text, audio, transcript or arguments."""

    def __init__(self, item: _live.LiveItem) -> None:
        self._live = item

    def __repr__(self) -> str:
        return repr(self._live)

    @property
    def id(self) -> str:
        """The item's id."""
        return self._live.id

    @property
    def item(self) -> Item:
        """The item as the server last stated it."""
        return self._live.item

    @property
    def is_call(self) -> bool:
        """Whether it is a function call."""
        return self._live.is_call

    def __iter__(self) -> Iterator[Delta]:
        return _iterated(self._live.__aiter__())

    def audio(self) -> Iterator[bytes]:
        """Its speech, piece by piece."""
        return _iterated(self._live.audio())

    def words(self) -> Iterator[str]:
        """What it says, written or spoken, piece by piece."""
        return _iterated(self._live.words())


class LiveResponse:
    """One response, from `response.created` on. Iterate it for its items; `done`, `text` and `audio` wait for its end.

    Those raise `ResponseFailed` where it failed, was lost with the connection, or never came to an end.
    """

    def __init__(self, response: _live.LiveResponse) -> None:
        self._live = response

    def __repr__(self) -> str:
        return repr(self._live)

    @property
    def id(self) -> str:
        """The response's id."""
        return self._live.id

    @property
    def response(self) -> Response:
        """The response as the server last stated it."""
        return self._live.response

    @property
    def status(self) -> str:
        """`in_progress`, and in the end `completed`, `cancelled`, `incomplete` or `failed`."""
        return self._live.status

    @property
    def is_done(self) -> bool:
        """Whether it is over, however."""
        return self._live.is_done

    def __iter__(self) -> Iterator[LiveItem]:
        return map(LiveItem, _iterated(self._live.__aiter__()))

    def done(self) -> Response:
        """The response when it is over, with its status, items and usage."""
        return wait(self._live.done())

    def text(self) -> str:
        """All that it says, written or spoken, once it is over."""
        return wait(self._live.text())

    def audio(self) -> bytes:
        """All of its speech, once it is over; raw samples in the session's output format."""
        return wait(self._live.audio())

    def words(self) -> Iterator[str]:
        """What it says, piece by piece."""
        return _iterated(self._live.words())


class Session(Listening):
    """A conversation with a Realtime endpoint, from any thread. Made by `connect`; opened by `with` or `connect()`.

    Every call waits for what `vivavoce.Session` would have awaited: an item for the server's word on it, a response for
    its beginning, audio for room. Iterate it for the server's events; handlers are called on a thread, one after the
    other in the order of the events, while the program does what it likes, and may make any call of the session.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._stay: Stay | None = None
        self._was_opened = False
        self._opening = threading.Lock()
        self._forgotten: weakref.finalize[[], Session] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def connect(self) -> Session:
        """Open the session. What was configured before is in force when it returns.

        Raises `ConnectionFailed` or `ServerError` with the likely cause, and `LocalProtocolError` where it is open.
        """
        with self._opening:  # one after the other: who comes too late must not end what another has opened
            if self._stay is not None:
                self._wait(self._session.connect())
                return self
            stay = Stay(self._session.disconnect)
            try:
                stay.background.wait(self._session.connect())
            except Exception:
                stay.end()
                raise
            except BaseException:  # Ctrl-C: no more waiting
                stay.begin_end()
                raise
            self._stay, self._was_opened = stay, True
            self._forgotten = weakref.finalize(self, stay.begin_end)
            self._forgotten.atexit = False  # whatever stays is ended then
        return self

    def disconnect(self) -> None:
        """End the session: what was said is sent, tools are ended, handlers have their say. Twice is harmless.

        In a handler it does not wait, since it would wait for the handler.
        """
        stay, self._stay = self._stay, None
        if self._forgotten is not None:
            self._forgotten.detach()
        if stay is None:
            return
        if getattr(_handling, "session", None) is self._session:
            stay.begin_end()
        else:
            stay.end()

    close = disconnect

    def reset(self) -> None:
        """Disconnect and forget everything: conversation, configuration, tools, handlers."""
        self.disconnect()
        wait(self._session.reset())
        self._was_opened = False

    def __enter__(self) -> Session:
        return self if self.is_connected else self.connect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()

    def __repr__(self) -> str:
        return repr(self._session)

    # --- what is known ------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the session is open, and not being reconnected."""
        return self._session.is_connected

    @property
    def conversation(self) -> Conversation:
        """The conversation as the server states it. It goes on changing; `get_items` is what there is at one moment."""
        return self._session.conversation

    @property
    def session(self) -> config.SessionResource | None:
        """The configuration in force, as the server last stated it."""
        return self._session.session

    @property
    def meter(self) -> Meter:
        """What it has taken so far, in tokens and money, by response and in all. Raises before connecting."""
        return self._session.meter

    @property
    def context(self) -> Any:
        """What tools are given along with their arguments; the application's own."""
        return self._session.context

    get_item = _called(AsyncSession.get_item)
    get_items = _called(AsyncSession.get_items)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Session:
        """Every event of the server, from the first on; ends with the session, with an exception where it was lost."""
        return self

    def __next__(self) -> ServerMessage:
        try:
            return self._wait(self._session.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def recv(self, timeout_s: float | None = None) -> ServerMessage:
        """The next event. Raises `ConnectionClosed` at the end, `TimeoutError` where none has come."""

        async def received() -> ServerMessage:
            async with asyncio.timeout(timeout_s):
                return await self._session.recv()

        return self._wait(received())

    def responses(self) -> Iterator[LiveResponse]:
        """Every response from now on, whoever asked for it: `for response in session.responses()`."""
        return map(LiveResponse, _iterated(self._call(self._session.responses)))

    def _register(self, name: str, callback: Callable[..., object], *, once: bool) -> None:
        told = _Handler(callback, self._session) if callable(callback) else callback
        register = self._session.once if once else self._session.on
        self._call(lambda: register(name, told))

    def off(self, name: str | type[Any], callback: Callable[[Any], object] | None = None) -> None:
        """Call back no more; without a callback, none of this name. Raises `LocalProtocolError` for an unknown one."""
        told = None if callback is None else _Handler(callback, self._session)
        self._call(lambda: self._session.off(name, told))

    wait_for = _blocking(AsyncSession.wait_for)
    wait_for_session_created = _blocking(AsyncSession.wait_for_session_created)
    wait_for_next_item = _blocking(AsyncSession.wait_for_next_item)
    wait_for_next_completed_item = _blocking(AsyncSession.wait_for_next_completed_item)

    # --- sending ------------------------------------------------------------------------------------------------------

    send = _acknowledged(AsyncSession.send)
    send_raw = _acknowledged(AsyncSession.send_raw)
    update_session = _configuring(AsyncSession.update_session)
    add_tool = _configuring(AsyncSession.add_tool)
    remove_tool = _configuring(AsyncSession.remove_tool)

    append_audio = _acknowledged(AsyncSession.append_audio)
    send_audio = _blocking(AsyncSession.send_audio)
    commit_audio = _acknowledged(AsyncSession.commit_audio)
    clear_audio = _acknowledged(AsyncSession.clear_audio)

    create_item = _acknowledged(AsyncSession.create_item)
    delete_item = _acknowledged(AsyncSession.delete_item)
    retrieve_item = _acknowledged(AsyncSession.retrieve_item)
    truncate_item = _acknowledged(AsyncSession.truncate_item)
    send_function_output = _acknowledged(AsyncSession.send_function_output)

    create_response = _answered(AsyncSession.create_response)
    send_user_message = _answered(AsyncSession.send_user_message)
    cancel_response = _acknowledged(AsyncSession.cancel_response)
    interrupt = _called(AsyncSession.interrupt)
    ask = _blocking(AsyncSession.ask)

    # --- on the loop --------------------------------------------------------------------------------------------------

    def _ask(self, call: Callable[[], Ack[T]]) -> T:
        async def asked() -> T:
            return await call()

        return self._wait(asked())

    def _call(self, function: Callable[[], T]) -> T:
        """Before there is a connection nothing happens on the loop, and none is needed."""
        if self._stay is None:
            return function()

        async def called() -> T:
            return function()

        return self._wait(called())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        problem = None
        if not self._was_opened:
            problem = "the session is not connected; use `with`, or connect()"
        elif self._stay is not None and not self._stay.is_here:
            problem = "this session was opened before the process was forked; open one in the child"
        if problem is not None:
            work.close()
            raise LocalProtocolError(problem)
        with held() as background:
            return background.wait(work)


connect = _opened(_connect)
