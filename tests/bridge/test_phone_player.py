"""The loudspeaker of a call by itself: what goes out, what was heard, what is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from vivavoce.audio.formats import PCM16_24K, ULAW_8K
from vivavoce.bridge.phone import PhonePlayer
from vivavoce.bridge.phone.messages import Clear, Mark, Media, parse
from vivavoce.bridge.phone.player import PIECE_MS, QUEUED_S_MAX, Outbox
from vivavoce.client.player import Heard
from vivavoce.errors import ConnectionClosed

SECOND = b"\x10" * 8_000


class FarEnd:
    """A transport that keeps what is sent, as a test double; it may be made to take nothing for a while."""

    def __init__(self) -> None:
        self.sent: list[Media | Mark | Clear] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.is_gone = False

    async def send(self, message: bytes) -> None:
        await self.takes.wait()
        if self.is_gone:
            raise ConnectionClosed(1006)
        sent = parse(message)
        assert isinstance(sent, Media | Mark | Clear)
        self.sent.append(sent)

    async def receive(self) -> str | bytes:
        raise ConnectionClosed(1006)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Nothing to close."""

    @property
    def audio(self) -> bytes:
        return b"".join(one.media.payload for one in self.sent if isinstance(one, Media))

    @property
    def marks(self) -> list[str]:
        return [one.mark.name for one in self.sent if isinstance(one, Mark)]


class Desk:
    """A player with its outbox, its far end and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.far = FarEnd()
        self.outbox = Outbox(self.far)
        self.player = PhonePlayer("MZ1", self.outbox, lambda: self.now_s)

    async def send(self) -> None:
        """All that is to be sent, and no more."""
        self.outbox.end()
        await self.outbox.run()


def held(check: Callable[[Desk], object]) -> None:
    async def main() -> None:
        result = check(Desk())
        if asyncio.iscoroutine(result):
            await result

    asyncio.run(main())


def test_audio_goes_out_as_it_is_in_pieces_with_a_mark_behind_each() -> None:
    async def check(desk: Desk) -> None:
        audio = bytes(range(256)) * 10
        desk.player.play("one", audio, ULAW_8K)
        await desk.send()
        assert desk.far.audio == audio
        kinds = [type(one).__name__ for one in desk.far.sent]
        assert kinds == ["Mark", *["Media", "Mark"] * 4]
        assert max(len(one.media.payload) for one in desk.far.sent if isinstance(one, Media)) == PIECE_MS * 8
        assert len(set(desk.far.marks)) == 5
        assert all(one.stream_sid == "MZ1" for one in desk.far.sent)

    held(check)


def test_what_was_heard_is_what_time_has_passed_since_it_was_sent() -> None:
    async def check(desk: Desk) -> None:
        desk.player.play("one", SECOND, ULAW_8K)
        desk.player.play("two", SECOND, ULAW_8K)
        await desk.send()
        desk.now_s += 0.2  # the way there and back
        for name in desk.far.marks[:2]:
            desk.player.echoed(name)
        desk.now_s += 0.1
        assert desk.player.stop() == (Heard("one", 2_400), Heard("two", 0))
        assert not desk.player.is_playing
        assert desk.player.stop() == ()

    held(check)


def test_what_was_stopped_is_not_sent_any_more_and_late_audio_of_it_neither() -> None:
    async def check(desk: Desk) -> None:
        desk.far.takes.clear()
        sending = asyncio.create_task(desk.outbox.run())
        desk.player.play("one", SECOND, ULAW_8K)
        await asyncio.sleep(0)
        desk.player.stop()
        desk.player.play("one", SECOND, ULAW_8K)
        desk.player.play("two", SECOND[:80], ULAW_8K)
        desk.far.takes.set()
        desk.outbox.end()
        await sending
        assert desk.far.audio == SECOND[:80]
        assert [type(one).__name__ for one in desk.far.sent] == ["Mark", "Clear", "Mark", "Media", "Mark"]

    held(check)


def test_heard_out_is_when_the_last_mark_is_back() -> None:
    async def check(desk: Desk) -> None:
        desk.player.play("one", SECOND[:1_600], ULAW_8K)
        await desk.send()
        waiting = asyncio.create_task(desk.player.heard_out())
        for name in desk.far.marks:
            await asyncio.sleep(0)
            assert not waiting.done()
            desk.player.echoed(name)
        await waiting
        await desk.player.heard_out()

    held(check)


def test_more_than_twilio_keeps_is_left_out_with_the_rest_of_its_item() -> None:
    async def check(desk: Desk) -> None:
        for _ in range(int(QUEUED_S_MAX) + 30):
            desk.player.play("long", SECOND, ULAW_8K)
        desk.player.play("next", SECOND, ULAW_8K)
        await desk.send()
        assert len(desk.far.audio) == QUEUED_S_MAX * 8_000
        assert desk.player.remaining_s == pytest.approx(QUEUED_S_MAX)

    held(check)


def test_other_formats_are_converted_and_none_of_it_is_lost() -> None:
    async def check(desk: Desk) -> None:
        second = b"\x00\x10" * 24_000
        for at in range(0, len(second), 4_802):  # cut within samples of the phone's
            desk.player.play("one", second[at : at + 4_802], PCM16_24K)
        desk.player.play("two", second, PCM16_24K)
        desk.player.finish("one")  # it was finished when the next one began
        desk.player.finish("two")
        await desk.send()
        assert len(desk.far.audio) == 2 * 8_000
        desk.now_s += 0.5
        (one, two) = desk.player.stop()
        assert (one.item_id, two) == ("one", Heard("two", 0))
        assert one.samples <= 12_000

    held(check)


def test_an_item_does_not_change_its_format() -> None:
    def check(desk: Desk) -> None:
        desk.player.play("one", SECOND, ULAW_8K)
        with pytest.raises(ValueError, match="began as"):
            desk.player.play("one", b"\0\0", PCM16_24K)

    held(check)


def test_a_line_that_is_gone_ends_the_sending() -> None:
    async def check(desk: Desk) -> None:
        desk.far.is_gone = True
        desk.player.play("one", SECOND, ULAW_8K)
        await desk.outbox.run()
        assert desk.far.sent == []

    held(check)
