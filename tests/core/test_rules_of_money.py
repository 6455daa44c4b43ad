"""Rate limits, prices and budgets (reference §4.2, §4.4 T20, T22, §6.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from vivavoce.core.abilities import Abilities
from vivavoce.core.account import Bill, Price
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    AudioSynthesized,
    CallStarted,
    Cancel,
    Close,
    Drain,
    Generate,
    GenerationEnded,
    GenerationFailed,
    Opened,
    PhraseSpoken,
    Speak,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
)
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol.events import (
    ConversationItemCreate,
    InputAudioBufferAppend,
    InputAudioBufferCommit,
    RateLimit,
    ResponseCancel,
    ResponseCreate,
    ResponseParams,
    SessionUpdate,
)
from vivavoce.protocol.items import (
    CachedTokenDetails,
    InputAudio,
    InputText,
    InputTokenDetails,
    Message,
    OutputTokenDetails,
    Usage,
)
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence

FIXED = 4
"""Tokens of a context without instructions and items."""


@dataclass
class Wallet:
    """An account of so many tokens, that says what was done with it."""

    left: int = 1_000
    done: list[tuple[str, int]] = field(default_factory=list)

    def take(self, tokens: int, now_ms: int) -> bool:
        if tokens > self.left:
            self.done.append(("refused", tokens))
            return False
        self.left -= tokens
        self.done.append(("taken", tokens))
        return True

    def settle(self, reserved: int, used: int, now_ms: int) -> None:
        self.left += reserved - used
        self.done.append(("used", used))

    def limits(self, now_ms: int) -> tuple[RateLimit, ...]:
        requests = RateLimit(name="requests", limit=9, remaining=9, reset_seconds=now_ms / 1000)
        return requests, RateLimit(name="tokens", limit=1_000, remaining=self.left, reset_seconds=0.0)


def machine(wallet: Wallet | None = None, bill: Bill | None = None, limits: Limits | None = None) -> Session:
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        instructions="",
        limits=limits,
        surroundings=Surroundings(abilities=Abilities(count_tokens=len, mcp=True), account=wallet, bill=bill or Bill()),
    )


def opened(play: Playbook, **fields: object) -> None:
    play >> Opened() << ...
    wanted = {"output_modalities": ("text",), "audio": HANDS, **fields}
    play >> SessionUpdate(session=cfg.RealtimeSession(**wanted)) << sends("session.updated")  # type: ignore[arg-type]


HANDS = cfg.AudioConfig(input=cfg.AudioInput(turn_detection=None))


def text(characters: int) -> ConversationItemCreate:
    return ConversationItemCreate(item=Message(role="user", content=(InputText(text="x" * (characters - 4)),)))


def limits(*remaining: tuple[str, int]) -> Expected:
    return sends("rate_limits.updated", rate_limits=[{"name": name, "remaining": left} for name, left in remaining])


# --- T20 --------------------------------------------------------------------------------------------------------------


def test_t20_limits_are_told_behind_created_and_behind_done() -> None:
    wallet = Wallet()
    with playbook(machine(wallet)) as play:
        opened(play)
        play >> text(10) << ...
        play >> ResponseCreate(response=ResponseParams(max_output_tokens=50)) << sends("response.created")
        play << limits(("requests", 9), ("tokens", 1_000)) << asks(Generate)
        assert wallet.left == 1_000 - 10 - FIXED - 50
        play >> GenerationEnded("resp_1", "stop", input_tokens=20, output_tokens=7)
        play << sends("response.done") << limits(("tokens", 973))
    assert wallet.done == [("taken", 10 + FIXED + 50), ("used", 27)]


def test_without_an_account_nobody_is_told_of_limits() -> None:
    with playbook(machine()) as play:
        opened(play)
        play >> ResponseCreate() << sends("response.created") << asks(Generate)
        play >> GenerationEnded("resp_1", "stop") << sends("response.done")


def test_user_audio_is_counted_by_its_duration() -> None:
    wallet = Wallet()
    with playbook(machine(wallet)) as play:
        opened(play)
        play >> InputAudioBufferAppend(audio=silence(1_630))
        play >> InputAudioBufferCommit() << ... << asks(Transcribe)
        play >> ResponseCreate() << ...
        play >> TranscriptDelta("item_1", "one")
        play >> TranscriptEnded("item_1") << asks(Generate)
        play >> GenerationEnded("resp_1", "stop")
        details = {"text_tokens": FIXED + 4 + 3, "audio_tokens": 17}
        play << sends("response.done", response={"usage": {"input_tokens": 28, "input_token_details": details}}) << ...
    assert wallet.done == [("taken", 28), ("used", 28)]


def test_a_response_that_cannot_be_afforded_fails_and_takes_nothing() -> None:
    wallet = Wallet(left=FIXED + 9)
    with playbook(machine(wallet)) as play:
        opened(play)
        play >> text(10) << ...
        play >> ResponseCreate() << sends("response.created") << limits(("requests", 9), ("tokens", 13))
        error = {"type": "rate_limit_error", "code": "rate_limit_exceeded"}
        zeros = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}
        details = {"type": "failed", "error": error}
        play << Cancel("resp_1")
        play << sends("response.done", response={"status": "failed", "status_details": details, "usage": zeros})
        play << limits(("tokens", 13))
        play >> ResponseCreate(response=ResponseParams(input=())) << ... << asks(Generate)
    assert wallet.done == [("refused", 14), ("taken", FIXED)]


def test_a_context_that_does_not_fit_takes_nothing() -> None:
    wallet = Wallet(left=100_000)
    with playbook(machine(wallet)) as play:
        opened(play, instructions="x" * 40_000)
        play >> ResponseCreate() << ... << sends("response.done", response={"status": "failed"}) << ...
    assert wallet.done == []


def started(play: Playbook) -> None:
    opened(play)
    play >> ResponseCreate(response=ResponseParams(max_output_tokens=50)) << ...
    play << asks(Generate)


def test_what_fails_before_it_has_written_gives_everything_back() -> None:
    wallet = Wallet()
    with playbook(machine(wallet)) as play:
        started(play)
        play >> GenerationFailed("resp_1", "broken", "It broke.") << ... << limits(("tokens", 1_000))
    assert wallet.done == [("taken", FIXED + 50), ("used", 0)]


def test_what_fails_later_counts_as_far_as_it_came() -> None:
    wallet = Wallet()
    with playbook(machine(wallet)) as play:
        started(play)
        play >> TextGenerated("resp_1", "seven..") << ...
        play >> GenerationFailed("resp_1", "broken", "It broke.") << Cancel("resp_1") << ...
        play << sends("response.done", response={"usage": {"input_tokens": FIXED, "output_tokens": 7}}) << ...
    assert wallet.done == [("taken", FIXED + 50), ("used", FIXED + 7)]


def test_what_is_cancelled_counts_as_far_as_it_came() -> None:
    wallet = Wallet()
    with playbook(machine(wallet)) as play:
        started(play)
        play >> CallStarted("resp_1", "look") << ...
        play >> ResponseCancel() << Cancel("resp_1") << ...
        play << sends("response.done", response={"usage": {"input_tokens": FIXED, "output_tokens": 4}}) << ...
    assert wallet.done == [("taken", FIXED + 50), ("used", FIXED + 4)]


def test_what_is_incomplete_counts_as_the_model_counted() -> None:
    wallet = Wallet()
    with playbook(machine(wallet)) as play:
        started(play)
        play >> TextGenerated("resp_1", "seven..") << ...
        play >> GenerationEnded("resp_1", "length", input_tokens=5, output_tokens=50) << ...
        play << sends("response.done", response={"status": "incomplete", "usage": {"total_tokens": 55}}) << ...
    assert wallet.done == [("taken", FIXED + 50), ("used", 55)]


def test_what_waits_for_a_transcript_has_taken_nothing_yet() -> None:
    wallet = Wallet()
    audio = Message(id="a", role="user", content=(InputAudio(audio=silence(200)),))
    with playbook(machine(wallet)) as play:
        opened(play)
        play >> ConversationItemCreate(item=audio) << ...
        play >> ResponseCreate() << ... << limits(("requests", 9), ("tokens", 1_000))
        play >> TranscriptFailed("a", "broken", "No ear.") << ...
        play << sends("response.done", response={"status_details": {"error": {"code": "broken"}}}) << ...
    assert wallet.done == []


def test_engines_that_fall_silent_give_back_what_was_reserved() -> None:
    wallet = Wallet()
    with playbook(machine(wallet, limits=Limits(engine_silence_ms_max=1_000))) as play:
        started(play)
        play.after(1_000) << ... << sends("response.done", response={"status": "failed"}) << ...
    assert wallet.done == [("taken", FIXED + 50), ("used", 0)]


def test_a_session_that_expires_gives_back_what_was_reserved() -> None:
    wallet = Wallet()
    with playbook(machine(wallet, limits=Limits(session_ms_max=1_000))) as play:
        started(play)
        play.after(1_000) << Cancel("resp_1") << sends("response.done") << ... << asks(Close, code=1001)
    assert wallet.done == [("taken", FIXED + 50), ("used", 0)]


# --- prices -----------------------------------------------------------------------------------------------------------


def test_a_price_is_per_million_tokens() -> None:
    usage = Usage(
        input_tokens=1_000,
        output_tokens=500,
        input_token_details=InputTokenDetails(
            text_tokens=600,
            audio_tokens=300,
            image_tokens=100,
            cached_tokens=250,
            cached_tokens_details=CachedTokenDetails(text_tokens=200, audio_tokens=50, image_tokens=0),
        ),
        output_token_details=OutputTokenDetails(text_tokens=100, audio_tokens=400),
    )
    assert Price(text_in=2).of(usage) == pytest.approx(600 * 2 / 1e6)
    assert Price(text_in=2, text_cached=0.5).of(usage) == pytest.approx((400 * 2 + 200 * 0.5) / 1e6)
    assert Price(audio_in=3).of(usage) == pytest.approx(300 * 3 / 1e6)
    assert Price(audio_in=3, audio_cached=0.0).of(usage) == pytest.approx(250 * 3 / 1e6)
    assert Price(image_in=5, text_out=7, audio_out=11).of(usage) == pytest.approx((500 + 700 + 4_400) / 1e6)
    assert Price(text_in=2, audio_out=3).of(Usage()) == 0


def test_a_bill_adds_up_responses_and_transcriptions() -> None:
    bill = Bill(price=Price(text_in=1_000_000, transcription_minute=0.6), budget=12.0)
    bill.add(Usage(input_tokens=5, output_tokens=2, input_token_details=InputTokenDetails(text_tokens=5)))
    bill.add(Usage(input_tokens=6, output_tokens=1, input_token_details=InputTokenDetails(text_tokens=6)))
    assert (bill.input_tokens, bill.output_tokens, bill.cost) == (11, 3, 11.0)
    assert not bill.is_exhausted
    bill.transcribed(100_000)
    assert bill.cost == pytest.approx(12.0)
    assert bill.is_exhausted


def test_without_a_price_nothing_costs() -> None:
    bill = Bill()
    bill.add(Usage(input_tokens=5, output_tokens=2))
    bill.transcribed(60_000)
    assert (bill.input_tokens, bill.cost, bill.is_exhausted) == (5, 0.0, False)


# --- budgets ----------------------------------------------------------------------------------------------------------

DEAR = Price(text_out=1_000_000, transcription_minute=60.0)
EXCEEDED = sends("error", error={"type": "invalid_request_error", "code": "budget_exceeded", "event_id": None})


def test_a_session_ends_when_its_budget_is_spent() -> None:
    bill = Bill(price=DEAR, budget=10.0)
    with playbook(machine(bill=bill)) as play:
        opened(play)
        play >> ResponseCreate() << ...
        play >> GenerationEnded("resp_1", "stop", input_tokens=1, output_tokens=9) << sends("response.done")
        play >> ResponseCreate() << ...
        play >> ResponseCreate(response=ResponseParams(conversation="none")) << ...
        play >> TextGenerated("resp_3", "so far") << ...
        play >> GenerationEnded("resp_2", "stop", input_tokens=1, output_tokens=1)
        play << sends("response.done", response={"id": "resp_2", "status": "completed"})
        play << Cancel("resp_3") << ...
        error = {"code": "budget_exceeded"}
        play << sends(
            "response.done", response={"id": "resp_3", "status": "failed", "status_details": {"error": error}}
        )
        play << EXCEEDED << Close(1008, "The session has cost its budget of 10.")
        play >> ResponseCreate()
        assert isinstance(play.machine, Session)
        assert play.machine.bill is bill
    assert bill.cost == 9 + 1 + len("so far")


def test_transcription_costs_where_it_was_wanted() -> None:
    bill = Bill(price=DEAR, budget=1.0)
    with playbook(machine(bill=bill)) as play:
        opened(play)
        for number in (1, 2):
            play >> InputAudioBufferAppend(audio=silence(500))
            play >> InputAudioBufferCommit() << ... << asks(Transcribe, item_id=f"item_{number}")
            play >> TranscriptEnded(f"item_{number}")
        assert bill.cost == 0
        into = cfg.AudioInput(turn_detection=None, transcription=cfg.Transcription(model="m"))
        play >> SessionUpdate(session=cfg.RealtimeSession(audio=cfg.AudioConfig(input=into))) << ...
        for number in (3, 4):
            play >> InputAudioBufferAppend(audio=silence(500))
            play >> InputAudioBufferCommit() << ... << asks(Transcribe, item_id=f"item_{number}")
        play >> TranscriptEnded("item_3") << ...
        play >> TranscriptEnded("item_4") << ... << EXCEEDED << asks(Close, code=1008)


def test_speech_is_a_part_of_the_bill() -> None:
    bill = Bill(price=Price(audio_out=1_000_000))
    with playbook(machine(bill=bill)) as play:
        opened(play, output_modalities=("audio",))
        play >> ResponseCreate() << ...
        play >> TextGenerated("resp_1", "One two three. ") << ... << asks(Speak)
        play >> AudioSynthesized("resp_1", "item_1", silence(120)) << ...
        play >> GenerationEnded("resp_1", "stop")
        play >> PhraseSpoken("resp_1", "item_1", 0) << ... << sends("response.done")
    assert bill.cost == 3


def test_a_server_that_stops_is_gone_before_the_budget_is() -> None:
    bill = Bill(price=DEAR, budget=1.0)
    with playbook(machine(bill=bill)) as play:
        opened(play)
        play >> ResponseCreate() << ...
        play >> Drain()
        play >> GenerationEnded("resp_1", "stop", input_tokens=1, output_tokens=5) << sends("response.done")
        play << EXCEEDED << asks(Close, code=1008)
