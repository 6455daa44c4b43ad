"""G6: a WebRTC connection is a transport like any other; tried with a double of the connection."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from peer_double import PeerDouble

from vivavoce import Session, connect
from vivavoce.client.live import BEGIN_S_MAX, LiveResponse
from vivavoce.client.sounding import CUSHION_MS, LOOK_BACK_MS, TAIL_MS_MAX, Sounding
from vivavoce.client.webrtc import AHEAD_MS, COMMIT_MS, PeerTransport
from vivavoce.errors import ConnectionClosed
from vivavoce.testing.sounds import silence, tone
from vivavoce.testing.virtual_time import run as run_virtual

STARTED = {"type": "output_audio_buffer.started", "event_id": "e1", "response_id": "r1"}
STOPPED = {"type": "output_audio_buffer.stopped", "event_id": "e2", "response_id": "r1"}
CLEARED = {"type": "output_audio_buffer.cleared", "event_id": "e3", "response_id": "r1"}


def part(item_id: str = "i1", response_id: str = "r1", type: str = "audio", index: int = 0) -> dict[str, Any]:
    return {
        "type": "response.content_part.added",
        "event_id": "e",
        "response_id": response_id,
        "item_id": item_id,
        "output_index": index,
        "content_index": 0,
        "part": {"type": type},
    }


class Ears:
    """A `Sounding`, fed in steps of 20 ms as a connection does."""

    def __init__(self, dialect: Any = "ga") -> None:
        self.sounding = Sounding(dialect)
        self.got: list[dict[str, Any]] = []

    def told(self, *events: dict[str, Any]) -> None:
        for event in events:
            self._take(self.sounding.told(json.dumps(event)))

    def heard(self, *sounds: bytes) -> None:
        for sound in sounds:
            for at in range(0, len(sound), 960):
                self._take(self.sounding.heard(sound[at : at + 960]))

    def _take(self, messages: list[Any]) -> None:
        self.got += [json.loads(message) for message in messages]

    @property
    def types(self) -> list[str]:
        """The types of what came, deltas in a row as one."""
        types = [event["type"] for event in self.got]
        return [type for index, type in enumerate(types) if index == 0 or type != types[index - 1]]

    def audio(self, item_id: str = "i1") -> bytes:
        deltas = (event for event in self.got if event["type"].endswith("audio.delta"))
        return b"".join(base64.b64decode(event["delta"]) for event in deltas if event["item_id"] == item_id)


# --- which item the sound belongs to ----------------------------------------------------------------------------------


@pytest.mark.parametrize("late_ms", [0, 20, 100, LOOK_BACK_MS])
@pytest.mark.parametrize("lag_ms", [0, 20, 100, 300])
def test_g6_sound_is_told_between_started_and_stopped_however_it_is_late(late_ms: int, lag_ms: int) -> None:
    ears, speech = Ears(), tone(1000)
    ears.told(part())
    ears.heard(silence(500), speech[: late_ms * 48])
    ears.told(STARTED)
    ears.heard(speech[late_ms * 48 : (1000 - lag_ms) * 48])
    ears.told(STOPPED)
    ears.heard(speech[(1000 - lag_ms) * 48 :], silence(200))
    assert ears.types[1:] == [STARTED["type"], "response.output_audio.delta", STOPPED["type"]]
    assert ears.audio()[: len(speech)] == speech
    assert not any(ears.audio()[len(speech) :])


@pytest.mark.parametrize("ahead_ms", [0, 60, 300])
def test_g6_silence_before_the_first_word_is_left_out(ahead_ms: int) -> None:
    ears = Ears()
    ears.told(part(), STARTED)
    ears.heard(silence(ahead_ms), tone(200), silence(100), tone(100))
    assert ears.audio() == tone(200) + silence(100) + tone(100)


def test_g6_long_silence_is_a_part_of_what_is_said() -> None:
    ears = Ears()
    ears.told(part(), STARTED)
    ears.heard(silence(1000), tone(200))
    assert 600 * 48 < len(ears.audio()) <= 820 * 48


def test_g6_nothing_is_told_of_a_response_after_it_was_cleared() -> None:
    ears = Ears()
    ears.told(part(), STARTED)
    ears.heard(tone(400))
    ears.told(CLEARED)
    before = ears.audio()
    ears.heard(tone(80))  # was on its way
    ears.told(part("i2", "r2"), {**STARTED, "response_id": "r2"})
    ears.heard(silence(100), tone(200))
    assert ears.audio() == before == tone(400)
    assert ears.audio("i2") == tone(200)


def test_g6_the_rest_of_what_was_cleared_is_not_the_begin_of_what_comes_next() -> None:
    ears = Ears()
    ears.told(part(), STARTED)
    ears.heard(tone(400))
    ears.told(CLEARED)
    ears.heard(tone(100), silence(40), tone(40))
    ears.told(part("i2", "r2"), {**STARTED, "response_id": "r2"})
    ears.heard(tone(200))
    assert ears.audio("i2") == tone(40) + tone(200)


def test_g6_sound_that_never_ends_does_not_hold_the_end_back() -> None:
    ears = Ears()
    ears.told(part(), STARTED)
    ears.heard(tone(400))
    ears.told(STOPPED)
    ears.heard(tone(TAIL_MS_MAX + 40))
    assert ears.types[-1] == STOPPED["type"]
    told = len(ears.got)
    ears.heard(tone(200))
    assert len(ears.got) == told


def test_g6_the_next_response_ends_the_one_before() -> None:
    ears = Ears()
    ears.told(part(), STARTED)
    ears.heard(tone(400))
    ears.told(part("i2", "r2"), STOPPED, {**STARTED, "response_id": "r2"})
    ears.heard(tone(200))
    types = [type for type in ears.types if not type.startswith("response.")]
    assert types == [STARTED["type"], STOPPED["type"], STARTED["type"]]
    assert (ears.audio(), ears.audio("i2")) == (tone(400), tone(200))


def test_g6_sound_waits_for_its_item() -> None:
    ears = Ears()
    ears.told(STARTED)
    ears.heard(tone(200))
    assert not ears.audio()
    ears.told(part())
    ears.heard(tone(100))
    assert ears.audio() == tone(200) + tone(100)


def test_g6_the_second_item_of_a_response_begins_after_a_gap() -> None:
    ears = Ears()
    ears.told(part(), {"type": "response.output_audio.done", "event_id": "e", "response_id": "r1", "item_id": "i1"})
    ears.told(STARTED, part("call", type="text"), part("i2", index=2))
    ears.heard(tone(300), silence(600), tone(200))
    assert ears.audio()[: 300 * 48] == tone(300)
    assert ears.audio("i2")[-200 * 48 :] == tone(200)
    assert [event["output_index"] for event in ears.got if event.get("item_id") == "i2"][-1] == 2


def test_g6_the_first_sound_comes_with_a_cushion_for_the_player() -> None:
    ears = Ears()
    ears.told(part(), STARTED)
    ears.heard(tone(CUSHION_MS - 20))
    assert not ears.audio()
    ears.heard(tone(20), tone(20))
    assert [len(base64.b64decode(event["delta"])) // 48 for event in ears.got[2:]] == [CUSHION_MS, 20]


def test_g6_a_word_shorter_than_the_cushion_is_told_at_its_end() -> None:
    ears = Ears()
    ears.told(part(), STARTED)
    ears.heard(tone(20))
    ears.told(STOPPED)
    ears.heard(silence(100))
    assert ears.audio()[: 20 * 48] == tone(20)
    assert ears.types[-1] == STOPPED["type"]


def test_g6_deltas_are_named_as_the_dialect_names_them() -> None:
    ears = Ears("beta")
    ears.told(part(), STARTED)
    ears.heard(tone(100))
    assert ears.types[-1] == "response.audio.delta"


@pytest.mark.parametrize("message", ["no JSON", "[]", '{"type": 3}', '{"type":"error","error":null}'])
def test_g6_what_is_not_understood_passes(message: str) -> None:
    assert Sounding().told(message) == [message]


# --- the transport ----------------------------------------------------------------------------------------------------


class Call:
    """A `PeerTransport` with a double behind it."""

    def __init__(self) -> None:
        self.hung_up = 0
        self.transport = PeerTransport()
        self.peer = PeerDouble()
        self.transport.begin(self.peer, self._hang_up)

    async def _hang_up(self) -> None:
        self.hung_up += 1

    async def send(self, **event: Any) -> None:
        await self.transport.send(json.dumps(event).encode())

    async def append(self, audio: bytes) -> None:
        await self.send(type="input_audio_buffer.append", audio=base64.b64encode(audio).decode())


def now_ms() -> int:
    return round(asyncio.get_running_loop().time() * 1000)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def clean() -> None:
        await main
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left"

    run_virtual(clean())


def test_g6_audio_goes_by_the_track_and_all_else_by_the_channel() -> None:
    async def main() -> None:
        call = Call()
        await call.append(tone(300))
        await call.send(type="response.create")
        assert json.loads(await call.peer.server.receive())["type"] == "response.create"
        assert bytes(call.peer.outlet.said) == tone(300)
        await call.transport.close()

    run(main())


def test_g6_a_commit_waits_for_its_audio_and_nothing_overtakes_it() -> None:
    async def main() -> None:
        call = Call()
        began_ms = now_ms()
        await call.append(tone(1000))
        await call.send(type="input_audio_buffer.commit")
        assert now_ms() - began_ms == 1000 + COMMIT_MS
        await call.send(type="input_audio_buffer.commit")
        assert len(call.peer.outlet.ended) == 2
        await call.transport.close()

    run(main())


def test_g6_a_clear_takes_back_what_was_not_heard_yet() -> None:
    async def main() -> None:
        call = Call()
        await call.append(tone(1000))
        await asyncio.sleep(0.4)
        await call.send(type="input_audio_buffer.clear")
        assert bytes(call.peer.outlet.said) == tone(400)
        assert "clear" in str(await call.peer.server.receive())
        await call.transport.close()

    run(main())


@pytest.mark.parametrize(
    ("quiet_ms", "waits_ms"), [(-50, COMMIT_MS), (0, COMMIT_MS), (COMMIT_MS - 10, 10), (COMMIT_MS, 0)]
)
def test_g6_a_clear_does_not_overtake_what_has_just_left(quiet_ms: int, waits_ms: int) -> None:
    """It would come after the clear, and be the begin of the next turn."""

    async def main() -> None:
        call = Call()
        await call.append(tone(200))
        await asyncio.sleep((200 + quiet_ms) / 1000)
        began_ms = now_ms()
        await call.send(type="input_audio_buffer.clear")
        assert now_ms() - began_ms == waits_ms
        await call.send(type="input_audio_buffer.clear")
        assert now_ms() - began_ms == waits_ms, "nothing has left since"
        await call.transport.close()

    run(main())


def test_g6_a_source_is_read_at_the_pace_at_which_it_is_heard() -> None:
    async def main() -> None:
        call = Call()
        began_ms = now_ms()
        for _ in range(20):
            await call.append(tone(100))
            await call.transport.room()
        assert now_ms() - began_ms == 2000 - AHEAD_MS
        await call.transport.close()

    run(main())


def test_g6_sound_comes_between_the_events() -> None:
    async def main() -> None:
        call = Call()
        await call.peer.server.send(json.dumps(part()).encode())
        await call.peer.server.send(json.dumps(STARTED).encode())
        assert json.loads(await call.transport.receive())["type"] == "response.content_part.added"
        assert json.loads(await call.transport.receive()) == STARTED
        call.transport.hear(tone(100))
        assert json.loads(await call.transport.receive())["type"] == "response.output_audio.delta"
        await call.transport.close()

    run(main())


@pytest.mark.parametrize(
    ("last", "code", "expected"),
    [
        (None, 1000, 1000),
        (None, 1006, 1006),
        ({"code": "session_expired", "type": "invalid_request_error"}, 1000, 1001),
        ({"code": None, "type": "server_error"}, 1000, 1001),
        ({"code": "invalid_value", "type": "invalid_request_error"}, 1000, 1000),
    ],
)
def test_g6_the_end_is_told_with_what_the_server_said_last(last: Any, code: int, expected: int) -> None:
    async def main() -> None:
        call = Call()
        if last is not None:
            await call.peer.server.send(json.dumps({"type": "error", "event_id": "e", "error": last}).encode())
        await call.peer.server.close(code, "bye")
        if last is not None:
            await call.transport.receive()
        with pytest.raises(ConnectionClosed) as closed:
            await call.transport.receive()
        assert closed.value.code == expected
        with pytest.raises(ConnectionClosed):
            await call.append(tone(20))
        await call.transport.close()
        assert call.hung_up == 1
        assert call.peer.closings >= 1

    run(main())


def test_g6_closing_ends_whoever_waits_and_hangs_up_once() -> None:
    async def main() -> None:
        call = Call()
        await call.append(tone(60_000))
        waits = [
            asyncio.create_task(call.send(type="input_audio_buffer.commit")),
            asyncio.create_task(call.transport.receive()),
        ]
        await asyncio.sleep(1)
        await asyncio.gather(call.transport.close(), call.transport.close())
        done = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(one) for one in done] == [ConnectionClosed, ConnectionClosed]
        assert call.hung_up == 1

    run(main())


def test_g6_sound_that_nobody_reads_is_let_go_at_a_limit() -> None:
    async def main() -> None:
        call = Call()
        await call.peer.server.send(json.dumps(part()).encode())
        await call.peer.server.send(json.dumps(STARTED).encode())
        await asyncio.sleep(1)
        for _ in range(5_000):
            call.transport.hear(tone(20))
        assert call.transport.dropped_bytes > 0
        await call.transport.close()

    run(main())


# --- a session over it ------------------------------------------------------------------------------------------------


class Talk:
    """A session whose server is played by the test."""

    def __init__(self) -> None:
        self.call: Call

    async def dial(self, headers: Any) -> PeerTransport:
        self.call = Call()
        await self.say({"type": "session.created", "event_id": "e", "session": {"type": "realtime", "id": "s"}})
        return self.call.transport

    async def say(self, *events: dict[str, Any]) -> None:
        for event in events:
            await self.call.peer.server.send(json.dumps(event).encode())

    async def answer(self, one: Session, status: str = "completed") -> LiveResponse:
        """All of a response has been made; nothing of it has been played."""
        ack = one.create_response()
        place = {"event_id": "e", "response_id": "r1", "item_id": "i1", "output_index": 0, "content_index": 0}
        item = {"id": "i1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        whole = {**item, "status": "completed", "content": [{"type": "output_audio", "transcript": "Hello you"}]}
        response = {"id": "r1", "object": "realtime.response", "status": "in_progress", "output": []}
        await self.say(
            {"type": "response.created", "event_id": "e", "response": response},
            {
                "type": "response.output_item.added",
                "event_id": "e",
                "response_id": "r1",
                "output_index": 0,
                "item": item,
            },
            {"type": "conversation.item.added", "event_id": "e", "item": item},
            part(),
            {"type": "response.output_audio_transcript.delta", **place, "delta": "Hello you"},
            {
                "type": "response.output_item.done",
                "event_id": "e",
                "response_id": "r1",
                "output_index": 0,
                "item": whole,
            },
            {"type": "response.done", "event_id": "e", "response": {**response, "status": status, "output": [whole]}},
        )
        return await ack


def talking(do: Any) -> None:
    async def main() -> None:
        talk = Talk()
        async with connect(dial=talk.dial, transport="webrtc", reconnect=False) as one:
            await do(talk, one)

    run(main())


async def waited_s(response: LiveResponse) -> float:
    """How long its speech is waited for."""
    began_ms = now_ms()
    await response.audio()
    return (now_ms() - began_ms) / 1000


def test_g6_speech_goes_on_when_its_response_is_over() -> None:
    async def do(talk: Talk, one: Session) -> None:
        response = await talk.answer(one)
        assert await response.text() == "Hello you"
        await talk.say(STARTED)
        await asyncio.sleep(0.1)
        talk.call.transport.hear(tone(500))
        await talk.say(STOPPED)
        await asyncio.sleep(0.1)
        talk.call.transport.hear(silence(100))
        assert await response.audio() == tone(500)
        assert [chunk.audio async for item in response async for chunk in item][-1] == tone(500)

    talking(do)


def test_g6_speech_that_never_begins_is_not_waited_for_without_end() -> None:
    async def do(talk: Talk, one: Session) -> None:
        assert await waited_s(await talk.answer(one)) == BEGIN_S_MAX

    talking(do)


def test_g6_nor_that_of_a_response_that_was_cancelled_before() -> None:
    async def do(talk: Talk, one: Session) -> None:
        assert await waited_s(await talk.answer(one, "cancelled")) == 0

    talking(do)


@pytest.mark.parametrize(
    "event",
    [
        CLEARED,
        {
            "type": "conversation.item.truncated",
            "event_id": "e",
            "item_id": "i1",
            "content_index": 0,
            "audio_end_ms": 0,
        },
    ],
)
def test_g6_what_is_cut_off_has_an_end(event: dict[str, Any]) -> None:
    async def do(talk: Talk, one: Session) -> None:
        response = await talk.answer(one)
        await talk.say(STARTED, event)
        assert await waited_s(response) < 0.1

    talking(do)


def test_g6_so_has_what_is_lost_with_the_connection() -> None:
    async def do(talk: Talk, one: Session) -> None:
        response = await talk.answer(one)
        await talk.say(STARTED)
        await talk.call.peer.server.close(1006, "lost")
        assert await waited_s(response) < 0.1

    talking(do)
