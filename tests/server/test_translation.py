"""A translation session alive: the real runtime and codecs at both ends, scripted engines, virtual time (T18)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.translating import Translating
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import CHARACTER_MS, ScriptedSettings, scripted_pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import translation as tr
from vivavoce.protocol.codec import TranslationClientCodec, TranslationServerCodec
from vivavoce.protocol.events import Unknown
from vivavoce.server.runtime import Runtime
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.sounds import silence, tone
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair


@dataclass(slots=True)
class Listener:
    """The client's end."""

    wire: Transport
    codec: TranslationClientCodec
    runtime: Runtime

    async def send(self, event: tr.TranslationClientEvent) -> None:
        await self.wire.send(self.codec.encode(event))

    async def say(self, audio: bytes) -> None:
        """Audio in appends of 100 ms, as a microphone gives it."""
        step = PCM16_24K.bytes_of(100)
        for at in range(0, len(audio), step):
            await self.send(tr.SessionInputAudioBufferAppend(audio=audio[at : at + step]))

    async def until(self, type: str) -> list[tr.TranslationServerEvent]:
        """Everything up to the first event of this type."""
        events: list[tr.TranslationServerEvent] = []
        while not events or events[-1].type != type:
            event = self.codec.decode(await self.wire.receive())
            assert not isinstance(event, Unknown)
            events.append(event)
        return events


@asynccontextmanager
async def listener(pipeline: Pipeline | None = None) -> AsyncIterator[Listener]:
    """An open translation session; no task is left of it at the end."""
    before = asyncio.all_tasks()
    client_end, server_end = pair(messages_max=10_000)
    machine = Translating(id="sess_1", model="scripted", ids=counting_ids(), expires_at=0)
    runtime = Runtime(machine, pipeline or scripted_pipeline(), TranslationServerCodec(), server_end)
    running = asyncio.create_task(runtime.run())
    one = Listener(client_end, TranslationClientCodec(), runtime)
    assert [event.type for event in await one.until("session.created")] == ["session.created"]
    try:
        yield one
    finally:
        await client_end.close(1000, "")
        await asyncio.wait((running,))
        running.result()
        assert asyncio.all_tasks() == before


def spoken(events: list[tr.TranslationServerEvent]) -> int:
    """Milliseconds of speech."""
    return PCM16_24K.duration_ms(b"".join(e.delta for e in events if isinstance(e, tr.SessionOutputAudioDelta)))


def written(events: list[tr.TranslationServerEvent], kind: type) -> str:
    return "".join(event.delta for event in events if isinstance(event, kind))


def test_t18_alive() -> None:
    async def main() -> None:
        async with listener() as one:
            wanted = tr.TranslationInput(transcription=tr.TranslationTranscription(model="any"))
            session = tr.TranslationSession(
                audio=tr.TranslationAudio(input=wanted, output=tr.TranslationOutput(language="es"))
            )
            await one.send(tr.TranslationSessionUpdate(session=session))
            await one.until("session.updated")
            await one.say(silence(400) + tone(1_000) + silence(600) + tone(500) + silence(600))
            await one.say(tone(300))
            await one.send(tr.SessionClose())
            events = await one.until("session.closed")
            source = written(events, tr.SessionInputTranscriptDelta)
            assert source == "audio of 1800 ms audio of 1100 ms audio of 400 ms"
            target = written(events, tr.SessionOutputTranscriptDelta)
            assert target == "echo: audio of 1800 ms echo: audio of 1100 ms echo: audio of 400 ms"
            assert spoken(events) == (len(target) - 2) * CHARACTER_MS, "the gaps are written, not spoken"
            deltas = [event for event in events if isinstance(event, tr.SessionOutputAudioDelta)]
            assert {(e.format, e.sample_rate, e.channels) for e in deltas} == {("pcm16", 24_000, 1)}
            positions = [event.elapsed_ms for event in events if hasattr(event, "elapsed_ms")]
            assert positions == sorted(positions)
            assert {position % 200 for position in positions} == {0}
            assert positions[-1] == 3_400
            with pytest.raises(ConnectionClosed) as closed:
                await one.wire.receive()
            assert closed.value.code == 1000

    run(main())


def test_a_failing_engine_leaves_the_stream_alive() -> None:
    async def main() -> None:
        async with listener(scripted_pipeline(synthesizer=ScriptedSettings(fail_at_piece=2))) as one:
            await one.say(tone(500) + silence(600) + tone(500) + silence(600))
            events = await one.until("error") + await one.until("error")
            assert [event.error.code for event in events if event.type == "error"] == ["scripted_failure"] * 2  # type: ignore[union-attr]
            await one.send(tr.SessionClose())
            await one.until("session.closed")

    run(main())


def test_what_the_schema_does_not_know_is_refused() -> None:
    async def main() -> None:
        async with listener() as one:
            await one.wire.send(
                b'{"type":"session.update","event_id":"mine","session":{"audio":{"output":{"voice":"x"}}}}'
            )
            *_, error = await one.until("error")
            assert error.error.param == "session.audio.output.voice"  # type: ignore[union-attr]
            assert error.error.event_id == "mine"  # type: ignore[union-attr]

    run(main())


def test_a_server_that_stops_says_so_behind_the_last_words() -> None:
    async def main() -> None:
        async with listener() as one:
            await one.say(tone(500))
            await one.send(tr.TranslationSessionUpdate(session=tr.TranslationSession()))
            await one.until("session.updated")
            one.runtime.drain()
            events = await one.until("session.closed")
            assert spoken(events) > 0
            with pytest.raises(ConnectionClosed) as closed:
                await one.wire.receive()
            assert closed.value.code == 1001

    run(main())
