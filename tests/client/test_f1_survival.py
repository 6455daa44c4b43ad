"""F1: what a session does about its connections: tries again, renews, keeps what is said meanwhile (and G9)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise
from random import Random

import pytest
from survival_house import DETECTION, House, Played, run, session, settle, told

from vivavoce import Reconnect
from vivavoce.core.account import Price
from vivavoce.core.caller import CallerLimits
from vivavoce.engines.scripted import ScriptedSettings
from vivavoce.errors import (
    BudgetExceeded,
    ConnectionClosed,
    ConnectionFailed,
    LocalProtocolError,
    ResponseFailed,
)
from vivavoce.protocol.config import RealtimeSession
from vivavoce.protocol.items import user_message
from vivavoce.testing.sounds import silence, tone
from vivavoce.transports.lasting import HEADER, NEW

# --- waits ------------------------------------------------------------------------------------------------------------


def test_f1_waits_double_up_to_the_longest_and_are_shortened_by_chance() -> None:
    policy = Reconnect(tries=9, first_s=0.25, max_s=8.0)
    waits = list(policy.waits(Random(3)))
    assert len(waits) == policy.tries
    assert waits[0] <= policy.first_s / 2, "the first comes almost at once"
    for number, wait_s in enumerate(waits[1:], 1):
        longest = min(policy.first_s * 2**number, policy.max_s)
        assert longest / 2 <= wait_s <= longest
    assert waits != list(policy.waits(Random(4)))
    assert list(Reconnect(tries=0).waits(Random(0))) == []


@pytest.mark.parametrize("lasts", [True, False])
def test_f1_attempts_come_at_those_waits_until_there_is_a_network(lasts: bool) -> None:
    async def main() -> None:
        house = House(lasts=lasts)
        one = session(house, reconnect=Reconnect(tries=40))
        changes = told(one)
        async with one:
            await settle(20)
            house.refusal = ConnectionFailed("no network")
            house.refusal.__cause__ = OSError()
            lost_s = asyncio.get_running_loop().time()
            await house.cut()
            await settle(20)
            assert not one.is_connected
            asked = one.create_item(user_message("kept"))
            house.refusal = None
            assert (await asked).id in one.conversation
            gaps = [after - before for before, after in pairwise((lost_s, *house.dialled_s[1:]))]
            assert gaps[0] <= 0.125
            assert all(before < after * 1.1 for before, after in pairwise(gaps[:5]))
            assert max(gaps) <= 8.0
        assert [change.what for change in changes] == ["lost", "resumed" if lasts else "restored", "closed"]
        await house.close()

    run(main())


@pytest.mark.parametrize("lasts", [True, False])
def test_f1_after_the_last_attempt_the_session_is_over(lasts: bool) -> None:
    async def main() -> None:
        house = House(lasts=lasts)
        one = session(house, reconnect=Reconnect(tries=3))
        async with one:
            await settle(20)
            house.refusal = ConnectionFailed("no network")
            house.refusal.__cause__ = OSError()
            await house.cut()
            asked = one.create_item(user_message("in vain"))
            with pytest.raises(ConnectionClosed):
                await asked
            assert len(house.dialled_s) == 1 + 3
            with pytest.raises(ConnectionClosed):
                async for _ in one:
                    pass
            with pytest.raises(ConnectionClosed):
                one.create_item(user_message("too late"))
        await house.close()

    run(main())


def test_f1_a_mistake_that_no_attempt_mends_is_told_at_once() -> None:
    async def main() -> None:
        house = House()
        one = session(house)
        async with one:
            house.refusal = ConnectionFailed("who are you?", status=401)
            await house.cut()
            with pytest.raises(ConnectionClosed, match="who are you"):
                await one.create_item(user_message("in vain"))
            assert len(house.dialled_s) == 2
        await house.close()

    run(main())


def test_f1_a_line_that_breaks_again_and_again_is_not_hammered() -> None:
    async def main() -> None:
        house = House(lasts=True)
        one = session(house, reconnect=Reconnect(tries=5, first_s=1.0, max_s=60.0))
        async with one:
            await settle(100)
            for _ in range(5):
                await house.cut()
                await one.wait_for("connection.resumed")
            await house.cut()
            with pytest.raises(ConnectionClosed):
                await one.create_item(user_message("in vain"))
            assert house.dialled_s[-1] - house.dialled_s[1] > 0.5 + 1 + 2 + 4
        await house.close()

    run(main())


def test_f1_without_reconnecting_the_session_ends_with_its_connection() -> None:
    async def main() -> None:
        house = House(lasts=True)
        one = session(house, reconnect=Reconnect(tries=0))
        changes = told(one)
        async with one:
            assert HEADER not in house.headers[0]
            await house.cut()
            await settle()
            assert len(house.dialled_s) == 1
            with pytest.raises(LocalProtocolError):
                await one.reconnect()
        assert [change.what for change in changes] == ["closed"]
        await house.close()

    run(main())


def test_g9_a_server_is_asked_to_keep_the_session_and_gives_it_back() -> None:
    async def main() -> None:
        house = House(lasts=True)
        async with session(house) as one:
            assert house.headers[0] == {HEADER: NEW}
            before = one.session
            await house.cut()
            await one.wait_for("connection.resumed")
            assert house.headers[1][HEADER].startswith("token=")
            assert one.session == before
            assert len(house.sessions) == 1
        await house.close()

    run(main())


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "comes_back"), [(1000, False), (1001, True), (1006, True), (1008, False), (1012, True), (4000, False)]
)
def test_f1_what_the_close_code_says_decides(code: int, comes_back: bool) -> None:
    async def main() -> None:
        server = Played()
        one = session(server)
        changes = told(one)
        async with one:
            await server.ends[-1].close(code, "so it is")
            await settle()
            assert one.is_connected == comes_back
            assert len(server.ends) == 1 + comes_back
            if not comes_back:
                asked = None
                with pytest.raises(ConnectionClosed) as closed:
                    asked = one.create_item(user_message("too late"))
                assert asked is None
                assert closed.value.code == code
        names = ["lost", "restored", "closed"] if comes_back else ["closed"]
        assert [change.what for change in changes] == names

    run(main())


def test_f1_closing_while_reconnecting_does_not_wait_for_it() -> None:
    async def main() -> None:
        for lasts in (True, False):
            house = House(lasts=lasts)
            one = session(house)
            await one.connect()
            asked = one.create_item(user_message("hello"))
            house.refusal = ConnectionFailed("no network")
            house.refusal.__cause__ = OSError()
            await house.cut()
            await settle(8)
            began_s = asyncio.get_running_loop().time()
            late = one.create_item(user_message("too late"))
            await one.disconnect()
            await one.disconnect()
            assert asyncio.get_running_loop().time() - began_s < 1
            assert asked.done()
            with pytest.raises(ConnectionClosed):
                await late
            await house.close()

    run(main())


@pytest.mark.parametrize("tries", [0, 12])
def test_f1_a_server_that_says_nothing_is_not_waited_for_for_ever(tries: int) -> None:
    async def main() -> None:
        server = Played()
        server.is_mute = True
        with pytest.raises(ConnectionFailed, match="said nothing"):
            await session(server, reconnect=Reconnect(tries=tries)).connect()

    run(main())


def test_f1_connecting_can_be_cancelled() -> None:
    async def main() -> None:
        server = Played()
        server.is_mute = True
        one = session(server)
        connecting = asyncio.create_task(one.connect())
        await settle(1)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        assert connecting.cancelled()
        with pytest.raises(ConnectionClosed):
            await server.ends[-1].receive()
        server.is_mute = False
        async with one:
            assert one.is_connected

    run(main())


def test_f1_a_budget_that_is_spent_ends_the_session_for_good() -> None:
    async def main() -> None:
        house = House()
        one = session(house, budget=0.5, prices={"any": Price(text_out=1_000_000.0)}, model="any")
        changes = told(one)
        async with one:
            with suppress(ConnectionClosed, ResponseFailed):
                await (await one.send_user_message("say something")).text()
            with pytest.raises(BudgetExceeded):
                [event async for event in one]
        assert [change.what for change in changes] == ["closed"]
        assert len(house.dialled_s) == 1
        await house.close()

    run(main())


@pytest.mark.parametrize("is_open", [True, False])
def test_f1_a_budget_that_cannot_be_kept_any_more_is_told_of_once_and_never_begun_with(is_open: bool) -> None:
    async def main() -> None:
        house = House()
        one = session(house, budget=50.0, prices={"any": Price(text_out=1.0)}, model="any")
        errors = told(one, "error")
        if not is_open:
            one.update_session(transcription="nobody-knows")
            with pytest.raises(LocalProtocolError, match="no price is known for 'nobody-knows'"):
                await one.connect()
            assert errors == []
        else:
            async with one:
                await one.update_session(transcription="nobody-knows")
                await one.update_session(instructions="Be brief.")
                await settle(1)
                assert one.is_connected
            assert [error.error.code for error in errors] == ["budget_unknown"]
            assert "cannot be kept: no price is known for 'nobody-knows'" in errors[0].error.message
        await house.close()

    run(main())


# --- meanwhile --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lasts", [True, False])
def test_f1_audio_is_kept_while_there_is_no_connection(lasts: bool) -> None:
    async def main() -> None:
        house = House(lasts=lasts)
        async with session(house) as one:
            await one.update_session(turn_detection=None, transcription="whisper-1")
            one.append_audio(tone(400))
            await settle(1)
            house.refusal = ConnectionFailed("no network")
            house.refusal.__cause__ = OSError()
            await house.cut()
            await settle(0.5)
            await one.append_audio(tone(600))
            commit = one.commit_audio()
            house.refusal = None
            item_id = await commit
            await settle()
            item = one.get_item(item_id)
            assert item is not None
            assert item.text == "audio of 1000 ms"
            assert item.audio == tone(400) + tone(600)
        await house.close()

    run(main())


def test_f1_beyond_its_limit_the_oldest_audio_is_dropped_and_that_is_told() -> None:
    async def main() -> None:
        house = House(lasts=True)
        one = session(house, limits=CallerLimits(unsent_audio_ms_max=1_000))
        failures = told(one, "error")
        async with one:
            await one.update_session(turn_detection=None, transcription="whisper-1")
            house.refusal = ConnectionFailed("no network")
            house.refusal.__cause__ = OSError()
            await house.cut()
            await settle(0.5)
            for _ in range(25):
                one.append_audio(tone(100))
            commit = one.commit_audio()
            house.refusal = None
            item_id = await commit
            await settle()
            item = one.get_item(item_id)
            assert item is not None
            assert item.text == "audio of 1000 ms"
        assert [failure.error.code for failure in failures] == ["audio_dropped"]
        assert "1.5 s" in failures[0].error.message
        await house.close()

    run(main())


# --- renewal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lasts", [True, False])
def test_f1_a_session_is_renewed_before_its_end_while_the_old_one_lives(lasts: bool) -> None:
    async def main() -> None:
        house = House(lasts=lasts, session_ms_max=600_000)
        one = session(house)
        changes = told(one)
        async with one:
            await one.update_session(instructions="be brief", transcription="whisper-1")
            response = await one.send_user_message("hello")
            assert await response.text() == "echo: hello"
            first, items = one.session, one.conversation.item_ids
            await settle(299)
            assert len(house.dialled_s) == 1
            await settle(10)
            assert len(house.dialled_s) == 2
            assert one.conversation.item_ids == items
            assert one.session is not None
            assert first is not None
            assert one.session.id != first.id
            assert isinstance(one.session, RealtimeSession)
            assert one.session.instructions == "be brief"
            assert await (await one.send_user_message("again")).text() == "echo: again"
            assert len(house.sessions) == 1, "the old one is let go"
        assert [change.what for change in changes] == ["renewed", "closed"]
        await house.close()

    run(main())


def test_f1_who_begins_to_speak_while_it_is_renewed_is_heard_whole() -> None:
    async def main() -> None:
        house = House(session_ms_max=600_000)
        one = session(house)
        changes = told(one)
        async with one:
            await one.update_session(turn_detection=DETECTION, transcription="whisper-1")
            began_s = house.dialled_s[0]
            await settle(began_s + 299.5 - asyncio.get_running_loop().time())
            speech = tone(2_000) + silence(600)
            for start in range(0, len(speech), 960):
                one.append_audio(speech[start : start + 960])
                await settle(0.02)
            await settle(30)
            texts = [item.text for item in one.get_items() if item.role == "user"]
            assert len(texts) == 1
            assert 1_900 <= int(texts[0].split()[2]) <= 2_700, texts
            assert len([item for item in one.get_items() if item.role == "assistant"]) == 1
        assert [change.what for change in changes] == ["renewed", "closed"]
        await house.close()

    run(main())


def test_f1_a_second_session_that_is_refused_leaves_the_first_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        house = House(session_ms_max=600_000)
        one = session(house)
        changes = told(one)
        async with one:
            house.refusal = ConnectionFailed("too many", status=429)
            await settle(320)
            assert one.is_connected
            assert await (await one.send_user_message("hello")).text() == "echo: hello"
            house.refusal = None
            await settle(60)
            assert len(one.conversation) == 2
        assert [change.what for change in changes] == ["renewed", "closed"]
        assert "could not be renewed" in caplog.text
        await house.close()

    run(main())


def test_f1_without_any_silence_it_is_restored_after_its_end() -> None:
    async def main() -> None:
        house = House(session_ms_max=60_000, language_model=ScriptedSettings(piece_delay_s=1.0))
        one = session(house)
        changes = told(one)
        async with one:
            words = " ".join(f"word{n}" for n in range(100))
            response = await one.send_user_message(words)
            with pytest.raises(ResponseFailed) as failed:
                await response
            assert failed.value.code == "session_expired"
            await settle()
            assert one.is_connected
            assert one.get_items()[0].text == words
        assert [change.what for change in changes] == ["lost", "restored", "closed"]
        await house.close()

    run(main())


def test_f1_a_clock_that_is_wrong_renews_nothing() -> None:
    async def main() -> None:
        house = House()
        one = session(house)
        one._options.wall_s = lambda: 2e9
        async with one:
            await settle(600)
            assert len(house.dialled_s) == 1
        await house.close()

    run(main())
