"""Conversations through `openai-agents`: a `RealtimeAgent`, its runner, and the WebSocket model with our URL.

    python agents_client.py ws://127.0.0.1:PORT

prints one JSON object: what each conversation left, by title. All but `defaults` choose server VAD or none.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from conversations import MODEL, SERVER_VAD, SLOW_MODEL
from heard import CALL_REQUEST, chunks, spoken_audio

SECONDS_MAX = 20


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


class Talk:
    """One session, and what the SDK told about it."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.kinds: list[str] = []
        self.errors: list[str] = []
        self.history: list[Any] = []
        self.tools: list[str] = []
        self.audio_bytes = 0
        self._events = session.__aiter__()

    async def until(self, *kinds: str, when: Callable[[Any], bool] = lambda event: True) -> Any:
        """Hear on until an event of one of these kinds."""
        while True:
            event = await asyncio.wait_for(anext(self._events), SECONDS_MAX)
            kind = event.type if event.type != "raw_model_event" else f"raw.{event.data.type}"
            self._take(kind, event)
            if kind in kinds and when(event):
                return event
            if kind == "error" and "error" not in kinds:
                raise RuntimeError(f"the session told of an error: {event.error}")

    def _take(self, kind: str, event: Any) -> None:
        self.kinds.append(kind)
        match kind:
            case "error":
                self.errors.append(str(getattr(event.error, "code", event.error)))
            case "audio":
                self.audio_bytes += len(event.audio.data)
            case "tool_end":
                self.tools.append(event.output)
            case "history_updated":
                self.history = event.history

    async def until_said(self, role: str, text: str) -> None:
        """Until the history has a message of this role with this text, in writing or as a transcript."""
        while (role, text) not in self.said():
            await self.until("history_updated", "history_added")

    def said(self) -> list[tuple[str, str]]:
        """Roles and texts of the messages in the session's own history."""
        return [
            (item.role, getattr(part, "transcript", None) or getattr(part, "text", None) or "")
            for item in self.history
            if item.type == "message"
            for part in item.content
        ]

    async def speak(self, *, commit: bool = False) -> None:
        """Send a spoken turn in pieces of 100 ms."""
        pieces = chunks(spoken_audio())
        for number, piece in enumerate(pieces, 1):
            await self.session.send_audio(piece, commit=commit and number == len(pieces))

    def told(self) -> dict[str, Any]:
        """The whole of it, as JSON."""
        told = ("kinds", "errors", "tools", "audio_bytes")
        return {**{name: getattr(self, name) for name in told}, "said": self.said()}


async def defaults(talk: Talk) -> None:
    """A spoken turn with every setting as the SDK has it, which lets the meaning of the words end the turn."""
    await talk.speak()
    await talk.until("raw.turn_ended")
    while not all(text for _, text in talk.said()):
        await talk.until("history_updated", "history_added")


async def written(talk: Talk) -> None:
    await talk.session.send_message("Good morning")
    await talk.until_said("assistant", "echo: Good morning")
    await talk.until("raw.turn_ended")


async def spoken(talk: Talk) -> None:
    await talk.speak()
    await talk.until("raw.turn_ended")
    await talk.until_said("user", "audio of 1800 ms")


async def manual(talk: Talk) -> None:
    """Push to talk: the client ends the turn and asks for the answer."""
    await talk.speak(commit=True)
    await talk.session.model.send_event(_raw("response.create"))
    await talk.until("raw.turn_ended")
    await talk.until_said("user", "audio of 2400 ms")


async def calling(talk: Talk) -> None:
    await talk.session.send_message(CALL_REQUEST)
    await talk.until("tool_end")
    await talk.until_said("assistant", "tool said: 18 degrees in Paris")


async def cancelled(talk: Talk) -> None:
    await talk.session.send_message("Tell me everything.")
    await talk.until("audio")
    await talk.session.interrupt()
    await talk.until("audio_interrupted")
    await talk.until("raw.turn_ended")


async def barged_in(talk: Talk) -> None:
    await talk.session.send_message("Tell me everything.")
    await talk.until("audio")
    await talk.speak()
    await talk.until("audio_interrupted")
    await talk.until("raw.turn_ended")
    await talk.until("audio")


async def mistaken(talk: Talk) -> None:
    """A commit of nothing is an error that the SDK tells and survives."""
    await talk.session.model.send_event(_raw("input_audio_buffer.commit"))
    await talk.until("error")
    await written(talk)


def _raw(type: str) -> Any:
    from agents.realtime import RealtimeModelSendRawMessage

    return RealtimeModelSendRawMessage(message={"type": type})


VAD: Any = {"turn_detection": {**SERVER_VAD, "interrupt_response": True}}
CONVERSATIONS: dict[str, tuple[Callable[[Talk], Any], str, Any]] = {
    "defaults": (defaults, MODEL, {}),
    "written": (written, MODEL, {**VAD, "output_modalities": ["text"]}),
    "spoken": (spoken, MODEL, VAD),
    "manual": (manual, MODEL, {"turn_detection": None}),
    "calling": (calling, MODEL, VAD),
    "cancelled": (cancelled, SLOW_MODEL, {"turn_detection": None}),
    "barged_in": (barged_in, SLOW_MODEL, VAD),
    "mistaken": (mistaken, MODEL, {**VAD, "output_modalities": ["text"]}),
}


async def _hold(url: str, title: str) -> dict[str, Any]:
    hold, model, settings = CONVERSATIONS[title]
    agent = RealtimeAgent(name="interop", instructions="Be brief.", tools=[get_weather])
    runner = RealtimeRunner(agent, config={"tracing_disabled": True})
    session = await runner.run(
        model_config={
            "api_key": "sk-any",
            "url": f"{url}/v1/realtime?model={model}",
            "initial_model_settings": {"model_name": model, **settings},
        }
    )
    async with session:
        talk = Talk(session)
        await hold(talk)
    return talk.told()


async def _hold_all(url: str) -> dict[str, Any]:
    told = {}
    for title in CONVERSATIONS:
        try:
            told[title] = await _hold(url, title)
        except Exception as error:
            told[title] = {"failed": f"{type(error).__name__}: {error}"}
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_hold_all(sys.argv[1]))))
