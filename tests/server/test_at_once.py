"""Messages that are handled in the moment in which they come: in order, one at a time, and nobody hogs the loop."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import replace

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.messages import Close, Effect, Input, Send
from vivavoce.core.session import Session
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ServerCodec
from vivavoce.server.channel import IN_A_ROW_MAX, Channel, Rest
from vivavoce.server.detection import SLICE_MS
from vivavoce.server.ids import ids
from vivavoce.server.runtime import FAILED, Machine, Runtime
from vivavoce.testing.virtual_time import run
from vivavoce.transports.inbox import Inbox

# --- the channel ------------------------------------------------------------------------------------------------------


class Taker:
    """Somebody who gets from a channel, and to whom messages are handed over: notes them as `now` and `later`."""

    def __init__(self, rest: Callable[[int], Rest | None] = lambda message: None) -> None:
        self.seen: list[str] = []
        self.channel: Channel[int] = Channel(bytes_max=1_000, messages_max=1_000, at_once=self._take)
        self._rest = rest

    def _take(self, message: int) -> Rest | None:
        self.seen.append(f"{message} now")
        return self._rest(message)

    async def run(self) -> None:
        while True:
            self.seen.append(f"{await self.channel.get()} later")


def test_a_message_is_handed_over_only_where_somebody_waits_for_it() -> None:
    async def main() -> None:
        taker = Taker()
        assert taker.channel.offer(1, 0)
        assert taker.seen == [], "nobody has come to get anything yet"
        taking = asyncio.create_task(taker.run())
        await asyncio.sleep(0)
        assert taker.channel.offer(2, 0)
        await taker.channel.put(3)
        assert taker.seen == ["1 later", "2 now", "3 now"]
        assert (len(taker.channel), taker.channel.bytes) == (0, 0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    run(main())


def test_what_comes_while_a_message_is_handled_waits_behind_it() -> None:
    async def main() -> None:
        def answer(message: int) -> Rest | None:
            if message == 1:
                assert taker.channel.offer(2, 0)
                assert taker.seen == ["1 now"]
            return None

        taker = Taker(answer)
        taking = asyncio.create_task(taker.run())
        await asyncio.sleep(0)
        taker.channel.offer(1, 0)
        taker.channel.offer(3, 0)
        await asyncio.sleep(0)
        assert taker.seen == ["1 now", "2 later", "3 later"]
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    run(main())


def test_the_rest_of_a_message_is_done_before_what_comes_later() -> None:
    async def main() -> None:
        waited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def rest() -> None:
            await waited
            taker.seen.append("1 done")

        taker = Taker(lambda message: rest if message == 1 else None)
        taking = asyncio.create_task(taker.run())
        await asyncio.sleep(0)
        taker.channel.offer(1, 0)
        taker.channel.offer(2, 0)
        await asyncio.sleep(0)
        taker.channel.offer(3, 0)
        await asyncio.sleep(0)
        assert taker.seen == ["1 now"]
        waited.set_result(None)
        await asyncio.sleep(0)
        assert taker.seen == ["1 now", "1 done", "2 later", "3 later"]
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    run(main())


def test_after_so_many_in_a_row_others_come_first() -> None:
    async def main() -> None:
        taker = Taker()
        taking = asyncio.create_task(taker.run())
        await asyncio.sleep(0)
        for number in range(IN_A_ROW_MAX + 2):
            taker.channel.offer(number, 0)
        assert taker.seen == [f"{number} now" for number in range(IN_A_ROW_MAX)]
        await asyncio.sleep(0)
        assert taker.seen[IN_A_ROW_MAX:] == [f"{IN_A_ROW_MAX} later", f"{IN_A_ROW_MAX + 1} later"]
        taker.channel.offer(-1, 0)
        assert taker.seen[-1] == "-1 now"
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    run(main())


def test_what_the_owner_says_waits_until_he_is_done_with_what_he_does() -> None:
    async def main() -> None:
        taker = Taker()
        taking = asyncio.create_task(taker.run())
        await asyncio.sleep(0)
        taker.channel.push(1)
        assert taker.channel.offer(2, 0)
        assert taker.seen == []
        await asyncio.sleep(0)
        assert taker.seen == ["1 later", "2 later"]
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    run(main())


def test_nothing_is_handed_to_who_was_cancelled() -> None:
    async def main() -> None:
        taker = Taker()
        taking = asyncio.create_task(taker.run())
        await asyncio.sleep(0)
        taking.cancel()
        taker.channel.offer(1, 0)
        await asyncio.gather(taking, return_exceptions=True)
        assert taker.seen == []
        assert await taker.channel.get() == 1

    run(main())


def test_an_end_that_comes_while_a_message_is_handled_ends_the_waiting() -> None:
    async def main() -> None:
        def end(message: int) -> None:
            taker.channel.end(ConnectionClosed(1000, "over"))

        taker = Taker(end)
        taking = asyncio.create_task(taker.run())
        await asyncio.sleep(0)
        taker.channel.offer(1, 0)
        with pytest.raises(ConnectionClosed, match="over"):
            await taking

    run(main())


# --- the session ------------------------------------------------------------------------------------------------------


class Wire:
    """A transport that tells what it was given, and by which the test speaks. `is_full`: it takes nothing at once."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.is_full = False
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.closed: int | None = None
        self.inbox = Inbox(10_000, 1_000_000, on_room=lambda: None)
        self.forward, self.receive = self.inbox.forward, self.inbox.get

    def say(self, message: str) -> None:
        self.inbox.put(message, len(message))

    def leave(self) -> None:
        """The peer is gone."""
        self.inbox.end(1006, "")

    def offer(self, message: bytes) -> bool:
        if self.inbox.ended is not None:
            raise self.inbox.ended
        if not self.is_full:
            self._note(message)
        return not self.is_full

    async def send(self, message: bytes) -> None:
        await self.may_send.wait()
        self._note(message)

    def _note(self, message: bytes) -> None:
        self.sent.append(message.decode().split('"')[3])

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = code


class Living:
    """A session at a wire, in a task of its own."""

    def __init__(self, pipeline: Pipeline | None = None, machine: Machine | None = None) -> None:
        self.wire = Wire()
        machine = machine or Session(id="sess_1", model="any", ids=ids(), expires_at=0)
        self.runtime = Runtime(machine, pipeline or scripted_pipeline(), ServerCodec(), self.wire)

    async def __aenter__(self) -> Living:
        self.running = asyncio.create_task(self.runtime.run())
        await asyncio.sleep(0.001)
        self.wire.sent.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.wire.closed is None:
            self.wire.inbox.end(1000, "")
        await self.running


CLEAR = '{"type":"input_audio_buffer.clear"}'
CLEARED = "input_audio_buffer.cleared"
SAID = '{"type":"message","role":"user","content":[{"type":"input_text","text":"x"}]}'
ITEM = f'{{"type":"conversation.item.create","item":{SAID}}}'
ADDED = ["conversation.item.added", "conversation.item.done"]


def test_an_idle_session_answers_before_its_client_has_said_more() -> None:
    async def main() -> None:
        async with Living() as living:
            for _ in range(3):
                living.wire.say(CLEAR)
            assert living.wire.sent == [CLEARED] * 3

    run(main())


def test_a_session_whose_client_does_not_read_waits_with_what_is_left() -> None:
    async def main() -> None:
        async with Living() as living:
            wire, limits = living.wire, living.runtime._limits
            wire.is_full = True
            wire.may_send.clear()
            count = 2 * (limits.inbox_inputs_max + limits.outbox_frames_max)
            for _ in range(count):
                wire.say(CLEAR)
                await asyncio.sleep(0)
            assert living.runtime.waiting == (limits.inbox_inputs_max, limits.outbox_frames_max)
            wire.say(ITEM)
            wire.is_full = False
            wire.may_send.set()
            await asyncio.sleep(0.001)
            assert wire.sent == [CLEARED] * count + ADDED

    run(main())


class Failing:
    """A machine that fails at the second input, or closes."""

    def __init__(self, effect: Effect | None) -> None:
        self.heard = 0
        self._effect = effect

    def handle(self, input: Input, now_ms: int) -> list[Effect]:
        self.heard += 1
        if self.heard != 2:
            return []
        if self._effect is None:
            raise RuntimeError("broken")
        return [Send(ev.InputAudioBufferCleared(event_id="event_1")), self._effect]

    def deadline(self) -> int | None:
        return None


def test_a_machine_that_fails_at_once_ends_its_session_and_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Living(machine=Failing(None)) as living:
            living.wire.say(CLEAR)
            await asyncio.sleep(0.001)
            assert living.wire.closed == FAILED.code

    with caplog.at_level(logging.CRITICAL, "vivavoce.server.runtime"):
        run(main())


def test_a_machine_that_closes_at_once_hears_nothing_more() -> None:
    async def main() -> None:
        machine = Failing(Close(1001, "over"))
        async with Living(machine=machine) as living:
            living.wire.say(CLEAR)
            living.wire.say(CLEAR)
            await asyncio.sleep(0.001)
            assert living.wire.sent == [CLEARED]
            assert living.wire.closed == 1001
            assert machine.heard == 3, "opened, cleared, gone"

    run(main())


def test_a_client_that_goes_while_much_of_what_it_said_waits_is_not_waited_for() -> None:
    async def main() -> None:
        async with Living() as living:
            wire, count = living.wire, living.runtime._limits.inbox_inputs_max
            audio = b64encode(bytes(PCM16_24K.bytes_of(4 * SLICE_MS))).decode()
            wire.say(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')  # which is scored in several steps
            for _ in range(2 * count):
                wire.say(CLEAR)
            assert living.runtime.waiting[0] == count, "the rest waits, and its reader with it"
            wire.leave()
            await asyncio.wait((living.running,), timeout=1.0)
            assert living.running.done()

    run(main())


NEIGHBOUR = ContextVar("NEIGHBOUR", default="nobody")


class Nosy:
    """A synthesizer that notes in whose context it speaks."""

    rate_hz = 24_000

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def warm_up(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        self.seen.append(NEIGHBOUR.get())
        yield bytes(480)


def test_engines_inherit_nothing_from_who_brought_the_input() -> None:
    async def main() -> None:
        nosy = Nosy()
        async with Living(replace(scripted_pipeline(), synthesizer=nosy)) as living:
            NEIGHBOUR.set("the reader of the socket")
            living.wire.say(ITEM)
            living.wire.say('{"type":"response.create"}')
            await asyncio.sleep(0.1)
        assert nosy.seen == ["nobody"]

    run(main())
