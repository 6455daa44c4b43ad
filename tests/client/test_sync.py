"""The facade for scripts, notebooks and a REPL, against a real server in another thread."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import vivavoce
from vivavoce import (
    ConnectionClosed,
    ConnectionFailed,
    LocalProtocolError,
    Price,
    ServerError,
    config,
    events,
    items,
    sync,
)
from vivavoce.audio import wav
from vivavoce.client import background
from vivavoce.client.live import LiveResponse
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import tone

WAIT_S = 10.0


def of_ours() -> set[threading.Thread]:
    """The threads of this process that loops of sessions run on."""
    return {thread for thread in threading.enumerate() if thread.name == "vivavoce sessions"}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    for thread in of_ours():
        thread.join(WAIT_S)
    assert not of_ours()
    assert background._current is None


@pytest.fixture
def connect(realtime_server: RealServer) -> Callable[..., sync.Session]:
    return lambda **how: sync.connect("m", url=realtime_server.url, api_key=realtime_server.api_key, **how)


Connect = Callable[..., sync.Session]


def collected(queue: SimpleQueue[Any], count: int) -> list[Any]:
    return [queue.get(timeout=WAIT_S) for _ in range(count)]


# --- calls ------------------------------------------------------------------------------------------------------------


def test_e4_calls_wait_and_return_what_the_server_says(realtime_server: RealServer, connect: Connect) -> None:
    realtime_server.answers("It is near.")
    with connect() as session:
        stated = session.update_session(instructions="Be brief.", modality="text")
        assert isinstance(stated, config.RealtimeSessionResource)
        assert stated.instructions == "Be brief."
        item = session.create_item(items.user_message("Why is the sun so bright?"))
        response = session.create_response()
        assert response.text() == "It is near."
        assert response.status == "completed"
        assert isinstance(response.done().output[0], items.Message)
        assert [view.id for view in session.get_items()] == [item.id, response.response.output[0].id]
    assert not session.is_connected


def test_e4_a_file_is_asked_in_one_line(realtime_server: RealServer, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "question.wav").write_bytes(wav.encoded(tone(300), 24_000))
    (tmp_path / "long.wav").write_bytes(wav.encoded(bytes(24_000 * 2 * 301), 24_000))
    with connect() as session:
        assert session.ask(tmp_path / "question.wav") == "echo: audio of 300 ms"
        with pytest.raises(ValueError, match=r"long\.wav is longer than the 300 s .* send_audio"):
            session.ask(tmp_path / "long.wav")
        with pytest.raises(FileNotFoundError):
            session.ask(tmp_path / "none.wav")
        assert len(session.get_items()) == 2


def test_e4_a_prompt_shows_what_a_session_is(connect: Connect) -> None:
    session = connect()
    assert repr(session) == "<Session new, not connected>"
    with session:
        assert session.session is not None
        assert repr(session) == f"<Session {session.session.id} m, connected>"
    assert repr(session).endswith(" m, not connected>")


def test_e4_a_prompt_shows_what_else_there_is(realtime_server: RealServer) -> None:
    async def main() -> None:
        made = {"url": realtime_server.url, "api_key": realtime_server.api_key}
        talk = vivavoce.connect("m", prices={"m": Price(text_in=1.0, text_out=1_000.0)}, budget=5.0, **made)
        assert repr(talk.update_session(modality="text")) == "<Ack of what is sent when the session connects>"
        async with talk:
            assert repr(talk.meter) == "<Meter 0 tokens, cost 0 of 5>"
            asked = talk.send_user_message("Hello")
            assert repr(asked) == "<Ack not answered yet>"
            response = await asked
            assert repr(asked) == "<Ack answered>"
            await response
            async for item in response:
                assert repr(item) == f"<LiveItem {item.id} message, complete>"
                assert repr(sync.LiveItem(item)) == repr(item)
            coming = LiveResponse(response.response)._add(items.UnknownItem(id="item_1", fields={"type": "dance"}))
            assert repr(coming) == "<LiveItem item_1 dance, in progress>"
            spent = talk.meter.total
            assert spent.tokens.total > 0
            assert repr(talk.meter) == f"<Meter {spent.tokens.total} tokens, cost {spent.cost:.6g} of 5>"
            refused = talk.delete_item("item_none")
            with pytest.raises(ServerError):
                await refused
            assert repr(refused).startswith("<Ack failed: ServerError(")
            assert "item_none" in repr(refused)

    asyncio.run(main())


def test_e4_a_response_is_iterated_as_it_comes(realtime_server: RealServer, connect: Connect) -> None:
    realtime_server.answers("One two three.", "Four.")
    with connect() as session:
        chunks = [
            (chunk.transcript or "", chunk.audio or b"") for item in session.send_user_message("Go") for chunk in item
        ]
        assert "".join(words for words, _ in chunks) == "One two three."
        assert sum(len(audio) for _, audio in chunks) > 0
        responses = session.responses()
        session.send_user_message("On")
        assert "".join(next(responses).words()) == "Four."


def test_e4_events_are_iterated_to_the_end_of_the_session(connect: Connect) -> None:
    seen = []
    with connect() as session:
        session.send_user_message("Hello")
        for event in session:
            seen.append(event.type)
            if isinstance(event, events.ResponseDone):
                session.disconnect()
    assert seen[0] == "session.created"
    assert "response.done" in seen


def test_e4_an_error_of_the_server_is_raised_where_it_belongs(connect: Connect) -> None:
    with connect() as session:
        with pytest.raises(ServerError, match="item_none"):
            session.delete_item("item_none")
        assert session.ask("Still there?") == "echo: Still there?"


def test_e4_audio_waits_for_nothing_but_room(realtime_server: RealServer, connect: Connect) -> None:
    with connect() as session:
        session.update_session(turn_detection=None, modality="text")
        for _ in range(10):
            session.append_audio(tone(20))
        assert session.send_audio([tone(100), tone(100)]) == pytest.approx(0.2)
        assert session.commit_audio().startswith("item_")
        assert len(realtime_server.received("input_audio_buffer.append")) >= 11


def test_e4_what_is_configured_before_is_in_force_when_it_opens(realtime_server: RealServer, connect: Connect) -> None:
    def weather(city: str) -> str:
        return f"It is sunny in {city}."

    realtime_server.calls("weather", {"city": "Oslo"})
    session = connect()
    assert session.update_session(modality="text") is None
    assert session.add_tool(weather) is None
    assert not of_ours()  # no thread before it is opened
    with session:
        assert "sunny in Oslo" in session.ask("How is the weather?")


def test_e4_a_session_is_opened_and_closed_by_hand_and_again(connect: Connect) -> None:
    heard: SimpleQueue[str] = SimpleQueue()
    session = connect()
    session.on("session.created", lambda event: heard.put(event.type))
    for _ in range(2):
        assert session.connect() is session
        with pytest.raises(LocalProtocolError, match="connected already"):
            session.connect()
        assert session.ask("Hello") == "echo: Hello"
        session.disconnect()
        session.disconnect()
    assert collected(heard, 2) == ["session.created"] * 2
    with pytest.raises(ConnectionClosed):
        session.send_user_message("Hello?")


def test_e4_reset_forgets_everything(connect: Connect) -> None:
    session = connect()
    session.update_session(instructions="Be brief.")
    with session:
        assert session.session is not None
        session.reset()
        assert session.session is None
        with pytest.raises(LocalProtocolError, match="not connected; use `with`"):
            session.create_response()
        with session:
            assert session.session.instructions != "Be brief."


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session.create_response(),
        lambda session: session.recv(),
        lambda session: next(session),
        lambda session: session.wait_for("response.done"),
        lambda session: session.append_audio(b"\0\0"),
    ],
)
def test_e4_what_needs_a_connection_says_so(connect: Connect, use: Callable[[sync.Session], object]) -> None:
    with pytest.raises(LocalProtocolError, match=r"the session is not connected; use `with`, or connect\(\)"):
        use(connect())


def test_e4_a_connection_that_fails_leaves_nothing() -> None:
    with pytest.raises(ConnectionFailed):
        sync.connect("m", url="http://127.0.0.1:1/v1", reconnect=False).connect()


def test_e4_waiting_has_its_limit(connect: Connect) -> None:
    with connect() as session:
        assert session.recv(WAIT_S).type == "session.created"
        with pytest.raises(TimeoutError):
            session.recv(timeout_s=0.001)
        with pytest.raises(TimeoutError):
            session.wait_for("response.done", timeout_s=0.001)


# --- handlers ---------------------------------------------------------------------------------------------------------


def test_e4_handlers_are_called_in_the_background_in_order(connect: Connect) -> None:
    told: SimpleQueue[tuple[str, str]] = SimpleQueue()
    with connect() as session:

        @session.on("response.*")
        def listen(event: Any) -> None:
            told.put((event.type, threading.current_thread().name))

        session.send_user_message("Hello").done()
        first, *_ = heard = collected(told, 5)
        assert first == ("response.created", "vivavoce handler")
        assert {thread for _, thread in heard} == {"vivavoce handler"}
        session.off("response.*", listen)
        session.once("response.done", lambda event: told.put(("once", "")))
        session.ask("Hello")
        session.ask("Hello")
    left = [told.get_nowait()[0] for _ in range(told.qsize())]
    assert left.count("once") == 1
    assert left.count("response.created") == 0


def test_e4_a_handler_may_make_calls_that_wait(realtime_server: RealServer, connect: Connect) -> None:
    realtime_server.answers("First.", "Second.")
    texts: SimpleQueue[str] = SimpleQueue()
    with connect() as session:

        @session.once("response.done")
        def answer(event: events.ResponseDone) -> None:
            session.create_item(items.user_message("And then?"))
            texts.put(session.create_response().text())

        assert session.send_user_message("Hello").text() == "First."
        assert texts.get(timeout=WAIT_S) == "Second."


def test_e4_a_handler_may_end_the_session(connect: Connect) -> None:
    with connect() as session:
        session.on("response.done", lambda event: session.disconnect())
        session.send_user_message("Hello")
        assert "response.done" in [event.type for event in session]


@pytest.mark.parametrize("failure", [ValueError("no"), StopIteration("no"), SystemExit("no"), KeyboardInterrupt("no")])
def test_e4_a_handler_that_fails_stops_nothing(
    connect: Connect, failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    failed: SimpleQueue[Any] = SimpleQueue()

    def fails(event: object) -> None:
        raise failure

    with caplog.at_level(logging.CRITICAL, "vivavoce"), connect() as session:
        session.on("error", failed.put)
        session.once("response.created", fails)
        assert session.ask("Hello") == "echo: Hello"
        told = failed.get(timeout=WAIT_S)
        assert told.name.endswith("fails")
        assert failure in (told.exception, told.exception.__cause__)
        assert session.ask("Still there?") == "echo: Still there?"


def test_e4_a_coroutine_function_may_handle_but_not_block(connect: Connect) -> None:
    outcome: SimpleQueue[Exception | None] = SimpleQueue()
    with connect() as session:

        @session.once("response.done")
        async def listen(event: object) -> None:
            try:
                session.create_response()
            except LocalProtocolError as error:
                outcome.put(error)

        session.ask("Hello")
        assert "would wait for itself" in str(outcome.get(timeout=WAIT_S))


# --- around it --------------------------------------------------------------------------------------------------------


def test_e4_a_running_loop_in_the_callers_thread_does_not_matter(connect: Connect) -> None:
    async def cell() -> str:
        with connect() as session:
            return session.ask("Hello")

    assert asyncio.run(cell()) == "echo: Hello"


def test_e4_sessions_share_one_loop_that_ends_with_the_last(connect: Connect) -> None:
    with connect() as first:
        with connect() as second:
            assert len(of_ours()) == 1
            assert second.ask("Hello") == "echo: Hello"
        assert first.ask("Hello") == "echo: Hello"
        assert len(of_ours()) == 1
    assert not of_ours()


def test_e4_calls_come_from_any_thread(connect: Connect) -> None:
    with connect() as session:
        ids: SimpleQueue[str] = SimpleQueue()
        threads = [
            threading.Thread(target=lambda: ids.put(str(session.create_item(items.user_message("Hi")).id)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert set(collected(ids, 8)) == {view.id for view in session.get_items()}


def test_e4_of_threads_that_connect_at_once_one_does(realtime_server: RealServer, connect: Connect) -> None:
    session, start = connect(), threading.Barrier(4)
    problems: SimpleQueue[Exception | None] = SimpleQueue()

    def connecting() -> None:
        start.wait(WAIT_S)
        try:
            session.connect()
            problems.put(None)
        except Exception as error:
            problems.put(error)

    threads = [threading.Thread(target=connecting) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    told = collected(problems, 4)
    assert told.count(None) == 1
    assert all(problem is None or "is connected already" in str(problem) for problem in told)
    assert session.ask("Still there?") == "echo: Still there?"
    session.disconnect()
    assert len(realtime_server.connections) == 1


def test_e4_a_session_that_is_forgotten_says_goodbye(realtime_server: RealServer, connect: Connect) -> None:
    session = connect().connect()
    assert session.ask("Hello") == "echo: Hello"
    del session
    gc.collect()
    for thread in of_ours():
        thread.join(WAIT_S)
    assert realtime_server.connections[0].closed == 1000


def test_e4_ctrl_c_ends_a_wait_and_the_session_goes_on(realtime_server: RealServer, connect: Connect) -> None:
    stall = realtime_server.stall(before="response.done")
    with connect() as session:
        session.once("response.created", lambda event: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            session.ask("Hello")
        stall.lift()
        assert session.ask("Still there?") == "echo: Still there?"


def program(server: RealServer, text: str) -> subprocess.CompletedProcess[str]:
    warnings = ("-W", "error", "-W", "ignore::DeprecationWarning")  # Python dislikes forks beside threads
    return subprocess.run(
        [sys.executable, *warnings, "-c", f"from vivavoce import sync\nimport os, sys\n{text}"],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_e4_a_program_that_closes_nothing_ends_quietly(realtime_server: RealServer) -> None:
    done = program(realtime_server, 's = sync.connect("m").connect()\ns.on("*", lambda e: s)\nprint(s.ask("Hello"))')
    assert (done.returncode, done.stdout, done.stderr) == (0, "echo: Hello\n", "")
    assert realtime_server.connections[0].closed == 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_e4_a_child_process_opens_sessions_of_its_own(realtime_server: RealServer) -> None:
    text = """
s = sync.connect("m").connect()
s.ask("Hello")
child = os.fork()
if not child:
    try:
        s.ask("Hello")
    except sync.LocalProtocolError as error:
        assert "forked" in str(error)
        with sync.connect("m") as own:
            print(own.ask("child"), flush=True)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print(s.ask("parent"))
"""
    done = program(realtime_server, text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "echo: child\necho: parent\n", "")
