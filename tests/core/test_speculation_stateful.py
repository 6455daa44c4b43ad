"""A session that prepares its answers says what one says that does not, whatever the engines do meanwhile.

Two machines hear the same client. Beside the one that prepares, the engines say as much ahead as hypothesis likes, in
any order; beside the other there is nothing to be said. Events are compared without the deltas, whose order among each
other depends on the engines, and with ids by the order in which they appear; audio and text are in the conversation.
"""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stateful_world import pipeline

from vivavoce.core.limits import Limits
from vivavoce.core.messages import CallMcpTool, Input, Opened, Send
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import ScriptedTranscriber, speech_in_words
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import InputText, Message
from vivavoce.server.surroundings import abilities
from vivavoce.testing.playbook import Moment, counting_ids
from vivavoce.testing.rehearsal import DETECTION, Rehearsal
from vivavoce.testing.sounds import silence, tone

STEP_MS = 20
ID = re.compile(r'"(?:item|resp|call|mcp|mcpl|mcpr|conv)_\d+"')
FUNCTION = cfg.FunctionTool(name="look", parameters={"type": "object"})
SERVER = cfg.McpTool(server_label="notes", server_url="https://notes.example", require_approval="never")


def heard(**fields: object) -> ev.SessionUpdate:
    into = cfg.AudioInput(**fields)  # type: ignore[arg-type]
    return ev.SessionUpdate(session=cfg.RealtimeSession(audio=cfg.AudioConfig(input=into)))


def written(text: str) -> ev.ConversationItemCreate:
    return ev.ConversationItemCreate(item=Message(role="user", content=(InputText(text=text),)))


CHANGES: tuple[Input, ...] = (
    ev.SessionUpdate(session=cfg.RealtimeSession(instructions="Be rude.")),
    ev.SessionUpdate(session=cfg.RealtimeSession(output_modalities=("text",))),
    ev.SessionUpdate(session=cfg.RealtimeSession(tools=())),
    ev.SessionUpdate(session=cfg.RealtimeSession(max_output_tokens=2)),
    heard(turn_detection=None),
    heard(turn_detection=cfg.ServerVad(silence_duration_ms=300, create_response=False)),
    heard(turn_detection=cfg.ServerVad(silence_duration_ms=300)),
    heard(transcription=cfg.Transcription(model="scripted", language="de")),
    written("hello"),
    written('call look {"at": 1}'),
    ev.ResponseCreate(),
    ev.InputAudioBufferCommit(),
    ev.InputAudioBufferClear(),
)
"""What a client may say in a pause."""


def said(audio: bytes) -> str:
    """A long turn asks for a tool."""
    words = speech_in_words(audio)
    return "First say so, then call look_up {}" if int(words.split()[2]) >= 300 else words


def engines() -> Pipeline:
    return replace(pipeline(32_000), transcriber=ScriptedTranscriber(script=said, hears_silence=False))


class World:
    """One of the two machines, and what it said."""

    def __init__(self, pipeline: Pipeline, speculation_ms: int) -> None:
        self.session = Session(
            id="sess_1",
            model="scripted",
            ids=counting_ids(),
            expires_at=0,
            limits=Limits(speculation_ms=speculation_ms, speculations_max=3, speculated_phrases_max=1),
            surroundings=Surroundings(abilities=abilities(pipeline)),
        )
        self.said: list[str] = []
        self.calls = 0
        self._ids: dict[str, str] = {}
        self.rehearsal = Rehearsal(self.session, pipeline, witness=self._witness)
        self.rehearsal.say(Opened())

    def _witness(self, moment: Moment) -> None:
        message = moment.message
        self.calls += isinstance(message, CallMcpTool)
        if isinstance(message, Send) and not message.event.type.endswith(".delta"):
            event = msgspec.structs.replace(message.event, event_id="")
            text = msgspec.json.encode(event).decode()
            self.said.append(ID.sub(lambda found: self._ids.setdefault(found[0], f'"id {len(self._ids)}"'), text))

    @property
    def audio(self) -> list[bytes]:
        """What the assistant said."""
        conversation = self.session.conversation
        return [entry.audio for item_id in conversation.item_ids if (entry := conversation.entry(item_id)) is not None]

    @property
    def ahead(self) -> list[str]:
        """The streams of engines that work ahead."""
        draft = self.session._speculation._draft
        if draft is None:
            return []
        owners = {draft.hearing.item_id, *((draft.plan.wanted.response_id,) if draft.plan else ())}
        return [name for name in self.rehearsal.streams if owners & set(self.rehearsal._streams[name].owners)]

    def say(self, input: Input) -> None:
        """Say it, and let the engines finish what is no speculation."""
        self.rehearsal.say(input)
        self.finish()

    def finish(self) -> None:
        """Scores come first, as they do in the server."""
        while waiting := [name for name in self.rehearsal.streams if name not in self.ahead]:
            self.rehearsal.deliver(DETECTION if DETECTION in waiting else waiting[0])


class TwoWorlds(RuleBasedStateMachine):
    @initialize(
        semantic=st.booleans(), told=st.booleans(), tools=st.sampled_from([(), (FUNCTION,), (SERVER,)]), ms=st.just(60)
    )
    def open(self, semantic: bool, told: bool, tools: tuple[cfg.Tool, ...], ms: int) -> None:
        self.plain, self.ahead = World(engines(), 0), World(engines(), ms)
        detection = cfg.SemanticVad(eagerness="high") if semantic else cfg.ServerVad(silence_duration_ms=300)
        transcription = cfg.Transcription(model="scripted") if told else None
        into = cfg.AudioInput(turn_detection=detection, transcription=transcription)
        self.say(ev.SessionUpdate(session=cfg.RealtimeSession(audio=cfg.AudioConfig(input=into), tools=tools)))

    def say(self, input: Input) -> None:
        for world in (self.plain, self.ahead):
            world.say(input)

    def hear(self, audio: bytes) -> None:
        step = len(tone(STEP_MS))
        for at in range(0, len(audio), step):
            self.say(ev.InputAudioBufferAppend(audio=audio[at : at + step]))

    @rule(ms=st.sampled_from([20, 80, 200]))
    def speak(self, ms: int) -> None:
        self.hear(tone(ms))

    @rule(ms=st.sampled_from([40, 80, 160, 400]))
    def be_silent(self, ms: int) -> None:
        self.hear(silence(ms))

    @rule(data=st.data(), times=st.sampled_from([1, 3, 5, 30]))
    def work_ahead(self, data: st.DataObject, times: int) -> None:
        said = list(self.ahead.said)
        for _ in range(times):
            if self.ahead.ahead:
                self.ahead.rehearsal.deliver(data.draw(st.sampled_from(self.ahead.ahead)))
        assert self.ahead.said == said, "nothing that is prepared may reach the wire"

    @precondition(lambda self: self.ahead.rehearsal.late)
    @rule()
    def engines_come_too_late(self) -> None:
        _, effects = self.ahead.rehearsal.deliver_late()
        assert effects == []

    @rule(change=st.sampled_from(CHANGES))
    def change(self, change: Input) -> None:
        self.say(change)

    # Whole turns, because single steps seldom add up to one.

    @rule(
        data=st.data(),
        ms=st.sampled_from([200, 400]),
        times=st.sampled_from([0, 3, 6, 12, 40]),
        change=st.sampled_from([None, None, *CHANGES]),
        goes_on=st.booleans(),
    )
    def speak_a_turn(self, data: st.DataObject, ms: int, times: int, change: Input | None, goes_on: bool) -> None:
        self.hear(tone(ms) + silence(100))
        self.work_ahead(data, times)
        if change is not None:
            self.say(change)
        if goes_on:
            self.hear(tone(100) + silence(60))
            self.work_ahead(data, times)
        self.hear(silence(400))

    @precondition(lambda self: len(self.plain.session.conversation))
    @rule()
    def delete_the_last_item(self) -> None:
        for world in (self.plain, self.ahead):
            world.say(ev.ConversationItemDelete(item_id=world.session.conversation.last_item_id or ""))

    @invariant()
    def both_say_the_same(self) -> None:
        assert self.ahead.said == self.plain.said
        assert self.ahead.calls == self.plain.calls

    @invariant()
    def both_hold_the_same_audio(self) -> None:
        assert self.ahead.audio == self.plain.audio

    @invariant()
    def nothing_is_left_of_what_was_dropped(self) -> None:
        is_open = self.ahead.session._listening.open_item_id is not None
        assert is_open or self.ahead.session._speculation._draft is None
        assert is_open or self.ahead.rehearsal.streams == ()


TestTwoWorlds = TwoWorlds.TestCase
TestTwoWorlds.settings = settings(stateful_step_count=30)
