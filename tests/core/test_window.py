"""Which part of the conversation the language model is shown (reference §6.5); a character counts as a token here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core.abilities import Abilities
from vivavoce.core.messages import (
    Effect,
    Generate,
    GenerationEnded,
    Opened,
    Prepare,
    SpeechScored,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    WordsHeard,
)
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.core.window import AUTO_RETENTION, IMAGE_TOKENS, ITEM_TOKENS, ContextFull, Window, image_tokens, tokens_of
from vivavoce.protocol.config import FunctionTool, RealtimeSession, RetentionRatio, TokenLimits, Truncation
from vivavoce.protocol.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    InputAudioBufferAppend,
    ResponseCreate,
    ResponseParams,
    SessionUpdate,
)
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    McpApprovalRequest,
    McpCall,
    Message,
    OutputAudio,
    OutputText,
    UnknownPart,
)
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone

ABLE = Abilities(context_tokens=200, output_tokens_max=76, count_tokens=len)
FIXED = ITEM_TOKENS
"""What a context without instructions and items has."""
ROOM = 200 - 76 - FIXED
SIZE = 10


def text(id: str, size: int = SIZE) -> Message:
    return Message(id=id, role="user", content=(InputText(text="x" * (size - ITEM_TOKENS)),))


def texts(*numbers: int) -> tuple[Item, ...]:
    return tuple(text(str(number)) for number in numbers)


def said(id: str, size: int = SIZE) -> Message:
    return Message(id=id, role="assistant", content=(OutputText(text="x" * (size - ITEM_TOKENS)),))


def call(id: str, size: int = SIZE) -> FunctionCall:
    return FunctionCall(id=id, call_id=f"call_{id}", name="f", arguments="x" * (size - ITEM_TOKENS - 1))


def output(id: str, of: str, size: int = SIZE) -> FunctionCallOutput:
    return FunctionCallOutput(id=id, call_id=f"call_{of}", output="x" * (size - ITEM_TOKENS))


def fit(
    window: Window,
    items: tuple[Item, ...],
    truncation: Truncation = "auto",
    *,
    instructions: str = "",
    tools: tuple[FunctionTool, ...] = (),
    output_tokens: int | None = None,
    is_conversation: bool = True,
) -> tuple[tuple[Item, ...], int]:
    return window.fit(
        items,
        instructions=instructions,
        tools=tools,
        output_tokens=output_tokens,
        truncation=truncation,
        is_conversation=is_conversation,
    )


def shown(window: Window, items: tuple[Item, ...], truncation: Truncation = "auto", **more: object) -> list[str]:
    return [item.id or "" for item in fit(window, items, truncation, **more)[0]]  # type: ignore[arg-type]


def numbers(*range_of: int) -> list[str]:
    return [str(number) for number in range(*range_of)]


# --- what items weigh -------------------------------------------------------------------------------------------------


def test_an_item_weighs_what_the_model_sees_of_it() -> None:
    def message(*parts: InputText | InputAudio | InputImage | OutputText | OutputAudio | UnknownPart) -> int:
        return tokens_of(Message(role="user", content=parts), len) - ITEM_TOKENS

    assert message(InputText(text="abc"), OutputText(text="de")) == 5
    assert message(InputAudio(audio=b"1234", transcript="abc"), InputAudio(), OutputAudio(transcript="d")) == 4
    assert message(InputImage(image_url="data:image/png;base64,AAAA")) == IMAGE_TOKENS["auto"]
    assert message(UnknownPart()) == 0
    assert tokens_of(FunctionCall(name="ab", arguments="{}"), len) == ITEM_TOKENS + 4
    assert tokens_of(FunctionCallOutput(call_id="c", output="abc"), len) == ITEM_TOKENS + 3
    assert tokens_of(McpCall(server_label="s", name="n", arguments="{}"), len) == 0


def test_images_are_counted_apart() -> None:
    images = tuple(InputImage(image_url="data:image/png;base64,", detail=detail) for detail in ("low", "high"))
    items = (Message(role="user", content=(InputText(text="abc"), *images)), call("1"))
    assert image_tokens(items) == IMAGE_TOKENS["low"] + IMAGE_TOKENS["high"]


# --- what fits --------------------------------------------------------------------------------------------------------


def test_what_fits_is_shown_whole() -> None:
    items = texts(*range(12))
    assert fit(Window(ABLE), items) == (items, 120 + FIXED)


def test_auto_cuts_to_a_part_so_that_the_next_turns_need_no_cut() -> None:
    window = Window(ABLE)
    assert shown(window, texts(*range(13))) == numbers(4, 13)
    assert 9 * SIZE <= ROOM * AUTO_RETENTION < 10 * SIZE
    for count in (14, 15):
        assert shown(window, texts(*range(count))) == numbers(4, count)


def test_instructions_tools_and_the_answer_take_their_part() -> None:
    tool = FunctionTool(name="look", description="d" * 20)
    _, bare = fit(Window(ABLE), ())
    _, held = fit(Window(ABLE), (), instructions="i" * 30, tools=(tool,))
    assert bare == FIXED
    assert held > FIXED + 30 + len("look") + 20
    assert len(shown(Window(ABLE), texts(*range(12)), output_tokens=4)) == 12
    assert len(shown(Window(ABLE), texts(*range(20)), output_tokens=4)) == int((ROOM + 72) * AUTO_RETENTION) // SIZE
    assert len(shown(Window(ABLE), texts(*range(12)), instructions="i" * 60)) == int((ROOM - 60) * AUTO_RETENTION) // 10


def test_an_answer_takes_no_more_than_the_model_writes_and_no_more_than_half() -> None:
    assert len(shown(Window(ABLE), texts(*range(12)), output_tokens=4_096)) == 12
    narrow = Abilities(context_tokens=200, output_tokens_max=200, count_tokens=len)
    assert len(shown(Window(narrow), texts(*range(9)))) == 9


def test_instructions_that_alone_do_not_fit_are_told() -> None:
    with pytest.raises(ContextFull, match=r"The context has 125 tokens, and 124 fit"):
        fit(Window(ABLE), (), instructions="i" * 121)
    assert fit(Window(ABLE), (), instructions="i" * 120) == ((), 124)


def test_a_last_item_that_alone_does_not_fit_is_told() -> None:
    window = Window(ABLE)
    with pytest.raises(ContextFull, match="The context has 125 tokens, and 124 fit"):
        fit(window, (*texts(0, 1), text("2", ROOM + 1)))
    assert shown(window, texts(0, 1)) == ["0", "1"]  # a view that was not shown leaves nothing out


def test_disabled_cuts_nothing() -> None:
    with pytest.raises(ContextFull, match="The context has 134 tokens, and 124 fit"):
        fit(Window(ABLE), texts(*range(13)), "disabled")
    assert len(shown(Window(ABLE), texts(*range(12)), "disabled")) == 12


@pytest.mark.parametrize(
    ("ratio", "limit", "kept"), [(1.0, None, 12), (0.5, None, 6), (0.0, None, 1), (0.5, 80, 4), (1.0, 1_000, 12)]
)
def test_retention_ratio(ratio: float, limit: int | None, kept: int) -> None:
    limits = TokenLimits() if limit is None else TokenLimits(post_instructions=limit)
    cut = RetentionRatio(retention_ratio=ratio, token_limits=limits)
    assert shown(Window(ABLE), texts(*range(13)), cut) == numbers(13 - kept, 13)
    assert len(shown(Window(ABLE), texts(*range(13)), RetentionRatio(retention_ratio=0.5))) == 6


# --- calls and their outputs ------------------------------------------------------------------------------------------


def test_an_output_goes_with_its_call() -> None:
    items = (call("a"), text("0"), output("b", "a"), *texts(*range(1, 11)))
    assert shown(Window(ABLE), items, RetentionRatio(retention_ratio=1.0)) == numbers(0, 11)


def test_a_call_goes_with_its_output() -> None:
    items = (output("b", "a"), text("0"), call("a"), *texts(*range(1, 11)))
    assert shown(Window(ABLE), items, RetentionRatio(retention_ratio=1.0)) == numbers(0, 11)


def test_of_parallel_calls_none_is_left_half() -> None:
    items = (call("a"), call("b"), output("c", "a"), output("d", "b"), *texts(*range(9)))
    assert shown(Window(ABLE), items, RetentionRatio(retention_ratio=1.0)) == ["b", "d", *numbers(9)]
    assert shown(Window(ABLE), (*items, text("9")), RetentionRatio(retention_ratio=1.0)) == numbers(10)


def test_outputs_at_the_end_stay_with_the_calls_that_they_answer() -> None:
    items = (call("a"), call("b"), *texts(*range(10)), output("c", "a"), output("d", "b"))
    assert shown(Window(ABLE), items, RetentionRatio(retention_ratio=0.5)) == ["a", "b", "8", "9", "c", "d"]
    assert shown(Window(ABLE), items, RetentionRatio(retention_ratio=0)) == ["a", "b", "9", "c", "d"]


def test_the_parts_of_an_mcp_call_are_left_out_together_and_for_good() -> None:
    seen = (FunctionCall(id="m", call_id="m", name="f", arguments="{}"), FunctionCallOutput(call_id="m", output="x"))
    window = Window(ABLE)
    assert shown(window, (*seen, *texts(*range(12)))) == numbers(3, 12)
    assert shown(window, (*seen, *texts(*range(3, 10)))) == numbers(3, 10)


def test_a_call_that_was_left_out_comes_back_when_its_output_is_asked_about() -> None:
    window = Window(ABLE)
    items = (call("a"), *texts(*range(12)))
    assert shown(window, items) == numbers(3, 12)
    assert shown(window, (*items, output("b", "a"))) == ["a", *numbers(3, 12), "b"]
    assert shown(window, (*items, output("b", "a"), text("12"))) == ["a", *numbers(3, 12), "b", "12"]


def test_the_output_of_a_call_that_was_left_out_is_left_out() -> None:
    window = Window(ABLE)
    items = (call("a"), *texts(*range(12)))
    assert shown(window, items) == numbers(3, 12)
    assert shown(window, (*items, output("b", "a"), text("12"))) == numbers(3, 13)


# --- what stays the same from response to response --------------------------------------------------------------------


def test_what_was_left_out_stays_out_though_the_first_item_shown_is_deleted() -> None:
    window = Window(ABLE)
    assert shown(window, texts(*range(13)))[0] == "4"
    without = tuple(item for item in texts(*range(13)) if item.id != "4")
    assert shown(window, without) == numbers(5, 13)


def test_an_item_that_a_client_puts_before_the_others_is_seen() -> None:
    window = Window(ABLE)
    shown(window, texts(*range(13)))
    assert shown(window, (text("rule"), *texts(*range(13)))) == ["rule", *numbers(4, 13)]


def test_disabled_shows_again_what_auto_left_out() -> None:
    window = Window(ABLE)
    assert len(shown(window, texts(*range(13)))) == 9
    assert len(shown(window, texts(*range(12)), "disabled")) == 12


def test_a_custom_input_leaves_the_conversation_alone() -> None:
    window = Window(ABLE)
    shown(window, texts(*range(13)))
    assert shown(window, texts(*range(5)), is_conversation=False) == numbers(5)
    assert shown(window, texts(*range(20, 40)), is_conversation=False) == numbers(31, 40)
    assert shown(window, texts(*range(13))) == numbers(4, 13)


def test_what_is_gone_is_forgotten() -> None:
    window = Window(ABLE)
    shown(window, texts(*range(13)))
    shown(window, texts(*range(20, 21)))
    assert window._left_out == set()


KINDS = st.sampled_from(["text", "said", "call", "output"])


@given(st.lists(st.tuples(KINDS, st.integers(5, 60)), min_size=1, max_size=40), st.floats(0, 1))
def test_a_view_fits_and_its_prefix_is_stable(made: list[tuple[str, int]], ratio: float) -> None:
    """However a conversation grows, no view is too long, none has half a call, and nothing comes back."""
    window, items, gone = Window(ABLE), list[Item](), set[str]()
    calls: list[str] = []
    for number, (kind, size) in enumerate(made):
        if kind == "output" and calls:
            items.append(output(str(number), calls.pop(0), size))
        elif kind == "call":
            items.append(call(str(number), size))
            calls.append(str(number))
        elif kind == "said":
            items.append(said(str(number), size))
        else:
            items.append(text(str(number), size))
        try:
            view, tokens = fit(window, tuple(items), RetentionRatio(retention_ratio=ratio))
        except ContextFull:
            continue
        assert tokens <= 124
        assert view[-1] == items[-1]
        ids = {str(item.id) for item in view}
        assert not ids & gone
        gone |= {str(item.id) for item in items if isinstance(item, Message)} - ids
        called = {item.call_id for item in view if isinstance(item, FunctionCall)}
        assert {item.call_id for item in view if isinstance(item, FunctionCallOutput)} <= called


# --- in a session -----------------------------------------------------------------------------------------------------


def opened(play: Playbook, **fields: object) -> None:
    play >> Opened() << ...
    session = RealtimeSession(output_modalities=("text",), instructions="", **fields)  # type: ignore[arg-type]
    play >> SessionUpdate(session=session) << sends("session.updated")


def machine() -> Session:
    return Session(id="s", model="m", ids=counting_ids(), expires_at=0, surroundings=Surroundings(abilities=ABLE))


def say(play: Playbook, *items: Item) -> None:
    for item in items:
        play >> ConversationItemCreate(item=item) << sends("conversation.item.added") << ...


def test_a_response_that_does_not_fit_fails_and_the_session_goes_on() -> None:
    with playbook(machine()) as play:
        opened(play, truncation="disabled")
        say(play, *texts(*range(13)))
        play >> ResponseCreate() << sends("response.created") << ...
        error = {
            "type": "invalid_request_error",
            "code": "context_length_exceeded",
            "message": "The context has 134 tokens, and 124 fit into the language model's window.",
        }
        details = {"type": "failed", "error": error}
        usage = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}
        play << sends("response.done", response={"status": "failed", "status_details": details, "usage": usage})
        play >> ConversationItemDelete(item_id="0") << sends("conversation.item.deleted")
        play >> ResponseCreate() << sends("response.created") << asks(Generate)


def test_items_that_are_left_out_stay_in_the_conversation() -> None:
    session = machine()
    with playbook(session) as play:
        opened(play)
        say(play, *texts(*range(13)))
        play >> ResponseCreate() << ... << asks(Generate, items=[{"id": id} for id in numbers(4, 13)])
        play >> GenerationEnded("resp_1", "stop") << sends("response.done", response={"usage": {"input_tokens": 94}})
        assert session.conversation.item_ids == tuple(numbers(13))
        play >> ResponseCreate(response=ResponseParams(input=(text("own"),))) << ...
        play << asks(Generate, items=[{"id": "own"}])


def test_what_the_model_does_not_see_takes_no_room() -> None:
    with playbook(machine()) as play:
        opened(play)
        say(play, McpApprovalRequest(id="a", server_label="s", name="n", arguments="x" * 500), text("0"))
        play >> ResponseCreate() << ... << asks(Generate, items=[{"id": "0"}])


def test_what_is_left_begins_with_what_a_user_says_after_somebody_else() -> None:
    # Two users' items in a row are one line to the language model; 3 and 4 are what it was given, and 5 its answer.
    items = (text("1"), said("2"), text("3"), text("4"), said("5"), text("6"), said("7"), text("8"), *texts(9, 10))
    for post_instructions in range(2 * SIZE, 10 * SIZE):
        truncation = RetentionRatio(retention_ratio=1.0, token_limits=TokenLimits(post_instructions=post_instructions))
        kept, _ = Window(ABLE).fit(
            items, instructions="", tools=(), output_tokens=None, truncation=truncation, is_conversation=True
        )
        first = next(index for index, item in enumerate(items) if item.id == kept[0].id)
        assert kept == items[first:]
        assert first in ({0, 2, 5, 7} if post_instructions >= 3 * SIZE else {8})


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        ((text("1"), said("2"), text("3"), call("a"), output("b", "a"), said("4"), text("5"), said("6")), ["5", "6"]),
        ((text("1"), call("a"), text("2"), output("b", "a"), said("3"), text("4"), said("5")), ["4", "5"]),
        ((text("1"), call("a"), text("2"), said("3"), text("4"), output("b", "a")), ["a", "2", "3", "4", "b"]),
    ],
)
def test_no_exchange_begins_between_a_call_and_its_output(items: tuple[Item, ...], kept: list[str]) -> None:
    found = []
    for post_instructions in range(SIZE, len(items) * SIZE):
        truncation = RetentionRatio(retention_ratio=1.0, token_limits=TokenLimits(post_instructions=post_instructions))
        try:
            view = shown(Window(ABLE), items, truncation)
        except ContextFull:
            continue
        assert ("a" in view) == ("b" in view)
        found.append(view)
    assert kept in found


def test_where_nobody_else_says_anything_an_item_may_be_the_first() -> None:
    truncation = RetentionRatio(retention_ratio=1.0, token_limits=TokenLimits(post_instructions=3 * SIZE))
    kept, _ = Window(ABLE).fit(
        texts(1, 2, 3, 4, 5),
        instructions="",
        tools=(),
        output_tokens=None,
        truncation=truncation,
        is_conversation=True,
    )
    assert [item.id for item in kept] == ["3", "4", "5"]


def prepared(effects: list[Effect]) -> list[str]:
    """The ids of the items that the language model is to read."""
    (wanted,) = (effect.wanted for effect in effects if isinstance(effect, Prepare))
    return [str(item.id) for item in wanted.items]


def test_room_for_what_is_about_to_be_said_is_made_when_a_turn_begins() -> None:
    able = replace(ABLE, hears_along=True, prepares=True, speculation=True)
    session = Session(
        id="s",
        model="m",
        instructions="",
        ids=counting_ids(),
        expires_at=0,
        surroundings=Surroundings(abilities=able),
    )
    session.handle(Opened(), 0)
    for item in texts(*range(ROOM // SIZE - 1)):
        session.handle(ConversationItemCreate(item=item), 0)
    session.handle(InputAudioBufferAppend(audio=tone(200)), 0)
    before = prepared(session.handle(SpeechScored(1, 20, (1.0,) * 10), 0))
    assert before[:-1] == [str(number) for number in range(3, 11)], "what is left would only just have held a word"
    item_id = before[-1]
    heard = session.handle(WordsHeard(item_id, "four", ""), 0)
    assert prepared(heard) == before, "so the rest of the prompt stays as it was read"
    session.handle(InputAudioBufferAppend(audio=silence(600)), 0)
    (asked,) = (e for e in session.handle(SpeechScored(1, 20, (0.0,) * 30), 0) if isinstance(e, Transcribe))
    session.handle(TranscriptDelta(asked.item_id, "four"), 0)
    effects = session.handle(TranscriptEnded(asked.item_id), 0)
    (generate,) = (effect for effect in effects if isinstance(effect, Generate))
    assert [str(item.id) for item in generate.items] == before
