"""Noise reduction: clean audio takes the place of what was appended, sample for sample (reference §3.4, §5.4)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.formats import PCM16_24K, ULAW_8K, Format
from vivavoce.core.abilities import Abilities
from vivavoce.core.limits import Limits
from vivavoce.core.messages import DetectSpeech, NoiseReduced, Opened, ReduceNoise, SpeechScored, Transcribe
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.events import (
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    SessionUpdate,
)
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone

NEAR = cfg.NoiseReduction(type="near_field")
ULAW = cfg.PcmuFormat()


def machine() -> Session:
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        limits=Limits(commit_ms_min=0),
        surroundings=Surroundings(abilities=Abilities(noise_reduction=True)),
    )


@pytest.fixture
def play() -> Iterator[Playbook]:
    with playbook(machine()) as play:
        play >> Opened() << ...
        yield play


def listen(play: Playbook, **fields: object) -> Playbook:
    audio = cfg.AudioConfig(input=cfg.AudioInput(**fields))  # type: ignore[arg-type]
    session = cfg.RealtimeSession(audio=audio)
    return play >> SessionUpdate(session=session, event_id="mine") << sends("session.updated")


def cleaned(audio: bytes) -> bytes:
    """What our reducer makes of it: the opposite."""
    return bytes(255 - byte for byte in audio)


def append(play: Playbook, audio: bytes) -> Playbook:
    return play >> InputAudioBufferAppend(audio=audio)


def committed(play: Playbook, audio: bytes) -> None:
    play >> InputAudioBufferCommit() << sends("input_audio_buffer.committed") << ...
    play << asks(Transcribe, audio=audio)


# --- setting it -------------------------------------------------------------------------------------------------------


def test_without_a_reducer_it_is_refused(session: Session) -> None:
    with playbook(session) as play:
        play >> Opened() << ...
        audio = cfg.AudioConfig(input=cfg.AudioInput(noise_reduction=NEAR))
        play >> SessionUpdate(session=cfg.RealtimeSession(audio=audio))
        play << sends("error", error={"code": "invalid_value", "param": "session.audio.input.noise_reduction"})


def test_its_strength_is_1_at_first_and_stays_where_it_is_left_out(play: Playbook) -> None:
    def stated(kind: str, strength: float | None) -> None:
        wanted = cfg.NoiseReduction(type=kind, strength=UNSET if strength is None else strength)  # type: ignore[arg-type]
        audio = cfg.AudioConfig(input=cfg.AudioInput(noise_reduction=wanted))
        play >> SessionUpdate(session=cfg.RealtimeSession(audio=audio))

    listen(play, turn_detection=None)
    for kind, given_strength, strength in (
        ("near_field", None, 1.0),
        ("near_field", 0.5, 0.5),
        ("far_field", None, 0.5),
    ):
        stated(kind, given_strength)
        expected = {"type": kind, "strength": strength}
        play << sends("session.updated", session={"audio": {"input": {"noise_reduction": expected}}})
        append(play, tone(20)) << asks(ReduceNoise, field=kind, strength=strength)


def test_audio_is_cleaned_before_it_is_scored(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR)
    first = tone(40)
    append(play, first) << ReduceNoise(1, first, PCM16_24K, "near_field", 1.0)
    play >> NoiseReduced(1, cleaned(first[:960])) << DetectSpeech(1, cleaned(first[:960]), PCM16_24K)
    append(play, b"")
    append(play, b"\x01")  # half a sample waits
    append(play, b"\x02") << asks(ReduceNoise, audio=b"\x01\x02")


def test_a_turn_is_committed_clean(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR)
    append(play, tone(1_000)) << ...
    play >> NoiseReduced(1, silence(940)) << ...
    play >> SpeechScored(1, 20, (1.0,) * 10) << sends("input_audio_buffer.speech_started")
    play >> SpeechScored(1, 20, (0.0,) * 37) << ... << asks(Transcribe, audio=silence(400)) << ...


def test_what_is_committed_before_it_is_clean_is_committed_as_it_came(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR, turn_detection=None)
    append(play, tone(100)) << asks(ReduceNoise)
    play >> NoiseReduced(1, silence(40))
    committed(play, silence(40) + tone(100)[40 * 48 :])
    append(play, tone(100)) << asks(ReduceNoise, epoch=1)
    play >> NoiseReduced(1, silence(120))  # the rest of the first, and some of the second
    committed(play, silence(60) + tone(100)[60 * 48 :])


def test_a_clear_forgets_what_is_being_cleaned(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR)
    append(play, tone(100)) << asks(ReduceNoise)
    play >> InputAudioBufferClear() << sends("input_audio_buffer.cleared")
    append(play, tone(100)) << asks(ReduceNoise)
    play >> NoiseReduced(1, silence(150)) << DetectSpeech(2, silence(50), PCM16_24K)


def test_switching_it_off_scores_the_rest_as_it_came(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR)
    append(play, tone(100)) << asks(ReduceNoise)
    play >> NoiseReduced(1, silence(40)) << asks(DetectSpeech, audio=silence(40))
    listen(play, noise_reduction=None) << asks(DetectSpeech, epoch=1, audio=tone(100)[40 * 48 :])
    play >> NoiseReduced(1, silence(60))
    append(play, tone(20)) << asks(DetectSpeech, audio=tone(20))


def test_switching_it_off_after_a_commit_scores_what_came_since(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR)
    append(play, tone(100)) << asks(ReduceNoise)
    play >> InputAudioBufferCommit() << ...
    append(play, silence(40)) << asks(ReduceNoise)
    listen(play, noise_reduction=None) << DetectSpeech(2, silence(40), PCM16_24K)


def test_another_strength_begins_a_new_stream(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR)
    append(play, tone(40)) << asks(ReduceNoise, epoch=1)
    listen(play, noise_reduction=cfg.NoiseReduction(type="far_field", strength=0.5)) << asks(
        DetectSpeech, audio=tone(40)
    )
    append(play, silence(40)) << asks(ReduceNoise, epoch=2, audio=silence(40), strength=0.5)
    play >> NoiseReduced(1, tone(40))
    play >> NoiseReduced(2, silence(20)) << asks(DetectSpeech, audio=silence(20))


def test_switching_it_on_in_a_turn_cleans_what_comes(play: Playbook) -> None:
    append(play, tone(100)) << asks(DetectSpeech)
    play >> SpeechScored(1, 20, (1.0,) * 5) << sends("input_audio_buffer.speech_started", audio_start_ms=0)
    listen(play, noise_reduction=NEAR)
    append(play, tone(600)) << asks(ReduceNoise, epoch=1)
    play >> NoiseReduced(1, silence(600)) << DetectSpeech(1, silence(600), PCM16_24K)
    play >> SpeechScored(1, 20, (0.0,) * 30) << ... << asks(Transcribe, audio=tone(100) + silence(200)) << ...


def test_a_reducer_that_fails_leaves_the_audio_as_it_comes(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR)
    append(play, tone(100)) << asks(ReduceNoise)
    play >> NoiseReduced(1, b"", is_over=True) << DetectSpeech(1, tone(100), PCM16_24K)
    append(play, tone(20)) << asks(DetectSpeech)
    listen(play, noise_reduction=NEAR)  # what is set already begins nothing
    append(play, tone(20)) << asks(DetectSpeech)


def test_another_format_begins_a_new_stream(play: Playbook) -> None:
    listen(play, noise_reduction=NEAR)
    append(play, tone(40)) << asks(ReduceNoise)
    listen(play, format=ULAW)
    play >> NoiseReduced(1, tone(40))
    append(play, bytes(160)) << asks(ReduceNoise, epoch=2, format=ULAW_8K)
    play >> NoiseReduced(2, bytes(80)) << DetectSpeech(2, bytes(80), ULAW_8K)
    listen(play, format=cfg.PcmFormat(), noise_reduction=None)
    append(play, tone(20)) << DetectSpeech(3, tone(20), PCM16_24K)


# --- alignment --------------------------------------------------------------------------------------------------------


class Model:
    """What has to be in the buffer, and what has to be scored, sample by sample."""

    def __init__(self, format: Format) -> None:
        self.format = format
        self.bytes = bytearray()
        self.start = self.clean_until = self.scored_from = 0
        self.is_cleaning = False
        self.epoch = 1
        self.scored: dict[int, bytes] = {}
        self.half = b""

    @property
    def end(self) -> int:
        return len(self.bytes)

    def append(self, audio: bytes) -> None:
        audio = self.half + audio
        whole = len(audio) // self.format.sample_bytes * self.format.sample_bytes
        begin, self.half = self.end, audio[whole:]
        self.bytes += audio[:whole]
        if not self.is_cleaning:
            self.score(begin, self.end)

    def deliver(self, samples: int) -> bytes:
        """The reducer says so much more, or what there is."""
        size = min(samples * self.format.sample_bytes, self.end - self.clean_until)
        begin, self.clean_until = self.clean_until, self.clean_until + size
        clean = cleaned(bytes(self.bytes[begin : begin + size]))
        self.bytes[begin : begin + size] = clean
        self.score(begin, self.clean_until)
        return clean

    def switch(self, on: bool) -> None:
        if self.is_cleaning and not on:
            self.score(max(self.clean_until, self.start), self.end)
        if on and not self.is_cleaning:
            self.clean_until = self.end
        self.is_cleaning = on

    def score(self, begin: int, end: int) -> None:
        audio = bytes(self.bytes[max(begin, self.scored_from) : end])
        self.scored[self.epoch] = self.scored.get(self.epoch, b"") + audio

    def take(self) -> bytes:
        audio = bytes(self.bytes[self.start :])
        self.start = self.scored_from = self.end
        self.epoch += 1
        return audio


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 300)),
        st.tuples(st.just("deliver"), st.integers(0, 200)),
        st.tuples(st.sampled_from(["commit", "clear", "on", "off", "over"]), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS, st.sampled_from([PCM16_24K, ULAW_8K]))
def test_clean_audio_stands_where_the_noisy_stood(steps: list[tuple[str, int]], format: Format) -> None:
    """However audio is cut, however late it is cleaned, whatever the client does meanwhile."""
    session, model, noise = machine(), Model(format), iter(range(10**9))
    scored: dict[int, bytes] = {}
    sent: list[bytes] = []
    cleaning = 0

    def hand(input: object) -> None:
        for effect in session.handle(input, 0):  # type: ignore[arg-type]
            if isinstance(effect, DetectSpeech):
                scored[effect.epoch - first] = scored.get(effect.epoch - first, b"") + effect.audio
            elif isinstance(effect, Transcribe):
                sent.append(effect.audio)

    def listens(**fields: object) -> None:
        audio = cfg.AudioConfig(input=cfg.AudioInput(**fields))  # type: ignore[arg-type]
        hand(SessionUpdate(session=cfg.RealtimeSession(audio=audio)))

    first = 0
    hand(Opened())
    if format is ULAW_8K:
        listens(format=ULAW)
        first = 1
    expected: list[bytes] = []
    for step, size in steps:
        if step == "append":
            audio = bytes(next(noise) % 251 for _ in range(size))
            model.append(audio)
            hand(InputAudioBufferAppend(audio=audio))
        elif step == "deliver" and model.is_cleaning:
            hand(NoiseReduced(cleaning, model.deliver(size)))
        elif step == "commit":
            if audio := model.take():
                expected.append(audio)
            hand(InputAudioBufferCommit())
        elif step == "clear":
            model.take()
            model.half = b""
            hand(InputAudioBufferClear())
        elif step == "over" and model.is_cleaning:
            model.switch(False)
            hand(NoiseReduced(cleaning, b"", is_over=True))
            listens(noise_reduction=None)
        elif step in ("on", "off"):
            cleaning += step == "on" and not model.is_cleaning
            model.switch(step == "on")
            listens(noise_reduction=NEAR if step == "on" else None)
    assert sent == expected
    assert {epoch: audio for epoch, audio in model.scored.items() if audio} == scored
