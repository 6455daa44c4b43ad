from __future__ import annotations

import asyncio
import contextvars
import enum
import functools
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce import LocalProtocolError, config
from vivavoce.client import tools
from vivavoce.client.threads import Threads
from vivavoce.client.tools import Tool, ToolCall, ToolContext, tool
from vivavoce.testing.virtual_time import run as virtual


def answer(made: Tool, arguments: str = "{}", context: object = None) -> Any:
    """What the model gets, on virtual time, as JSON; text that is none stays text."""

    async def main() -> str:
        text = await made.run(arguments, context)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return text

    text = virtual(main())
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """Two threads and room for two to wait."""
    few = Threads(2, 2)
    monkeypatch.setattr(tools, "_THREADS", few)
    return few


# --- making -----------------------------------------------------------------------------------------------------------


def test_a_decorated_function_is_a_tool_and_still_the_function() -> None:
    @tool
    async def weather(city: str, days: int = 1) -> str:
        """The weather of a city."""
        return f"{city} {days}"

    assert (weather.name, weather.timeout_s, weather.is_parallel, weather.on_interruption) == (
        "weather",
        tools.TIMEOUT_S,
        True,
        "finish",
    )
    assert weather.definition == config.FunctionTool(
        name="weather",
        description="The weather of a city.",
        parameters={
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
            "required": ["city"],
            "additionalProperties": False,
        },
    )
    assert virtual(weather("Oslo", days=2)) == "Oslo 2"
    assert weather.__doc__ == "The weather of a city."
    assert answer(weather, '{"city": "Oslo"}') == "Oslo 1"


def test_options_come_with_the_decorator_or_the_call() -> None:
    @tool(name="add", description="Add two.", timeout_s=None, parallel=False, on_interruption="cancel")
    def plus(a: int, b: int) -> int:
        """Not this."""
        return a + b

    again = tool(plus.function, name="sum")
    assert (plus.name, plus.definition.description, plus.timeout_s) == ("add", "Add two.", None)
    assert (plus.is_parallel, plus.on_interruption) == (False, "cancel")
    assert (again.name, again.definition.description) == ("sum", "Not this.")
    assert plus(1, 2) == 3
    assert answer(again, '{"a": 1, "b": 2}') == 3


def test_a_tool_without_a_docstring_has_no_description() -> None:
    @tool
    def nothing() -> None: ...

    assert nothing.definition.description is msgspec.UNSET


def yielding() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: tool(lambda: None), "tool '<lambda>': services take names of 1 to 64 letters (a-z), digits, _ and -;"),
        (lambda: tool(yielding, name="x" * 65), "tool 'xxx"),
        (lambda: tool(yielding), "tool 'yielding': its function yields; a call has one result: return a list"),
        (lambda: tool(print), "tool 'print': parameter 'args' takes any number"),
        (lambda: tool(loop, timeout_s=0), "tool 'loop': timeout_s is 0; it takes seconds above 0, or None"),
        (lambda: tool(loop, on_interruption="stop"), "tool 'loop': on_interruption is 'stop'; it takes"),  # type: ignore[call-overload]
        (lambda: Tool.from_definition({"name": "f"}, 5), "tool 'f': 5 cannot be called"),  # type: ignore[arg-type]
        (
            lambda: Tool.from_definition({}, answer),
            "the definition of a tool is no function definition: Object missing",
        ),
        (lambda: Tool.from_definition({"function": {"name": "f"}}, answer), "the definition of a tool is no function"),
        (lambda: Tool.from_definition({"name": "f", "type": "mcp"}, answer), "the definition of a tool is no function"),
    ],
)
def test_what_is_no_tool_is_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        make()
    assert str(caught.value).startswith(complaint)


# --- B4: a definition and a function ----------------------------------------------------------------------------------

WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.mark.parametrize("definition", [WEATHER, {"type": "function", **WEATHER}, config.FunctionTool(**WEATHER)])  # type: ignore[arg-type]
def test_a_definition_comes_with_any_function(definition: Any) -> None:
    made = Tool.from_definition(definition, lambda city, context: [city, context], timeout_s=5)
    assert made.definition == config.FunctionTool(name="weather", parameters=WEATHER["parameters"])  # type: ignore[arg-type]
    assert made.timeout_s == 5
    assert answer(made, '{"city": "Oslo"}', "ours") == ["Oslo", "ours"]
    assert answer(made) == {"error": "argument 'city' is missing"}
    assert answer(made, "[") == {"error": "the arguments are not valid JSON: Input data was truncated"}


def test_a_definitions_function_may_take_all_at_once() -> None:
    async def handle(arguments):  # type: ignore[no-untyped-def]
        return arguments

    assert answer(Tool.from_definition(WEATHER, handle), '{"city": "Oslo", "x": 1}') == {"city": "Oslo", "x": 1}


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass
class Place:
    city: str
    since: datetime


class Struct(msgspec.Struct):
    n: int


class Model(pydantic.BaseModel):
    n: int
    on: datetime


class Text(enum.StrEnum):
    A = "a"


SINCE = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        ('{"already": "json"}', '{"already": "json"}'),
        (Text.A, "a"),
        (None, '{"ok":true}'),
        (True, "true"),
        (3, "3"),
        (float("nan"), "null"),
        ([1, "a", None], '[1,"a",null]'),
        ({"a": {1: 2}}, '{"a":{"1":2}}'),
        (Place("Oslo", SINCE), '{"city":"Oslo","since":"2026-01-02T00:00:00Z"}'),
        (Struct(1), '{"n":1}'),
        (Model(n=1, on=SINCE), '{"n":1,"on":"2026-01-02T00:00:00Z"}'),
        ([Model(n=1, on=SINCE)], '[{"n":1,"on":"2026-01-02T00:00:00Z"}]'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.10"), '"1.10"'),
        ({1}, "[1]"),
        ("half a \ud800 pair", "half a ? pair"),
    ],
)
def test_results_as_text(result: object, text: str) -> None:
    @tool
    async def give() -> object:
        return result

    assert virtual(give.run("")) == text


def loop() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (object(), "the result, of type object, cannot be written as JSON: JSON has nothing like object here"),
        ([object()], "the result, of type list, cannot be written as JSON: JSON has nothing like object here"),
        (loop(), "the result, of type list, cannot be written as JSON: maximum recursion depth"),
        ({(1, 2): 3}, "the result, of type dict, cannot be written as JSON: JSON has nothing like tuple here"),
        (["\ud800"], "the result, of type list, cannot be written as JSON: 'utf-8' codec"),
    ],
)
def test_a_result_that_is_no_json_is_an_error_that_says_so(result: object, reason: str) -> None:
    @tool
    async def give() -> object:
        return result

    assert answer(give)["error"].startswith(reason)


def test_a_long_result_is_cut_and_says_so() -> None:
    @tool
    def give(n: int) -> str:
        return "x" * n

    assert len(answer(give, f'{{"n": {tools.RESULT_CHARS_MAX}}}')) == tools.RESULT_CHARS_MAX
    text = answer(give, f'{{"n": {tools.RESULT_CHARS_MAX + 5}}}')
    assert text == "x" * tools.RESULT_CHARS_MAX + "\n[cut here: 5 more characters]"


# --- errors -----------------------------------------------------------------------------------------------------------


class Odd(Exception):
    def __str__(self) -> str:
        return "odd \ud800"


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("there is nothing to say")


def group() -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [KeyError("two")])])


ERRORS: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: ValueError("no such city"), "ValueError: no such city"),
    (ValueError, "ValueError"),
    (lambda: TimeoutError("upstream"), "TimeoutError: upstream"),
    (lambda: StopIteration(1), "RuntimeError: coroutine raised StopIteration"),
    (lambda: asyncio.CancelledError("by itself"), "f was cancelled"),
    (lambda: SystemExit(3), "RuntimeError: the function wanted to end the program: SystemExit(3)"),
    (lambda: GeneratorExit(), "GeneratorExit"),
    (group, "ValueError: one; KeyError: 'two'"),
    (Odd, "Odd: odd ?"),
    (Speechless, "Speechless"),
    (lambda: ValueError("x" * 5_000), "ValueError: " + "x" * (tools.ERROR_CHARS_MAX - 12) + "…"),
]


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(("make", "reason"), ERRORS)
@pytest.mark.parametrize("start", [virtual, asyncio.run])
def test_an_error_of_the_function_is_told_by_type_and_message(
    make: Callable[[], BaseException],
    reason: str,
    is_async: bool,
    start: Callable[[Coroutine[Any, Any, str]], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def blocking() -> None:
        raise make()

    async def asynchronous() -> None:
        raise make()

    made = tool(asynchronous if is_async else blocking, name="f")
    with caplog.at_level(logging.WARNING, "vivavoce.client.tools"):
        assert json.loads(start(made.run(""))) == {"error": reason}
    assert "tool f: " in caplog.text
    assert reason.startswith(("f was", "RuntimeError: coroutine")) or "Traceback" in caplog.text


def test_arguments_that_do_not_fit_do_not_reach_the_function() -> None:
    calls = []

    @tool
    def take(n: int) -> None:
        calls.append(n)

    assert answer(take, '{"n": "many"}') == {
        "error": 'argument \'n\': Expected int, got str; its schema is {"type":"integer"}'
    }
    assert calls == []


@dataclass
class Even:
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("has to be even")
        if self.n > 9:
            raise KeyError("too many")


def test_what_a_class_of_the_function_says_of_its_values_is_told() -> None:
    @tool
    def take(even: Even, n: int = 0) -> str:
        return str(even.n)

    assert answer(take, '{"even": {"n": 2}}') == 2
    assert answer(take, '{"even": {"n": 3}}')["error"].startswith("argument 'even': has to be even; its schema is")
    assert answer(take, '{"even": {"n": 10}}') == {"error": "KeyError: 'too many'"}


@given(st.text(max_size=30) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_run_raises_nothing_whatever_the_model_writes(arguments: str) -> None:
    @tool
    async def take(n: int = 0) -> int:
        return n

    result = virtual(take.run(arguments))
    assert result.isdigit() or json.loads(result)["error"]


# --- the context ------------------------------------------------------------------------------------------------------


def test_the_context_is_handed_to_tools() -> None:
    @tool
    def by_name(context: list[int]) -> int:
        return len(context)

    @tool
    async def by_mark(who: ToolContext[list[int]], n: int) -> int:
        return len(who) + n

    assert answer(by_name, "{}", [1, 2]) == 2
    assert answer(by_mark, '{"n": 1}', [1, 2]) == 3


VOICE: contextvars.ContextVar[str] = contextvars.ContextVar("VOICE", default="none")


@pytest.mark.parametrize("start", [virtual, asyncio.run])
def test_context_variables_reach_functions_and_what_these_set_stays_theirs(start: Callable[..., Any]) -> None:
    @tool
    def blocking() -> str:
        said = VOICE.get()
        VOICE.set("changed")
        return said

    @tool
    async def asynchronous() -> str:
        said = VOICE.get()
        VOICE.set("changed")
        return said

    async def main() -> list[str]:
        VOICE.set("alloy")
        return [await blocking.run(""), await asynchronous.run(""), VOICE.get()]

    assert start(main()) == ["alloy"] * 3


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_timeout_ends_an_async_function_and_is_told() -> None:
    ended = []

    @tool(timeout_s=5)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(asyncio.get_running_loop().time())

    assert answer(slow) == {"error": "slow gave no result within 5 s"}
    assert ended == [5.0]


def test_a_function_that_ignores_its_cancellation_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    @tool(timeout_s=5)
    async def stubborn() -> str:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    async def main() -> float:
        assert json.loads(await stubborn.run(""))["error"] == "stubborn gave no result within 5 s"
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            assert await task == "too late"
        return asyncio.get_running_loop().time()

    assert virtual(main()) == 5.0 + tools.CANCEL_S_MAX
    assert "stubborn: goes on although it was cancelled" in caplog.text


def test_a_result_that_comes_with_the_cancellation_comes_too_late() -> None:
    @tool(timeout_s=5)
    async def late() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    assert answer(late) == {"error": "late gave no result within 5 s"}


def test_without_a_timeout_a_function_may_take_its_time() -> None:
    @tool(timeout_s=None)
    async def long() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.wait([loop.create_future()], timeout=86_400)
        return loop.time()

    assert answer(long) == 86_400


# --- cancellation -----------------------------------------------------------------------------------------------------


def test_cancelling_run_cancels_an_async_function() -> None:
    ended = []

    @tool(on_interruption="cancel")
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("here")

    async def main() -> None:
        task = asyncio.create_task(wait.run(""))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["here"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual(main())


def test_cancelling_run_leaves_a_blocking_function_to_its_thread(
    threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    @tool
    def block() -> None:
        begun.set()
        go.wait(10)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(block.run(""))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended.is_set()
        go.set()

    asyncio.run(main())
    assert ended.wait(10)
    assert "tool block: nobody waits for it any more" in caplog.text


# --- one after another, or at once ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parallel", "most"), [(True, 3), (False, 1)])
def test_calls_overlap_only_where_they_may(parallel: bool, most: int) -> None:
    running: list[int] = []
    seen: list[int] = []

    @tool(parallel=parallel, timeout_s=2)
    async def step(n: int) -> int:
        running.append(n)
        seen.append(len(running))
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=1)
        running.remove(n)
        return n

    async def main() -> None:
        calls = [step.run(f'{{"n": {n}}}') for n in range(3)]
        assert await asyncio.gather(*calls) == ["0", "1", "2"]
        assert asyncio.get_running_loop().time() == (1 if parallel else 3)

    virtual(main())
    virtual(main())  # the same tool on another loop
    assert max(seen) == most


# --- threads ----------------------------------------------------------------------------------------------------------


def test_a_blocking_function_does_not_block_the_loop(threads: Threads) -> None:
    go = threading.Event()

    @tool
    def block() -> str:
        assert go.wait(10)
        return threading.current_thread().name

    async def main() -> str:
        task = asyncio.create_task(block.run(""))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(go.set)  # the loop has to go on for the thread to
        return await task

    assert asyncio.run(main()) == "vivavoce tool"


def test_threads_are_limited_and_what_waits_too_long_never_begins(
    threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()
    both = threading.Barrier(3)
    done: list[int] = []

    @tool
    def block(n: int) -> int:
        if n < 2:
            both.wait(10)
            go.wait(10)
        done.append(n)
        return n

    hasty = tool(block.function, name="hasty", timeout_s=1e-9)

    async def main() -> None:
        first = [asyncio.create_task(block.run(f'{{"n": {n}}}')) for n in range(2)]
        await asyncio.to_thread(both.wait, 10)
        assert json.loads(await hasty.run('{"n": 2}'))["error"] == "hasty gave no result within 1e-09 s"
        waiting = [asyncio.create_task(block.run(f'{{"n": {n}}}')) for n in (3, 4)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert json.loads(await block.run('{"n": 5}'))["error"].startswith("RuntimeError: 2 calls are waiting")
        go.set()
        assert await asyncio.gather(*first, *waiting) == ["0", "1", "3", "4"]

    asyncio.run(main())
    assert set(done) == {0, 1, 3, 4}
    assert "tool hasty: not begun" in caplog.text


def test_a_call_that_was_given_up_before_it_began_is_passed_over() -> None:
    one = Threads(1, 3)
    begun, go = threading.Event(), threading.Event()
    ran: list[str] = []
    first = one.submit(lambda: (begun.set(), go.wait(10)))
    assert begun.wait(10)
    given_up, last = one.submit(ran.append, "given up"), one.submit(ran.append, "last")
    assert given_up.cancel()
    go.set()
    assert first.result(10) == (None, True)
    last.result(10)
    assert ran == ["last"]


def test_a_thread_that_cannot_be_started_fails_its_call_and_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    began: list[str] = []
    threads = Threads(1, 1)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", fail)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                threads.submit(began.append, "refused")
    threads.submit(began.append, "taken").result(10)
    assert began == ["taken"]


def test_a_blocking_function_that_hangs_does_not_keep_the_program_from_ending() -> None:
    program = """
        import asyncio, threading
        from vivavoce.client.tools import tool

        @tool(timeout_s=0.01)
        def hang() -> None:
            threading.Event().wait()

        print(asyncio.run(hang.run("")))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert json.loads(done.stdout) == {"error": "hang gave no result within 0.01 s"}


# --- kinds of functions -----------------------------------------------------------------------------------------------


class Shop:
    def __init__(self) -> None:
        self.sold = 0

    def sell(self, n: int) -> int:
        self.sold += n
        return self.sold

    async def count(self) -> int:
        return self.sold

    @staticmethod
    @tool
    def greet(name: str) -> str:
        return f"Hi {name}"


class Caller:
    async def __call__(self, n: int) -> int:
        return n + 1


def test_methods_partials_objects_and_wrapped_functions_are_tools_too() -> None:
    shop = Shop()
    assert answer(tool(shop.sell), '{"n": 2}') == 2
    assert answer(tool(shop.count)) == 2
    assert answer(Shop.greet, '{"name": "you"}') == "Hi you"
    assert answer(tool(Caller(), name="add_one"), '{"n": 1}') == 2
    assert answer(tool(functools.partial(shop.sell, 5))) == 7

    async def late(n: int) -> int:
        return n

    @functools.wraps(late)
    def through(*args: Any, **kwargs: Any) -> Any:
        return late(*args, **kwargs)

    @functools.wraps(late)
    def now(*args: Any, **kwargs: Any) -> int:
        return 42

    assert answer(tool(through), '{"n": 3}') == 3
    assert answer(tool(now), '{"n": 3}') == 42


class Booking(pydantic.BaseModel):
    guest: str = pydantic.Field(min_length=2)
    nights: int = 1


def test_a_pydantic_model_is_an_argument_and_a_result() -> None:
    @tool
    def book(booking: Booking) -> Booking:
        return booking.model_copy(update={"nights": booking.nights + 1})

    assert book.definition.parameters == {
        "type": "object",
        "properties": {"guest": {"type": "string", "minLength": 2}, "nights": {"type": "integer", "default": 1}},
        "required": ["guest"],
        "additionalProperties": False,
    }
    assert answer(book, '{"guest": "Al"}') == {"guest": "Al", "nights": 2}
    assert answer(book, '{"guest": "A"}') == {"error": "the arguments: guest: String should have at least 2 characters"}


def test_pydantic_is_not_needed() -> None:
    program = """
        import sys
        sys.modules["pydantic"] = None
        import asyncio
        from dataclasses import dataclass
        from vivavoce.client.tools import tool

        @dataclass
        class Place:
            city: str

        @tool
        def weather(place: Place) -> Place:
            return place

        print(asyncio.run(weather.run('{"city": "Oslo"}')))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == '{"city":"Oslo"}\n'


# --- approval ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        (True, None),
        (False, "the call was refused"),
        ("", "the call was refused"),
        (None, "the call was refused"),
        (1, "the call was refused"),
        ("ask me tomorrow", "the call was refused: ask me tomorrow"),
        (ValueError("nobody there"), "ValueError: nobody there"),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
def test_a_call_happens_only_when_it_is_approved(verdict: Any, error: str | None, is_async: bool) -> None:
    asked: list[ToolCall] = []
    paid: list[int] = []

    def approve(call: ToolCall) -> Any:
        asked.append(call)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    async def approve_later(call: ToolCall) -> Any:
        return approve(call)

    @tool(approve=approve_later if is_async else approve)
    def pay(amount: int, context: object) -> None:
        paid.append(amount)

    result = json.loads(virtual(pay.run('{"amount": 3}', "ours", call_id="call_1")))
    assert result == ({"ok": True} if error is None else {"error": error})
    assert paid == ([3] if error is None else [])
    assert asked == [ToolCall("pay", {"amount": 3}, "call_1", "ours")]
    assert "error" in json.loads(virtual(pay.run('{"amount": "all"}')))
    assert len(asked) == 1


def test_the_timeout_does_not_count_the_approval() -> None:
    async def approve(call: ToolCall) -> bool:
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=600)
        return True

    @tool(approve=approve, timeout_s=1)
    async def pay() -> float:
        return asyncio.get_running_loop().time()

    assert answer(pay) == 600
