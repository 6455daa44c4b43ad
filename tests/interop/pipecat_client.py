"""Conversations through `pipecat-ai`: its OpenAI realtime service with our URL, between the two halves of a context.

    python pipecat_client.py ws://127.0.0.1:PORT

prints one JSON object: what each conversation left, by title.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from conversations import MODEL, SERVER_VAD, SLOW_MODEL
from heard import CALL_REQUEST, RATE_HZ, chunks, spoken_audio
from loguru import logger
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.azure.realtime.llm import AzureRealtimeLLMService
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner

SECONDS_MAX = 20
CONFIGURED = "Transcription session configured"
WEATHER = FunctionSchema("get_weather", "The weather in a city.", {"city": {"type": "string"}}, ["city"])


async def get_weather(call: FunctionCallParams) -> None:
    """The weather in a city."""
    await call.result_callback(f"18 degrees in {call.arguments['city']}")


@dataclass
class Talk:
    """One pipeline, and the frames that passed on either side of the service."""

    service: Any
    worker: PipelineWorker
    context: LLMContext
    text: str = ""
    audio_bytes: int = 0
    user_said: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    responses: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    configured: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, frame: Frame) -> None:
        """Note a frame that passes."""
        match frame:
            case LLMTextFrame():
                self.text += frame.text
            case TTSAudioRawFrame():
                self.audio_bytes += len(frame.audio)
            case LLMFullResponseEndFrame():
                self.responses += 1
            case TranscriptionFrame():
                self.user_said.append(frame.text)
            case ErrorFrame():
                self.errors.append(frame.error)
        async with self.changed:
            self.changed.notify_all()

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Until this holds; looked at after every frame."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(is_true), SECONDS_MAX)

    async def until_configured(self) -> None:
        """Until the service has its session as it wants it, of which it tells nobody but the log."""
        await asyncio.wait_for(self.configured.wait(), SECONDS_MAX)

    async def speak(self) -> None:
        """Send a spoken turn in pieces of 100 ms."""
        for piece in chunks(spoken_audio()):
            await self.worker.queue_frame(InputAudioRawFrame(piece, RATE_HZ, 1))

    async def ask(self, text: str) -> None:
        """Put a message of the user into the context, and run."""
        self.context.add_message({"role": "user", "content": text})
        await self.worker.queue_frame(LLMRunFrame())

    def told(self) -> dict[str, Any]:
        """The whole of it, as JSON."""
        return {name: getattr(self, name) for name in ("text", "audio_bytes", "user_said", "errors")}


class Ears(FrameProcessor):
    """Passes every frame on, and tells those that go one way."""

    def __init__(self, direction: FrameDirection) -> None:
        super().__init__()
        self._direction = direction
        self.tell: Callable[[Frame], Awaitable[None]] | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if direction is self._direction and self.tell is not None:
            await self.tell(frame)


async def written(talk: Talk) -> None:
    """The question that begins every conversation: the service answers the context first, whatever follows."""
    await talk.ask("Good morning")
    await talk.until(lambda: talk.text == "echo: Good morning" and talk.responses >= 1)


async def spoken(talk: Talk) -> None:
    await written(talk)
    await talk.speak()
    await talk.until(lambda: bool(talk.user_said) and talk.responses >= 2)


async def unheard(talk: Talk) -> None:
    """A spoken turn that nobody transcribes."""
    await written(talk)
    await talk.speak()
    await talk.until(lambda: talk.responses >= 2)


async def manual(talk: Talk) -> None:
    await written(talk)
    await talk.worker.queue_frame(UserStartedSpeakingFrame())
    await talk.speak()
    await talk.worker.queue_frame(UserStoppedSpeakingFrame())
    await talk.until(lambda: bool(talk.user_said) and talk.responses >= 2)


async def calling(talk: Talk) -> None:
    talk.service.register_function("get_weather", get_weather)
    talk.context.set_tools(ToolsSchema(standard_tools=[WEATHER]))
    await talk.ask(CALL_REQUEST)
    await talk.until(lambda: "Paris" in talk.text)


async def cancelled(talk: Talk) -> None:
    await talk.ask("Tell me everything.")
    await talk.until(lambda: talk.audio_bytes > 0)
    await talk.worker.queue_frame(InterruptionFrame())
    await talk.until(lambda: talk.responses > 0)
    # pipecat ends a response by itself, before the server has: the answer to a question comes behind that ending.
    with contextlib.suppress(Exception):
        await talk.service.retrieve_conversation_item("item_nowhere")


async def barged_in(talk: Talk) -> None:
    await talk.ask("Tell me everything.")
    await talk.until(lambda: talk.audio_bytes > 0)
    heard = talk.audio_bytes
    await talk.speak()
    await talk.until(lambda: bool(talk.user_said) and talk.audio_bytes > heard)


async def mistaken(talk: Talk) -> None:
    """One error is taken for the answer to a question; the other one ends the conversation, as pipecat has it."""
    await written(talk)
    try:
        await talk.service.retrieve_conversation_item("item_nowhere")
    except Exception as error:
        talk.errors.append(str(error))
    await talk.service.send_client_event(events.InputAudioBufferCommitEvent())
    await talk.until(lambda: len(talk.errors) == 2)


async def transcribed(talk: Talk) -> None:
    await talk.until_configured()
    await talk.speak()
    await talk.until(lambda: len(talk.user_said) == 1)
    await talk.speak()
    await talk.until(lambda: len(talk.user_said) == 2)


async def transcribed_by_hand(talk: Talk) -> None:
    """The pipeline's own detection of turns, here a frame, commits them."""
    await talk.until_configured()
    await talk.speak()
    await talk.worker.queue_frame(VADUserStoppedSpeakingFrame())
    await talk.until(lambda: len(talk.user_said) == 1)


TRANSCRIPTION = events.InputAudioTranscription(model="whisper-1")
VAD = events.TurnDetection(silence_duration_ms=500, prefix_padding_ms=300)


def _with(turn_detection: Any, modality: Any = None) -> events.SessionProperties:
    heard = events.AudioInput(turn_detection=turn_detection, transcription=TRANSCRIPTION)
    return events.SessionProperties(
        output_modalities=[modality] if modality else None, audio=events.AudioConfiguration(input=heard)
    )


CONVERSATIONS: dict[str, tuple[Callable[[Talk], Awaitable[None]], str, events.SessionProperties]] = {
    "defaults": (unheard, MODEL, events.SessionProperties()),
    "written": (written, MODEL, _with(VAD, "text")),
    "azure_written": (written, MODEL, _with(VAD, "text")),
    "spoken": (spoken, MODEL, _with(VAD)),
    "semantic": (spoken, MODEL, _with(events.SemanticTurnDetection(eagerness="high"))),
    "manual": (manual, MODEL, _with(False)),
    "calling": (calling, MODEL, _with(VAD, "text")),
    "cancelled": (cancelled, SLOW_MODEL, _with(False)),
    "barged_in": (barged_in, SLOW_MODEL, _with(VAD)),
    "mistaken": (mistaken, MODEL, _with(VAD, "text")),
}


def _service(url: str, title: str, model: str, properties: events.SessionProperties) -> OpenAIRealtimeLLMService:
    kind, path = OpenAIRealtimeLLMService, "/v1/realtime"
    if title.startswith("azure"):
        kind, path = AzureRealtimeLLMService, "/openai/v1/realtime"
    settings = kind.Settings(model=model, session_properties=properties)
    return kind(api_key="any", base_url=url + path, settings=settings)


def _recognizer(url: str, turn_detection: Any) -> OpenAIRealtimeSTTService:
    return OpenAIRealtimeSTTService(api_key="any", base_url=f"{url}/v1/realtime", turn_detection=turn_detection)


async def _hold(converse: Callable[[Talk], Awaitable[None]], service: Any) -> dict[str, Any]:
    context = LLMContext([])
    user, assistant = LLMContextAggregatorPair(context)
    above, below = Ears(FrameDirection.UPSTREAM), Ears(FrameDirection.DOWNSTREAM)
    order = (
        [service, below] if isinstance(service, OpenAIRealtimeSTTService) else [user, above, service, below, assistant]
    )
    worker = PipelineWorker(Pipeline(order), params=PipelineParams(audio_in_sample_rate=RATE_HZ))
    talk = Talk(service, worker, context)
    above.tell = below.tell = talk.take
    listening = logger.add(lambda _: talk.configured.set(), filter=lambda record: CONFIGURED in record["message"])
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.ensure_future(runner.run())
    try:
        await converse(talk)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}", **talk.told()}
    finally:
        await worker.cancel()
        await running
        logger.remove(listening)
    return talk.told()


async def _hold_all(url: str) -> dict[str, Any]:
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    told = {}
    for title, (converse, model, properties) in CONVERSATIONS.items():
        told[title] = await _hold(converse, _service(url, title, model, properties))
    told["transcribed"] = await _hold(transcribed, _recognizer(url, SERVER_VAD))
    told["transcribed_by_hand"] = await _hold(transcribed_by_hand, _recognizer(url, False))
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_hold_all(sys.argv[1]))))
