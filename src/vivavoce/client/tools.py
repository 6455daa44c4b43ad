"""Tools: functions of this program that the model may call.

`tool` makes one from a typed function, `Tool.from_definition` from a schema and any function; a session shows
`definition` to the server and answers a call with what `run` returns. Blocking functions run in threads, so that the
event loop goes on. Invariant: `run` returns text whatever happens, a failure as `{"error": …}` for the model to read;
nothing but the cancellation of `run` itself is raised.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial, update_wrapper
from typing import Any, Final, Generic, Literal, ParamSpec, TypeAlias, TypeVar, overload
from weakref import WeakKeyDictionary

import msgspec
from msgspec import UNSET

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol.config import FunctionTool

from .signatures import ArgumentsError, Signature, ToolContext, follow, read, to_plain
from .threads import Threads

__all__ = ["CallableTool", "Tool", "ToolCall", "ToolContext", "tool"]

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0
"""How long a function may take, unless its tool says otherwise. Then the model is told that there is no result."""
CANCEL_S_MAX: Final = 1.0
"""How long a cancelled function may take to end. Then it is left to itself, and logged."""
THREADS_MAX: Final = 16
"""Blocking functions that run at once, in all sessions of this process. Further ones wait, within their timeouts."""
WAITING_MAX: Final = 256
"""Blocking functions that wait for a thread. Beyond it a call fails at once."""
RESULT_CHARS_MAX: Final = 100_000
"""Longest result. What is longer is cut, and says so."""
ERROR_CHARS_MAX: Final = 2_000
"""Longest error that a model is told. What is longer is cut."""
NAME_CHARS_MAX: Final = 64
"""Longest name of a function that services take."""

DONE: Final = '{"ok":true}'
"""What a model is told where a function returned None: it was done. Models take `null` for a failed search."""

OnInterruption = Literal["finish", "cancel"]

P = ParamSpec("P")
R = TypeVar("R")


class ToolCall(msgspec.Struct, frozen=True):
    """A call that wants to be approved: arguments as the model wrote them, known to fit."""

    name: str
    arguments: dict[str, Any]
    call_id: str | None = None
    context: object = None


Approve: TypeAlias = Callable[[ToolCall], bool | str | Awaitable[bool | str]]
"""True lets the call happen; anything else refuses it, a text with this reason."""


class _Failed(Exception):
    """There is no result; the message is for the model."""


class Tool:
    """A function that the model may call, and how. Runs at any number of sessions and event loops at once."""

    def __init__(
        self,
        definition: FunctionTool,
        function: Callable[..., Any],
        signature: Signature,
        *,
        timeout_s: float | None = TIMEOUT_S,
        parallel: bool = True,
        on_interruption: OnInterruption = "finish",
        approve: Approve | None = None,
    ) -> None:
        _check(definition, function, timeout_s, on_interruption)
        self.definition = definition
        self.is_parallel = parallel
        self.on_interruption: OnInterruption = on_interruption
        self.timeout_s = timeout_s
        self._function = function
        self._signature = signature
        self._approve = approve
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @classmethod
    def from_definition(
        cls,
        definition: Mapping[str, Any] | FunctionTool,
        function: Callable[..., Any],
        *,
        timeout_s: float | None = TIMEOUT_S,
        parallel: bool = True,
        on_interruption: OnInterruption = "finish",
        approve: Approve | None = None,
    ) -> Tool:
        """A tool with a schema of yours; `type` may be left out of a dict.

        The function gets the arguments by their names, unconverted; or all of them as one dict, where its only
        parameter is called `arguments` or `args`. A parameter `context`, unless the schema has it, gets the session's.
        Raises `LocalProtocolError` where definition and function do not fit together.
        """
        checked = _definition_of(definition)
        return Tool(
            checked,
            function,
            follow(function, checked.name, checked.parameters or {}),
            timeout_s=timeout_s,
            parallel=parallel,
            on_interruption=on_interruption,
            approve=approve,
        )

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.definition.name

    def __repr__(self) -> str:
        return f"<tool {self.name}>"

    async def run(self, arguments: str, context: object = None, *, call_id: str | None = None) -> str:
        """The result of one call, as the text that the model gets; `arguments` is the JSON text that it wrote.

        Text stays as it is, None becomes `{"ok":true}`, all else JSON. Whatever goes wrong comes back as
        `{"error": …}`. The timeout begins when the function does: not with the approval, nor while an earlier call of
        a tool that is not parallel goes on. A blocking function that takes longer cannot be ended; its thread is left.
        """
        try:
            keywords = await self._accepted(arguments, context, call_id)
            async with self._turn():
                call = partial(self._function, **keywords)
                result = await _within(_called(call, self.name), self.timeout_s, self.name)
            return _text(result)
        except _Failed as failed:
            return _error(str(failed))

    async def _accepted(self, arguments: str, context: object, call_id: str | None) -> dict[str, Any]:
        """The keywords for a call that fits and is approved."""
        try:
            bound = self._signature.bind(arguments, context)
        except ArgumentsError as error:
            log.info("tool %s: arguments that do not fit: %s", self.name, error)
            raise _Failed(str(error)) from None
        except Exception as error:  # constructors of the function's own types
            log.warning("tool %s: its arguments could not be made", self.name, exc_info=error)
            raise _Failed(_reason(error)) from None
        if self._approve is not None:
            ask = partial(self._approve, ToolCall(self.name, bound.arguments, call_id, context))
            answer = await _within(_called(ask, self.name), None, self.name)
            if answer is not True:
                because = f": {answer}" if isinstance(answer, str) and answer else ""
                raise _Failed(f"the call was refused{because}")
        return bound.keywords

    def _turn(self) -> AbstractAsyncContextManager[Any]:
        """What calls that must not overlap wait for, one after another."""
        if self.is_parallel:
            return nullcontext()
        return self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())


class CallableTool(Tool, Generic[P, R]):
    """A tool made from a typed function. Called like the function it is the function, and nothing more."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float | None = TIMEOUT_S,
        parallel: bool = True,
        on_interruption: OnInterruption = "finish",
        approve: Approve | None = None,
    ) -> None:
        signature = read(function, name)
        super().__init__(
            FunctionTool(
                name=signature.name,
                description=(signature.description if description is None else description) or UNSET,
                parameters=signature.parameters,
            ),
            function,
            signature,
            timeout_s=timeout_s,
            parallel=parallel,
            on_interruption=on_interruption,
            approve=approve,
        )
        self.function = function
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: no conversion, no timeout, no thread; exceptions are raised."""
        return self.function(*args, **kwargs)


@overload
def tool(
    function: Callable[P, R],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float | None = TIMEOUT_S,
    parallel: bool = True,
    on_interruption: OnInterruption = "finish",
    approve: Approve | None = None,
) -> CallableTool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float | None = TIMEOUT_S,
    parallel: bool = True,
    on_interruption: OnInterruption = "finish",
    approve: Approve | None = None,
) -> Callable[[Callable[P, R]], CallableTool[P, R]]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function, async or blocking: `@tool`, `@tool(timeout_s=5)` or `tool(function)`.

    Types become the schema, the docstring describes function and parameters. A parameter called `context`, or annotated
    `ToolContext[…]`, gets the session's context and is not shown to the model. If the only parameter is an object
    (dataclass, TypedDict, msgspec.Struct, pydantic model), its fields are the tool's arguments.

    `parallel=False`: calls run one after another. `on_interruption="cancel"`: a call ends when the user interrupts.
    `approve`: asked before every call, given a `ToolCall`; anything but True refuses. `timeout_s=None`: no timeout.
    Raises `LocalProtocolError`, which names function and parameter, for what a model cannot be told.
    """
    if function is not None:
        return CallableTool(function, **options)
    return lambda function: CallableTool(function, **options)


# --- what is refused when a tool is made ------------------------------------------------------------------------------


def _check(definition: FunctionTool, function: object, timeout_s: float | None, on_interruption: str) -> None:
    name = definition.name
    if not re.fullmatch(rf"[a-zA-Z0-9_-]{{1,{NAME_CHARS_MAX}}}", name):
        raise LocalProtocolError(
            f"tool {name!r}: services take names of 1 to {NAME_CHARS_MAX} letters (a-z), digits, _ and -; give it "
            'another one: name="…"'
        )
    if not callable(function):
        raise LocalProtocolError(f"tool {name!r}: {function!r} cannot be called; a tool needs a function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise LocalProtocolError(f"tool {name!r}: its function yields; a call has one result: return a list")
    if timeout_s is not None and not timeout_s > 0:
        raise LocalProtocolError(
            f"tool {name!r}: timeout_s is {timeout_s!r}; it takes seconds above 0, or None for none"
        )
    if on_interruption not in ("finish", "cancel"):
        raise LocalProtocolError(
            f'tool {name!r}: on_interruption is {on_interruption!r}; it takes "finish" or "cancel"'
        )


def _definition_of(definition: Mapping[str, Any] | FunctionTool) -> FunctionTool:
    if isinstance(definition, FunctionTool):
        return definition
    try:
        return msgspec.convert({"type": "function", **definition}, FunctionTool)
    except (msgspec.ValidationError, TypeError) as error:
        raise LocalProtocolError(
            f"the definition of a tool is no function definition: {error}. It takes `name`, `description` and "
            "`parameters` (a JSON Schema object), side by side."
        ) from None


# --- calling ----------------------------------------------------------------------------------------------------------


async def _within(call: Coroutine[Any, Any, Any], timeout_s: float | None, name: str) -> Any:
    """What a call returns; raises `_Failed` where it fails or takes too long.

    The call is a task of its own: a cancellation that comes out of it is then its own doing, and one that it ignores
    holds up nobody.
    """
    task = asyncio.create_task(call, name=f"tool {name}")
    task.add_done_callback(lambda task: task.cancelled() or task.exception())  # so that nobody misses it
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S_MAX)
            if not task.done():
                log.warning("tool %s: goes on although it was cancelled", name)
    if not done:
        log.warning("tool %s: no result within %g s", name, timeout_s)
        raise _Failed(f"{name} gave no result within {timeout_s:g} s")
    if task.cancelled():
        log.warning("tool %s: cancelled itself", name)
        raise _Failed(f"{name} was cancelled")
    error = task.exception()
    if error is not None:
        log.warning("tool %s: failed", name, exc_info=error)
        raise _Failed(_reason(error))
    return task.result()


async def _called(call: partial[Any], name: str) -> Any:
    """Call an async function here and any other in a thread; what that returns may still have to be awaited."""
    try:
        is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call.func).__call__)
        result = call() if is_async else await _in_thread(call, name)
        return await result if inspect.isawaitable(result) else result
    except SystemExit as error:  # a task hands it to the event loop, which ends
        raise RuntimeError(f"the function wanted to end the program: {error!r}") from error


async def _in_thread(call: Callable[[], Any], name: str) -> Any:
    context = contextvars.copy_context()
    is_begun = False

    def attempt() -> tuple[Any, BaseException | None]:
        nonlocal is_begun
        is_begun = True
        try:
            return context.run(call), None
        except BaseException as error:  # as a value: a future takes no StopIteration
            return None, error

    try:
        result, error = await asyncio.get_running_loop().run_in_executor(_THREADS, attempt)
    except asyncio.CancelledError:
        if is_begun:
            log.warning("tool %s: nobody waits for it any more, but its thread cannot be ended", name)
        else:
            log.warning("tool %s: not begun, %d blocking tools are running", name, THREADS_MAX)
        raise
    if error is not None:
        raise error
    return result


_THREADS: Final = Threads(THREADS_MAX, WAITING_MAX)
"""One for the process, since threads are the process's."""


# --- what the model is told -------------------------------------------------------------------------------------------


def _text(result: object) -> str:
    """A result as text. Raises `_Failed` where it cannot be written."""
    if result is None:
        return DONE
    if isinstance(result, str):
        text = result
    else:
        try:
            text = msgspec.json.encode(result, enc_hook=to_plain).decode()
        except Exception as error:  # `model_dump` is somebody else's
            kind = type(result).__name__
            log.warning("the result of a tool, of type %s, cannot be written as JSON", kind, exc_info=error)
            raise _Failed(
                f"the result, of type {kind}, cannot be written as JSON: {error}. Tools return text, numbers, lists, "
                "dicts, dataclasses, structs or models."
            ) from None
    if len(text) > RESULT_CHARS_MAX:
        text = f"{text[:RESULT_CHARS_MAX]}\n[cut here: {len(text) - RESULT_CHARS_MAX} more characters]"
    return _sendable(text)


def _error(reason: str) -> str:
    cut = reason if len(reason) <= ERROR_CHARS_MAX else f"{reason[:ERROR_CHARS_MAX]}…"
    return msgspec.json.encode({"error": _sendable(cut)}).decode()


def _sendable(text: str) -> str:
    """Text without lone surrogates, which no frame can carry."""
    return text.encode("utf-8", "replace").decode()


def _reason(error: BaseException) -> str:
    """Type and message; of a group, those of everything in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_reason(part) for part in error.exceptions)
    kind = type(error).__name__
    try:
        return f"{kind}: {error}".removesuffix(": ")
    except Exception:  # its text is somebody else's code, too
        return kind
