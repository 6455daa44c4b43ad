from __future__ import annotations

import msgspec
import pytest

from vivavoce.client.cost import REMEMBERED_MAX, Meter, Spent, Tokens
from vivavoce.client.prices import PRICES, Price, price_of
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ClientCodec

USAGE = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119,
        "audio_tokens": 13,
        "image_tokens": 0,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}
"""The example of the reference, §6.4."""
TOKENS = Tokens(text_in=55, text_cached=64, audio_in=13, text_out=30, audio_out=91)
COST = (55 * 4 + 64 * 0.4 + 13 * 32 + 30 * 16 + 91 * 64) / 1e6


def event(**fields: object) -> ev.AnyServerEvent | ev.Unknown:
    return ClientCodec("ga").decode(msgspec.json.encode({"event_id": "e", **fields}).decode())


def created(model: str | None = "gpt-realtime", transcriber: str | None = None) -> ev.AnyServerEvent | ev.Unknown:
    transcription = None if transcriber is None else {"model": transcriber}
    session: dict[str, object] = {"type": "realtime", "audio": {"input": {"transcription": transcription}}}
    return event(type="session.created", session=session if model is None else session | {"model": model})


def done(response_id: str = "r1", usage: object = USAGE) -> ev.AnyServerEvent | ev.Unknown:
    return event(type="response.done", response={"id": response_id, "status": "completed", "usage": usage})


def transcribed(usage: object, item_id: str = "i1") -> ev.AnyServerEvent | ev.Unknown:
    kind = "conversation.item.input_audio_transcription.completed"
    return event(type=kind, item_id=item_id, content_index=0, transcript="hello", usage=usage)


def counted(meter: Meter, *events: object) -> Meter:
    for one in events:
        meter.take(one)
    return meter


def test_g8_a_response_is_counted_by_modality_and_priced() -> None:
    meter = counted(Meter(), created(), done())
    assert meter.responses["r1"].tokens == TOKENS
    assert (TOKENS.input, TOKENS.output, TOKENS.cached, TOKENS.total) == (132, 121, 64, 253)
    assert meter.responses["r1"].cost == pytest.approx(COST)
    assert meter.total == meter.responses["r1"]
    assert meter.cost == pytest.approx(COST)


def test_g8_the_session_is_the_sum_of_its_responses_each_counted_once() -> None:
    meter = counted(Meter(), created(), done("r1"), done("r2"), created(), done("r2"), done("r3", None))
    assert list(meter.responses) == ["r1", "r2"]
    assert meter.total.tokens == TOKENS + TOKENS
    assert meter.total.cost == pytest.approx(2 * COST)


def test_g8_transcriptions_are_charged_by_tokens_or_by_length() -> None:
    by_length = counted(Meter(), created(transcriber="whisper-1"), transcribed({"type": "duration", "seconds": 90.0}))
    assert by_length.transcriptions["i1", 0].audio_s == 90.0
    assert by_length.total.cost == pytest.approx(0.009)
    tokens = {"type": "tokens", "input_tokens": 30, "output_tokens": 5, "total_tokens": 35}
    told = tokens | {"input_token_details": {"text_tokens": 10, "audio_tokens": 20}}
    meter = counted(Meter(), created(transcriber="gpt-4o-transcribe"), transcribed(told), transcribed(tokens, "i2"))
    assert meter.transcriptions["i1", 0].tokens == Tokens(text_in=10, audio_in=20, text_out=5)
    assert meter.transcriptions["i2", 0].tokens == Tokens(audio_in=30, text_out=5)
    assert meter.total.cost == pytest.approx((10 * 2.5 + 50 * 6 + 10 * 10) / 1e6)


def test_g8_an_unknown_model_has_tokens_and_no_money() -> None:
    meter = counted(Meter(), created("mine", "whisper-1"), done(), transcribed({"type": "duration", "seconds": 60.0}))
    assert meter.responses["r1"] == Spent(TOKENS, 0.0, None)
    assert meter.total.tokens == TOKENS
    assert meter.total.cost is None
    assert meter.cost == pytest.approx(0.006)
    assert meter.unpriced == {"mine"}
    assert counted(Meter(), done()).unpriced == {"?"}


def test_g8_prices_of_ones_own_come_first_also_by_the_name_of_a_deployment() -> None:
    mine = {"voice": Price(text_out=1_000_000), "gpt-realtime": Price(audio_out=1_000_000)}
    assert counted(Meter(prices=mine), created("gpt-realtime-2025-08-28"), done()).cost == 91
    assert counted(Meter(model="voice", prices=mine), created(), done()).cost == 30
    assert counted(Meter(model="other", prices=mine), created(), done()).cost == 91
    assert counted(Meter(model="gpt-realtime"), created(None), done()).cost == pytest.approx(COST)


def test_g8_published_prices_do_not_count_for_a_server_of_ones_own() -> None:
    meter = counted(Meter(published=False), created(), done())
    assert meter.total == Spent(TOKENS, 0.0, None)
    assert counted(Meter(published=False, prices=PRICES), created(), done()).cost == pytest.approx(COST)


def test_g8_a_budget_says_when_it_is_spent() -> None:
    meter = counted(Meter(budget=1.5 * COST), created(), done("r1"))
    assert meter.remaining == pytest.approx(0.5 * COST)
    assert meter.is_exhausted is False
    spent = counted(meter, done("r2"))
    assert spent.is_exhausted
    assert spent.remaining == 0
    assert (Meter().remaining, Meter().is_exhausted) == (None, False)


def test_g8_a_budget_that_cannot_be_kept_is_told_as_soon_as_the_session_is_known() -> None:
    assert counted(Meter(budget=1.0), created("mine", "whisper-1")).problem == (
        "the budget of 1 cannot be kept: no price is known for 'mine'; "
        "give prices={'mine': Price(…)}, per million tokens"
    )
    assert counted(Meter(budget=1.0), created("gpt-realtime", "whisper-1")).problem is None
    assert counted(Meter(), created("mine")).problem is None
    for budget in (0.0, -1.0, float("nan")):
        with pytest.raises(LocalProtocolError, match="expected a number above 0"):
            Meter(budget=budget)


def test_only_the_latest_are_kept_and_all_are_counted() -> None:
    meter = counted(Meter(), created(), *(done(f"r{n}") for n in range(REMEMBERED_MAX + 5)))
    assert len(meter.responses) == REMEMBERED_MAX
    assert "r4" not in meter.responses
    assert meter.total.tokens.total == (REMEMBERED_MAX + 5) * 253


def test_what_details_leave_open_is_text() -> None:
    bare = counted(Meter(), created(), done(usage={"total_tokens": 9, "input_tokens": 5, "output_tokens": 4}))
    assert bare.total.tokens == Tokens(text_in=5, text_out=4)
    cached = {"input_tokens": 5, "output_tokens": 0, "input_token_details": {"cached_tokens": 3, "audio_tokens": 1}}
    assert counted(Meter(), done(usage=cached)).total.tokens == Tokens(text_in=1, text_cached=3, audio_in=1)


@pytest.mark.parametrize(
    ("details", "tokens"),
    [
        (
            {"text_tokens": 20, "audio_tokens": 80, "cached_tokens": 60},
            Tokens(text_cached=20, audio_cached=40, audio_in=40),
        ),
        ({"text_tokens": 20, "audio_tokens": 50}, Tokens(text_in=50, audio_in=50)),
        ({"cached_tokens_details": {"audio_tokens": 30}}, Tokens(text_in=70, audio_cached=30)),
    ],
)
def test_g8_the_sum_is_what_the_usage_states_whatever_its_details_leave_open(
    details: dict[str, object], tokens: Tokens
) -> None:
    usage = {"input_tokens": 100, "output_tokens": 30, "total_tokens": 130, "input_token_details": details}
    usage["output_token_details"] = {"text_tokens": 5, "audio_tokens": 15}
    counted_tokens = counted(Meter(), done(usage=usage)).total.tokens
    assert counted_tokens == tokens + Tokens(text_out=15, audio_out=15)
    assert (counted_tokens.input, counted_tokens.output) == (100, 30)


def test_cached_images_have_a_price_of_their_own() -> None:
    price = Price(image_in=2.0)
    assert price.of_tokens(Tokens(image_in=1_000_000, image_cached=1_000_000)) == 4.0
    assert Price(image_in=2.0, image_cached=0.5).of_tokens(Tokens(image_cached=1_000_000)) == 0.5


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("gpt-realtime", "gpt-realtime"),
        ("gpt-realtime-2025-08-28", "gpt-realtime"),
        ("gpt-realtime-mini-2025-12-15", "gpt-realtime-mini"),
        ("gpt-realtime-2.1-mini", "gpt-realtime-2.1-mini"),
        ("gpt-4o-realtime-preview-2025-06-03", "gpt-4o-realtime-preview"),
        ("gpt-4o-realtime-preview-2024-10-01", None),
        ("gpt-realtime-9", None),
        ("gpt-realtime-mini-next", None),
        ("", None),
    ],
)
def test_a_snapshot_is_priced_as_its_model_and_nothing_else_is_guessed(model: str, listed: str | None) -> None:
    assert price_of(model, PRICES) == (None if listed is None else PRICES[listed])
    assert price_of(model, {model: Price()}, PRICES) == Price()
