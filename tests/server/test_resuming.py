"""Sessions that outlive their connections, seen from outside; and the connections themselves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from test_serve import scripted, within_time

from vivavoce.engines import Piece, Prompt, TextPiece
from vivavoce.engines.scripted import ScriptedLanguageModel, ScriptedSettings, scripted_pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.server import resuming, running, sessions
from vivavoce.server.auth import Asked
from vivavoce.server.minting import Mint
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.resuming import Interruptible
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import settings_of
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport, lasting
from vivavoce.transports.lasting import HEADER, Lasting, Resumption, greet
from vivavoce.transports.memory import pair
from vivavoce.transports.websocket import dial

KEY = "sk-the-right-key-0001"
OTHER = "sk-another-key-0002"
ASK = b'{"type":"response.create","response":{"output_modalities":["text"]}}'
SLOW = ScriptedSettings(piece_delay_s=1.0)


class Ground:
    """A server's sessions without a server, and clients that come to them over memory."""

    def __init__(self, **values: Any) -> None:
        self.now_s = 1_800_000_000.0
        settings = settings_of({"pipeline": "scripted", **values})
        self.pipelines = Pipelines({"scripted": scripted_pipeline(language_model=SLOW)}, default="scripted", models={})
        self.sessions = Sessions(settings, self.pipelines, wall_s=lambda: self.now_s, new_ids=counting_ids)
        self.serving: list[asyncio.Task[None]] = []

    def asked(self, resume: str | None = "new", key: str | None = None) -> Asked:
        headers = {} if resume is None else {HEADER: resume}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return Asked("openai", headers, {"model": "m"})

    def dial(self, resume: str | None = "new", key: str | None = None) -> Transport:
        """The client's end of a new connection."""
        near, far = pair()
        self.serving.append(asyncio.create_task(self.sessions.serve(self.asked(resume, key), far)))
        return near

    async def begin(self, key: str | None = None) -> tuple[Transport, Resumption]:
        near = self.dial(key=key)
        return near, await greeted(near)

    async def come_back(self, token: str, received: int, key: str | None = None) -> tuple[Transport, Resumption]:
        near = self.dial(f"token={token}; received={received}", key)
        return near, await greeted(near)


async def greeted(transport: Transport) -> Resumption:
    first = await greet(transport)
    assert isinstance(first, Resumption), first
    return first


async def events(transport: Transport, until: str) -> list[dict[str, Any]]:
    """What comes, confirmations left out, up to the first event of this type."""
    heard: list[dict[str, Any]] = []
    while not heard or heard[-1]["type"] != until:
        event = json.loads(await transport.receive())
        if event["type"] != "vivavoce.received":
            heard.append(event)
    return heard


def types(heard: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in heard]


async def cut(transport: Transport) -> None:
    await transport.close(1006, "cut")


def on_virtual_time(**values: Any) -> Callable[[Callable[[Ground], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """A test of sessions with these settings. At the end all are drained, and no task may be left."""

    async def main(test: Callable[[Ground], Coroutine[Any, Any, None]]) -> None:
        ground = Ground(**values)
        await test(ground)
        await ground.sessions.drain(100)
        await asyncio.gather(*ground.serving)
        assert not len(ground.sessions)
        assert not ground.sessions._places
        await ground.pipelines.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def decorate(test: Callable[[Ground], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def wrapped() -> None:
            run(main(test))

        wrapped.__name__ = test.__name__
        return wrapped

    return decorate


# --- the extension ----------------------------------------------------------------------------------------------------


@on_virtual_time()
async def test_who_does_not_ask_notices_nothing(ground: Ground) -> None:
    near = ground.dial(None)
    (created,) = await events(near, "session.created")
    assert created["type"] == "session.created"
    await cut(near)
    await asyncio.gather(*ground.serving)
    assert not len(ground.sessions), "and its session ends with its connection"


@on_virtual_time(resume_ms_max=0)
async def test_where_it_is_not_offered_the_header_means_nothing(ground: Ground) -> None:
    for value in ("new", "token=abc; received=1", "nonsense"):
        near = ground.dial(value)
        assert json.loads(await near.receive())["type"] == "session.created"
        await near.close()


@on_virtual_time()
async def test_a_new_session_gives_its_token_first_of_all(ground: Ground) -> None:
    near = ground.dial()
    first = json.loads(await near.receive())
    assert list(first) == ["type", "token", "received", "resumed"]
    assert first == {"type": "vivavoce.resume", "token": first["token"], "received": 0, "resumed": False}
    assert len(first["token"]) >= 43
    assert json.loads(await near.receive())["type"] == "session.created"
    _, other = await ground.begin()
    assert other.token != first["token"]
    await near.close()


@on_virtual_time()
async def test_a_session_goes_on_while_its_client_is_away(ground: Ground) -> None:
    near, begun = await ground.begin()
    heard = await events(near, "session.created")
    await near.send(ASK)
    heard += await events(near, "response.created")
    await cut(near)
    await asyncio.sleep(25)
    assert len(ground.sessions) == 1
    near, back = await ground.come_back(begun.token, len(heard))
    assert back == Resumption(begun.token, 1, True)
    assert not [event for event in await events(near, "response.done") if event["type"] == "session.created"]
    assert asyncio.get_running_loop().time() == pytest.approx(25), "it was done already"
    await near.send(ASK)
    await events(near, "response.done")
    await near.close()


@on_virtual_time()
async def test_nothing_is_lost_and_nothing_comes_twice(ground: Ground) -> None:
    near, begun = await ground.begin()
    client = Lasting()
    client.attach(near, received=begun.received)
    seen: list[dict[str, Any]] = []
    for number in range(1, 6):
        await client.send(ASK)
        await cut(near)
        await client.send(b'{"type":"input_audio_buffer.clear"}')
        near = ground.dial(client.resuming(begun.token))
        client.attach(near, received=(await greeted(near)).received)
        while any(types(seen).count(awaited) < number for awaited in ("response.done", "input_audio_buffer.cleared")):
            seen.append(json.loads(await client.receive()))
    assert not [event for event in seen if "event_id" not in event]
    ids = [event["event_id"] for event in seen]
    assert len(set(ids)) == len(ids)
    assert types(seen).count("session.created") == 1
    assert client.sent == 10
    await client.close()


@on_virtual_time(resume_ms_max=10_000)
async def test_a_session_whose_client_does_not_come_back_ends(ground: Ground) -> None:
    near, begun = await ground.begin()
    await events(near, "session.created")
    await cut(near)
    await asyncio.sleep(9.9)
    assert len(ground.sessions) == 1
    await asyncio.sleep(0.2)
    assert not len(ground.sessions)
    near, fresh = await ground.come_back(begun.token, 1)
    assert (fresh.resumed, fresh.received) == (False, 0)
    assert fresh.token != begun.token
    await events(near, "session.created")
    await near.close()


@on_virtual_time(resume_ms_max=10_000)
async def test_the_wait_begins_anew_with_each_loss(ground: Ground) -> None:
    near, begun = await ground.begin()
    for _ in range(3):
        await cut(near)
        await asyncio.sleep(9)
        near, back = await ground.come_back(begun.token, 0)
        assert back.resumed
    await asyncio.sleep(60)
    assert len(ground.sessions) == 1, "attached, it does not wait"
    await near.close()
    await asyncio.gather(*ground.serving)
    await asyncio.sleep(1)
    assert not len(ground.sessions), "a close is no loss"


@on_virtual_time(sessions_max=1, resume_ms_max=10_000)
async def test_a_session_keeps_its_place_while_it_waits(ground: Ground) -> None:
    near, begun = await ground.begin()
    assert ground.sessions._places == 1
    await cut(near)
    await asyncio.sleep(1)
    assert ground.sessions._places == 1
    assert (await events(ground.dial(), "error"))[-1]["error"]["code"] == "too_many_sessions"
    near, back = await ground.come_back(begun.token, 0)
    assert back.resumed
    await near.close()
    await asyncio.sleep(1)
    near, _ = await ground.begin()
    await near.close()


@on_virtual_time(connection_limits={"stall_ms_max": 5_000}, resume_ms_max=60_000)
async def test_a_session_that_has_to_keep_too_much_is_given_up(ground: Ground) -> None:
    near, _ = await ground.begin()
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(lasting, "KEPT_MESSAGES_MAX", 8)
        await near.send(ASK)
        await events(near, "response.created")
        await cut(near)
        await asyncio.sleep(4)
        assert len(ground.sessions) == 1
        await asyncio.sleep(20)
        assert not len(ground.sessions), "long before its client would have to be back"


@on_virtual_time()
async def test_the_log_tells_of_losses_and_returns_and_never_the_token(ground: Ground) -> None:
    lines: list[str] = []
    listening = logging.Handler()
    listening.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("vivavoce.server")
    level = log.level
    log.addHandler(listening)
    log.setLevel(logging.DEBUG)
    try:
        near, begun = await ground.begin()
        await cut(near)
        await asyncio.sleep(2)
        near, _ = await ground.come_back(begun.token, 0)
        near, _ = await ground.come_back(begun.token, 0)
        await cut(near)
        await asyncio.sleep(31)
    finally:
        log.removeHandler(listening)
        log.setLevel(level)
    assert [line.removeprefix("sess_1: ").split(",")[0] for line in lines if line.startswith("sess_1: ")] == [
        "begins",
        "connection lost (1006 cut)",
        "resumed after 2.0 s",
        "goes on over another connection",
        "connection lost (1006 cut)",
        "has ended after 32.0 s: the client did not come back within 30 s (1006)",
    ]
    assert begun.token not in "".join(lines)


# --- who may come back ------------------------------------------------------------------------------------------------


@on_virtual_time(api_keys=[KEY, OTHER])
async def test_a_session_belongs_to_the_key_that_began_it(ground: Ground) -> None:
    near, begun = await ground.begin(KEY)
    await cut(near)
    stranger, fresh = await ground.come_back(begun.token, 0, OTHER)
    assert not fresh.resumed
    for wrong in ("sk-wrong", None):
        refused = ground.dial(f"token={begun.token}; received=0", wrong)
        assert (await events(refused, "error"))[-1]["error"]["type"] == "invalid_request_error"
    near, back = await ground.come_back(begun.token, 0, KEY)
    assert back.resumed
    await near.close()
    await stranger.close()


@on_virtual_time(api_keys=[KEY])
async def test_a_short_lived_key_may_have_expired_since(ground: Ground) -> None:
    body = b'{"expires_after":{"anchor":"created_at","seconds":60}}'
    value = Mint(ground.sessions).client_secret(ground.asked(None, KEY), body)["value"]
    near, begun = await ground.begin(value)
    await cut(near)
    ground.now_s += 3_600
    near, back = await ground.come_back(begun.token, 0, value)
    assert back.resumed
    await near.close()
    await asyncio.sleep(1)
    refused = ground.dial(f"token={begun.token}; received=0", value)
    error = (await events(refused, "error"))[-1]["error"]
    assert "has expired" in error["message"], "it does not begin a session"


@on_virtual_time()
async def test_a_header_that_cannot_be_read_is_refused(ground: Ground) -> None:
    refused = ground.dial("token=abc")
    error = (await events(refused, "error"))[-1]["error"]
    assert error["code"] == "invalid_value"
    assert "'new' or 'token=TOKEN; received=COUNT'" in error["message"]
    with pytest.raises(ConnectionClosed, match="4000"):
        await refused.receive()


@on_virtual_time()
async def test_a_count_that_cannot_be_is_refused_and_the_session_lives_on(ground: Ground) -> None:
    near, begun = await ground.begin()
    heard = await events(near, "session.created")
    refused = ground.dial(f"token={begun.token}; received=1000")
    error = (await events(refused, "error"))[-1]["error"]
    assert error["code"] == "invalid_value"
    assert "received 1000 messages" in error["message"]
    with pytest.raises(ConnectionClosed, match="4000"):
        await refused.receive()
    await near.send(ASK)
    await events(near, "response.done")
    await cut(near)
    near, back = await ground.come_back(begun.token, len(heard))
    assert back.resumed
    await near.close()


# --- stopping ---------------------------------------------------------------------------------------------------------


class Stubborn(ScriptedLanguageModel):
    """Goes on for a time when it is cancelled."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        yield TextPiece("Well")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(sessions.STOP_S + 1.0)


class Deaf:
    """The server's end of a connection whose client takes nothing any more, once it `is_deaf`."""

    def __init__(self, transport: Transport) -> None:
        self.transport, self.is_deaf = transport, False
        self.receive, self.close = transport.receive, transport.close

    async def send(self, message: bytes) -> None:
        if self.is_deaf:
            await asyncio.Event().wait()
        await self.transport.send(message)


@on_virtual_time()
async def test_at_a_stop_also_those_have_ended_that_must_be_cancelled(ground: Ground) -> None:
    """A client that takes no goodbye, and an engine that does not end at once."""
    (pipeline,) = ground.pipelines.by_name.values()
    ground.pipelines.by_name = MappingProxyType({"scripted": replace(pipeline, language_model=Stubborn())})
    near, far = pair()
    deaf = Deaf(far)
    ground.serving.append(asyncio.create_task(_cancelled(ground.sessions.serve(ground.asked(None), deaf))))
    await near.send(ASK)
    await events(near, "response.created")
    deaf.is_deaf = True
    await near.send(b'{"type":"input_audio_buffer.clear"}')
    await ground.sessions.drain(0)
    assert not len(ground.sessions)
    assert asyncio.get_running_loop().time() == pytest.approx(sessions.STOP_S + 1.0)


@on_virtual_time()
async def test_a_session_that_cannot_even_begin_leaves_nothing_behind(ground: Ground) -> None:
    class Unwilling:
        """A log of sessions that fails."""

        def begin(self, live: object) -> None:
            raise OSError("no thread can be started")

        def end(self, live: object, record: object) -> None:
            """Harmless."""

    ground.sessions.log = Unwilling()  # type: ignore[assignment]
    _, far = pair()
    with pytest.raises(OSError, match="no thread"):
        await ground.sessions.serve(ground.asked(None), far)
    assert not len(ground.sessions)
    assert not ground.sessions.telemetry._live


async def _cancelled(serving: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await serving


@on_virtual_time()
async def test_a_session_that_waits_is_drained_as_others(ground: Ground) -> None:
    near, _ = await ground.begin()
    await near.send(ASK)
    await events(near, "response.created")
    await cut(near)
    before_s = asyncio.get_running_loop().time()
    await ground.sessions.drain(20)
    assert not len(ground.sessions)
    assert 0 < asyncio.get_running_loop().time() - before_s < 20, "the response was let to its end"


@on_virtual_time()
async def test_a_session_that_begins_in_the_moment_of_the_stop_is_drained_as_others(ground: Ground) -> None:
    near = ground.dial()
    for _ in range(100):
        if len(ground.sessions._tasks) == 2:  # that of the connection, and that of the session
            break
        await asyncio.sleep(0)
    assert (len(ground.sessions._tasks), len(ground.sessions)) == (2, 0)
    before_s = asyncio.get_running_loop().time()
    await ground.sessions.drain(20)
    assert asyncio.get_running_loop().time() - before_s < 1
    assert "session.created" in types(await events(near, "session.created"))


@on_virtual_time()
async def test_a_session_that_waits_is_stopped_as_others(ground: Ground) -> None:
    near, begun = await ground.begin()
    await near.send(ASK)
    await events(near, "response.created")
    await cut(near)
    await asyncio.sleep(0.1)
    ground.sessions.stop()
    await asyncio.sleep(0.1)
    assert not len(ground.sessions)
    near, fresh = await ground.come_back(begun.token, 0)
    assert not fresh.resumed
    await near.close()


@on_virtual_time()
async def test_a_session_that_is_attached_is_told_of_the_stop(ground: Ground) -> None:
    near, _ = await ground.begin()
    await events(near, "session.created")
    ground.sessions.stop()
    with pytest.raises(ConnectionClosed, match="1001"):
        await near.receive()
    await asyncio.gather(*ground.serving)


@on_virtual_time()
async def test_who_comes_back_in_the_moment_of_the_end_is_told_to_try_again(ground: Ground) -> None:
    near, begun = await ground.begin()
    found = ground.sessions.resumable(ground.asked(f"token={begun.token}; received=0"))
    assert found is not None
    await near.close()
    await asyncio.sleep(1)
    near, far = pair()
    await found.carry(far)
    with pytest.raises(ConnectionClosed, match="1012 The session has just ended"):
        await near.receive()


# --- one connection ---------------------------------------------------------------------------------------------------


class Dead:
    """A connection behind which nobody is, without anybody knowing: nothing ever comes, goes, or ends."""

    def __init__(self) -> None:
        self.closed = False

    async def send(self, message: bytes) -> None:
        await asyncio.Event().wait()

    async def receive(self) -> str | bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = True
        await asyncio.Event().wait()


@on_virtual_time()
async def test_a_client_is_back_while_its_old_connection_seems_alive(ground: Ground) -> None:
    dead = Dead()
    serving = asyncio.create_task(ground.sessions.serve(ground.asked(), dead))
    await asyncio.sleep(1)
    (lifeline,) = ground.sessions._lifelines._by_digest.values()
    near, back = await ground.come_back(lifeline.token, 0)
    assert back.resumed
    assert (await events(near, "session.created"))[0]["type"] == "session.created"
    assert asyncio.get_running_loop().time() == pytest.approx(1), "it does not wait for the dead one"
    await asyncio.sleep(resuming.CLOSE_S + 0.1)
    assert serving.done(), "which is let go of, goodbye or not"
    await near.close()


@asynccontextmanager
async def carried(transport: Transport) -> AsyncIterator[tuple[Interruptible, asyncio.Task[None]]]:
    connection = Interruptible(transport)
    carrying = asyncio.create_task(connection.carry())
    await asyncio.sleep(0)
    yield connection, carrying
    await asyncio.wait((carrying,), timeout=2 * resuming.CLOSE_S)
    assert carrying.done()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_messages_come_through_as_they_are_and_the_end_after_them() -> None:
    async def main() -> None:
        near, far = pair()
        async with carried(far) as (connection, _):
            await near.send(b"one")
            await connection.send("zwei, tëxt".encode())
            await near.close(1000, "bye")
            assert await connection.receive() == "one"
            with pytest.raises(ConnectionClosed, match="1000 bye"):
                await connection.receive()
            with pytest.raises(ConnectionClosed, match="1000 bye"):
                await connection.send(b"too late")

    run(main())


def test_a_close_comes_after_what_was_sent() -> None:
    async def main() -> None:
        near, far = pair()
        async with carried(far) as (connection, _):
            receiving = asyncio.create_task(connection.receive())
            await connection.send(b"last words")
            await connection.close(1001, "bye")
            with pytest.raises(ConnectionClosed, match="1001"):
                await receiving
            assert await near.receive() == "last words"
            with pytest.raises(ConnectionClosed, match="1001 bye"):
                await near.receive()

    run(main())


def test_both_directions_hold_back_who_is_too_fast() -> None:
    async def main() -> None:
        near, far = pair(messages_max=1)
        async with carried(far) as (connection, _):
            sent = [0, 0]

            async def flood(end: Transport, number: int) -> None:
                while True:
                    await end.send(b"x")
                    sent[number] += 1

            floods = [asyncio.create_task(flood(end, number)) for number, end in enumerate((near, connection))]
            await asyncio.sleep(1)
            assert resuming.IN_MESSAGES_MAX <= sent[0] <= resuming.IN_MESSAGES_MAX + 4
            assert resuming.OUT_MESSAGES_MAX <= sent[1] <= resuming.OUT_MESSAGES_MAX + 4
            before = list(sent)
            for _ in range(80):
                await connection.receive()
                await near.receive()
            await asyncio.sleep(1)
            assert all(now > then for now, then in zip(sent, before, strict=True))
            for task in floods:
                task.cancel()
            await asyncio.wait(floods)
            await near.close()

    run(main())


class Late:
    """A connection whose end is noticed by sending first, which does not know how it came."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def send(self, message: bytes) -> None:
        raise ConnectionClosed(1006)

    async def receive(self) -> str | bytes:
        await self.told.wait()
        raise ConnectionClosed(1000, "bye")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        pass


def test_how_a_connection_ended_is_told_by_who_reads() -> None:
    async def main() -> None:
        late = Late()
        async with carried(late) as (connection, _):
            await connection.send(b"one")
            await asyncio.sleep(1)
            await connection.send(b"two")
            late.told.set()
            with pytest.raises(ConnectionClosed, match="1000 bye"):
                await connection.receive()

    run(main())


def test_a_connection_that_nobody_carries_any_more_is_lost() -> None:
    async def main() -> None:
        _, far = pair()
        async with carried(far) as (connection, carrying):
            carrying.cancel()
            with pytest.raises(ConnectionClosed, match="1006"):
                await connection.receive()

    run(main())


# --- over sockets -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("door")
def test_a_session_is_resumed_over_sockets() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            url = f"ws://{server.host}:{server.port}/v1/realtime?model=m"

            async def open(resume: str) -> tuple[Any, Resumption]:
                socket = await dial(url, headers={"Authorization": f"Bearer {KEY}", HEADER: resume})
                return socket, await greeted(socket)

            lost = asyncio.Event()
            client = Lasting(lambda closed: lost.set())
            socket, begun = await open("new")
            client.attach(socket, received=begun.received)
            seen = await events(client, "session.created")
            for _ in range(3):
                await client.send(ASK)
                seen += await events(client, "response.created")
                receiving = asyncio.create_task(events(client, "response.done"))
                socket._transport.disconnect(graceful=False)  # the socket is gone, without a goodbye
                await lost.wait()
                lost.clear()
                await client.send(b'{"type":"input_audio_buffer.clear"}')
                socket, back = await open(client.resuming(begun.token))
                assert back.resumed
                client.attach(socket, received=back.received)
                seen += await receiving
            assert types(seen).count("session.created") == 1
            assert types(seen).count("response.done") == 3
            await client.close()

    within_time(main())


@pytest.mark.usefixtures("door")
def test_an_old_socket_that_still_seems_alive_is_closed() -> None:
    async def main() -> None:
        async with running(scripted()) as server:
            url = f"ws://{server.host}:{server.port}/v1/realtime?model=m"
            old = await dial(url, headers={HEADER: "new"})
            begun = await greeted(old)
            new = await dial(url, headers={HEADER: f"token={begun.token}; received=0"})
            assert (await greeted(new)).resumed
            assert [event["type"] for event in await events(new, "session.created")] == ["session.created"]
            assert (await events(old, "session.created"))[0]["type"] == "session.created", "nobody had confirmed it"
            with pytest.raises(ConnectionClosed, match="4001"):
                await old.receive()
            await new.close()

    within_time(main())
