"""Two peers of this package against each other, over real sockets of this machine: what is found, refused and lost."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aioice.ice
import numpy as np
import pytest

from vivavoce.errors import ConnectionClosed, LocalProtocolError, RemoteProtocolError
from vivavoce.testing.sounds import silence, tone
from vivavoce.transports.webrtc import IceServer, Peer, channel
from vivavoce.transports.webrtc.peer import CHANNELS_MAX, LINES_MAX, SECTIONS_MAX

TIMEOUT_S = 60.0
MANY = 100


def in_real_time(main: Coroutine[Any, Any, None]) -> None:
    async def timed() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await main
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    threads = set(threading.enumerate())
    asyncio.run(timed())
    assert {thread for thread in threading.enumerate() if "decoder" in thread.name} <= threads


class Heard:
    """What one end hears."""

    def __init__(self) -> None:
        self.pcm = bytearray()
        self._more = asyncio.Event()

    def __call__(self, pcm: bytes) -> None:
        self.pcm += pcm
        self._more.set()

    async def until(self, ms: int) -> None:
        while len(self.pcm) < 48 * ms:
            self._more.clear()
            await self._more.wait()

    def sounding_ms(self) -> int:
        samples = np.frombuffer(bytes(self.pcm), "<i2")
        blocks = samples[: len(samples) // 240 * 240].reshape(-1, 240).astype(float)
        return int((np.sqrt((blocks**2).mean(axis=1)) > 1_000).sum() * 10)


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Peer, Peer, Heard]]:
    """The one that has offered, the one that has answered, and what the latter hears."""
    heard = Heard()
    client, server = Peer(hear=lambda pcm: None, **options), Peer(hear=heard, **options)
    try:
        await client.accept(await server.answer(await client.offer()))
        yield client, server, heard
    finally:
        await client.close()
        await server.close()


def test_events_go_both_ways_in_order_as_text_and_wait_for_the_channel_to_open() -> None:
    async def main() -> None:
        async with two() as (client, server, _):
            for n in range(50):
                await client.channel.send(b'{"n":%d}' % n)
            await server.channel.send('{"text":"Grüße"}'.encode())
            assert [await server.channel.receive() for _ in range(50)] == [f'{{"n":{n}}}' for n in range(50)]
            assert await client.channel.receive() == '{"text":"Grüße"}'
            long = b'{"x":"' + b"y" * 200_000 + b'"}'
            await server.channel.send(long)
            assert await client.channel.receive() == long.decode()
            with pytest.raises(LocalProtocolError, match="does not take messages of 300000 bytes"):
                await server.channel.send(b"z" * 300_000)
            await client.close()
            with pytest.raises(ConnectionClosed) as closed:
                await server.channel.receive()
            assert closed.value.code == 1000
            with pytest.raises(ConnectionClosed):
                await server.channel.send(b"{}")

    in_real_time(main())


def test_a_peer_that_sends_more_than_is_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "UNREAD_MESSAGES_MAX", MANY)

    async def main() -> None:
        async with two() as (client, server, _):
            over, end = asyncio.Event(), server.channel.end
            monkeypatch.setattr(server.channel, "end", lambda code, reason: (end(code, reason), over.set()))
            for n in range(MANY + 10):
                await client.channel.send(b'{"n":%d}' % n)
            await over.wait()
            for _ in range(MANY):
                await server.channel.receive()
            with pytest.raises(ConnectionClosed) as closed:
                await server.channel.receive()
            assert closed.value.code == 1008

    in_real_time(main())


def test_sound_arrives_as_long_as_it_was_said() -> None:
    async def main() -> None:
        async with two() as (client, _, heard):
            client.outlet.put("a", silence(100) + tone(500) + silence(300))
            client.outlet.end("a")
            await heard.until(1_000)
            assert abs(heard.sounding_ms() - 500) <= 20

    in_real_time(main())


def lossy(peer: Peer, dice: random.Random, *, loss: float, jitter_ms: float) -> Callable[[], tuple[int, int]]:
    """Between the sockets and the peer: media is lost and comes late, by the seed. Tells how much came and was lost."""
    connection = peer._audio.sender.transport.transport._connection
    arrived, counts = connection.data_received, [0, 0]

    def data_received(data: bytes, component: int) -> None:
        if not 128 <= data[0] < 192 or 64 <= data[1] & 0x7F <= 95:  # what is no RTP: DTLS, and RTCP
            arrived(data, component)
            return
        counts[0] += 1
        if dice.random() < loss and counts[0] > 1:
            counts[1] += 1
            return
        delay_s = dice.uniform(0, jitter_ms) / 1000 if counts[0] > 1 else 0.0
        asyncio.get_running_loop().call_later(delay_s, arrived, data, component)

    connection.data_received = data_received
    return lambda: (counts[0], counts[1])


@pytest.mark.parametrize("seed", [1, 2])
def test_a2_5_percent_of_loss_and_50_ms_of_jitter_are_survived(seed: int) -> None:
    """On the wire: datagrams are dropped and delayed before ICE hands them on."""

    async def main() -> None:
        async with two() as (client, server, heard):
            counts = lossy(server, random.Random(seed), loss=0.05, jitter_ms=50)
            client.outlet.put("a", silence(200) + (tone(400) + silence(200)) * 3)
            client.outlet.end("a")
            await heard.until(2_400)
            came, lost = counts()
            assert came > 100
            assert 0 < lost <= server._inlet.lost + 3
            assert server._inlet.late <= 2
            assert 1_100 <= heard.sounding_ms() <= 1_300, "what was lost is filled, what was said is not cut"

    in_real_time(main())


def test_on_a_machine_without_a_network_peers_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is the one address that is left."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: [])

    async def main() -> None:
        async with two() as (client, server, _):
            await client.channel.send(b"{}")
            assert await server.channel.receive() == "{}"
            pair = server._audio.sender.transport.transport._connection._nominated[1]
            assert pair.local_addr[0] == "127.0.0.1"

    in_real_time(main())


def test_loopback_is_offered_where_it_is_wished_for_and_else_only_addresses_of_networks() -> None:
    async def main() -> None:
        for wished in (True, False):
            peer = Peer(hear=lambda pcm: None, with_loopback=wished)
            sdp = await peer.offer()
            await peer.close()
            has_others = any(" typ host" in line and "127.0.0.1" not in line for line in sdp.splitlines())
            assert (" 127.0.0.1 " in sdp) == (wished or not has_others)

    in_real_time(main())


def test_no_server_is_asked_for_addresses_unless_it_is_named() -> None:
    async def main() -> None:
        peers = [
            Peer(hear=lambda pcm: None),
            Peer(hear=lambda pcm: None, ice_servers=[IceServer("stun:192.0.2.1:3478")]),
            Peer(hear=lambda pcm: None, ice_servers=[IceServer("turn:192.0.2.1:3478?transport=udp", "u", "c")]),
        ]
        ice = [peer._audio.sender.transport.transport._connection for peer in peers]
        assert (ice[0].stun_server, ice[0].turn_server) == (None, None)
        assert ice[1].stun_server == ("192.0.2.1", 3478)
        assert (ice[2].turn_server, ice[2].turn_username, ice[2].turn_password) == (("192.0.2.1", 3478), "u", "c")
        for peer in peers:
            await peer.close()

    in_real_time(main())


def test_every_connection_has_a_certificate_of_its_own() -> None:
    async def main() -> None:
        prints = set()
        for _ in range(2):
            peer = Peer(hear=lambda pcm: None)
            sdp = await peer.offer()
            prints |= {line for line in sdp.splitlines() if line.startswith("a=fingerprint:sha-256")}
            await peer.close()
        assert len(prints) == 2

    in_real_time(main())


@pytest.mark.parametrize("kept", ["nothing", "hidden"])
def test_a_browser_that_hides_its_addresses_or_has_not_gathered_any_connects_all_the_same(kept: str) -> None:
    """Candidates behind names of multicast DNS, or none at all: the peer reaches us, and is known by that."""

    async def main() -> None:
        heard = Heard()
        client, server = Peer(hear=heard), Peer(hear=lambda pcm: None)
        offer = await client.offer()
        lines = []
        for line in offer.splitlines():
            if line.startswith("a=candidate:"):
                if kept == "hidden":
                    parts = line.split(" ")
                    parts[4] = "0b6a1c9e-7f1d-4a5e-9c67-000000000000.local"
                    lines.append(" ".join(parts))
            else:
                lines.append(line)
        try:
            await client.accept(await server.answer("\r\n".join(lines) + "\r\n"))
            await server.channel.send(b"{}")
            assert await client.channel.receive() == "{}"
        finally:
            await client.close()
            await server.close()

    in_real_time(main())


def test_a_peer_without_a_data_channel_has_sound_alone() -> None:
    async def main() -> None:
        heard = Heard()
        client, server = Peer(hear=lambda pcm: None), Peer(hear=heard)
        client._gather_loopback()
        await client._pc.setLocalDescription(await client._pc.createOffer())
        try:
            await client.accept(await server.answer(client._pc.localDescription.sdp))
            assert server.channel.is_absent
            await server.channel.send(b"goes nowhere")
            client.outlet.put("a", tone(200))
            client.outlet.end("a")
            await heard.until(400)
            assert heard.sounding_ms() >= 180
        finally:
            await client.close()
            await server.close()

    in_real_time(main())


@pytest.mark.parametrize(
    ("offer", "words"),
    [
        ("", "Invalid SDP offer"),
        ("hello", "Invalid SDP offer"),
        ("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "Invalid SDP offer"),
        ("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "did not have an audio media section"),
    ],
)
def test_what_is_no_offer_is_refused(offer: str, words: str) -> None:
    async def main() -> None:
        peer = Peer(hear=lambda pcm: None)
        with pytest.raises(RemoteProtocolError, match=words):
            await peer.answer(offer)
        await peer.close()

    in_real_time(main())


def test_what_is_no_answer_is_refused() -> None:
    async def main() -> None:
        peer = Peer(hear=lambda pcm: None)
        await peer.offer()
        with pytest.raises(RemoteProtocolError, match="no SDP answer"):
            await peer.accept("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n")
        await peer.close()

    in_real_time(main())


def test_an_offer_of_more_than_a_call_needs_is_refused_before_it_is_read() -> None:
    """Each section and each line takes time of the event loop, in which no other call is heard."""

    async def main() -> None:
        client = Peer(hear=lambda pcm: None)
        offer = await client.offer()
        await client.close()
        head, first, *_ = offer.split("m=")
        candidate = next(line for line in offer.splitlines() if line.startswith("a=candidate"))
        many_sections = head + f"m={first}" * (SECTIONS_MAX + 1)
        many_lines = offer + f"{candidate}\r\n" * LINES_MAX
        for much in (many_sections, many_lines, many_lines.replace("\r\n", "\n"), many_lines.replace("\r\n", "\r")):
            peer = Peer(hear=lambda pcm: None)
            with pytest.raises(RemoteProtocolError, match="Invalid SDP offer"):
                await peer.answer(much)
            assert len(peer._pc.getTransceivers()) == 1, "nothing was made of it"
            await peer.close()

    in_real_time(main())


def test_only_so_many_data_channels_are_opened() -> None:
    async def main() -> None:
        async with two() as (client, server, _):
            await client.channel.opened.wait()
            for n in range(CHANNELS_MAX + 1):
                client._pc.createDataChannel(f"more {n}")
            with pytest.raises(ConnectionClosed, match="data channels") as closed:
                await server.channel.receive()
            assert closed.value.code == 1008

    in_real_time(main())
