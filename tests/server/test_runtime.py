from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from in_process import MANUAL, TEXT_ONLY, call, watched

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.limits import Limits
from vivavoce.engines import Finish, Piece, Prompt, TextPiece
from vivavoce.engines.scripted import ScriptedSettings, ScriptedVadSettings, scripted_pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import FunctionCall, InputAudio, Message
from vivavoce.server.runtime import ConnectionLimits
from vivavoce.server.work import TASKS_MAX
from vivavoce.testing import sounds
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport


def tone(ms: int) -> bytes:
    return bytes(sounds.tone(ms))


def silence(ms: int) -> bytes:
    return bytes(sounds.silence(ms))


class Weightless:
    """An engine of a test's own: nothing to load."""

    async def warm_up(self) -> None:
        pass

    async def close(self) -> None:
        pass


# --- turns ------------------------------------------------------------------------------------------------------------


def test_a_written_turn_is_answered_with_speech() -> None:
    async def main() -> None:
        async with call() as one:
            done = await one.answer("hello")
            assert done.response.status == "completed"
            watched(one.seen)
            assert PCM16_24K.duration_ms(b"".join(one.audio())) == len("echo: hello") * 60
            assert one.client.conversation.items == one.session.conversation.items

    run(main())


def test_a_spoken_turn_is_found_transcribed_and_answered() -> None:
    async def main() -> None:
        async with call() as one:
            await one.client.update_session(
                cfg.RealtimeSession(
                    audio=cfg.AudioConfig(
                        input=cfg.AudioInput(
                            transcription=cfg.Transcription(model="any"),
                            turn_detection=cfg.ServerVad(silence_duration_ms=500, prefix_padding_ms=0),
                        )
                    )
                )
            )
            await one.client.append_audio(silence(300) + tone(1_000) + silence(800))
            await one.until("response.done")
            watched(one.seen)
            assert "input_audio_buffer.speech_started" in one.types
            heard = next(event for event in one.seen if event.type.endswith("transcription.completed"))
            assert isinstance(heard, ev.ConversationItemInputAudioTranscriptionCompleted)
            assert heard.transcript.startswith("audio of 1")

    run(main())


def test_the_user_interrupts_an_answer() -> None:
    async def main() -> None:
        pace = ScriptedSettings(piece_delay_s=0.1)
        async with call(scripted_pipeline(synthesizer=pace)) as one:
            await one.say("a long sentence that takes a long time to say")
            await one.client.create_response()
            await one.until("response.output_audio.delta")
            await one.client.append_audio(tone(500))
            done = await one.until("response.done")
            assert isinstance(done, ev.ResponseDone)
            assert done.response.status == "cancelled"
            watched(one.seen)

    run(main())


def test_a_function_call_is_answered_and_goes_on() -> None:
    async def main() -> None:
        async with call() as one:
            done = await one.answer('call weather {"city": "Paris"}', TEXT_ONLY)
            (item,) = done.response.output
            assert isinstance(item, FunctionCall)
            assert item.arguments == '{"city": "Paris"}'

    run(main())


@pytest.mark.parametrize(
    ("format", "chunk_bytes"), [(cfg.PcmuFormat(), 800), (cfg.PcmaFormat(), 800), (cfg.PcmFormat(), 4_800)]
)
def test_speech_comes_in_the_format_asked_for_in_chunks_of_100_ms(format: cfg.AudioFormat, chunk_bytes: int) -> None:
    async def main() -> None:
        async with call() as one:
            output = cfg.ResponseAudioConfig(output=cfg.ResponseAudioOutput(format=format))
            await one.answer("say it", ev.ResponseParams(audio=output))
            first, *middle, last = one.audio()
            assert 0 < len(first) <= chunk_bytes
            assert {len(chunk) for chunk in middle} == {chunk_bytes}
            assert 0 < len(last) <= chunk_bytes
            total_ms = sum(map(len, one.audio())) * 100 // chunk_bytes
            assert total_ms == len("echo: say it") * 60

    run(main())


class Slow16k(Weightless):
    """Speaks at 16 kHz, in pieces that are no whole number of samples."""

    rate_hz = 16_000

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        audio = bytes(16_000 * 2)  # one second
        for start in range(0, len(audio), 999):
            await asyncio.sleep(0.01)
            yield audio[start : start + 999]


def test_a_synthesizer_of_another_rate_is_resampled_without_loss() -> None:
    async def main() -> None:
        async with call(replace(scripted_pipeline(), synthesizer=Slow16k())) as one:
            await one.answer("x")
            assert sum(map(len, one.audio())) == 24_000 * 2
            assert all(len(chunk) % 2 == 0 for chunk in one.audio())

    run(main())


def test_the_first_audio_does_not_wait_for_a_whole_chunk() -> None:
    class Dripping(Weightless):
        rate_hz = 24_000

        async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
            for _ in range(20):
                await asyncio.sleep(0.01)
                yield bytes(PCM16_24K.bytes_of(10))

    async def main() -> None:
        async with call(replace(scripted_pipeline(), synthesizer=Dripping())) as one:
            await one.say("x")
            began = asyncio.get_running_loop().time()
            await one.client.create_response()
            await one.until("response.output_audio.delta")
            assert asyncio.get_running_loop().time() - began == pytest.approx(0.01)
            await one.until("response.done")
            assert [PCM16_24K.duration_ms(chunk) for chunk in one.audio()] == [10, 100, 90]

    run(main())


def test_user_audio_in_g711_is_transcribed_at_its_own_length() -> None:
    async def main() -> None:
        async with call() as one:
            await one.client.update_session(
                cfg.RealtimeSession(
                    audio=cfg.AudioConfig(
                        input=cfg.AudioInput(
                            format=cfg.PcmuFormat(),
                            turn_detection=None,
                            transcription=cfg.Transcription(model="any"),
                        )
                    )
                )
            )
            await one.client.append_audio(b"\xff" * 8 * 1_230)
            await one.client.commit_audio()
            heard = await one.until("conversation.item.input_audio_transcription.completed")
            assert isinstance(heard, ev.ConversationItemInputAudioTranscriptionCompleted)
            assert heard.transcript == "audio of 1230 ms"

    run(main())


def test_long_audio_is_scored_in_slices_while_others_run() -> None:
    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with call() as one:
            counting = asyncio.create_task(count())
            await one.client.append_audio(silence(20_000) + tone(500))
            await one.until("input_audio_buffer.speech_started")
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)
        assert turns > 20_000 // 400

    run(main())


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_session_ends_at_its_time_to_the_millisecond() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with call(limits=Limits(session_ms_max=3_600_000)) as one:
            error = await one.until("error")
            assert isinstance(error, ev.ErrorEvent)
            assert error.error.code == "session_expired"
            with pytest.raises(ConnectionClosed, match=r"1001 Your session hit the maximum duration of 60 minutes\."):
                await one.client.recv()
        assert loop.time() - began == pytest.approx(3_600)

    run(main())


def test_it_is_known_why_a_session_has_ended() -> None:
    async def main() -> None:
        async with call() as one:
            await one.client.close()
            await one.running
            assert one.runtime.ended == "closed by the client (1000)"
        async with call(limits=Limits(session_ms_max=9_000)) as one:
            await one.until("error")
            await one.running
            assert one.runtime.ended == "Your session hit the maximum duration of 9 seconds (1001)"
            assert one.runtime.lasted_s == pytest.approx(9)

    run(main())


def test_an_engine_that_says_nothing_is_given_up() -> None:
    async def main() -> None:
        silent = ScriptedSettings(first_delay_s=1_000_000)
        async with call(scripted_pipeline(language_model=silent), limits=Limits(engine_silence_ms_max=7_000)) as one:
            began = asyncio.get_running_loop().time()
            done = await one.answer("hello")
            assert done.response.status == "failed"
            assert asyncio.get_running_loop().time() - began == pytest.approx(7)

    run(main())


# --- engines that fail ------------------------------------------------------------------------------------------------


def test_an_engine_error_fails_the_response_and_not_the_session() -> None:
    async def main() -> None:
        async with call(scripted_pipeline(language_model=ScriptedSettings(fail_at_piece=2))) as one:
            done = await one.answer("one two three")
            assert done.response.status == "failed"
            details = done.response.status_details
            assert details
            assert details.error
            assert details.error.code == "scripted_failure"
            watched(one.seen)
            await one.client.update_session(cfg.RealtimeSession(instructions="still here"))
            await one.until("session.updated")

    run(main())


def test_a_voice_that_fails_leaves_the_answer_as_text() -> None:
    async def main() -> None:
        async with call(scripted_pipeline(synthesizer=ScriptedSettings(fail_at_piece=2))) as one:
            done = await one.answer("one two three")
            assert done.response.status == "completed"
            failures = [event for event in one.seen if isinstance(event, ev.ErrorEvent)]
            assert [failure.error.code for failure in failures] == ["scripted_failure"]
            await one.client.update_session(cfg.RealtimeSession(instructions="still here"))
            await one.until("session.updated")

    run(main())


def test_a_transcription_that_fails_is_told() -> None:
    async def main() -> None:
        async with call(scripted_pipeline(transcriber=ScriptedSettings(fail_at_piece=2))) as one:
            listening = cfg.AudioInput(turn_detection=None, transcription=cfg.Transcription(model="any"))
            await one.client.update_session(cfg.RealtimeSession(audio=cfg.AudioConfig(input=listening)))
            await one.client.append_audio(tone(200))
            await one.client.commit_audio()
            failed = await one.until("conversation.item.input_audio_transcription.failed")
            assert isinstance(failed, ev.ConversationItemInputAudioTranscriptionFailed)
            assert failed.error.code == "scripted_failure"

    run(main())


class Broken(Weightless):
    """A language model with a bug."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        yield TextPiece("well")
        raise KeyError("the engine's own business")


def test_a_bug_in_an_engine_fails_the_response_and_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with call(replace(scripted_pipeline(), language_model=Broken())) as one:
            done = await one.answer("hello")
            details = done.response.status_details
            assert details
            assert details.error
            assert details.error.code == "engine_error"
            assert "own business" not in str(details.error.message)

    run(main())
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


class Endless(Weightless):
    """A language model that forgets to finish."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        yield TextPiece("that is all")


class Chatty(Weightless):
    """A language model that goes on after its end."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        yield TextPiece("that is all")
        yield Finish(output_tokens=3)
        yield TextPiece("and another thing")


@pytest.mark.parametrize("model", [Endless(), Chatty()])
def test_a_language_model_that_ends_in_its_own_way_still_ends(model: Endless | Chatty) -> None:
    async def main() -> None:
        async with call(replace(scripted_pipeline(), language_model=model)) as one:
            done = await one.answer("hello", TEXT_ONLY)
            assert done.response.status == "completed"
            (item,) = done.response.output
            assert isinstance(item, Message)
            assert item.content[0].text == "that is all"  # type: ignore[union-attr]

    run(main())


def test_a_detector_that_fails_is_told_once_and_tried_again_after_a_clear(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with call(scripted_pipeline(vad=ScriptedVadSettings(fail_at_frame=30))) as one:
            for _ in range(10):
                await one.client.append_audio(silence(200))
            await one.client.send(ev.InputAudioBufferClear())
            await one.until("input_audio_buffer.cleared")
            errors = [event.error for event in one.seen if isinstance(event, ev.ErrorEvent)]
            assert [(error.type, error.code) for error in errors] == [("server_error", "scripted_failure")]
            await one.client.append_audio(tone(400))
            await one.until("input_audio_buffer.speech_started")

    run(main())
    assert "speech detection has failed" in caplog.text


def test_more_engine_work_than_a_session_may_have_is_refused() -> None:
    async def main() -> None:
        never = scripted_pipeline(transcriber=ScriptedSettings(first_delay_s=1_000))
        async with call(never) as one:
            listening = cfg.AudioInput(turn_detection=None, transcription=cfg.Transcription(model="any"))
            await one.client.update_session(cfg.RealtimeSession(audio=cfg.AudioConfig(input=listening)))
            for _ in range(TASKS_MAX + 1):
                await one.client.create_item(Message(role="user", content=(InputAudio(audio=tone(100)),)))
            failed = await one.until("conversation.item.input_audio_transcription.failed")
            assert isinstance(failed, ev.ConversationItemInputAudioTranscriptionFailed)
            assert failed.error.code == "too_much_work"

    run(main())


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_cancelling_does_not_wait_for_the_engine() -> None:
    async def main() -> None:
        deaf = ScriptedSettings(piece_delay_s=1, ignore_cancel=True)
        async with call(scripted_pipeline(language_model=deaf)) as one:
            await one.say("one two three four five six")
            await one.client.create_response(TEXT_ONLY)
            await one.until("response.output_text.delta")
            began = asyncio.get_running_loop().time()
            await one.client.cancel_response()
            done = await one.until("response.done")
            assert isinstance(done, ev.ResponseDone)
            assert done.response.status == "cancelled"
            assert asyncio.get_running_loop().time() == began
            second = await one.answer("again", TEXT_ONLY)
            assert second.response.status == "completed"
            watched(one.seen)

    run(main())


class Deaf(Weightless):
    """A language model that nothing can stop."""

    def __init__(self) -> None:
        self.freed = asyncio.Event()

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        while not self.freed.is_set():
            try:
                await self.freed.wait()
            except asyncio.CancelledError:
                continue
        yield Finish()


def test_an_engine_that_nothing_can_stop_is_abandoned_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        model = Deaf()
        before = asyncio.all_tasks()
        limits = ConnectionLimits(engine_grace_ms=3_000)
        pipeline = replace(scripted_pipeline(), language_model=model)
        async with call(pipeline, connection_limits=limits, left=1) as one:
            await one.say("hello")
            await one.client.create_response()
            await one.until("response.created")
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began == pytest.approx(3)
        model.freed.set()
        await asyncio.gather(*(asyncio.all_tasks() - before))

    run(main())
    assert "did not stop within 3 s and is abandoned" in caplog.text


# --- the end ----------------------------------------------------------------------------------------------------------


def test_when_the_client_goes_nothing_is_left() -> None:
    async def main() -> None:
        pace = ScriptedSettings(piece_delay_s=1)
        async with call(scripted_pipeline(transcriber=pace, language_model=pace, synthesizer=pace)) as one:
            await one.client.update_session(MANUAL)
            await one.client.append_audio(tone(300))
            await one.client.commit_audio()
            await one.client.create_response()
            await one.until("response.created")
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() == began

    run(main())


def test_when_the_session_is_cancelled_nothing_is_left() -> None:
    async def main() -> None:
        async with call(scripted_pipeline(language_model=ScriptedSettings(piece_delay_s=1))) as one:
            await one.say("hello")
            await one.client.create_response()
            await one.until("response.created")
            one.running.cancel()
            await asyncio.wait((one.running,))
            assert one.running.cancelled()

    run(main())


def test_a_drained_session_finishes_its_response_and_goes() -> None:
    async def main() -> None:
        async with call(scripted_pipeline(language_model=ScriptedSettings(piece_delay_s=1))) as one:
            await one.say("one two three")
            await one.client.create_response(TEXT_ONLY)
            await one.until("response.created")
            one.runtime.drain()
            await one.say("too late, but heard")
            done = await one.until("response.done")
            assert isinstance(done, ev.ResponseDone)
            assert done.response.status == "completed"
            with pytest.raises(ConnectionClosed, match="1001"):
                await one.until("nothing more")

    run(main())


def test_a_stopped_session_goes_at_once() -> None:
    async def main() -> None:
        async with call(scripted_pipeline(language_model=ScriptedSettings(piece_delay_s=1))) as one:
            await one.say("one two three")
            await one.client.create_response(TEXT_ONLY)
            await one.until("response.created")
            began = asyncio.get_running_loop().time()
            one.runtime.stop(1001, "The server is stopping.")
            with pytest.raises(ConnectionClosed, match=r"1001 The server is stopping\."):
                await one.until("response.done")
            assert asyncio.get_running_loop().time() == began

    run(main())


def test_a_bug_in_the_session_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with call() as one:

            def broken(*_: object) -> None:
                raise ZeroDivisionError

            one.session.handle = broken  # type: ignore[method-assign, assignment]
            await one.say("hello")
            with pytest.raises(ConnectionClosed, match=r"1011 The server has failed\."):
                await one.client.recv()

    run(main())
    assert "the session has failed" in caplog.text


def test_a_transport_with_a_bug_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(Throttled):
        async def receive(self) -> str | bytes:
            raise ZeroDivisionError

    async def main() -> None:
        async with call(wrap=Buggy) as one:
            with pytest.raises(ConnectionClosed, match=r"1011 The server has failed\."):
                await one.client.recv()

    run(main())
    assert "reading has failed" in caplog.text


# --- slow readers -----------------------------------------------------------------------------------------------------


class Throttled:
    """A transport whose peer takes one message, and then only what `release` lets through."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._allowed = asyncio.Semaphore(2)
        self.sent = 0

    def release(self, messages: int) -> None:
        for _ in range(messages):
            self._allowed.release()

    async def send(self, message: bytes) -> None:
        await self._allowed.acquire()
        self.sent += 1
        await self._inner.send(message)

    async def receive(self) -> str | bytes:
        return await self._inner.receive()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._inner.close(code, reason)


def test_a_client_that_stops_reading_is_closed_with_1008_after_the_stall_limit() -> None:
    async def main() -> None:
        limits = ConnectionLimits(stall_ms_max=20_000)
        async with call(wrap=Throttled, connection_limits=limits) as one:
            began = asyncio.get_running_loop().time()
            await one.say("a long story, please")
            await one.client.create_response()
            await one.running
            assert asyncio.get_running_loop().time() - began == pytest.approx(20)
            with pytest.raises(ConnectionClosed, match=r"1008 The client has stopped reading\."):
                await one.until("response.done")

    run(main())


def test_a_slow_client_slows_its_engines_down_and_loses_nothing() -> None:
    class Talkative(Weightless):
        rate_hz = 24_000
        made = 0

        async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
            for _ in range(200):
                await asyncio.sleep(0)
                self.made += 1
                yield bytes(PCM16_24K.bytes_of(100))

    async def main() -> None:
        synthesizer = Talkative()
        throttled: list[Throttled] = []

        def throttle(inner: Transport) -> Transport:
            throttled.append(Throttled(inner))
            return throttled[-1]

        limits = ConnectionLimits(outbox_bytes_max=50_000, inbox_inputs_max=4, stall_ms_max=20_000)
        pipeline = replace(scripted_pipeline(), synthesizer=synthesizer)
        async with call(pipeline, connection_limits=limits, wrap=throttle) as one:
            await one.say("x")
            await one.client.create_response()
            await asyncio.wait_for(one.client.recv(), 10)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one.client.recv(), 10)
            assert synthesizer.made < 20, "the engine waits for the client"
            for _ in range(400):
                throttled[0].release(1)
                await asyncio.sleep(0)
            await one.until("response.done")
            assert synthesizer.made == 200
            assert sum(map(len, one.audio())) == 200 * PCM16_24K.bytes_of(100)

    run(main())
