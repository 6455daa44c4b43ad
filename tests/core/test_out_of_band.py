"""T10: answers beside the conversation, with a context of their own (reference §3.12, §4.4 T10)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vivavoce.core.messages import (
    Cancel,
    Generate,
    GenerationEnded,
    Opened,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
)
from vivavoce.core.session import Session
from vivavoce.protocol.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemRetrieve,
    ResponseCancel,
    ResponseCreate,
    ResponseParams,
)
from vivavoce.protocol.items import InputAudio, InputText, ItemReference, Message
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import tone


@pytest.fixture
def play() -> Iterator[Playbook]:
    with playbook(Session(id="sess_1", model="m", ids=counting_ids(), expires_at=0)) as play:
        play >> Opened() << ...
        yield play


def aside(*items: Message | ItemReference) -> ResponseCreate:
    return ResponseCreate(
        response=ResponseParams(
            conversation="none", input=items, output_modalities=("text",), instructions="sort", metadata={"topic": "x"}
        )
    )


def test_t10_an_answer_beside_the_conversation_leaves_it_alone(play: Playbook) -> None:
    known, response, item = Id("known"), Id("response"), Id("item")
    user = Message(role="user", content=(InputText(text="one"),))
    play >> ConversationItemCreate(item=user) << sends("conversation.item.added", item={"id": known}) << ...
    (
        play
        >> aside(ItemReference(id=known), Message(role="user", content=(InputText(text="two"),)))
        << sends("response.created", response={"id": response, "conversation_id": None, "metadata": {"topic": "x"}})
        << asks(
            Generate,
            response_id=response,
            instructions="sort",
            items=[{"content": [{"text": "one"}]}, {"content": [{"text": "two"}]}],
        )
    )
    (
        play
        >> TextGenerated(response, "three")
        << sends("response.output_item.added", item={"id": item, "status": "in_progress"})
        << sends("response.content_part.added", item_id=item, part={"type": "text", "text": ""})
        << sends("response.output_text.delta", response_id=response, item_id=item, delta="three")
    )
    (
        play
        >> GenerationEnded(response, "stop")
        << sends("response.output_text.done", text="three")
        << sends("response.content_part.done", part={"type": "text", "text": "three"})
        << sends("response.output_item.done", item={"id": item, "status": "completed"})
        << sends(
            "response.done",
            response={"status": "completed", "conversation_id": None, "metadata": {"topic": "x"}},
        )
    )
    unknown = sends("error", error={"code": "item_retrieve_invalid_item_id"})
    play >> ConversationItemRetrieve(item_id=item) << unknown
    play >> ConversationItemDelete(item_id=item) << sends("error", error={"code": "item_delete_invalid_item_id"})


def test_t10_it_may_overlap_an_answer_in_the_conversation(play: Playbook) -> None:
    main, other = Id("main"), Id("other")
    play >> ResponseCreate() << sends("response.created", response={"id": main}) << asks(Generate)
    play >> aside() << sends("response.created", response={"id": other}) << asks(Generate, response_id=other, items=[])
    play >> ResponseCancel() << Cancel(main) << sends("response.done", response={"id": main})
    play >> TextGenerated(other, "still here") << ... << sends("response.output_text.delta", response_id=other)
    play >> ResponseCancel(response_id=other) << ... << sends("response.done", response={"id": other})


def test_a_reference_to_an_unknown_item_is_refused(play: Playbook) -> None:
    error = {"code": "invalid_value", "param": "response.input[0].id"}
    play >> aside(ItemReference(id="item_none")) << sends("error", error=error)


def test_audio_of_the_context_is_heard_before_the_answer(play: Playbook) -> None:
    response, item = Id("response"), Id("item")
    spoken = Message(role="user", content=(InputAudio(audio=tone(200)),))
    play >> aside(spoken) << asks(Transcribe, item_id=item) << sends("response.created", response={"id": response})
    play >> TranscriptDelta(item, "hello")
    play >> TranscriptEnded(item) << asks(Generate, items=[{"content": [{"transcript": "hello"}]}])


def test_audio_of_the_context_is_forgotten_with_the_answer(play: Playbook) -> None:
    item = Id("item")
    spoken = Message(role="user", content=(InputAudio(audio=tone(200)),))
    play >> aside(spoken) << asks(Transcribe, item_id=item) << sends("response.created")
    play >> ResponseCancel(response_id="resp_1") << asks(Cancel) << sends("response.done") << Cancel(item)
    play >> TranscriptDelta(item, "too late")


@pytest.mark.parametrize("how", ["in one context", "in two contexts", "in a context and the conversation"])
def test_an_item_with_audio_has_an_id_of_its_own(play: Playbook, how: str) -> None:
    spoken = Message(id="mine", role="user", content=(InputAudio(audio=tone(200)),))
    if how == "in one context":
        error = {"code": "invalid_value", "param": "response.input[1].id"}
        play >> aside(spoken, spoken) << sends("error", error=error)
        return
    play >> aside(spoken) << asks(Transcribe, item_id="mine") << sends("response.created")
    if how == "in two contexts":
        error = {"code": "invalid_value", "param": "response.input[0].id"}
        play >> aside(spoken) << sends("error", error=error)
    else:
        error = {"code": "invalid_value", "param": "item.id"}
        play >> ConversationItemCreate(item=spoken) << sends("error", error=error)
