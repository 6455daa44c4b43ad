"""The latency waterfall of a response: from what it counts, what it holds, and who is told (row G7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core import stopwatch as sw
from vivavoce.core.abilities import Abilities
from vivavoce.core.input_audio import ticks_of
from vivavoce.core.messages import (
    AudioSynthesized,
    CallStarted,
    Cancel,
    Generate,
    GenerationEnded,
    Gone,
    Input,
    Opened,
    PhraseSpoken,
    PlaybackStarted,
    Send,
    Speak,
    SpeechScored,
    StopPlayback,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
)
from vivavoce.core.playback import Played
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import InputText, Message, Response
from vivavoce.protocol.waterfall import KEY, Waterfall, waterfall_of
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.sounds import silence, tone

FRAME_MS = 20
NOISY = 10**9


@dataclass(slots=True)
class Told:
    """A watch that remembers."""

    waterfalls: list[Waterfall] = field(default_factory=list)
    statuses: list[object] = field(default_factory=list)
    errors: list[object] = field(default_factory=list)
    turns: int = 0

    def committed(self) -> None:
        self.turns += 1

    def measured(self, response: Response, waterfall: Waterfall) -> None:
        self.waterfalls.append(waterfall)
        self.statuses.append(response.status)

    def erred(self, error: ev.ErrorDetail) -> None:
        self.errors.append(error.code)


@dataclass(slots=True)
class Playing:
    """A player with something to play."""

    at: tuple[Played, ...] = ()

    def unfinished(self) -> tuple[Played, ...]:
        return self.at


class World:
    """A machine, a clock that the test moves, and engines that the test is."""

    def __init__(self, *, player: Any = None, tells: bool = False, detection: bool = True) -> None:
        self.told = Told()
        self.now_ms = 0
        self.events: list[Any] = []
        self.asked: list[Any] = []
        given = Surroundings(
            abilities=Abilities(speculation=True), watch=self.told, tells_waterfall=tells, player=player
        )
        self.session = Session(id="s", model="m", ids=counting_ids(), expires_at=0, surroundings=given)
        self.hand(Opened())
        if not detection:
            self._listen_by(None)

    def configure(self, **detection: Any) -> None:
        self._listen_by(cfg.ServerVad(**detection))

    def _listen_by(self, detection: cfg.ServerVad | None) -> None:
        audio = cfg.AudioConfig(input=cfg.AudioInput(turn_detection=detection))
        self.hand(ev.SessionUpdate(session=cfg.RealtimeSession(audio=audio)))

    def hand(self, input: Input, after_ms: int = 0) -> None:
        self.now_ms += after_ms
        for effect in self.session.handle(input, self.now_ms):
            (self.events if isinstance(effect, Send) else self.asked).append(
                effect.event if isinstance(effect, Send) else effect
            )

    def last(self, kind: type[Any]) -> Any:
        return self.of(kind)[-1]

    def of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.asked + self.events if isinstance(one, kind)]

    def hear(self, ms: int, *, speech: bool, takes_ms: int = FRAME_MS) -> None:
        """Audio, frame by frame, each of them `takes_ms` after the one before."""
        for _ in range(ms // FRAME_MS):
            sound = (tone if speech else silence)(FRAME_MS)
            self.hand(ev.InputAudioBufferAppend(audio=sound), takes_ms)
            self.hand(SpeechScored(1, FRAME_MS, (1.0 if speech else 0.0,)))

    def answer(self) -> str:
        """The engines answer with two phrases: 30 ms after another step each."""
        response_id = self.last(Generate).response_id
        self.hand(TextGenerated(response_id, ""), 10)
        self.hand(TextGenerated(response_id, "Hello there. "), 20)
        self.hand(TextGenerated(response_id, "How are you?"), 30)
        item_id = self.last(Speak).item_id
        self.hand(AudioSynthesized(response_id, item_id, silence(100)), 30)
        self.hand(PhraseSpoken(response_id, item_id, 0), 30)
        self.hand(GenerationEnded(response_id, "stop"), 30)
        self.hand(AudioSynthesized(response_id, item_id, silence(100)), 30)
        self.hand(PhraseSpoken(response_id, item_id, 1), 30)
        return response_id

    @property
    def done(self) -> Response:
        response: Response = self.last(ev.ResponseDone).response
        return response


def test_a_spoken_turn_counts_from_the_end_of_the_speech() -> None:
    world = World()
    world.hear(400, speech=True)
    world.hear(500, speech=False)
    world.hand(TranscriptEnded(world.last(Transcribe).item_id), 70)  # without text: the model is not asked
    (waterfall,) = world.told.waterfalls
    assert waterfall == Waterfall(
        counted_from="speech_end", at_ms=400, committed_ms=200, requested_ms=200, transcript_ms=570, done_ms=570
    )


def test_every_step_of_an_answer_to_a_turn_that_the_client_ends() -> None:
    world = World(detection=False)
    world.hear(400, speech=True)
    world.hand(ev.InputAudioBufferCommit(), 1_000)
    world.hand(TranscriptEnded(world.last(ev.InputAudioBufferCommitted).item_id), 40)
    world.hand(ev.ResponseCreate(), 5)
    world.answer()
    (waterfall,) = world.told.waterfalls
    assert waterfall == Waterfall(
        counted_from="commit",
        at_ms=1_400,
        committed_ms=0,
        transcript_ms=40,
        requested_ms=45,
        prompted_ms=45,
        first_token_ms=75,  # the report without text is none
        first_phrase_ms=75,
        first_audio_ms=135,
        first_sent_ms=135,
        generated_ms=195,
        spoken_ms=255,
        done_ms=255,
        audio_ms=200,
    )
    assert list(waterfall.steps)[:3] == ["committed", "transcript", "requested"]
    assert world.told.turns == 1
    assert world.session.spoken_ms == waterfall.audio_ms


def test_a_written_turn_counts_from_its_request_and_one_that_is_answered_is_not_answered_again() -> None:
    world = World(detection=False)
    world.hear(400, speech=True)
    world.hand(ev.InputAudioBufferCommit())
    world.hand(TranscriptEnded(world.last(ev.InputAudioBufferCommitted).item_id), 5)
    world.hand(ev.ConversationItemCreate(item=Message(role="user", content=(InputText(text="Hi"),))), 60_000)
    for _ in range(2):
        world.hand(ev.ResponseCreate(response=ev.ResponseParams(output_modalities=("text",))), 1_000)
        response_id = world.last(Generate).response_id
        world.hand(CallStarted(response_id, "look"), 10)
        world.hand(GenerationEnded(response_id, "stop"), 10)
    assert [one.counted_from for one in world.told.waterfalls] == ["request", "request"]
    first, again = world.told.waterfalls
    assert (first.first_token_ms, first.first_sent_ms, first.committed_ms, first.transcript_ms) == (
        10,
        None,
        None,
        None,
    )
    assert again.at_ms == first.at_ms + 1_020


def test_a_response_beside_the_conversation_answers_no_turn() -> None:
    world = World(detection=False)
    world.hear(400, speech=True)
    world.hand(ev.InputAudioBufferCommit())
    world.hand(TranscriptEnded(world.last(ev.InputAudioBufferCommitted).item_id), 5)
    aside = ev.ResponseParams(conversation="none", input=(), output_modalities=("text",))
    for params in (aside, ev.ResponseParams(output_modalities=("text",))):
        world.hand(ev.ResponseCreate(response=params), 100)
        world.hand(GenerationEnded(world.last(Generate).response_id, "stop"), 10)
    assert [one.counted_from for one in world.told.waterfalls] == ["request", "commit"]


@pytest.mark.parametrize("takes_ms", [20, 5, 0])
def test_the_end_of_speech_is_when_its_audio_was_there_however_fast_it_came(takes_ms: int) -> None:
    world = World()
    world.hear(400, speech=True, takes_ms=takes_ms)
    world.hear(500, speech=False, takes_ms=takes_ms)
    world.hand(Gone())
    assert world.told.waterfalls[0].at_ms == 20 * takes_ms
    assert world.told.waterfalls[0].committed_ms == 10 * takes_ms


@given(
    steps=st.lists(st.tuples(st.integers(1, 4_000), st.integers(0, 300)), min_size=1, max_size=200),
    where=st.floats(0, 1),
)
def test_what_is_said_of_an_arrival_lies_between_those_around_it(steps: list[tuple[int, int]], where: float) -> None:
    arrivals, noted = sw.Arrivals(), [(0, 0)]
    for ticks, ms in steps:
        noted.append((noted[-1][0] + ticks, noted[-1][1] + ms))
        arrivals.note(*noted[-1])
    tick = round(noted[-1][0] * where)
    if noted[-1][0] - tick > ticks_of(sw.ARRIVAL_MS) * (sw.ARRIVALS_MAX - 1):
        return  # longer ago than is remembered
    apart = ticks_of(sw.ARRIVAL_MS) + 4_000
    earliest = max((ms for at, ms in noted if at <= tick - apart), default=-NOISY)
    latest = min((ms for at, ms in noted if at >= tick + apart), default=noted[-1][1])
    assert earliest <= arrivals.when(tick) <= latest


def test_what_is_prepared_before_the_turn_has_ended_lies_before_the_commit() -> None:
    told = Told()
    watch = sw.Stopwatch(lambda: ticks_of(400), watch=told)
    for ms in range(20, 920, 20):
        watch.arrived(ticks_of(ms), ms)
    watch.asked(Generate("resp_9", "", ()), 650)
    watch.heard(TranscriptEnded("spec_1"), 640)
    watch.heard(TextGenerated("resp_9", "Hello."), 700)
    watch.asked(Generate("resp_8", "", ()), 660)
    watch.asked(Cancel("resp_8"), 670)  # prepared in vain
    watch.sent(ev.InputAudioBufferSpeechStopped(item_id="item_1", audio_end_ms=900), 900)
    watch.sent(ev.InputAudioBufferCommitted(item_id="item_1"), 900)
    watch.transcribing("item_1", "spec_1")
    response = Response(id="resp_9", conversation_id="conv", status="completed")
    watch.sent(ev.ResponseCreated(response=response), 900)
    watch.heard(TextGenerated("resp_8", "Stale."), 910)
    watch.sent(
        ev.ResponseOutputTextDelta(response_id="resp_9", item_id="i", output_index=0, content_index=0, delta="Hello."),
        900,
    )
    watch.sent(ev.ResponseDone(response=response), 905)
    (waterfall,) = told.waterfalls
    assert waterfall.steps == {
        "transcript": 240,
        "prompted": 250,
        "first_token": 300,
        "committed": 500,
        "requested": 500,
        "first_sent": 500,
        "done": 505,
    }
    assert not watch._runs, "neither what is over nor what was prepared in vain is remembered"


# --- the client -------------------------------------------------------------------------------------------------------


def asked_in_writing(world: World, metadata: dict[str, str] | None) -> dict[str, str] | None:
    params = ev.ResponseParams(metadata=metadata, output_modalities=("text",))
    world.hand(ev.ResponseCreate(response=params), 100)
    world.hand(TextGenerated(world.last(Generate).response_id, "Hi."), 7)
    world.hand(GenerationEnded(world.last(Generate).response_id, "stop"), 3)
    assert world.last(ev.ResponseCreated).response.metadata == metadata
    stated = world.session.conversation.responses[world.done.id]
    assert stated.metadata == world.done.metadata, "the conversation is the fold of what was sent"
    found = world.done.metadata
    assert found is None or isinstance(found, dict)
    return found


@pytest.mark.parametrize("metadata", [None, {"topic": "x"}])
def test_a_client_that_does_not_ask_is_not_told(metadata: dict[str, str] | None) -> None:
    assert asked_in_writing(World(), metadata) == metadata


def test_a_request_asks_by_a_key_of_its_metadata() -> None:
    told = asked_in_writing(World(), {"topic": "x", KEY: ""})
    assert told is not None
    assert told["topic"] == "x"
    assert waterfall_of(told) == Waterfall(
        counted_from="request",
        at_ms=100,
        requested_ms=0,
        prompted_ms=0,
        first_token_ms=7,
        first_sent_ms=7,
        generated_ms=10,
        done_ms=10,
    )


def test_a_handshake_asks_for_every_response_as_far_as_there_is_room() -> None:
    world = World(tells=True)
    assert waterfall_of(asked_in_writing(world, None)) is not None
    full = {f"key_{number}": "" for number in range(cfg.METADATA_PAIRS_MAX)}
    assert asked_in_writing(world, full) == full


def test_the_longest_that_is_told_is_a_value_that_metadata_may_have() -> None:
    steps = {name: -NOISY for name in Waterfall.__struct_fields__ if name.endswith("_ms")}
    longest = msgspec.json.encode(Waterfall(counted_from="speech_end", **steps)).decode()
    assert msgspec.convert({KEY: longest}, cfg.Metadata) == {KEY: longest}


@pytest.mark.parametrize("told", [None, {}, {KEY: ""}, {KEY: "{}"}, {KEY: '{"counted_from":1}'}, {KEY: 5}])
def test_what_is_no_waterfall_is_none(told: Any) -> None:
    assert waterfall_of(told) is None


# --- the server -------------------------------------------------------------------------------------------------------


def played_world() -> tuple[World, str]:
    world = World(player=Playing((Played("item_1", 40),)))
    world.hand(ev.ResponseCreate(), 100)
    return world, world.answer()


def test_where_the_server_plays_it_is_measured_when_it_is_heard() -> None:
    world, response_id = played_world()
    assert world.told.waterfalls == []
    world.hand(PlaybackStarted(response_id), 20)
    world.hand(PlaybackStarted(response_id), 500)
    (waterfall,) = world.told.waterfalls
    assert waterfall.done_ms is not None
    assert waterfall.played_ms == waterfall.done_ms + 20


@pytest.mark.parametrize("ending", [Gone(), ev.ResponseCreate(), None])
def test_what_will_not_be_played_is_measured_all_the_same(ending: Input | None) -> None:
    world, response_id = played_world()
    if ending is None:
        world.hear(100, speech=True)  # the user interrupts, and the player is stopped
    else:
        world.hand(ending, 20)
    world.hand(PlaybackStarted(response_id), 20)
    assert [one.played_ms for one in world.told.waterfalls] == [None]


def test_the_watch_hears_of_cancelled_responses_and_of_errors() -> None:
    world = World(detection=False)
    world.hand(ev.ResponseCancel())
    world.hand(ev.ResponseCreate())
    world.hand(ev.ResponseCancel())
    assert world.told.errors == ["response_cancel_not_active"]
    assert world.told.statuses == ["cancelled"]


@given(st.lists(st.tuples(st.sampled_from("gtaps"), st.integers(0, 500)), max_size=400))
def test_what_it_remembers_is_bounded(steps: list[tuple[str, int]]) -> None:
    watch = sw.Stopwatch(lambda: None, watch=Told(), plays=True)
    for now, (kind, number) in enumerate(steps):
        id = f"id_{number}"
        if kind == "g":
            watch.asked(Generate(id, "", ()), now)
        elif kind == "t":
            watch.heard(TranscriptEnded(id), now)
        elif kind == "a":
            watch.heard(AudioSynthesized(id, "item", b"12"), now)
        elif kind == "p":
            watch.asked(StopPlayback(), now)
        else:
            watch.sent(ev.ResponseDone(response=Response(id=id)), now)
    assert len(watch._runs) <= sw.RUNS_MAX
    assert len(watch._transcripts) <= sw.TRANSCRIPTS_MAX


def test_a_prepared_answer_is_timed_by_the_machine_as_it_was_prepared() -> None:
    world = World()
    world.configure(silence_duration_ms=500)
    world.hear(400, speech=True)
    world.hear(240, speech=False)
    drafted = world.last(Transcribe)
    world.hand(TranscriptDelta(drafted.item_id, "Hello?"))
    world.hand(TranscriptEnded(drafted.item_id))
    response_id = world.last(Generate).response_id
    world.hand(TextGenerated(response_id, "Good morning. How"), 10)
    world.hand(AudioSynthesized(response_id, world.last(Speak).item_id, silence(100)), 10)
    assert world.of(ev.InputAudioBufferCommitted) == []
    world.hear(260, speech=False)
    world.hand(GenerationEnded(response_id, "stop"), 10)
    for speak in [one for one in world.asked if isinstance(one, Speak)]:
        world.hand(PhraseSpoken(response_id, speak.item_id, speak.phrase), 10)
    (waterfall,) = world.told.waterfalls
    committed = waterfall.committed_ms
    assert committed is not None
    assert waterfall.counted_from == "speech_end"
    before = {"transcript": 240, "prompted": 240, "first_token": 250, "first_phrase": 250, "first_audio": 260}
    assert {step: ms for step, ms in waterfall.steps.items() if ms < committed} == before
    assert waterfall.first_sent_ms == waterfall.requested_ms == committed
