"""Conversations through `livekit-plugins-openai`: its `RealtimeModel` with our URL, and the session of that, no room.

    python livekit_client.py ws://127.0.0.1:PORT

prints one JSON object: what each conversation left, by title.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from conversations import MODEL, PLAYED_MS, SERVER_VAD, SLOW_MODEL
from heard import CALL_REQUEST, RATE_HZ, chunks, spoken_audio
from livekit import rtc
from livekit.agents import llm, stt, utils
from livekit.plugins.openai import STT
from livekit.plugins.openai.realtime import RealtimeModel, RealtimeSession
from openai.types.beta.realtime.session import InputAudioTranscription, TurnDetection

SECONDS_MAX = 20
AZURE_VERSION = "2025-04-01-preview"


@llm.function_tool
async def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


@dataclass
class Answer:
    """What came of one response."""

    text: str = ""
    audio_ms: float = 0
    calls: list[llm.FunctionCall] = field(default_factory=list)
    message_id: str = ""


def spoken_frames() -> list[rtc.AudioFrame]:
    """A spoken turn in pieces of 100 ms."""
    return [rtc.AudioFrame(piece, RATE_HZ, 1, len(piece) // 2) for piece in chunks(spoken_audio())]


class Talk:
    """One session, and what the plugin told about it."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.errors: list[str] = []
        self.answers: list[Answer] = []
        self.user_said: list[str] = []
        self.kinds: list[str] = []
        self._generations: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
        self._changed = asyncio.Condition()
        session.on("generation_created", self._generations.put_nowait)
        session.on("error", lambda event: self.errors.append(event.error.body.code))
        session.on("input_audio_transcription_completed", self._hear_user)
        session.on("openai_server_event_received", lambda event: self._note(event["type"]))

    def _note(self, kind: str) -> None:
        self.kinds.append(kind)
        self._wake = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _hear_user(self, event: llm.InputTranscriptionCompleted) -> None:
        if event.is_final:
            self.user_said.append(event.transcript)

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Until this holds; looked at after every event."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(is_true), SECONDS_MAX)

    async def say(self, text: str) -> None:
        """Put a message of the user into the conversation."""
        context = self.session.chat_ctx.copy()
        context.add_message(role="user", content=text)
        await self.session.update_chat_ctx(context)

    def speak(self) -> None:
        """Send a spoken turn in pieces of 100 ms."""
        for frame in spoken_frames():
            self.session.push_audio(frame)

    async def answer(self) -> Answer:
        """The next response to its end."""
        generation = await asyncio.wait_for(self._generations.get(), SECONDS_MAX)
        answer = Answer()
        self.answers.append(answer)

        async def messages() -> None:
            async for message in generation.message_stream:
                answer.message_id = message.message_id
                await asyncio.gather(read(message), listen(message))

        async def read(message: llm.MessageGeneration) -> None:
            async for text in message.text_stream:
                answer.text += text

        async def listen(message: llm.MessageGeneration) -> None:
            async for frame in message.audio_stream:
                answer.audio_ms += 1_000 * frame.duration
                await self._notify()

        async def functions() -> None:
            async for call in generation.function_stream:
                answer.calls.append(call)

        await asyncio.wait_for(asyncio.gather(messages(), functions()), SECONDS_MAX)
        return answer

    def told(self) -> dict[str, Any]:
        """The whole of it, as JSON."""
        answers = [
            {"text": one.text, "audio_ms": round(one.audio_ms), "calls": [call.name for call in one.calls]}
            for one in self.answers
        ]
        return {"errors": self.errors, "answers": answers, "user_said": self.user_said, "kinds": self.kinds}


async def written(talk: Talk) -> None:
    await talk.say("Good morning")
    talk.session.generate_reply()
    await talk.answer()


async def spoken(talk: Talk) -> None:
    talk.speak()
    await talk.answer()
    await talk.until(lambda: bool(talk.user_said))


async def manual(talk: Talk) -> None:
    talk.speak()
    talk.session.clear_audio()
    talk.speak()
    talk.session.commit_audio()
    talk.session.generate_reply()
    await talk.answer()
    await talk.until(lambda: bool(talk.user_said))


async def calling(talk: Talk) -> None:
    await talk.session.update_tools([get_weather])
    await talk.say(CALL_REQUEST)
    talk.session.generate_reply()
    (call,) = (await talk.answer()).calls
    output = await get_weather(**json.loads(call.arguments))
    context = talk.session.chat_ctx.copy()
    context.items.append(llm.FunctionCallOutput(call_id=call.call_id, name=call.name, output=output, is_error=False))
    await talk.session.update_chat_ctx(context)
    talk.session.generate_reply()
    await talk.answer()


async def cancelled(talk: Talk) -> None:
    await talk.say("Tell me everything.")
    talk.session.generate_reply()
    answering = asyncio.ensure_future(talk.answer())
    await talk.until(lambda: "response.output_audio.delta" in talk.kinds)
    talk.session.interrupt()
    await answering


async def barged_in(talk: Talk) -> None:
    await talk.say("Tell me everything.")
    talk.session.generate_reply()
    answering = asyncio.ensure_future(talk.answer())
    await talk.until(lambda: "response.output_audio.delta" in talk.kinds)
    talk.speak()
    answer = await answering
    talk.session.truncate(message_id=answer.message_id, modalities=["audio"], audio_end_ms=PLAYED_MS)
    await talk.until(lambda: "conversation.item.truncated" in talk.kinds)
    await talk.until(lambda: talk.kinds.count("response.output_audio.delta") == 2)


async def mistaken(talk: Talk) -> None:
    """What it deletes is not there, which the plugin tells and survives."""
    talk.session.send_event({"type": "conversation.item.delete", "item_id": "item_nowhere"})
    await talk.until(lambda: "error" in talk.kinds)
    await written(talk)


VAD = TurnDetection(type="server_vad", silence_duration_ms=500, prefix_padding_ms=300, interrupt_response=True)
TEXT: Any = {"modalities": ["text"], "turn_detection": VAD}
CONVERSATIONS: dict[str, tuple[Callable[[Talk], Any], dict[str, Any]]] = {
    "defaults": (spoken, {}),
    "written": (written, TEXT),
    "spoken": (spoken, {"turn_detection": VAD}),
    "manual": (manual, {"turn_detection": None}),
    "calling": (calling, {"turn_detection": VAD}),
    "cancelled": (cancelled, {"turn_detection": VAD, "model": SLOW_MODEL}),
    "barged_in": (barged_in, {"turn_detection": VAD, "model": SLOW_MODEL}),
    "mistaken": (mistaken, TEXT),
    "azure_written": (written, TEXT),
    "azure_spoken": (spoken, {"turn_detection": VAD}),
    "azure_calling": (calling, {"turn_detection": VAD}),
}


def _model(url: str, title: str, http: aiohttp.ClientSession, settings: dict[str, Any]) -> RealtimeModel:
    """GA at the service's path; Azure's preview, which is the beta dialect, at its own."""
    base = url.replace("ws://", "http://", 1)
    if title.startswith("azure"):
        transcription = InputAudioTranscription(model="whisper-1")
        return RealtimeModel.with_azure(
            azure_deployment=MODEL,
            azure_endpoint=base,
            api_key="any",
            api_version=AZURE_VERSION,
            input_audio_transcription=transcription,
            http_session=http,
            **settings,
        )
    return RealtimeModel(**{"model": MODEL, **settings}, api_key="sk-any", base_url=f"{base}/v1", http_session=http)


async def _hold(url: str, title: str, http: aiohttp.ClientSession) -> dict[str, Any]:
    hold, settings = CONVERSATIONS[title]
    session = _model(url, title, http, settings).session()
    talk = Talk(session)
    try:
        await hold(talk)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}", **talk.told()}
    finally:
        await session.aclose()
    return talk.told()


async def _transcribe(url: str) -> dict[str, Any]:
    """Two turns through the plugin's speech-to-text, which opens a session for transcription."""
    base = url.replace("ws://", "http://", 1)
    recognizer = STT(base_url=f"{base}/v1", api_key="sk-any", use_realtime=True, turn_detection=SERVER_VAD)
    stream = recognizer.stream()
    finals: list[str] = []

    async def turn() -> None:
        for frame in spoken_frames():
            stream.push_frame(frame)
        async for event in stream:
            if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                finals.append(event.alternatives[0].text)
                return

    try:
        for _ in range(2):
            await asyncio.wait_for(turn(), SECONDS_MAX)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}", "user_said": finals}
    finally:
        await stream.aclose()
        await recognizer.aclose()
    return {"user_said": finals}


async def _hold_all(url: str) -> dict[str, Any]:
    async with utils.http_context.open() as http:
        told = {title: await _hold(url, title, http) for title in CONVERSATIONS}
        return {**told, "transcribed": await _transcribe(url)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_hold_all(sys.argv[1]))))
