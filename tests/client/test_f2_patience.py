"""F2: answers that do not come, networks that change, speech that fails, applications that are slow."""

from __future__ import annotations

import asyncio

import pytest
from survival_house import House, Played, run, session, settle, told

from vivavoce import Reconnect
from vivavoce.client.audience import EVENTS_MAX, READER_S_MAX
from vivavoce.core.caller import CallerLimits
from vivavoce.engines.scripted import ScriptedSettings
from vivavoce.errors import (
    ConnectionClosed,
    ConnectionFailed,
    ResponseFailed,
    ServerError,
)
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import user_message

# --- networks that change ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lasts", [True, False])
def test_f2_a_connection_that_is_dead_without_anybody_knowing_is_left_at_once(lasts: bool) -> None:
    async def main() -> None:
        house = House(lasts=lasts)
        one = session(house)
        changes = told(one)
        async with one:
            await settle(20)
            house.is_silent = True
            asked = one.create_item(user_message("into the void"))
            await settle(1)
            assert not asked.done()
            house.is_silent = False
            began_s = asyncio.get_running_loop().time()
            await one.reconnect()
            assert asyncio.get_running_loop().time() - began_s < 0.5
            assert (await asked).id in one.conversation
            assert len(one.conversation) == 1
        assert [change.what for change in changes] == ["lost", "resumed" if lasts else "restored", "closed"]
        await house.close()

    run(main())


def test_f2_who_knows_of_a_network_need_not_wait_for_the_next_attempt() -> None:
    async def main() -> None:
        for lasts in (True, False):
            house = House(lasts=lasts)
            async with session(house, reconnect=Reconnect(tries=40, max_s=300.0)) as one:
                await settle(400)
                house.refusal = ConnectionFailed("no network")
                house.refusal.__cause__ = OSError()
                await house.cut()
                await settle(1_000)
                house.refusal = None
                began_s = asyncio.get_running_loop().time()
                await one.reconnect()
                assert asyncio.get_running_loop().time() - began_s < 1
            await house.close()

    run(main())


# --- answers that do not come -----------------------------------------------------------------------------------------


def test_f2_a_response_that_falls_silent_is_cancelled_and_fails() -> None:
    async def main() -> None:
        house = House(language_model=ScriptedSettings(first_delay_s=50.0))
        one = session(house, limits=CallerLimits(response_silence_ms_max=10_000))
        failures = told(one, "error")
        async with one:
            response = await one.send_user_message("hello")
            with pytest.raises(ResponseFailed) as failed:
                await response
            assert failed.value.code == "response_timeout"
            await settle(60)
            assert "response.cancel" in "".join(house.heard)
        assert [failure.error.code for failure in failures] == ["response_timeout"]
        await house.close()

    run(main())


def test_f2_a_request_that_is_never_answered_fails() -> None:
    async def main() -> None:
        server = Played()
        async with session(server, limits=CallerLimits(answer_ms_max=5_000, response_silence_ms_max=8_000)) as one:
            item, response = one.create_item(user_message("hello")), one.create_response()
            with pytest.raises(ServerError) as unanswered:
                await item
            assert unanswered.value.code == "no_answer"
            with pytest.raises(ServerError) as silent:
                await response
            assert silent.value.code == "response_timeout"

    run(main())


def test_f2_where_speech_fails_the_answer_is_text() -> None:
    async def main() -> None:
        house = House(synthesizer=ScriptedSettings(fail_at_piece=1))
        async with session(house) as one:
            response = await one.send_user_message("hello")
            assert await response.text() == "echo: hello"
        await house.close()

    run(main())


@pytest.mark.parametrize(("text_fallback", "also"), [(True, ""), (True, "fails as well"), (False, "")])
def test_f2_where_a_server_fails_with_its_speech_whoever_waits_gets_text(text_fallback: bool, also: str) -> None:
    async def main() -> None:
        server = Played()
        one = session(server, text_fallback=text_fallback)
        async with one:
            responses = one._audience.follow()
            asked = one.create_response()
            await settle(0.1)
            created = {"object": "realtime.response", "id": "resp_1", "status": "in_progress", "output": []}
            await server.say({"type": "response.created", "response": created})
            response = await asked
            error = {"type": "server_error", "code": "speech_failed", "message": "no voice"}
            details = {"type": "failed", "error": error}
            failed = {**created, "status": "failed", "status_details": details}
            await server.say({"type": "response.done", "response": failed})
            await settle(0.1)
            sent = [str(await server.ends[-1].receive()) for _ in range(1 + text_fallback)]
            assert [("text" in message) for message in sent] == [False, True][: 1 + text_fallback]
            if not text_fallback:
                with pytest.raises(ResponseFailed):
                    await response
                return
            words = asyncio.create_task(response.text())
            await settle(0.1)
            assert (response.is_done, response.id, response.status) == (False, "resp_1", "in_progress")
            again = {**created, "id": "resp_2", "output_modalities": ["text"]}
            await server.say({"type": "response.created", "response": again})
            if also == "fails as well":
                await server.say({"type": "response.done", "response": {**failed, "id": "resp_2"}})
                with pytest.raises(ResponseFailed, match="no voice"):
                    await words
                return
            item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]}
            done = {**again, "status": "completed", "output": [{**item, "id": "item_1", "status": "completed"}]}
            await server.say({"type": "response.done", "response": done})
            assert await words == "Hello!"
            assert (response.id, response.status) == ("resp_2", "completed")
            assert [followed.id for followed in responses.stream._events] == ["resp_2"]
            assert responses.stream._events[0] is response  # once, under whatever id

    run(main())


# --- whoever is slow --------------------------------------------------------------------------------------------------


def test_f2_a_slow_reader_holds_the_server_back_but_never_itself() -> None:
    async def main() -> None:
        server = Played()
        async with session(server) as one:
            await one.recv()
            flood = asyncio.create_task(flooding(server))
            await settle(1)
            waiting = len(one._audience.events.stream)
            assert EVENTS_MAX <= waiting < EVENTS_MAX + 1_000
            assert not flood.done(), "the server is held back"
            asked = one.create_item(user_message("hello", id="item_1"))
            await settle(0.1)
            item = {"id": "item_1", "type": "message", "role": "user", "status": "completed", "content": []}
            await flood
            await server.say({"type": "conversation.item.added", "item": item, "previous_item_id": None})
            assert (await asked).id == "item_1"

    run(main())


async def flooding(server: Played) -> None:
    for number in range(EVENTS_MAX + 2_000):
        await server.say({"type": "input_audio_buffer.cleared", "event_id": f"event_{number}"})


@pytest.mark.parametrize("sends", [False, True])
def test_f2_a_reader_that_does_not_come_back_stops_nobody_else(sends: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = Played()
        one = session(server)
        heard = told(one, "input_audio_buffer.cleared")
        async with one:
            await one.recv()
            flood = asyncio.create_task(flooding(server))
            for _ in range(100):
                if sends:  # which lets an event or two pass each time, and is no sign of a reader
                    one.append_audio(bytes(4_800))
                await settle(READER_S_MAX / 50)
            assert flood.done(), "the server is read again"
            await settle(1)
            assert len(heard) == EVENTS_MAX + 2_000, "listeners miss nothing"
            assert len(one._audience.events.stream) == EVENTS_MAX
            said = [record.getMessage() for record in caplog.records]
            assert len(said) == 1
            assert "has taken no event for 10 s" in said[0]
            assert (await one.recv()).event_id == "event_2000", "who comes back goes on with what is left"
            assert "2000 events came while nobody iterated" in caplog.records[-1].getMessage()
            assert one._audience.events.stream.is_read

    run(main())


def test_f2_a_reader_that_is_slow_and_takes_something_now_and_then_misses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        server = Played()
        async with session(server) as one:
            await one.recv()
            flood = asyncio.create_task(flooding(server))
            for number in range(EVENTS_MAX + 2_000):
                await settle(READER_S_MAX * 0.9 if number < 200 else 0)
                assert (await one.recv()).event_id == f"event_{number}"
                assert number > 200 or not flood.done(), "the server is held back"
            await flood
        assert not caplog.records

    run(main())


def test_f2_a_response_that_is_awaited_is_read_however_slow_the_reader_is() -> None:
    async def main() -> None:
        server = Played()
        async with session(server) as one:
            await one.recv()
            asked = one.create_response()
            await settle(0.1)
            created = {"object": "realtime.response", "id": "resp_1", "status": "in_progress", "output": []}
            await server.say({"type": "response.created", "response": created})
            response = await asked
            flood = asyncio.create_task(flooding(server))
            await settle(1)
            assert not flood.done()
            awaiting = asyncio.create_task(response.done())
            await flood
            await server.say({"type": "response.done", "response": {**created, "status": "completed"}})
            assert (await awaiting).status == "completed"

    run(main())


def test_f2_a_session_can_be_ended_while_its_reader_sleeps() -> None:
    async def main() -> None:
        server = Played()
        one = session(server)
        await one.connect()
        await one.recv()
        flood = asyncio.create_task(flooding(server))
        await settle(1)
        await one.disconnect()
        with pytest.raises(ConnectionClosed):
            await flood

    run(main())


def test_f2_a_listener_that_fails_is_told_of_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        house = House()
        one = session(house)
        failures, done = told(one, "error"), told(one, "response.done")

        def fails(event: object) -> None:
            raise ValueError("my own mistake")

        one.on("response.*", fails)
        async with one:
            assert await (await one.send_user_message("hello")).text() == "echo: hello"
            waiting = asyncio.create_task(one.wait_for("*", where=lambda event: 1 // 0 == 1))
            await asyncio.sleep(0)
            one.create_item(user_message("more"))
            with pytest.raises(ZeroDivisionError):
                await waiting
            assert one.is_connected
        assert len(done) == 1
        assert {str(failure.exception) for failure in failures} == {"my own mistake"}
        assert isinstance(done[0], ev.ResponseDone)
        await house.close()

    run(main())
