"""The playbook itself: what it accepts, what it refuses, and what it says when it refuses."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from vivavoce.core.messages import Cancel, Effect, Generate, Input, Opened, Send, WakeUp
from vivavoce.protocol.events import (
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemDeleted,
    ResponseCreate,
    ResponseCreated,
)
from vivavoce.protocol.items import InputText, Message, Response
from vivavoce.testing.matching import ANYTHING, Id
from vivavoce.testing.playbook import Playbook, PlaybookFailed, asks, counting_ids, playbook, sends


class Toy:
    """Answers item and response events, and cancels a response 100 ms after it began."""

    def __init__(self, ids: Callable[[str], str] | None = None) -> None:
        self.ids = ids or counting_ids()
        self.wake_at: int | None = None
        self.response = ""

    def deadline(self) -> int | None:
        return self.wake_at

    def handle(self, input: Input, now_ms: int) -> list[Effect]:
        match input:
            case ConversationItemCreate(item=item):
                item = msgspec.structs.replace(item, id=self.ids("item"))
                return [Send(ConversationItemAdded(item=item, previous_item_id=None, event_id=self.ids("event")))]
            case ConversationItemDelete(item_id=item_id):
                return [Send(ConversationItemDeleted(item_id=item_id))]
            case ResponseCreate():
                self.response, self.wake_at = self.ids("resp"), now_ms + 100
                created = ResponseCreated(response=Response(id=self.response, status="in_progress"))
                return [Send(created), Generate(response_id=self.response, instructions="be brief", items=())]
            case WakeUp():
                self.wake_at = None
                return [Cancel(owner_id=self.response)]
        return []


USER = Message(role="user", content=(InputText(text="hello"),))


def fails(dialogue: Callable[[Playbook], object]) -> str:
    with pytest.raises(PlaybookFailed) as caught, playbook(Toy()) as play:
        dialogue(play)
    return str(caught.value)


def test_a_dialogue_that_the_machine_follows() -> None:
    item, response = Id("item"), Id("response")
    with playbook(Toy()) as play:
        (
            play
            >> ConversationItemCreate(item=USER)
            << sends("conversation.item.added", item={"id": item, "role": "user", "content": [{"text": "hello"}]})
        )
        play >> ConversationItemDelete(item_id=item) << sends("conversation.item.deleted", item_id=item)
        play >> ResponseCreate() << sends("response.created", response={"id": response, "output": []})
        play << asks(Generate, response_id=response, instructions=str.islower)
        play.after(99).after(1) << Cancel(owner_id=response)
    assert (item.value, response.value) == ("item_1", "resp_1")
    assert [(moment.t_ms, type(moment.message).__name__) for moment in play.record[-2:]] == [
        (100, "WakeUp"),
        (100, "Cancel"),
    ]


def test_a_full_struct_is_compared_in_full_and_its_event_id_where_given() -> None:
    with playbook(Toy()) as play:
        item = msgspec.structs.replace(USER, id=Id("item"))
        play >> ConversationItemCreate(item=USER) << ConversationItemAdded(item=item, previous_item_id=None)
        again = msgspec.structs.replace(USER, id=Id("another"))
        play >> ConversationItemCreate(item=USER)
        play << Send(ConversationItemAdded(item=again, previous_item_id=None, event_id="event_2"))
    assert "previous_item_id: expected 'x', came None" in fails(
        lambda play: play >> ConversationItemCreate(item=USER) << ConversationItemAdded(item=item, previous_item_id="x")
    )


def test_the_tag_of_a_struct_counts_as_its_type() -> None:
    with playbook(Toy()) as play:
        play >> ConversationItemCreate(item=USER) << sends("conversation.item.added", item={"type": "message"})
    assert "item.type: expected 'function_call', came 'message'" in fails(
        lambda play: (
            play
            >> ConversationItemCreate(item=USER)
            << sends("conversation.item.added", item={"type": "function_call"})
        )
    )


def test_an_effect_that_differs_is_shown_with_its_place() -> None:
    message = fails(lambda play: play >> ResponseCreate() << sends("response.created") << Cancel(owner_id="resp_1"))
    assert "step 1 at 0 ms: >> response.create" in message
    assert "effect 2 differs" in message
    assert "expected Cancel {owner_id: 'resp_1'}, came Generate {response_id: 'resp_1'" in message
    assert "ok  1 send response.created" in message
    assert "->  2 Generate" in message


def test_values_of_another_type_differ() -> None:
    assert "audio_end_ms: expected True, came nothing (absent)" in fails(
        lambda play: (
            play >> ConversationItemDelete(item_id="a") << sends("conversation.item.deleted", audio_end_ms=True)
        )
    )


def test_lists_are_compared_entry_by_entry() -> None:
    assert "item.content: expected 2 entries, came 1" in fails(
        lambda play: (
            play
            >> ConversationItemCreate(item=USER)
            << sends("conversation.item.added", item={"content": [{"text": "hello"}, ANYTHING]})
        )
    )


def test_a_missing_effect_fails() -> None:
    assert "effect 1: expected send session.created, and nothing more came" in fails(
        lambda play: play >> Opened() << sends("session.created")
    )


def test_an_effect_too_many_fails_at_the_next_input() -> None:
    message = fails(lambda play: play >> ResponseCreate() << sends("response.created") >> Opened())
    assert "step 1" in message
    assert "effect 2 was not expected: Generate" in message


def test_an_effect_too_many_fails_at_the_end() -> None:
    assert "effect 1 was not expected" in fails(lambda play: play >> ResponseCreate())


def test_an_effect_too_many_fails_when_time_moves() -> None:
    assert "effect 1 was not expected" in fails(lambda play: (play >> ResponseCreate()).after(5))


def test_an_effect_of_a_wake_up_has_to_be_expected() -> None:
    assert "effect 1 was not expected: Cancel" in fails(lambda play: (play >> ResponseCreate() << ...).after(500))


def test_dots_pass_over_effects() -> None:
    with playbook(Toy()) as play:
        play >> ResponseCreate() << ... << asks(Generate)
        play >> ResponseCreate() << sends("response.created") << ...
    assert "none of the effects from 1 on is send session.created" in fails(
        lambda play: play >> ResponseCreate() << ... << sends("session.created")
    )


def test_dots_do_not_bind_ids_of_what_they_pass_over() -> None:
    wrong, response = Id("wrong"), Id("response")
    with playbook(Toy()) as play:
        play >> ResponseCreate() << ... << asks(Generate, response_id=response, items=[])
        assert response.value == "resp_1"
        with pytest.raises(PlaybookFailed):
            play >> ResponseCreate() << sends("response.created", response={"id": wrong, "status": "failed"})
        assert wrong.value is None
        play << ...


def test_an_id_keeps_its_meaning() -> None:
    item = Id("item")
    message = fails(
        lambda play: (
            play
            >> ConversationItemCreate(item=USER)
            << sends("conversation.item.added", item={"id": item})
            >> ConversationItemCreate(item=USER)
            << sends("conversation.item.added", item={"id": item})
        )
    )
    assert "item.id: expected <item: item_1>, came 'item_2'" in message


def test_two_ids_are_never_the_same() -> None:
    message = fails(
        lambda play: (
            play
            >> ConversationItemDelete(item_id="a")
            << sends("conversation.item.deleted", item_id=Id("one"))
            >> ConversationItemDelete(item_id="a")
            << sends("conversation.item.deleted", item_id=Id("other"))
        )
    )
    assert "expected <other> to be an id of its own, came <one: a>" in message


def test_an_id_that_nothing_bound_cannot_be_said() -> None:
    with pytest.raises(AssertionError, match="<item> is used before"), playbook(Toy()) as play:
        play >> ConversationItemDelete(item_id=Id("item"))


def test_an_unfinished_playbook_fails() -> None:
    with pytest.raises(PlaybookFailed, match="never run"), playbook(Toy()):
        pass
    with pytest.raises(PlaybookFailed, match="inside its `with` block"):
        playbook(Toy()) >> Opened()
    with pytest.raises(PlaybookFailed, match="inside its `with` block"):
        playbook(Toy()) << sends("session.created")


def test_time_does_not_go_back() -> None:
    assert "time does not go back" in fails(lambda play: play.after(10).at(9))


def test_a_deadline_that_never_moves_is_found() -> None:
    class Sleepless(Toy):
        def deadline(self) -> int | None:
            return 5

    with pytest.raises(PlaybookFailed, match=r"woken 1001 times at 5 ms"), playbook(Sleepless()) as play:
        play.after(10)


def test_an_error_in_the_block_is_not_hidden_by_the_playbook() -> None:
    def fail(play: Playbook) -> None:
        play >> ResponseCreate()
        raise KeyError

    with pytest.raises(KeyError):
        fails(fail)


def test_counting_ids_counts_for_each_prefix() -> None:
    ids = counting_ids()
    assert [ids("item"), ids("resp"), ids("item")] == ["item_1", "resp_1", "item_2"]


def test_a_failure_is_told_once() -> None:
    with playbook(Toy()) as play:
        play >> ResponseCreate()
        with pytest.raises(PlaybookFailed):
            play << sends("session.created")
