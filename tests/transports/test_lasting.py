from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from vivavoce.errors import ConnectionClosed, RemoteProtocolError
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport, lasting
from vivavoce.transports.lasting import LOST, Lasting, Resumption, Returning, greet, returning
from vivavoce.transports.memory import pair

TOKEN = "t" * 43


@dataclass
class Pair:
    """Two ends of one stream, and the connections that it has had."""

    losses: list[tuple[str, int]] = field(default_factory=list)
    lines: list[tuple[Transport, Transport]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.near = Lasting(lambda closed: self.losses.append(("near", closed.code)))
        self.far = Lasting(lambda closed: self.losses.append(("far", closed.code)))
        self.connect()

    def connect(self) -> None:
        """A new connection, by the rules: each end is told what the other has."""
        near, far = pair()
        self.lines.append((near, far))
        self.near.resuming(TOKEN)
        had = self.far.received
        self.far.attach(far, received=self.near.received)
        self.near.attach(near, received=had)

    async def cut(self, code: int = 1006) -> None:
        """The present connection is gone, with everything that it carries."""
        near, far = self.lines[-1]
        await _lose(near, code)
        await _lose(far, code)

    async def close(self) -> None:
        await self.near.close()
        await self.far.close()


async def _lose(end: Transport, code: int = 1006) -> None:
    await end.close(code, "cut")


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [json.dumps({"type": "message", "number": number}).encode() for number in range(first, first + count)]


async def take(end: Transport, count: int) -> list[bytes]:
    return [str(await end.receive()).encode() for _ in range(count)]


def on_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a coroutine as a test; no task may be left."""

    async def main() -> None:
        await test()
        await settle()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    def wrapped() -> None:
        run(main())

    wrapped.__name__ = test.__name__
    return wrapped


# --- the handshake ----------------------------------------------------------------------------------------------------


def test_the_header_says_new_or_from_where_to_go_on() -> None:
    assert returning("new") is None
    assert returning("token=abc_-9; received=12") == Returning("abc_-9", 12)
    for wrong in ("", "old", "token=a", "token=; received=1", "token=a; received=-1", "token=a; received=1x"):
        with pytest.raises(RemoteProtocolError, match="takes 'new' or 'token=TOKEN; received=COUNT'"):
            returning(wrong)
    with pytest.raises(RemoteProtocolError):
        returning(f"token={'a' * 129}; received=1")


def test_tokens_are_in_no_repr() -> None:
    assert TOKEN not in repr(Returning(TOKEN, 1)) + repr(Resumption(TOKEN, 1, True))


@on_virtual_time
async def test_a_greeting_is_understood_and_anything_else_comes_back_untouched() -> None:
    near, far = pair()
    await far.send(Resumption(TOKEN, 7, True).encode())
    await far.send(b'{"type":"session.created"}')
    await far.send(b'{"type":"vivavoce.resume","token":1}')
    assert await greet(near) == Resumption(TOKEN, 7, True)
    assert await greet(near) == '{"type":"session.created"}'
    with pytest.raises(RemoteProtocolError, match=r"vivavoce.resume: .*token"):
        await greet(near)


# --- the stream -------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_what_a_cut_took_is_sent_again_and_what_arrived_is_not() -> None:
    both = Pair()
    first, second, third = numbered(5), numbered(5, 5), numbered(5, 10)
    for message in first:
        await both.near.send(message)
    assert await take(both.far, 3) == first[:3]
    await both.cut()  # two are in the far end's transport, and are not counted unless they are taken
    for message in second:
        await both.near.send(message)
    both.connect()
    for message in third:
        await both.near.send(message)
    assert await take(both.far, 12) == (first + second + third)[3:]
    await both.close()


@on_virtual_time
async def test_both_ends_wait_while_detached_and_are_told_of_the_loss() -> None:
    both = Pair()
    receiving = asyncio.create_task(both.far.receive())
    await settle()
    await both.cut()
    await settle()
    assert both.losses == [("far", 1006)]
    assert not receiving.done()
    assert not both.far.is_attached
    await both.near.send(b"now")
    assert both.losses[1:] == [("near", 1006)], "sending finds out as well"
    both.connect()
    assert await receiving == "now"
    await both.close()


@pytest.mark.parametrize("code", sorted(LOST))
def test_a_lost_connection_ends_nothing(code: int) -> None:
    async def main() -> None:
        both = Pair()
        await _lose(both.lines[-1][0], code)
        receiving = asyncio.create_task(both.far.receive())
        await settle()
        assert not receiving.done()
        assert both.losses == [("far", code)]
        both.connect()
        await both.near.send(b"on")
        assert await receiving == "on"
        await both.close()

    run(main())


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 3000, 4000, 4001])
def test_a_close_that_is_meant_ends_the_stream_after_its_messages(code: int) -> None:
    async def main() -> None:
        both = Pair()
        await both.near.send(b"last words")
        await both.near.close(code, "bye")
        with pytest.raises(ConnectionClosed, match=f"{code} bye"):
            await both.far.send(b"too late")
        assert await both.far.receive() == "last words"
        for _ in range(2):
            with pytest.raises(ConnectionClosed, match=f"{code} bye"):
                await both.far.receive()
        for end in (both.near, both.far):
            with pytest.raises(ConnectionClosed, match=f"{code} bye"):
                await end.send(b"later")
            with pytest.raises(ConnectionClosed, match=f"{code} bye"):
                end.attach(pair()[0], received=0)
        assert not both.losses
        await both.close()

    run(main())


@on_virtual_time
async def test_what_arrives_late_over_an_old_connection_is_not_taken() -> None:
    both = Pair()
    (_, old_far) = both.lines[0]
    receiving = asyncio.create_task(both.far.receive())
    await settle()
    await both.near.send(b"one")  # is in the inbox of the old connection, and its reader is awake
    both.connect()
    assert await receiving == "one"
    assert both.far.received == 1, "once, over the new connection"
    await settle()
    with pytest.raises(ConnectionClosed, match="1012"):
        await old_far.receive()
    await both.near.send(b"two")
    assert await both.far.receive() == "two"
    assert not both.losses, "an owner that brings another connection knows"
    await both.close()


@on_virtual_time
async def test_a_sender_that_hangs_in_a_dead_connection_is_freed_by_the_next() -> None:
    both = Pair()
    narrow, nobody = pair(messages_max=1)
    both.near.attach(narrow, received=0)
    await both.near.send(b"one")
    hanging = asyncio.create_task(both.near.send(b"two"))
    await settle()
    assert not hanging.done()
    both.connect()
    await hanging
    await both.near.send(b"three")
    assert await take(both.far, 3) == [b"one", b"two", b"three"]
    await nobody.close()
    narrow, nobody = pair(messages_max=1)
    both.near.attach(narrow, received=3)
    await both.near.send(b"four")
    hanging = asyncio.create_task(both.near.send(b"five"))
    await settle()
    near, far = pair()
    both.far.attach(far, received=0)
    both.near.attach(near, received=3)
    await hanging
    assert await take(both.far, 2) == [b"four", b"five"]
    assert not both.losses
    await nobody.close()
    await both.close()


@on_virtual_time
async def test_a_cut_in_the_middle_of_the_resend_loses_nothing() -> None:
    both = Pair()
    await both.cut()
    messages = numbered(10)
    for message in messages:
        await both.near.send(message)
    for already in range(1, 10, 4):
        near, far = pair(messages_max=1)  # so that resending takes its time
        both.lines.append((near, far))
        both.near.resuming(TOKEN)
        had = both.far.received
        both.far.attach(far, received=0)
        both.near.attach(near, received=had)
        assert await take(both.far, already - had) == messages[had:already]
        await both.cut()
    both.connect()
    assert await take(both.far, 10 - both.far.received) == messages[9:]
    await both.close()


@on_virtual_time
async def test_of_two_that_come_at_once_the_last_stays() -> None:
    both = Pair()
    await both.near.send(b"one")
    near, _ = both.lines[-1]
    lost, won = pair(), pair()
    both.far.attach(lost[1], received=0, greeting=b"greeting 1")
    both.far.attach(won[1], received=0, greeting=b"greeting 2")
    await both.far.send(b"two")
    assert await won[0].receive() == "greeting 2"
    assert await won[0].receive() == "two"
    for closed in (near, lost[0]):
        with pytest.raises(ConnectionClosed, match="4001"):
            await closed.receive()
    await both.close()


@on_virtual_time
async def test_the_greeting_comes_before_all_else_and_once() -> None:
    end = Lasting()
    await end.send(b"kept")
    near, far = pair()
    end.attach(far, received=0, greeting=b"greeting")
    await end.send(b"new")
    assert await take(near, 3) == [b"greeting", b"kept", b"new"]
    await near.send(b"data")
    await end.receive()
    end._confirm()
    assert await near.receive() == '{"type":"vivavoce.received","count":1}'
    await end.close()


@on_virtual_time
async def test_counts_that_cannot_be_are_refused_and_change_nothing() -> None:
    both = Pair()
    for message in numbered(4):
        await both.near.send(message)
    await take(both.far, 4)
    both.near._let_go(2)
    receiving = asyncio.create_task(both.near.receive())
    await settle()
    other, _ = pair()
    for wrong in (1, 5):
        with pytest.raises(RemoteProtocolError, match=f"received {wrong} messages; it has confirmed 2, and was sent 4"):
            both.near.attach(other, received=wrong)
    await both.far.send(b"as before")
    assert await receiving == "as before"
    await both.close()


# --- confirmations ----------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_confirmations_come_after_a_time_and_are_seen_by_nobody() -> None:
    both = Pair()
    receiving = asyncio.create_task(both.near.receive())
    for message in numbered(3):
        await both.near.send(message)
    await take(both.far, 3)
    assert both.near.unconfirmed == 3
    await asyncio.wait((receiving,), timeout=lasting.CONFIRM_S + 0.1)
    assert both.near.unconfirmed == 0
    assert not receiving.done()
    await both.far.send(b"data")
    assert await receiving == "data"
    await both.close()


@pytest.mark.parametrize(("limit", "value"), [("CONFIRM_MESSAGES", 4), ("CONFIRM_BYTES", 100)])
def test_confirmations_come_with_messages_and_bytes(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(lasting, limit, value)

    async def main() -> None:
        both = Pair()
        receiving = asyncio.create_task(both.near.receive())
        for message in numbered(40):
            await both.near.send(message)
            await both.far.receive()
            await settle()
            assert both.near.unconfirmed <= 4
        receiving.cancel()
        assert asyncio.get_running_loop().time() < lasting.CONFIRM_S
        await both.close()

    run(main())


@pytest.mark.parametrize("said", ['"count":5', '"count":-1', '"count":"1"', '"number":1'])
def test_a_confirmation_that_cannot_be_ends_the_stream(said: str) -> None:
    async def main() -> None:
        end = Lasting()
        near, far = pair()
        end.attach(near, received=0)
        for message in numbered(4):
            await end.send(message)
        await far.send(f'{{"type":"vivavoce.received",{said}}}'.encode())
        with pytest.raises(ConnectionClosed, match=r"1002 vivavoce.received: expected a count of at most 4"):
            await end.receive()
        await take(far, 4)
        with pytest.raises(ConnectionClosed, match="1002"):
            await far.receive()
        await end.close()

    run(main())


@on_virtual_time
async def test_a_confirmation_of_what_was_confirmed_already_changes_nothing() -> None:
    end = Lasting()
    near, far = pair()
    end.attach(near, received=0)
    for message in numbered(4):
        await end.send(message)
    for count in (3, 1):
        await far.send(f'{{"type":"vivavoce.received","count":{count}}}'.encode())
    await far.send(b"data")
    assert await end.receive() == "data"
    assert end.unconfirmed == 1
    await end.close()


@pytest.mark.parametrize(("limit", "value"), [("KEPT_MESSAGES_MAX", 4), ("KEPT_BYTES_MAX", 4 * 32)])
def test_a_sender_waits_while_too_much_is_kept(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(lasting, limit, value)

    async def main() -> None:
        both = Pair()
        messages = numbered(6)
        await both.cut()
        await both.near.send(messages[0])
        for message in messages[1:4]:
            await both.near.send(message)
        waiting = asyncio.create_task(both.near.send(messages[4]))
        await settle()
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert both.near.sent == 4, "a sender that still waits has sent nothing"
        both.connect()
        waiting = asyncio.create_task(both.near.send(messages[5]))
        assert await take(both.far, 4) == messages[:4]
        assert not waiting.done(), "it has arrived, and nobody said so"
        assert await both.far.receive() == messages[5].decode()
        await waiting
        assert asyncio.get_running_loop().time() == pytest.approx(lasting.CONFIRM_S)
        await both.close()

    run(main())


def test_a_sender_that_waits_finds_a_confirmation_behind_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends wait for room, and neither reads: the peer's confirmation stands behind its messages."""
    monkeypatch.setattr(lasting, "KEPT_MESSAGES_MAX", 4)

    async def main() -> None:
        both = Pair()
        mine, yours = numbered(5), numbered(5, 100)
        for message in mine[:4]:
            await both.near.send(message)
        for message in yours[:4]:
            await both.far.send(message)
        assert await take(both.far, 4) == mine[:4]
        waiting = asyncio.create_task(both.near.send(mine[4]))
        await asyncio.wait((waiting,), timeout=10)
        assert waiting.done()
        assert both.near.received == 4, "what was read ahead has arrived"
        assert await take(both.near, 4) == yours[:4]
        assert await both.far.receive() == mine[4].decode()
        await both.close()

    run(main())


def test_who_receives_while_a_sender_reads_ahead_gets_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "KEPT_MESSAGES_MAX", 1)

    async def main() -> None:
        both = Pair()
        await both.near.send(b"first")
        waiting = asyncio.create_task(both.near.send(b"second"))
        await settle()
        receiving = asyncio.create_task(both.near.receive())
        await settle()
        await both.far.send(b"data")
        assert await receiving == "data"
        receiving = asyncio.create_task(both.near.receive())
        await settle()
        waiting.cancel()
        await asyncio.wait((waiting,))
        await settle()
        assert await both.far.receive() == "first"
        both.far._confirm()
        await settle()
        await both.far.send(b"more")
        assert await receiving == "more", "it goes on reading where the sender has given up"
        await both.near.send(b"third")
        assert await both.far.receive() == "third"
        await both.close()

    run(main())


# --- being given up ---------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_receiving_can_be_cancelled_without_a_loss() -> None:
    both = Pair()
    for _ in range(3):
        receiving = asyncio.create_task(both.far.receive())
        await settle()
        receiving.cancel()
        await asyncio.wait((receiving,))
    await both.near.send(b"one")
    assert await both.far.receive() == "one"
    assert not both.losses
    await both.close()


class Uncertain:
    """A transport whose `send` writes, and then waits: cancelled, it has sent."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.receive = transport.receive
        self.close = transport.close

    async def send(self, message: bytes) -> None:
        await self._transport.send(message)
        await asyncio.Event().wait()


@on_virtual_time
async def test_after_a_cancelled_send_the_connection_is_given_up_and_the_message_comes_once() -> None:
    both = Pair()
    near, far = pair()
    both.far.attach(far, received=0)
    both.near.attach(Uncertain(near), received=0)
    sending = asyncio.create_task(both.near.send(b"one"))
    await settle()
    sending.cancel()
    await asyncio.wait((sending,))
    assert sending.cancelled()
    assert both.losses == [("near", 1006)]
    assert await both.far.receive() == "one"
    both.connect()
    await both.near.send(b"two")
    assert await both.far.receive() == "two"
    await both.close()


@on_virtual_time
async def test_a_stream_that_is_ended_gives_what_has_arrived_and_then_the_end() -> None:
    both = Pair()
    await both.cut()
    receiving = asyncio.create_task(both.near.receive())
    await settle()
    both.near.end(ConnectionClosed(1006, "nobody came back"))
    with pytest.raises(ConnectionClosed, match="1006 nobody came back"):
        await receiving
    with pytest.raises(ConnectionClosed, match="1006 nobody came back"):
        await both.near.send(b"more")
    await both.close()


@on_virtual_time
async def test_closing_while_detached_frees_who_waits() -> None:
    both = Pair()
    await both.cut()
    receiving = asyncio.create_task(both.near.receive())
    await settle()
    await both.near.close(1000, "bye")
    with pytest.raises(ConnectionClosed, match="1000 bye"):
        await receiving
    await both.close()


@on_virtual_time
async def test_closing_lets_the_resend_end_first() -> None:
    both = Pair()
    await both.cut()
    messages = numbered(20)
    for message in messages:
        await both.near.send(message)
    near, far = pair(messages_max=2)
    both.far.attach(far, received=0)
    both.near.attach(near, received=0)
    closing = asyncio.create_task(both.near.close(1000, "bye"))
    await settle()
    assert not closing.done()
    assert await take(both.far, 20) == messages
    with pytest.raises(ConnectionClosed, match="1000 bye"):
        await both.far.receive()
    await closing
    await both.close()


@on_virtual_time
async def test_closing_waits_for_the_resend_only_so_long() -> None:
    both = Pair()
    await both.cut()
    for message in numbered(20):
        await both.near.send(message)
    near, _ = pair(messages_max=2)
    both.near.attach(near, received=0)
    closing = asyncio.create_task(both.near.close())
    await asyncio.wait((closing,), timeout=lasting.CLOSE_S + 0.1)
    assert closing.done()
    both.near.end(ConnectionClosed(1006))
    await both.close()


@on_virtual_time
async def test_a_close_that_is_cancelled_still_ends_everything() -> None:
    both = Pair()
    await both.cut()
    for message in numbered(20):
        await both.near.send(message)
    near, far = pair(messages_max=2)
    both.near.attach(near, received=0)
    closing = asyncio.create_task(both.near.close(1000, "bye"))
    await settle()
    closing.cancel()
    await asyncio.wait((closing,))
    await take(far, 2)
    with pytest.raises(ConnectionClosed):
        await far.receive()
    with pytest.raises(ConnectionClosed, match="1000 bye"):
        await both.near.receive()
    await both.close()


@on_virtual_time
async def test_several_tasks_may_send_and_each_message_goes_out_once() -> None:
    both = Pair()
    near, far = pair(messages_max=1)
    both.far.attach(far, received=0)
    both.near.attach(near, received=0)
    senders = [asyncio.create_task(both.near.send(message)) for message in numbered(9)]
    assert sorted(await take(both.far, 9)) == sorted(numbered(9))
    await asyncio.gather(*senders)
    await both.cut()
    both.connect()
    await both.near.send(b"last")
    assert await both.far.receive() == "last"
    await both.close()
