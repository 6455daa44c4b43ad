"""The sound of a call between track and session, on virtual time: a real runtime, a real outlet, no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from av.packet import Packet

from vivavoce.client.connection import Connection
from vivavoce.core.abilities import Abilities
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import ScriptedSettings, scripted_pipeline
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ServerCodec
from vivavoce.protocol.items import InputText, Message
from vivavoce.server.media import CallMedia
from vivavoce.server.runtime import Runtime
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.referee import Referee
from vivavoce.testing.sounds import silence, tone
from vivavoce.testing.tapes import Tape
from vivavoce.testing.tapes.tracks import tracks_of
from vivavoce.testing.virtual_time import run
from vivavoce.transports.memory import pair
from vivavoce.transports.taping import Header, TapeWriter, Taping
from vivavoce.transports.webrtc import Outlet
from vivavoce.transports.webrtc.opus import OpusDecoder

PACKET_MS = 20
SOUND_RMS = 3_000


@dataclass(slots=True)
class Line:
    """A call without a network: the client's end, and the track that is being sent."""

    client: Connection
    media: CallMedia
    outlet: Outlet
    session: Session
    seen: list[ev.AnyServerEvent] = field(default_factory=list)
    packets: list[Packet[Any]] = field(default_factory=list)
    at_ms: dict[str, int] = field(default_factory=dict)
    """When an event of each type was seen last."""

    async def until(self, *types: str) -> Any:
        while True:
            event = await self.client.recv()
            assert not isinstance(event, ev.Unknown)
            self.seen.append(event)
            self.at_ms[event.type] = self.now_ms
            if event.type in types:
                return event

    @property
    def now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.seen]

    async def say(self, text: str) -> None:
        await self.client.create_item(Message(role="user", content=(InputText(text=text),)))
        await self.client.send(ev.ResponseCreate())

    async def hear(self, pcm: bytes) -> None:
        """The user's voice, at its pace."""
        for at in range(0, len(pcm), 960):
            await asyncio.sleep(PACKET_MS / 1000)
            self.media.hear(pcm[at : at + 960])

    def sounding_packets(self) -> int:
        """In how many of the packets that left there is sound."""
        decoder = OpusDecoder()
        pcm = [np.frombuffer(decoder.decode(bytes(packet)), "<i2") for packet in self.packets]
        return sum(float(np.sqrt(np.mean(samples.astype(float) ** 2))) > SOUND_RMS for samples in pcm)

    async def send_packets(self) -> None:
        while True:
            self.packets.append(await self.outlet.recv())


@asynccontextmanager
async def line(
    pipeline: Pipeline | None = None, *, ahead_ms_max: int = 30_000, tape: TapeWriter | None = None
) -> AsyncIterator[Line]:
    client_end, server_end = pair(messages_max=100_000)
    media, outlet = CallMedia(), Outlet(ahead_ms_max=ahead_ms_max)
    media.play_on(outlet)
    media.tape = tape
    wire = server_end if tape is None else Taping(server_end, tape)
    given = Surroundings(player=media, abilities=Abilities(audio_apart=True))
    vad = cfg.ServerVad(silence_duration_ms=300, prefix_padding_ms=0)
    session = Session(
        id="sess_1",
        model="scripted",
        ids=counting_ids(),
        expires_at=0,
        surroundings=given,
        configured=cfg.RealtimeSession(audio=cfg.AudioConfig(input=cfg.AudioInput(turn_detection=vad))),
    )
    codec = ServerCodec("ga", playback=True)
    runtime = Runtime(session, pipeline or scripted_pipeline(), codec, wire, media=media)
    client = Connection(client_end)
    one = Line(client, media, outlet, session)
    running = asyncio.create_task(runtime.run())
    sending = asyncio.create_task(one.send_packets())
    await client.open()
    await one.until("session.created")
    try:
        yield one
    finally:
        await client.close()
        await asyncio.wait((running,))
        sending.cancel()
        running.result()
        if "conversation.item.truncated" not in one.types:  # no referee can judge who has not heard the audio
            referee = Referee()
            for event in one.seen:
                referee.server(event)


def test_a2_what_is_played_is_told_in_the_order_of_t8() -> None:
    async def main() -> None:
        async with line() as call:
            await call.say("Hello.")
            await call.until("output_audio_buffer.stopped")
            order = [type for type in call.types if type.startswith(("output_audio_buffer", "response."))]
            assert order.index("response.content_part.added") < order.index("output_audio_buffer.started")
            assert order.index("response.done") < order.index("output_audio_buffer.stopped")
            assert "response.output_audio.delta" not in order
            entries = [call.session.conversation.entry(item_id) for item_id in call.session.conversation.item_ids]
            spoken_ms = next(entry.audio_ms for entry in entries if entry is not None and entry.audio_ms)
            played_ms = call.at_ms["output_audio_buffer.stopped"] - call.at_ms["output_audio_buffer.started"]
            assert abs(played_ms - spoken_ms) <= 2 * PACKET_MS

    run(main())


def test_a2_the_position_of_an_interruption_is_that_of_the_packets_sent() -> None:
    async def main() -> None:
        async with line() as call:
            await call.say("A long answer, of which much is not heard, since somebody speaks meanwhile.")
            await call.until("output_audio_buffer.started")
            await call.hear(silence(1_000) + tone(200))
            truncated = await call.until("conversation.item.truncated")
            sent_ms = PACKET_MS * call.sounding_packets()
            assert 1_000 <= truncated.audio_end_ms <= 1_200
            assert abs(truncated.audio_end_ms - sent_ms) <= 60
            assert call.types[-3:] == [
                "input_audio_buffer.speech_started",
                "output_audio_buffer.cleared",
                "conversation.item.truncated",
            ]
            assert call.outlet.unfinished() == ()
            await call.hear(silence(600))
            await call.until("output_audio_buffer.stopped")

    run(main())


def test_a_long_answer_waits_for_its_turn_to_be_played_and_can_be_interrupted_all_the_while() -> None:
    """The synthesizer is held up, not the session: the user is heard while the outlet is full."""

    async def main() -> None:
        async with line(ahead_ms_max=2_000) as call:
            await call.say("word " * 400)
            await call.until("output_audio_buffer.started")
            await call.hear(silence(10_000))
            assert 1_900 <= call.outlet.waiting_ms <= 2_100
            assert "response.done" not in call.types
            await call.hear(tone(200))
            truncated = await call.until("conversation.item.truncated")
            assert abs(truncated.audio_end_ms - 10_200) <= 400
            done = await call.until("response.done")
            assert done.response.status == "cancelled"

    run(main())


def test_a_synthesizer_slower_than_speech_makes_gaps_and_no_lies() -> None:
    async def main() -> None:
        slow = ScriptedSettings(piece_delay_s=0.3)
        async with line(scripted_pipeline(synthesizer=slow)) as call:
            await call.say("Slowly, please.")
            await call.until("output_audio_buffer.stopped")
            assert call.types.count("output_audio_buffer.started") == 1
            assert call.types.index("response.done") < call.types.index("output_audio_buffer.stopped")

    run(main())


def test_audio_waits_where_the_session_is_busy_and_keeps_its_order() -> None:
    async def main() -> None:
        async with line() as call:
            for at in range(600):
                call.media.hear(tone(20) if at < 300 else silence(20))  # in one moment, more than the inbox takes
            stopped = await call.until("input_audio_buffer.speech_stopped")
            assert abs(stopped.audio_end_ms - 6_300) <= 40

    run(main())


def test_the_sound_of_a_call_is_on_its_tape(tmp_path: Path) -> None:
    async def main() -> None:
        with TapeWriter(tmp_path / "call.tape.jsonl", Header(end="server", dialect="ga")) as tape:
            async with line(tape=tape) as call:
                await call.hear(tone(500) + silence(600))
                await call.until("output_audio_buffer.stopped")

    run(main())
    tracks = tracks_of(Tape.load(tmp_path / "call.tape.jsonl").entries)
    assert tracks.user.count(tone(500)[:48]) > 0
    assert any(tracks.assistant)
