"""What the stateful test of the session machine stands on: small limits, a talkative model, a replica per dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from vivavoce.core.account import Bill, Price
from vivavoce.core.conversation import Conversation
from vivavoce.core.limits import Limits
from vivavoce.core.messages import Effect, Send
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines import Piece, Pipeline, Prompt, TextPiece
from vivavoce.engines.scripted import (
    ScriptedLanguageModel,
    ScriptedModelSettings,
    ScriptedTranscriber,
    scripted_pipeline,
    speech_in_words,
)
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.codec import ClientCodec, Dialect, ServerCodec
from vivavoce.protocol.items import InputText, Message
from vivavoce.server.quota import Quota
from vivavoce.server.surroundings import abilities
from vivavoce.testing.fuzzing import ANSWERS
from vivavoce.testing.real_time_player import RealTimePlayer

LIMITS = Limits(
    session_ms_max=120_000,
    input_ms_max=3_000,
    turn_ms_max=2_000,
    audio_bytes_max=150_000,
    items_max=12,
    responses_max=3,
    response_chars_max=120,
    engine_silence_ms_max=5_000,
)
SUCCESS = {kind: list(types) for kind, types in ANSWERS.items()}
"""What a client event that succeeds is answered with, first of all."""

CLOSE_OUT = {
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.output_text.done",
    "response.function_call_arguments.done",
    "response.mcp_call_arguments.done",
    "response.mcp_call.failed",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
    "output_audio_buffer.stopped",
}
"""What may follow a cancellation."""

BESIDE: dict[type[ev.ClientEvent], set[str]] = {
    ev.ResponseCreate: {"conversation.item.added", "mcp_list_tools.in_progress"},
    ev.ConversationItemCreate: {"conversation.item.added", "response.mcp_call.in_progress"},
    ev.OutputAudioBufferClear: {"conversation.item.truncated"} | CLOSE_OUT,
}
"""What an event may lead to beside its answer: imports of tools, a call that was approved, and what was not heard."""

PROMPTS = {
    "polite": {
        "1": cfg.RealtimeSession(instructions="Be polite to {{who}}.", output_modalities=("text",)),
        "2": cfg.RealtimeSession(tools=(cfg.FunctionTool(name="bow"),), tool_choice="none"),
    }
}
PRICE = Price(text_out=1_000_000.0, transcription_minute=1.0)


class Allowance:
    """A rate limit that can be reached."""

    def __init__(self, requests: int, tokens: int) -> None:
        self._quotas = {"requests": Quota.a_minute(requests), "tokens": Quota.a_minute(tokens)}

    def take(self, tokens: int, now_ms: int) -> bool:
        now, requests = now_ms / 1000, self._quotas["requests"]
        if not requests.take(1, now):
            return False
        if self._quotas["tokens"].take(tokens, now):
            return True
        requests.give_back(1)
        return False

    def settle(self, reserved: int, used: int, now_ms: int) -> None:
        self._quotas["tokens"].give_back(reserved)
        self._quotas["tokens"].spend(used, now_ms / 1000)

    def limits(self, now_ms: int) -> tuple[ev.RateLimit, ...]:
        return tuple(
            ev.RateLimit(
                name="requests" if name == "requests" else "tokens",
                limit=int(quota.limit),
                remaining=quota.remaining(now_ms / 1000),
                reset_seconds=quota.reset_seconds(now_ms / 1000),
            )
            for name, quota in self._quotas.items()
        )


def pipeline(context_tokens: int) -> Pipeline:
    """The scripted engines, with a model that holds so much."""
    model = TalkativeModel(ScriptedModelSettings(context_tokens=context_tokens))
    transcriber = ScriptedTranscriber(script=speech_in_words, hears_silence=False)
    return replace(scripted_pipeline(), language_model=model, transcriber=transcriber)


def surroundings(
    engines: Pipeline, *, player: RealTimePlayer | None, is_limited: bool, budget: float | None
) -> Surroundings:
    """A server with everything."""
    return Surroundings(
        abilities=abilities(engines),
        account=Allowance(requests=6, tokens=2_000) if is_limited else None,
        bill=Bill(PRICE, budget),
        prompts=PROMPTS,
        player=player,
    )


def types_sent(effects: list[Effect]) -> list[str]:
    return [effect.event.type for effect in effects if isinstance(effect, Send)]


def wanted_ids(session: Session) -> set[str]:
    """Items of the conversation, and those that only a running response knows."""
    contexts = (run.terms.input or () for run in session._answering._runs.values())
    drafted = session._speculation._draft
    ahead = {drafted.hearing.item_id} if drafted is not None else set()
    known = {*session.conversation.item_ids, *(given(item.id, "") for items in contexts for item in items)}
    return known | ahead | {source for source, item_id in session._desk.hearing._sources.items() if item_id in known}


class TalkativeModel(ScriptedLanguageModel):
    """Says something before it calls a function where the user asks it to: a message and a call in one response."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The script, behind a sentence."""
        said = [item.content for item in prompt.items if isinstance(item, Message) and item.role == "user"]
        if any(isinstance(part, InputText) and part.text.startswith("First") for parts in said[-1:] for part in parts):
            yield TextPiece("Let me see. One ")
            yield TextPiece("moment")
        async for piece in super().generate(prompt):
            yield piece


class Replica:
    """A client's conversation: the fold of what comes through one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.server, self.client = ServerCodec(dialect), ClientCodec(dialect)
        self.conversation = Conversation(LIMITS)

    def take(self, event: ev.AnyServerEvent) -> None:
        seen = self.seen(event)
        if seen is not None:
            self.conversation.apply(seen)

    def seen(self, event: ev.AnyServerEvent) -> ev.AnyServerEvent | ev.Unknown | None:
        """The event as this dialect can say it; None where it has no such event."""
        frame = self.server.encode(event)
        return None if frame is None else self.client.decode(frame)

    def responses(self, conversation: Conversation) -> object:
        """What the dialect can say of another conversation's responses: beta does not count images."""
        events = (ev.ResponseDone(response=response) for response in conversation.responses.values())
        return [seen.response for event in events if isinstance(seen := self.seen(event), ev.ResponseDone)]

    def session(self, conversation: Conversation) -> object:
        """What the dialect can say of another conversation's session: beta lacks some of its fields."""
        assert conversation.session is not None
        seen = self.seen(ev.SessionUpdated(session=conversation.session))
        return seen.session if isinstance(seen, ev.SessionUpdated) else None


def check_buffers(session: Session) -> None:
    """Everything that the machine holds is within its limits; one item alone may be larger."""
    assert session._listening._audio.ticks <= LIMITS.input_ms_max * 24
    assert len(session._answering) <= LIMITS.responses_max
    spoken = [entry for entry in session.conversation._entries.values() if entry.audio]
    assert len(spoken) <= 1 or sum(len(entry.audio) for entry in spoken) <= LIMITS.audio_bytes_max
    assert len(session._desk.hearing._items) <= len(wanted_ids(session))
    heard = [item for item in session._desk.hearing._items.values() if item.audio]
    assert len(heard) <= 1 or sum(len(item.audio) for item in heard) <= LIMITS.audio_bytes_max
