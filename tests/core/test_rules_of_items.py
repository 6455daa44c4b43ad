"""Items that a client makes, moves, looks at, cuts and deletes (reference §3.8–§3.11, §4.4 T13, T14)."""

from __future__ import annotations

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    AudioSynthesized,
    Cancel,
    Generate,
    GenerationEnded,
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
from vivavoce.protocol.base import UNSET, Maybe
from vivavoce.protocol.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemRetrieve,
    ConversationItemTruncate,
    ResponseCreate,
    ResponseParams,
)
from vivavoce.protocol.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    ItemReference,
    McpApprovalResponse,
    Message,
    OutputAudio,
    OutputText,
    Role,
    UnknownItem,
)
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import tone


def create(item: Item, previous: Maybe[str | None] = UNSET) -> ConversationItemCreate:
    return ConversationItemCreate(item=item, previous_item_id=previous, event_id="mine")


def text(said: str, id: Maybe[str] = UNSET) -> Message:
    return Message(role="user", content=(InputText(text=said),), id=id)


def error(code: str, param: str | None = None) -> Expected:
    return sends("error", error={"code": code, "param": param, "event_id": "mine"})


def added(play: Playbook, item: Item, previous: Maybe[str | None], at: str | None) -> None:
    """The item is created with this `previous_item_id`, and said to stand behind the item `at`."""
    (
        play
        >> create(item, previous)
        << sends("conversation.item.added", previous_item_id=at, item={"id": item.id, "status": "completed"})
        << sends("conversation.item.done", previous_item_id=at, item={"id": item.id, "status": "completed"})
    )


# --- T13 and §3.8 -----------------------------------------------------------------------------------------------------


def test_t13_items_go_where_previous_item_id_says(play: Playbook, session: Session) -> None:
    added(play, text("b", "b"), "root", None)
    added(play, text("c", "c"), "b", "b")
    added(play, text("a", "a"), "root", None)
    added(play, text("d", "d"), UNSET, "c")
    added(play, text("e", "e"), None, "d")
    added(play, text("f", "f"), "", "e")
    added(play, text("x", "x"), "b", "b")
    play >> create(text("y", "y"), "nowhere") << error("item_create_invalid_previous_item_id")
    assert session.conversation.item_ids == ("a", "b", "x", "c", "d", "e", "f")


def test_an_item_without_an_id_gets_one(play: Playbook) -> None:
    item, other = Id("item"), Id("other")
    play >> create(text("a")) << sends("conversation.item.added", item={"id": item, "object": "realtime.item"}) << ...
    play >> create(text("b", "")) << sends("conversation.item.added", item={"id": other}, previous_item_id=item) << ...


def test_an_id_is_used_once_and_free_again_after_deletion(play: Playbook) -> None:
    added(play, text("a", "a"), UNSET, None)
    play >> create(text("a", "a")) << error("invalid_value", "item.id")
    play >> ConversationItemDelete(item_id="a") << sends("conversation.item.deleted", item_id="a")
    added(play, text("a", "a"), UNSET, None)


def test_status_and_object_of_the_client_are_ignored(play: Playbook) -> None:
    item = Message(role="user", content=(InputText(text="a"),), status="in_progress", object="realtime.item")
    play >> create(item) << sends("conversation.item.added", item={"status": "completed"}) << ...


@pytest.mark.parametrize(
    ("role", "part", "code", "param"),
    [
        ("user", OutputText(text="a"), "invalid_value", "item.content[0].type"),
        ("system", InputAudio(audio=b""), "invalid_value", "item.content[0].type"),
        ("assistant", InputText(text="a"), "invalid_value", "item.content[0].type"),
        ("assistant", OutputAudio(transcript="a"), "invalid_value", "item.content[0].type"),
        ("user", InputImage(image_url="data:image/png;base64,"), "invalid_value", "item.content[0].type"),
        ("user", InputAudio(), "missing_required_parameter", "item.content[0].audio"),
    ],
)
def test_what_a_role_cannot_say_is_refused(play: Playbook, role: Role, part: Content, code: str, param: str) -> None:
    play >> create(Message(role=role, content=(part,))) << error(code, param)


def test_an_approval_must_have_been_asked_for(play: Playbook) -> None:
    item = McpApprovalResponse(approval_request_id="x", approve=True)
    play >> create(item) << error("invalid_value", "item.approval_request_id")


def test_a_functions_output_must_answer_a_call(play: Playbook) -> None:
    call = Id("call")
    play >> create(FunctionCallOutput(call_id="call_none", output="1")) << error("invalid_tool_call_id")
    (
        play
        >> create(FunctionCall(name="look", arguments="{}"))
        << sends("conversation.item.added", item={"type": "function_call", "call_id": call, "status": "completed"})
        << sends("conversation.item.done")
    )
    (
        play
        >> create(FunctionCallOutput(call_id=call, output="1"))
        << sends("conversation.item.added", item={"type": "function_call_output", "call_id": call, "output": "1"})
        << sends("conversation.item.done")
    )
    (
        play
        >> create(FunctionCall(name="look", arguments="{}", call_id="mine"))
        << sends("conversation.item.added", item={"call_id": "mine"})
        << sends("conversation.item.done")
    )


def test_a_conversation_holds_only_so_many_items() -> None:
    with playbook(Session(id="s", model="m", ids=counting_ids(), expires_at=0, limits=Limits(items_max=1))) as play:
        play >> Opened() << ...
        added(play, text("a", "a"), UNSET, None)
        play >> create(text("b", "b")) << error("conversation_full")


# --- T14: retrieve and delete -----------------------------------------------------------------------------------------


def test_t14_an_item_is_retrieved_with_its_audio(play: Playbook) -> None:
    spoken = Message(role="user", content=(InputText(text="hear:"), InputAudio(audio=tone(100))), id="a")
    play >> create(spoken) << ...
    (
        play
        >> ConversationItemRetrieve(item_id="a")
        << sends("conversation.item.retrieved", item={"id": "a", "content": [{"text": "hear:"}, {"audio": tone(100)}]})
    )
    play >> ConversationItemRetrieve(item_id="b", event_id="mine") << error("item_retrieve_invalid_item_id")


def test_t14_after_a_deletion_the_next_items_predecessor_is_the_one_before(play: Playbook, session: Session) -> None:
    added(play, text("a", "a"), UNSET, None)
    added(play, text("b", "b"), UNSET, "a")
    play >> ConversationItemDelete(item_id="b") << sends("conversation.item.deleted", item_id="b")
    added(play, text("c", "c"), UNSET, "a")
    play >> ConversationItemDelete(item_id="b", event_id="mine") << error("item_delete_invalid_item_id")
    assert session.conversation.item_ids == ("a", "c")


def test_an_item_that_is_being_written_cannot_be_deleted(play: Playbook) -> None:
    play >> ResponseCreate() << ...
    play >> TextGenerated("resp_1", "Hello") << ...
    play >> ConversationItemDelete(item_id="item_1", event_id="mine") << error("invalid_value", "item_id")


def test_deleting_an_item_ends_its_transcription_and_the_wait_for_it(play: Playbook) -> None:
    play >> create(Message(role="user", content=(InputAudio(audio=tone(100)),), id="a")) << ...
    play >> ResponseCreate() << sends("response.created")
    play >> ConversationItemDelete(item_id="a") << sends("conversation.item.deleted") << Cancel("a")
    play << asks(Generate, items=[])
    play >> TranscriptDelta("a", "too late")
    play >> TranscriptEnded("a")


def test_an_answer_waits_for_every_transcript_that_it_needs(play: Playbook) -> None:
    for id in ("a", "b"):
        play >> create(Message(role="user", content=(InputAudio(audio=tone(100)),), id=id)) << ... << asks(Transcribe)
    play >> ResponseCreate() << sends("response.created")
    play >> TranscriptDelta("b", "two") >> TranscriptEnded("b")
    play >> TranscriptDelta("a", "one") >> TranscriptEnded("a")
    play << asks(Generate, items=[{"content": [{"transcript": "one"}]}, {"content": [{"transcript": "two"}]}])


def test_an_answer_to_what_could_not_be_heard_fails(play: Playbook) -> None:
    play >> create(Message(role="user", content=(InputAudio(audio=tone(100)),), id="a")) << ...
    play >> ResponseCreate() << sends("response.created")
    (
        play
        >> TranscriptFailed("a", "noise", "Nothing to be heard.")
        << asks(Cancel)
        << sends(
            "response.done",
            response={
                "status": "failed",
                "status_details": {"error": {"code": "noise", "message": "Nothing to be heard."}},
            },
        )
    )


# --- T14: truncate (§3.11) --------------------------------------------------------------------------------------------


@pytest.fixture
def spoken(play: Playbook) -> Playbook:
    """The assistant has said "One two three. Four five six." in two phrases of 1,000 ms each, as item_1."""
    play >> ResponseCreate() << ...
    play >> TextGenerated("resp_1", "One two three. Four five six.") << ... << asks(Speak, phrase=0)
    play >> GenerationEnded("resp_1", "stop") << asks(Speak, phrase=1, text="Four five six.")
    for phrase in (0, 1):
        play >> AudioSynthesized("resp_1", "item_1", bytes(PCM16_24K.bytes_of(1_000))) << ...
        play >> PhraseSpoken("resp_1", "item_1", phrase) << ...
    return play


def truncate(end_ms: int, item: str = "item_1", index: int = 0) -> ConversationItemTruncate:
    return ConversationItemTruncate(item_id=item, content_index=index, audio_end_ms=end_ms, event_id="mine")


def cut(end_ms: int) -> Expected:
    return sends("conversation.item.truncated", item_id="item_1", content_index=0, audio_end_ms=end_ms)


def test_t14_truncation_takes_the_audio_behind_it_and_the_whole_transcript(spoken: Playbook) -> None:
    spoken >> truncate(1_500) << cut(1_500)
    (
        spoken
        >> ConversationItemRetrieve(item_id="item_1")
        << sends(
            "conversation.item.retrieved",
            item={"content": [{"audio": bytes(PCM16_24K.bytes_of(1_500)), "transcript": ""}], "status": "completed"},
        )
    )
    spoken >> truncate(1_501) << error("invalid_value", "audio_end_ms")
    spoken >> truncate(0) << cut(0)


def test_truncation_of_what_is_no_speech_is_refused(spoken: Playbook) -> None:
    added(spoken, text("a", "a"), UNSET, "item_1")
    spoken >> truncate(0, "a") << error("unsupported_content_type")
    spoken >> truncate(0, "item_1", 1) << error("unsupported_content_type")
    spoken >> truncate(0, "item_none") << error("item_truncate_invalid_item_id")
    spoken >> truncate(2_001) << error("invalid_value", "audio_end_ms")
    spoken >> truncate(2_000) << cut(2_000)


@pytest.mark.parametrize(
    ("end_ms", "heard"),
    [
        (0, ""),
        (200, ""),
        (500, "One "),
        (999, "One two "),
        (1_000, "One two three. "),
        (1_600, "One two three. Four "),
        (2_000, "One two three. Four five six."),
    ],
)
def test_the_model_knows_of_cut_speech_what_was_heard(spoken: Playbook, end_ms: int, heard: str) -> None:
    spoken >> truncate(end_ms) << cut(end_ms)
    create_text = ResponseCreate(response=ResponseParams(output_modalities=("text",)))
    spoken >> create_text << sends("response.created") << asks(Generate, items=[{"content": [{"transcript": heard}]}])


def test_speech_that_is_cut_while_it_is_made_stays_cut(play: Playbook, session: Session) -> None:
    audio = AudioSynthesized("resp_1", "item_1", bytes(PCM16_24K.bytes_of(100)))
    play >> ResponseCreate() << ...
    play >> TextGenerated("resp_1", "One two three. ") << ... << asks(Speak)
    play >> audio << sends("response.output_audio.delta")
    play >> truncate(50) << cut(50)
    play >> audio << sends("response.output_audio.delta")
    play >> GenerationEnded("resp_1", "stop")
    play >> PhraseSpoken("resp_1", "item_1", 0) << ... << sends("response.done", response={"status": "completed"})
    play >> truncate(51) << error("invalid_value", "audio_end_ms")
    assert session.conversation.items[0].content == (OutputAudio(transcript=""),)  # type: ignore[union-attr]


def test_audio_of_users_is_kept_up_to_a_limit_oldest_let_go_first() -> None:
    limits = Limits(audio_bytes_max=3 * len(tone(100)))
    with playbook(Session(id="s", model="m", ids=counting_ids(), expires_at=0, limits=limits)) as play:
        play >> Opened() << ...

        def spoken(id: str) -> None:
            play >> create(Message(role="user", content=(InputAudio(audio=tone(100)),), id=id)) << ...

        def kept(id: str) -> bool:
            play >> ConversationItemRetrieve(item_id=id) << ...
            (part,) = play.record[-1].message.event.item.content  # type: ignore[union-attr]
            return bool(part.audio)

        for id in ("a", "b", "c"):
            spoken(id)
        assert [kept(id) for id in ("a", "b", "c")] == [True, True, True]
        spoken("d")
        assert [kept(id) for id in ("a", "b", "c", "d")] == [False, True, True, True]
        play >> ConversationItemDelete(item_id="c") << ...
        spoken("e")
        assert [kept(id) for id in ("b", "d", "e")] == [True, True, True]
        spoken("f")
        assert [kept(id) for id in ("b", "d", "e", "f")] == [False, True, True, True]


def test_what_is_no_item_cannot_be_created(play: Playbook) -> None:
    reference = ConversationItemCreate(item=ItemReference(id="a"), event_id="mine")  # type: ignore[arg-type]
    play >> reference << sends("error", error={"code": "invalid_value", "param": "item.type", "event_id": "mine"})
    unknown = ConversationItemCreate(item=UnknownItem(id="a"), event_id="mine")
    play >> unknown << sends("error", error={"code": "invalid_value", "param": "item.type", "event_id": "mine"})
