"""Where the server plays the assistant's audio itself: what is told of it, and what is cut off (reference §4.4 T8)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core.messages import (
    AudioSynthesized,
    Cancel,
    Close,
    Drain,
    Effect,
    Generate,
    GenerationEnded,
    Input,
    Opened,
    PhraseSpoken,
    PlaybackDrained,
    PlaybackStarted,
    Send,
    Speak,
    SpeechScored,
    StopPlayback,
    TextGenerated,
)
from vivavoce.core.playback import Played
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence


class Position:
    """A player that is where the test says: which items are not played to their end, and how far."""

    def __init__(self) -> None:
        self.at: tuple[Played, ...] = ()

    def unfinished(self) -> tuple[Played, ...]:
        return self.at

    def stop(self) -> None:
        self.at = ()


@pytest.fixture
def player() -> Position:
    return Position()


@pytest.fixture
def play(player: Position) -> object:
    with playbook(machine(player)) as play:
        play >> Opened() << ...
        yield play


def machine(player: object) -> Session:
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        surroundings=Surroundings(player=player),  # type: ignore[arg-type]
    )


def started(response: str) -> Expected:
    return sends("output_audio_buffer.started", response_id=response)


def stopped(response: str) -> Expected:
    return sends("output_audio_buffer.stopped", response_id=response)


def cleared(response: str) -> Expected:
    return sends("output_audio_buffer.cleared", response_id=response)


def truncated(item: str, ms: int) -> Expected:
    return sends("conversation.item.truncated", item_id=item, content_index=0, audio_end_ms=ms)


def says(play: Playbook, number: int, ms: int = 1_000, event: ev.ResponseCreate | None = None) -> tuple[str, str]:
    """A response says something, and is not done."""
    response, item = f"resp_{number}", f"item_{number}"
    play >> (event or ev.ResponseCreate()) << sends("response.created", response={"id": response}) << asks(Generate)
    play >> TextGenerated(response, "One two three. ") << ... << asks(Speak, item_id=item)
    play >> AudioSynthesized(response, item, silence(ms)) << sends("response.output_audio.delta")
    return response, item


def ends(play: Playbook, number: int) -> None:
    play >> GenerationEnded(f"resp_{number}", "stop")
    play >> PhraseSpoken(f"resp_{number}", f"item_{number}", 0) << ... << sends("response.done")


def barge_in(play: Playbook) -> Playbook:
    play >> ev.InputAudioBufferAppend(audio=silence(100)) << ...
    play >> SpeechScored(1, 20, (1.0,) * 5) << sends("input_audio_buffer.speech_started")
    return play


# --- started and stopped ----------------------------------------------------------------------------------------------


def test_t8_stopped_comes_behind_done_when_the_player_is_dry(play: Playbook) -> None:
    response, _ = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    ends(play, 1)
    play >> PlaybackDrained(response) << stopped(response)


def test_a_gap_in_a_response_that_goes_on_is_no_stop(play: Playbook) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    play >> PlaybackDrained(response)
    play >> AudioSynthesized(response, item, silence(100)) << ...
    play >> PlaybackStarted(response)
    play >> PlaybackDrained(response)
    play >> GenerationEnded(response, "stop")
    play >> PhraseSpoken(response, item, 0) << ... << sends("response.done") << stopped(response)


def test_a_response_that_is_done_before_the_player_goes_on_stops_once(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    play >> PlaybackDrained(response)
    play >> AudioSynthesized(response, item, silence(100)) << ...
    player.at = (Played(item, 1_000),)
    ends(play, 1)
    play >> PlaybackStarted(response)
    player.stop()
    play >> PlaybackDrained(response) << stopped(response)


def test_the_next_response_may_be_done_while_the_last_is_played(play: Playbook) -> None:
    first, _ = says(play, 1)
    play >> PlaybackStarted(first) << started(first)
    ends(play, 1)
    second, _ = says(play, 2)
    ends(play, 2)
    play >> PlaybackStarted(second) << stopped(first) << started(second)
    play >> PlaybackDrained(first)
    play >> PlaybackDrained(second) << stopped(second)


def test_audio_beside_the_conversation_is_played_and_not_truncated(play: Playbook, player: Position) -> None:
    aside = ev.ResponseCreate(response=ev.ResponseParams(conversation="none", input=()))
    response, item = says(play, 1, event=aside)
    play >> PlaybackStarted(response) << started(response)
    player.at = (Played(item, 300),)
    barge_in(play) << asks(StopPlayback) << cleared(response)
    player.stop()
    ends(play, 1)


# --- barge-in ---------------------------------------------------------------------------------------------------------


def test_t8_barge_in_while_it_is_generated(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    player.at = (Played(item, 300),)
    barge_in(play) << asks(StopPlayback) << cleared(response) << truncated(item, 300) << Cancel(response)
    play << ... << sends("response.done", response={"status": "cancelled"})


def test_t8_barge_in_while_it_is_only_played(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    ends(play, 1)
    player.at = (Played(item, 700),)
    barge_in(play) << asks(StopPlayback) << cleared(response) << truncated(item, 700)


def test_everything_that_waits_to_be_played_is_cut_off(play: Playbook, player: Position) -> None:
    first, one = says(play, 1)
    play >> PlaybackStarted(first) << started(first)
    ends(play, 1)
    second, two = says(play, 2)
    ends(play, 2)
    player.at = (Played(one, 900), Played(two, 0))
    barge_in(play) << asks(StopPlayback) << cleared(first) << truncated(one, 900) << truncated(two, 0)
    play >> PlaybackStarted(second)  # the player had said so before it heard that it shall stop


def test_barge_in_before_the_player_said_that_it_began(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    player.at = (Played(item, 20),)
    barge_in(play) << asks(StopPlayback) << truncated(item, 20) << Cancel(response) << ...
    play << sends("response.done", response={"status": "cancelled"})
    play >> PlaybackStarted(response)
    play >> PlaybackDrained(response)


def test_where_nothing_is_interrupted_it_is_played_on(play: Playbook, player: Position) -> None:
    into = cfg.AudioInput(turn_detection=cfg.ServerVad(interrupt_response=False, create_response=False))
    play >> ev.SessionUpdate(session=cfg.RealtimeSession(audio=cfg.AudioConfig(input=into))) << ...
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    player.at = (Played(item, 300),)
    barge_in(play)
    ends(play, 1)
    play >> PlaybackDrained(response) << stopped(response)


def test_an_item_that_was_deleted_or_cut_by_the_client_is_not_cut_again(play: Playbook, player: Position) -> None:
    first, one = says(play, 1)
    play >> PlaybackStarted(first) << started(first)
    ends(play, 1)
    _, two = says(play, 2)
    ends(play, 2)
    play >> ev.ConversationItemDelete(item_id=one) << ...
    play >> ev.ConversationItemTruncate(item_id=two, content_index=0, audio_end_ms=5) << ...
    player.at = (Played(one, 900), Played(two, 0))
    barge_in(play) << asks(StopPlayback) << cleared(first)


def test_no_more_is_cut_off_than_there_is(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    player.at = (Played(item, 1_020),)
    barge_in(play) << asks(StopPlayback) << cleared(response) << truncated(item, 1_000) << ...


# --- what the client does ---------------------------------------------------------------------------------------------

NOTHING = sends("error", error={"code": "output_audio_buffer_clear_empty", "event_id": "mine"})
CLEAR = ev.OutputAudioBufferClear(event_id="mine")


def test_where_nothing_is_played_nothing_can_be_cleared(play: Playbook) -> None:
    play >> CLEAR << NOTHING
    response, _ = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    ends(play, 1)
    play >> PlaybackDrained(response) << stopped(response)
    play >> CLEAR << NOTHING


def test_t8_cancel_and_clear(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    player.at = (Played(item, 300),)
    play >> ev.ResponseCancel() << Cancel(response) << ... << sends("response.done", response={"status": "cancelled"})
    play >> CLEAR << asks(StopPlayback) << cleared(response) << truncated(item, 300)


def test_cancel_without_clear_lets_the_rest_be_heard(play: Playbook) -> None:
    response, _ = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    play >> ev.ResponseCancel() << ... << sends("response.done", response={"status": "cancelled"})
    play >> PlaybackDrained(response) << stopped(response)


def test_clear_without_cancel_ends_the_speech_and_not_the_response(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    player.at = (Played(item, 300),)
    play >> CLEAR << asks(StopPlayback) << cleared(response) << truncated(item, 300) << Cancel(item)
    player.stop()
    play >> AudioSynthesized(response, item, silence(100))
    play >> PhraseSpoken(response, item, 0)
    play >> PlaybackStarted(response)
    play >> TextGenerated(response, "Four five six. ") << sends("response.output_audio_transcript.delta")
    play >> GenerationEnded(response, "stop") << sends("response.output_audio.done") << ...
    play << sends("response.done", response={"status": "completed", "output": [{"content": [{"transcript": ""}]}]})
    play >> ev.ResponseCreate() << ...
    play << asks(Generate, items=[{"content": [{"transcript": "One "}]}])


def test_clear_between_two_phrases_stops_no_engine(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    play >> PhraseSpoken(response, item, 0)
    player.at = (Played(item, 300),)
    play >> CLEAR << asks(StopPlayback) << cleared(response) << truncated(item, 300)


def test_what_the_player_has_not_begun_is_cleared_with_its_begin(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    player.at = (Played(item, 0),)
    play >> CLEAR << started(response) << asks(StopPlayback) << cleared(response) << truncated(item, 0) << Cancel(item)
    player.stop()
    play >> PlaybackStarted(response)


def test_clearing_the_last_response_leaves_the_next_its_voice(play: Playbook, player: Position) -> None:
    first, one = says(play, 1)
    play >> PlaybackStarted(first) << started(first)
    ends(play, 1)
    play >> ev.ResponseCreate() << ...
    player.at = (Played(one, 300),)
    play >> CLEAR << asks(StopPlayback) << cleared(first) << truncated(one, 300)
    player.stop()
    play >> TextGenerated("resp_2", "One two three. ") << ... << asks(Speak, item_id="item_2")
    play >> AudioSynthesized("resp_2", "item_2", silence(100)) << sends("response.output_audio.delta")
    play >> PlaybackStarted("resp_2") << started("resp_2")


def test_a_server_that_stops_lets_the_last_word_be_heard(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    player.at = (Played(item, 0),)
    play >> Drain()
    ends(play, 1)
    play >> PlaybackStarted(response) << started(response)
    player.stop()
    play >> PlaybackDrained(response) << stopped(response) << asks(Close, code=1001)


def test_a_server_that_stops_does_not_wait_for_what_was_cleared(play: Playbook, player: Position) -> None:
    response, item = says(play, 1)
    play >> PlaybackStarted(response) << started(response)
    ends(play, 1)
    player.at = (Played(item, 300),)
    play >> Drain()
    play >> CLEAR << asks(StopPlayback) << cleared(response) << truncated(item, 300) << asks(Close, code=1001)


# --- every timing -----------------------------------------------------------------------------------------------------


@dataclass
class Queue:
    """A player that plays when it is told to, and whose reports arrive when they are told to."""

    tracks: deque[tuple[str, str, int]] = field(default_factory=deque)
    played: dict[str, int] = field(default_factory=dict)
    reports: deque[Input] = field(default_factory=deque)
    playing: str | None = None

    def unfinished(self) -> tuple[Played, ...]:
        items = dict.fromkeys(item for _, item, _ in self.tracks)
        return tuple(Played(item, self.played.get(item, 0)) for item in items)

    def feed(self, delta: ev.ResponseOutputAudioDelta) -> None:
        self.tracks.append((delta.response_id, delta.item_id, len(delta.delta) // 48))

    def step(self) -> None:
        """Play the next piece."""
        if not self.tracks:
            return
        response, item, ms = self.tracks.popleft()
        if self.playing != response:
            self.reports.append(PlaybackStarted(response))
        self.playing = response
        self.played[item] = self.played.get(item, 0) + ms
        if not self.tracks:
            self.reports.append(PlaybackDrained(response))
            self.playing = None

    def stop(self) -> None:
        self.tracks.clear()
        self.playing = None


class Stage:
    """A session and its player; keeps the events about playback."""

    def __init__(self) -> None:
        self.player = Queue()
        self.session = machine(self.player)
        self.told: list[ev.AnyServerEvent] = []
        self.asked: deque[Speak] = deque()
        self.number = 0
        self.hand(Opened())

    def hand(self, input: Input) -> None:
        for effect in self.session.handle(input, 0):
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(event=ev.ResponseOutputAudioDelta() as delta):
                self.player.feed(delta)
            case Send(event=ev.ResponseCreated() as created):
                self.number = int(created.response.id.removeprefix("resp_"))
            case Send(event=event) if event.type.startswith("output_audio_buffer."):
                self.told.append(event)
            case StopPlayback():
                self.player.stop()
            case Speak():
                self.asked.append(effect)

    def do(self, step: str) -> None:
        response = f"resp_{self.number}"
        match step:
            case "create":
                self.hand(ev.ResponseCreate())
            case "say":
                self.hand(TextGenerated(response, "One two three four. Five six seven eight. "))
                self.do("speak")
                self.do("speak")
            case "end":
                self.hand(GenerationEnded(response, "stop"))
            case "speak" if self.asked:
                speak = self.asked.popleft()
                self.hand(AudioSynthesized(speak.response_id, speak.item_id, silence(20)))
                self.hand(PhraseSpoken(speak.response_id, speak.item_id, speak.phrase))
            case "play":
                self.player.step()
            case "report" if self.player.reports:
                self.hand(self.player.reports.popleft())
            case "cancel":
                self.hand(ev.ResponseCancel())
            case "clear":
                self.hand(ev.OutputAudioBufferClear())
            case "barge in":
                self.hand(ev.InputAudioBufferClear())
                self.hand(SpeechScored(self.session._listening._epoch, 20, (1.0,) * 5))
                assert not self.player.unfinished()


OFTEN = ["say", "play", "report"]
STEPS = st.lists(st.sampled_from([*OFTEN, *OFTEN, "create", "end", "cancel", "clear", "barge in"]), max_size=60)


@given(STEPS)
def test_every_start_has_one_end_and_what_was_cut_off_does_not_start_again(steps: list[str]) -> None:
    stage = Stage()
    for step in [*steps, "end", *["speak"] * 60, *["play"] * 60, *["report"] * 120]:
        stage.do(step)
    playing, cut = None, set[str]()
    for event in stage.told:
        if isinstance(event, ev.OutputAudioBufferStarted):
            assert playing is None
            assert event.response_id not in cut
            playing = event.response_id
        else:
            assert isinstance(event, ev.OutputAudioBufferStopped | ev.OutputAudioBufferCleared)
            assert event.response_id == playing
            playing = None
            cut |= {event.response_id} if isinstance(event, ev.OutputAudioBufferCleared) else set()
    assert playing is None
    for item in stage.session.conversation:
        entry = stage.session.conversation.entry(item.id or "")
        assert entry is not None
        assert entry.audio_ms <= stage.player.played.get(item.id or "", 0) or not entry.truncated
