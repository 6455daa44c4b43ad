"""What a response took adds up, whatever the engines say (reference §6.3, §6.4, §9.2)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core.messages import GenerationEnded
from vivavoce.core.usage import Asked, usage_of
from vivavoce.protocol.items import CachedTokenDetails, InputTokenDetails, OutputTokenDetails, Usage

TOKENS = st.integers(0, 10_000)
ASKED = st.builds(Asked, TOKENS, TOKENS, TOKENS, TOKENS)
ENDED = st.none() | st.builds(GenerationEnded, st.just("resp_1"), st.just("stop"), TOKENS, TOKENS, TOKENS)


def details(usage: Usage) -> tuple[InputTokenDetails, CachedTokenDetails, OutputTokenDetails]:
    into, out = usage.input_token_details, usage.output_token_details
    assert isinstance(into, InputTokenDetails)
    assert isinstance(out, OutputTokenDetails)
    assert isinstance(into.cached_tokens_details, CachedTokenDetails)
    return into, into.cached_tokens_details, out


def total(*tokens: object) -> int:
    assert all(isinstance(count, int) and count >= 0 for count in tokens)
    return sum(count for count in tokens if isinstance(count, int))


@given(ASKED, ENDED, st.text(max_size=50), st.integers(0, 100_000))
def test_usage_adds_up(asked: Asked, ended: GenerationEnded | None, written: str, audio_ms: int) -> None:
    usage = usage_of(asked, ended, written, audio_ms, len)
    into, cached, out = details(usage)
    assert usage.total_tokens == total(usage.input_tokens, usage.output_tokens)
    assert usage.input_tokens == total(into.text_tokens, into.audio_tokens, into.image_tokens)
    assert usage.output_tokens == total(out.text_tokens, out.audio_tokens)
    assert into.cached_tokens == total(cached.text_tokens, cached.audio_tokens, cached.image_tokens)
    assert total(cached.text_tokens) <= total(into.text_tokens)
    assert total(cached.image_tokens) <= total(into.image_tokens)


def test_the_models_own_count_goes_before_ours() -> None:
    ended = GenerationEnded("resp_1", "stop", input_tokens=7, cached_tokens=2, output_tokens=3)
    assert usage_of(Asked(100), ended, "twelve chars", 0, len).total_tokens == 10
    assert usage_of(Asked(100), GenerationEnded("resp_1", "stop"), "twelve chars", 0, len).total_tokens == 112


def test_audio_counts_by_its_duration() -> None:
    usage = usage_of(Asked(5, audio_tokens=16), None, "", 101, len)
    into, _, out = details(usage)
    assert (into.audio_tokens, out.audio_tokens, usage.total_tokens) == (16, 3, 24)
