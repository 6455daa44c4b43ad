"""One WebRTC connection, seen from either end: the negotiation, and the three ways through it.

What is said leaves by `outlet`, what is heard arrives by the callback `hear`, events go through `channel`. aiortc does
ICE, DTLS, SRTP and SCTP; audio is ours, in both directions. Invariants: no server is asked for addresses unless it is
named; each connection has a certificate of its own; after `close` no task, socket or thread of it is left.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.rtp import RtpPacket
from aiortc.sdp import SessionDescription

from vivavoce.errors import RemoteProtocolError

from .channel import DataChannel
from .inlet import Arrived, Inlet
from .outlet import AHEAD_MS_MAX, Outlet

INVALID_OFFER = "Invalid SDP offer. Please try again with a WHIP-compliant offer."
NO_AUDIO = "Offer did not have an audio media section."
INVALID_ANSWER = "The answer to the offer is no SDP answer with audio."

LOOPBACK = ("127.0.0.1",)

SECTIONS_MAX = 16
"""Media sections of a description; two are needed. One with more is refused."""

LINES_MAX = 2_000
"""Lines of a description, in which it has all its addresses. One with more is refused."""

CHANNELS_MAX = 8
"""Data channels that a peer may open, of which the first counts. Beyond it the connection is closed with 1008."""

_HIDDEN = re.compile(r"^a=(candidate:\S+ \S+ \S+ \S+ \S+\.local .*|end-of-candidates)\r?\n", re.MULTILINE)
"""Candidates behind a name that only multicast DNS could tell. They are left out: asking takes seconds, and the peer
reaches us all the same, and is known by its address then. So the list that is left is not the end of it, either."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server, `stun:host:port` or `turn:host:port?transport=udp`."""

    url: str
    username: str | None = None
    credential: str | None = None


class Peer:
    """One end. Either `answer` an offer, or make an `offer` and `accept` the answer.

    `hear` gets PCM16 mono at 24 kHz, in order and without gaps. `with_loopback` makes this end reachable for peers of
    this machine by an address that no network has; without any other address it is so in any case.
    """

    def __init__(
        self,
        *,
        hear: Callable[[bytes], None],
        ice_servers: Sequence[IceServer] = (),
        with_loopback: bool = False,
        ahead_ms_max: int = AHEAD_MS_MAX,
    ) -> None:
        servers = [RTCIceServer(server.url, server.username, server.credential) for server in ice_servers]
        # None would mean a public server of aiortc's choice.
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._with_loopback = with_loopback
        self._inlet = Inlet(hear)
        self._closing: asyncio.Task[None] | None = None
        self._lines = 0
        """Data channels that the peer has opened."""
        self.outlet = Outlet(ahead_ms_max=ahead_ms_max)
        self.channel = DataChannel(self.close)
        self.connected = asyncio.Event()
        """Set when audio can flow, or never will; `state` says which."""
        self._pc.on("datachannel", self._offered_channel)
        self._pc.on("connectionstatechange", self._state_changed)
        self._audio = self._pc.addTransceiver(self.outlet, "sendrecv")
        self._audio.setCodecPreferences(_opus())

    @property
    def state(self) -> str:
        """`new`, `connecting`, `connected`, `failed` or `closed`."""
        return str(self._pc.connectionState)

    # --- negotiation --------------------------------------------------------------------------------------------------

    async def answer(self, offer_sdp: str) -> str:
        """The answer to a peer's offer, with all the addresses of this end. Raises `RemoteProtocolError`."""
        sections = _sections(offer_sdp, INVALID_OFFER)
        if "audio" not in sections:
            raise RemoteProtocolError(NO_AUDIO)
        if "application" not in sections:
            self.channel.be_absent()
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(_HIDDEN.sub("", offer_sdp), "offer"))
            self._listen()
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except Exception as error:  # whatever a parser of foreign text trips over
            log.info("an offer was not understood: %s: %s", type(error).__name__, error)
            await self.close()
            raise RemoteProtocolError(INVALID_OFFER) from error
        return str(self._pc.localDescription.sdp)

    async def offer(self, label: str = "oai-events") -> str:
        """An offer with audio both ways and a data channel, with all the addresses of this end."""
        self.channel.join(self._pc.createDataChannel(label))
        self._gather_loopback()
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return str(self._pc.localDescription.sdp)

    async def accept(self, answer_sdp: str) -> None:
        """The answer to our offer. Raises `RemoteProtocolError`."""
        if "audio" not in _sections(answer_sdp, INVALID_ANSWER):
            raise RemoteProtocolError(INVALID_ANSWER)
        self._listen()
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(_HIDDEN.sub("", answer_sdp), "answer"))
        except Exception as error:  # likewise
            await self.close()
            raise RemoteProtocolError(f"{INVALID_ANSWER} ({error})") from error

    async def close(self) -> None:
        """Hang up; doing it twice is harmless."""
        if self._closing is None:
            self.channel.end(1000, "The connection is closed.")
            self._inlet.close()
            self.outlet.stop()
            self._closing = asyncio.create_task(self._pc.close(), name="closing of a peer")
        await asyncio.shield(self._closing)
        self.connected.set()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _offered_channel(self, line: RTCDataChannel) -> None:
        self._lines += 1
        if self._lines > CHANNELS_MAX:
            self.channel.end(1008, f"The peer has opened more than {CHANNELS_MAX} data channels.")
        self.channel.join(line)

    def _state_changed(self) -> None:
        if self.state == "connected":
            self.connected.set()
        elif self.state in ("failed", "closed"):
            self.connected.set()
            if self.state == "failed" or self._is_cut_off:
                self.channel.end(1006, "The connection to the peer is lost.")
            else:
                self.channel.end(1000, "The peer has hung up.")

    @property
    def _is_cut_off(self) -> bool:
        """Whether ICE has given the peer up. Then the connection ends as closed, as if somebody had hung up."""
        return str(self._audio.sender.transport.transport.state) == "failed"

    def _listen(self) -> None:
        """Hear the peer, and let nobody else decode what it says."""
        for transceiver in self._pc.getTransceivers():
            if transceiver is not self._audio:
                transceiver.direction = "inactive"
        _tap(self._audio.receiver, self._inlet)
        self._gather_loopback()

    def _gather_loopback(self) -> None:
        """Let ICE gather loopback addresses, which its library leaves out."""
        connection: Any = self._audio.sender.transport.transport.iceGatherer._connection
        gather = connection.get_component_candidates
        if connection.__dict__.get("get_component_candidates") is not None:
            return

        async def with_loopback(component: int, addresses: list[str], *rest: Any) -> Any:
            wanted = list(addresses)
            if self._with_loopback or not wanted:
                wanted += LOOPBACK
            return await gather(component, wanted, *rest)

        connection.get_component_candidates = with_loopback


def _sections(sdp: str, message: str) -> set[str]:
    """The kinds of media sections of a description. Raises `RemoteProtocolError` where it is none, or too much."""
    lines = sdp.splitlines()
    if len(lines) > LINES_MAX or sum(line.startswith("m=") for line in lines) > SECTIONS_MAX:
        raise RemoteProtocolError(message)
    try:
        described = SessionDescription.parse(sdp)
    except Exception as error:  # it was not written for foreign text
        raise RemoteProtocolError(message) from error
    if not sdp.startswith("v=0"):
        raise RemoteProtocolError(message)
    return {media.kind for media in described.media if media.port}


def _opus() -> list[Any]:
    return [codec for codec in RTCRtpSender.getCapabilities("audio").codecs if codec.mimeType == "audio/opus"]


class _Tap:
    """Stands where aiortc has a buffer against jitter, which answers each loss with a third of a second of delay, and
    behind it a thread that decodes. All that comes goes to the inlet; aiortc keeps its statistics and nothing else."""

    capacity = 1

    def __init__(self, inlet: Inlet) -> None:
        self._inlet = inlet

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """A packet has arrived."""
        self._inlet.take(Arrived(packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload))
        return False, None


def _tap(receiver: RTCRtpReceiver, inlet: Inlet) -> None:
    name = "_RTCRtpReceiver__jitter_buffer"
    if not hasattr(receiver, name):
        raise RuntimeError("This version of aiortc is not known: its receiver has no jitter buffer to replace.")
    setattr(receiver, name, _Tap(inlet))
