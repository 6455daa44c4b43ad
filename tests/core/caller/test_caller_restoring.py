"""From one connection to the next: nothing lost, nothing twice (unsent.py, restoring.py, `Restored`)."""

from __future__ import annotations

import pytest
from caller_dialogue import (
    SERVER_VAD,
    Dialogue,
    added,
    append,
    aside,
    call,
    committed,
    conversation_of,
    create,
    created,
    delta,
    done,
    item_done,
    said,
    spoken,
    started,
    stopped,
)
from msgspec import UNSET, structs

from vivavoce.core.caller import CallerLimits
from vivavoce.core.caller.messages import (
    Ask,
    Connected,
    Heard,
    Interrupt,
    Lost,
    PlaybackStopped,
    Restored,
    Tell,
    ToolEnded,
)
from vivavoce.core.caller.restoring import Leftovers, merged, restoration, restored
from vivavoce.core.caller.updates import Failed
from vivavoce.core.conversation import Conversation
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import (
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    McpListTools,
    Message,
    OutputText,
    system_message,
    user_message,
)
from vivavoce.testing.playbook import counting_ids

OUTPUT = FunctionCallOutput(id="out_1", call_id="call_1", output="{}")
ITEM = ev.ConversationItemCreate(event_id="e", item=user_message("hello", id="mine"))
DELETE = ev.ConversationItemDelete(event_id="d", item_id="mine")
ANSWER = Message(id="item_1", role="assistant", content=(OutputText(text="one two three fo"),))
CREATE = "send response.create"


def told(talk: Dialogue) -> list[Item]:
    """The items that another session is told."""
    events = restoration(talk.caller.memory, None, counting_ids())
    return [event.item for event in events if isinstance(event, ev.ConversationItemCreate)]


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "becomes"),
    [
        (system_message("Be brief.", id="s"), system_message("Be brief.", id="s")),
        (user_message("hello", id="u"), user_message("hello", id="u")),
        (
            Message(id="u", role="user", content=(InputImage(image_url="data:,"), InputAudio(transcript="hi"))),
            Message(id="u", role="user", content=(InputImage(image_url="data:,"), InputText(text="hi"))),
        ),
        (Message(id="u", role="user", content=(InputAudio(transcript=None),)), None),
        (said(), ANSWER),
        (structs.replace(said(), status="incomplete"), ANSWER),
        (structs.replace(said(text=""), status="in_progress"), None),
        (call(), structs.replace(call(), status=UNSET)),
        (call(status="in_progress"), None),
        (call(status="incomplete"), None),
        (structs.replace(call(), call_id=UNSET), None),
        (OUTPUT, None),
        (McpListTools(id="m", server_label="x", tools=()), None),
    ],
)
def test_each_kind_of_item_becomes_what_every_service_takes(item: Item, becomes: Item | None) -> None:
    talk = Dialogue()
    talk.say(added(item))
    assert told(talk) == ([] if becomes is None else [becomes])


def test_items_are_told_in_order_behind_the_configuration() -> None:
    talk = Dialogue()
    talk.ask(ev.SessionUpdate(event_id="u", session=cfg.RealtimeSession(instructions="Be brief.")))
    talk.say(ev.SessionUpdated(session=cfg.RealtimeSessionResource(id="sess_1")))
    talk.say(added(user_message("hello", id="u")), added(call()), added(OUTPUT), added(said()))
    first, *rest = restoration(talk.caller.memory, talk.caller.configured, counting_ids())
    assert first == ev.SessionUpdate(event_id="event_1", session=cfg.RealtimeSession(instructions="Be brief."))
    assert [event.event_id for event in rest] == ["event_2", "event_3", "event_4", "event_5"]
    assert [item.id for item in told(talk)] == ["u", "fc_1", "out_1", "item_1"]


def test_speech_of_which_the_transcript_is_still_coming_is_told_as_sound() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(append(100, 7))
    talk.say(started("u"), stopped("u", 50), committed("u"))
    talk.say(added(Message(id="u", role="user", content=(InputAudio(transcript=None),))))
    piece = ev.ConversationItemInputAudioTranscriptionDelta(item_id="u", content_index=0, delta="on")
    talk.say(piece)
    [view] = talk.caller.memory.views()
    assert restored(view, b"12", is_understood=False).content == (InputAudio(audio=b"12"),)  # type: ignore[union-attr]
    assert restored(view, b"12").content == (InputText(text="on"),)  # type: ignore[union-attr]
    assert restored(view, b"", is_understood=False).content == (InputText(text="on"),)  # type: ignore[union-attr]


def test_parts_that_nobody_can_make_are_left_out() -> None:
    talk = Dialogue()
    item = Message(id="u", role="user", content=(OutputText(text="odd"), InputText(text="hi")))
    talk.say(added(item))
    assert told(talk) == [Message(id="u", role="user", content=(InputText(text="hi"),))]


def test_an_answer_to_a_call_that_was_told_is_told() -> None:
    talk = Dialogue()
    talk.say(added(call()), added(OUTPUT), added(structs.replace(OUTPUT, id="out_2", call_id="call_9")))
    assert [item.id for item in told(talk)] == ["fc_1", "out_1"]


def test_speech_that_was_not_understood_yet_is_told_as_sound() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(append(100, 7))
    talk.say(started("u"), stopped("u", 50), committed("u"))
    talk.say(added(Message(id="u", role="user", content=(InputAudio(transcript=None),))))
    assert told(talk) == [Message(id="u", role="user", content=(InputAudio(audio=bytes((7,)) * 2_400),))]


def test_of_an_answer_that_was_cut_off_only_what_was_heard_is_told() -> None:
    talk = Dialogue()
    talk.say(created(), *spoken(), Interrupt(Heard("item_1", 12_000)))
    assert told(talk) == [Message(id="item_1", role="assistant", content=(OutputText(text="one "),))]


def test_changes_of_a_configuration_are_merged_at_every_depth() -> None:
    before = cfg.RealtimeSession(
        instructions="a",
        audio=cfg.AudioConfig(input=cfg.AudioInput(turn_detection=SERVER_VAD), output=cfg.AudioOutput(voice="ash")),
    )
    change = cfg.RealtimeSession(
        tools=(), audio=cfg.AudioConfig(input=cfg.AudioInput(turn_detection=None, format=cfg.PcmuFormat()))
    )
    assert merged(before, change) == cfg.RealtimeSession(
        instructions="a",
        tools=(),
        audio=cfg.AudioConfig(
            input=cfg.AudioInput(turn_detection=None, format=cfg.PcmuFormat()), output=cfg.AudioOutput(voice="ash")
        ),
    )
    other = cfg.TranscriptionSession()
    assert merged(before, other) == other  # type: ignore[type-var]


# --- without a connection ---------------------------------------------------------------------------------------------


def test_before_and_between_connections_everything_is_kept_in_order() -> None:
    talk = Dialogue(connected=False)
    assert talk.ask(ITEM, create(), DELETE) == []
    assert not talk.caller.is_connected
    assert not talk.caller.is_idle
    assert talk.say(Connected()) == [
        "send conversation.item.create mine",
        CREATE,
        "send conversation.item.delete mine",
    ]
    talk.say(created(), done(), added(ITEM.item), ev.ConversationItemDeleted(item_id="mine"))
    assert talk.caller.is_idle


def test_too_much_without_a_connection_is_refused_but_never_what_is_our_own() -> None:
    talk = Dialogue(limits=CallerLimits(unsent_max=2), plays=True)
    talk.say(created(), *spoken(), item_done(call()), Lost())
    talk.ask(ITEM, create())
    with pytest.raises(LocalProtocolError, match="2 events wait for one already"):
        talk.ask(ITEM)
    talk.say(Interrupt(), PlaybackStopped((Heard("item_1", 2_400),)), ToolEnded("call_1", "{}"))
    assert talk.say(Connected()) == [
        "send conversation.item.create mine",
        "send response.cancel resp_1",
        "send conversation.item.truncate item_1",
        "send conversation.item.create item_1",
    ]


def test_requests_beyond_the_limit_are_refused_when_the_connection_is_back() -> None:
    talk = Dialogue(limits=CallerLimits(requests_max=1))
    talk.say(Lost())
    talk.ask(create(1), create(2), create(3))
    talk.say(Ask(create(4)))
    assert talk.say(Connected()) == [CREATE, "refuse 3 not_sent", "tell error not_sent"]


def test_what_waited_for_its_turn_goes_before_what_was_said_without_a_connection() -> None:
    talk = Dialogue()
    talk.ask(create(1), create(2))
    talk.say(created(), done("resp_1"), created("resp_2"), Lost(), done("resp_2"))
    talk.ask(ITEM)
    assert talk.say(Connected()) == ["send conversation.item.create mine"]


def test_an_answer_of_a_tool_is_kept_with_the_question_that_follows_it() -> None:
    talk = Dialogue()
    talk.say(created(), item_done(call()), done(), Lost())
    talk.ask(ITEM)
    assert talk.say(ToolEnded("call_1", "{}")) == []
    assert talk.say(Connected()) == [
        "send conversation.item.create mine",
        "send conversation.item.create item_1",
        CREATE,
    ]


# --- another session --------------------------------------------------------------------------------------------------


def test_what_was_not_answered_is_sent_again_in_order_and_once() -> None:
    talk = Dialogue()
    talk.ask(append(10))
    commit = ev.InputAudioBufferCommit(event_id="c1")
    update = ev.SessionUpdate(event_id="u1", session=cfg.RealtimeSession(instructions="a"))
    talk.ask(commit, append(20), update, ITEM, ev.ConversationItemRetrieve(event_id="r", item_id="mine"), create())
    assert talk.say(Lost(), Restored(conversation_of())) == [
        "send input_audio_buffer.append",
        "send input_audio_buffer.commit",
        "send input_audio_buffer.append",
        "send session.update",
        "send conversation.item.create mine",
        "send conversation.item.retrieve mine",
        CREATE,
    ]
    assert [event.event_id for event in talk.sent()[3:]] == ["u1", "e", "r", "ask_1"]
    lines = talk.say(committed("a"), added(ITEM.item), created())
    assert [line for line in lines if line.startswith("ack")] == [
        "ack 2 input_audio_buffer.committed",
        "ack 5 conversation.item.added",
        "ack 7 response.created",
    ]


def test_what_is_so_already_is_acknowledged_and_not_sent() -> None:
    talk = Dialogue()
    truncate = ev.ConversationItemTruncate(event_id="t", item_id="x", content_index=0, audio_end_ms=1)
    gone = ev.ConversationItemDelete(event_id="d", item_id="gone")
    talk.ask(ITEM, truncate, gone, ev.ResponseCancel(event_id="c"), ev.OutputAudioBufferClear(event_id="o"))
    talk.say(Ask(structs.replace(gone, event_id="d2")))
    assert talk.say(Lost(), Restored(conversation_of(ITEM.item))) == [f"ack {ticket}" for ticket in range(1, 6)]


def test_what_was_said_meanwhile_and_is_so_already_is_not_sent_either() -> None:
    talk = Dialogue(plays=True)
    talk.say(created(), *spoken(), Lost(), Interrupt(), PlaybackStopped((Heard("item_1", 12_000),)))
    heard = structs.replace(ANSWER, status="completed", content=(OutputText(text="one "),))
    assert talk.say(Restored(conversation_of(heard))) == ["tell item.completed item_1", "tell lost resp_1"]


def test_an_item_that_is_deleted_and_made_anew_is_so_in_the_other_session_too() -> None:
    told = conversation_of(ITEM.item)
    leftovers = Leftovers(told)
    assert [leftovers.is_needed(event) for event in (ITEM, DELETE, ITEM)] == [False, True, True]
    assert [Leftovers(Conversation()).is_needed(event) for event in (DELETE, ITEM)] == [False, True]


def test_an_answer_that_was_cut_while_the_other_session_was_told_is_cut_there() -> None:
    talk = Dialogue(plays=True)
    talk.say(created(), *spoken(), Lost())
    talk.say(Interrupt(), PlaybackStopped((Heard("item_1", 12_000),)))
    lines = talk.say(Restored(conversation_of(structs.replace(ANSWER, status="completed"))))
    assert [line for line in lines if line.startswith("send")] == [
        "send conversation.item.delete item_1",
        "send conversation.item.create item_1",
    ]


def test_a_response_of_which_nothing_had_come_is_asked_for_again_before_what_waits() -> None:
    talk = Dialogue()
    talk.ask(create(1, instructions="a"), create(2))
    talk.say(created("resp_1"))
    assert talk.say(Lost(), Restored(conversation_of())) == ["tell lost resp_1 again", CREATE]
    [event] = talk.sent()
    assert isinstance(event, ev.ResponseCreate)
    assert event.response == ev.ResponseParams(instructions="a")
    assert event.event_id != "ask_1"
    assert talk.say(created("resp_2"), done("resp_2")) == ["tell replaced resp_1 resp_2", CREATE]
    assert talk.say(created("resp_3")) == ["ack 2 response.created"]


def test_one_that_the_server_began_is_asked_for_again_too() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(started(), stopped(), committed(), created("of_turn"))
    assert talk.say(Lost(), Restored(conversation_of(detection=SERVER_VAD))) == ["tell lost of_turn again", CREATE]


@pytest.mark.parametrize("why_not", ["words", "a call", "cancelled", "cut in", "the user speaks"])
def test_a_response_is_not_asked_for_again_where(why_not: str) -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(created())
    match why_not:
        case "words":
            talk.say(*spoken())
        case "a call":
            talk.say(item_done(call(1, "theirs")))
        case "cancelled":
            talk.ask(ev.ResponseCancel(event_id="c"))
        case "cut in":
            talk.say(Interrupt())
        case "the user speaks":
            talk.say(started())
    talk.say(Lost())
    lines = talk.say(Restored(conversation_of(detection=SERVER_VAD)))
    assert "tell lost resp_1" in lines
    assert CREATE not in lines


def test_a_response_beside_the_conversation_is_asked_for_again_beside_it() -> None:
    talk = Dialogue()
    talk.ask(aside(1), aside(2))
    talk.say(created("a", conversation_id=None, tag="ask_1"), Lost())
    assert talk.say(Restored(conversation_of())) == ["tell lost a again", CREATE, CREATE]
    assert talk.say(created("b", conversation_id=None, tag="ask_2")) == ["ack 2 response.created"]
    assert talk.say(created("c", conversation_id=None)) == ["tell replaced a c"]


def test_calls_of_a_lost_response_are_answered_in_the_new_session() -> None:
    talk = Dialogue()
    talk.say(created(), item_done(call(1)), item_done(call(2)), ToolEnded("call_1", "{}"), Lost())
    output = FunctionCallOutput(id="item_1", call_id="call_1", output="{}")
    lines = talk.say(Restored(conversation_of(call(1), call(2))))
    assert lines == ["send conversation.item.create item_1", "tell lost resp_1"]
    assert talk.say(added(output), ToolEnded("call_2", "{}"))[-2:] == ["send conversation.item.create item_2", CREATE]


def test_answered_calls_of_a_lost_response_are_asked_about_at_once() -> None:
    talk = Dialogue()
    output = FunctionCallOutput(id="item_1", call_id="call_1", output="{}")
    talk.say(created(), item_done(call(1)), ToolEnded("call_1", "{}"), added(output), Lost())
    assert talk.say(Restored(conversation_of(call(1), output))) == [
        "tell item.completed item_1",
        "tell lost resp_1",
        CREATE,
    ]


def test_items_end_with_their_session() -> None:
    talk = Dialogue()
    empty = Message(id="empty", role="assistant", status="in_progress", content=())
    talk.say(created(), *spoken(), added(empty), Lost())
    lines = talk.say(Restored(conversation_of(structs.replace(ANSWER, status="completed"))))
    assert lines == ["tell updated empty", "tell item.completed item_1", "tell lost resp_1"]
    [view] = talk.caller.memory.views()
    assert (view.text, len(view.audio)) == ("one two three fo", 48_000)


def test_late_audio_of_the_lost_session_is_for_nobody() -> None:
    talk = Dialogue(plays=True)
    talk.say(created(), *spoken(), Lost(), Restored(conversation_of()))
    assert talk.say(delta()) == []


def test_audio_that_is_in_no_item_is_heard_again_by_a_new_clock() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(append(100, 1))
    talk.say(started("a"), stopped("a", 60), committed("a"), Lost())
    talk.ask(append(50, 2))
    turn = Message(id="a", role="user", content=(InputText(text="hi"),))
    assert talk.say(Restored(conversation_of(turn, detection=SERVER_VAD))) == ["send input_audio_buffer.append"] * 2
    talk.say(started("b", 30), stopped("b", 70), committed("b"))
    assert talk.caller.memory.speech("b") == bytes((1,)) * 480 + bytes((2,)) * 48 * 30


def test_a_renewed_session_takes_over_without_a_word() -> None:
    talk = Dialogue()
    talk.say(
        added(user_message("hello", id="u")),
        ev.ConversationItemDone(item=user_message("hello", id="u"), previous_item_id=None),
    )
    assert talk.say(Restored(conversation_of(user_message("hello", id="u")))) == []
    assert talk.caller.is_idle
    assert talk.ask(create()) == [CREATE]


def test_a_failure_to_ask_again_names_the_response_that_was_lost() -> None:
    talk = Dialogue(limits=CallerLimits(response_silence_ms_max=1_000))
    talk.say(created(), Lost(), Restored(conversation_of()))
    assert talk.after(1_000) == ["tell error response_timeout"]
    failed = [effect.update for effect in talk.effects if isinstance(effect, Tell)]
    assert [one.error.param for one in failed if isinstance(one, Failed)] == ["resp_1"]


def test_a_round_that_was_over_before_its_session_waits_for_its_tools() -> None:
    talk = Dialogue()
    talk.say(created(), item_done(call()), done(), Lost())
    assert talk.say(Restored(conversation_of(call()))) == []
    assert talk.say(ToolEnded("call_1", "{}")) == ["send conversation.item.create item_1", CREATE]


def test_commits_by_hand_cut_by_the_new_clock() -> None:
    talk = Dialogue()
    talk.ask(append(100, 1), ev.InputAudioBufferCommit(event_id="c1"))
    talk.say(committed("a"), Lost(), Restored(conversation_of()))
    talk.ask(append(50, 2), ev.InputAudioBufferCommit(event_id="c2"))
    talk.say(committed("b"))
    assert talk.caller.memory.speech("b") == bytes((2,)) * 48 * 50
