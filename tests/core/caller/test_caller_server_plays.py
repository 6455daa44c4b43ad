"""Where the server plays (WebRTC), it has the playhead: nothing is cut from here, and time is that of the clock."""

from __future__ import annotations

import pytest
from caller_dialogue import (
    SERVER_VAD,
    Dialogue,
    append,
    committed,
    conversation_of,
    created,
    delta,
    done,
    error,
    item_done,
    said,
    spoken,
    started,
    stopped,
)

from vivavoce.core.caller.ear import LIVE_AGAIN_MS_MAX
from vivavoce.core.caller.messages import Ask, Connected, Heard, Interrupt, Lost, PlaybackStopped, Restored
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev

WORDS = "one two three four five six seven eight nine ten"
BEGINS = ev.OutputAudioBufferStarted(response_id="resp_1")
ENDS = ev.OutputAudioBufferStopped(response_id="resp_1")
CUT = ev.OutputAudioBufferCleared(response_id="resp_1")


def live(**settings: object) -> Dialogue:
    return Dialogue(server_plays=True, **settings)  # type: ignore[arg-type]


def speaking(**settings: object) -> Dialogue:
    """A second of an answer has come, as it is being played."""
    talk = live(**settings)
    talk.say(created(), *spoken()[:-1], BEGINS, spoken()[-1])
    return talk


def text(talk: Dialogue, item_id: str = "item_1") -> str:
    view = talk.caller.memory.view(item_id)
    assert view is not None
    return view.text


def truncated(ms: int, item_id: str = "item_1") -> ev.ConversationItemTruncated:
    return ev.ConversationItemTruncated(item_id=item_id, content_index=0, audio_end_ms=ms)


def test_speech_of_the_user_stops_the_player_and_cuts_nothing() -> None:
    talk = speaking(detection=SERVER_VAD, plays=True)
    assert talk.say(started()) == ["stop"]
    assert talk.say(PlaybackStopped((Heard("item_1", 12_000),))) == ["tell interrupted item_1:12000"]
    assert talk.say(CUT, delta(ms=40)) == []  # was on its way: for nobody
    assert talk.say(truncated(500)) == ["tell updated item_1"]
    assert text(talk) == "one "


def test_without_a_player_too() -> None:
    talk = speaking(detection=SERVER_VAD)
    assert talk.say(started()) == ["tell interrupted"]
    assert talk.say(CUT, truncated(500)) == ["tell updated item_1"]
    assert text(talk) == "one "


@pytest.mark.parametrize("heard", [None, Heard("item_1", 12_000)])
def test_cutting_in_asks_the_server_to_fall_silent(heard: Heard | None) -> None:
    talk = speaking()
    lines = talk.say(Interrupt(heard))
    assert lines[:2] == ["send response.cancel resp_1", "send output_audio_buffer.clear"]
    assert lines[2].startswith("tell interrupted")
    assert len(lines) == 3


def test_so_does_cancelling_a_response() -> None:
    talk = speaking()
    assert talk.ask(ev.ResponseCancel(event_id="event_c")) == [
        "send response.cancel",
        "send output_audio_buffer.clear",
    ]
    assert talk.ask(ev.ResponseCancel(event_id="event_d", response_id="other")) == ["send response.cancel other"]


@pytest.mark.parametrize("code", ["output_audio_buffer_clear_empty", "whatever"])
def test_a_server_that_is_silent_already_is_no_mistake(code: str) -> None:
    talk = live()
    talk.say(Interrupt())
    [clear] = talk.sent()
    assert talk.say(error(code, clear.event_id)) == []  # type: ignore[arg-type]


def test_a_complete_item_is_not_heard_to_its_end_yet() -> None:
    talk = live()
    talk.say(created(), *spoken(audio=bytes(24_000))[:-1], BEGINS)
    talk.say(item_done(said(text=WORDS)), ev.ResponseOutputAudioTranscriptDone(**PLACE, transcript=WORDS))
    talk.say(done("resp_1", "completed", said(text=WORDS)), delta(ms=1000), CUT, truncated(1000))
    assert text(talk) == "one two three "


PLACE = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}


def test_how_fast_is_spoken_is_learnt_from_what_was_played() -> None:
    talk = live()
    for number, heard_ms in ((1, 9_600), (2, 4_800)):
        item, response = f"item_{number}", f"resp_{number}"
        talk.say(created(response), *spoken(item, response, b"")[:-2])
        place = {**PLACE, "item_id": item, "response_id": response}
        talk.say(ev.ResponseOutputAudioTranscriptDelta(**place, delta=WORDS))
        talk.say(item_done(said(item, WORDS), response), done(response, "completed", said(item, WORDS)))
        talk.say(ev.OutputAudioBufferStarted(response_id=response), delta(item, response, heard_ms))
        if number == 1:
            talk.say(ev.OutputAudioBufferStopped(response_id=response))
    talk.say(ev.OutputAudioBufferCleared(response_id="resp_2"), truncated(4_800, "item_2"))
    assert text(talk, "item_1") == WORDS
    assert text(talk, "item_2") == "one two three four five "  # half of it, at 200 ms a character


def test_nothing_is_renewed_while_the_server_plays() -> None:
    talk = speaking()
    talk.say(item_done(said()), done("resp_1", "completed", said()))
    assert not talk.caller.is_idle
    talk.say(ENDS)
    assert talk.caller.is_idle


def test_what_was_still_to_be_played_when_the_connection_broke_was_not_heard() -> None:
    talk = speaking()
    talk.say(
        ev.ResponseOutputAudioTranscriptDone(**PLACE, transcript=WORDS),
        item_done(said(text=WORDS)),
        done("resp_1", "completed", said(text=WORDS)),
    )
    talk.say(Lost())
    assert text(talk) == "one two three "


def test_what_was_played_to_its_end_stays_whole() -> None:
    talk = speaking()
    talk.say(item_done(said()), done("resp_1", "completed", said()), ENDS, Lost())
    assert text(talk) == "one two three fo"


# --- the audio clock --------------------------------------------------------------------------------------------------


def test_turns_are_cut_by_the_clock() -> None:
    talk = live(detection=SERVER_VAD)
    talk.after(2_000)
    talk.say(Ask(append(1_000, value=1)))
    talk.after(5_000)
    talk.say(Ask(append(1_000, value=2)))
    talk.say(started(at_ms=7_000), stopped(at_ms=8_000), committed())
    assert talk.caller.memory.speech("turn_1") == append(1_000, value=2).audio[:48_000]


def test_an_uneven_stream_has_no_holes() -> None:
    talk = live(detection=SERVER_VAD)
    for _ in range(10):
        talk.say(Ask(append(100, value=1)))
        talk.after(104)
    talk.say(started(at_ms=0), stopped(at_ms=1_000), committed())
    assert talk.caller.memory.speech("turn_1") == append(1_000, value=1).audio


def test_a_long_silence_is_not_kept() -> None:
    talk = live(detection=SERVER_VAD)
    talk.after(3_600_000)
    talk.say(Ask(append(100, value=1)), started(at_ms=3_600_000), stopped(at_ms=3_600_100), committed())
    assert talk.caller.memory.speech("turn_1") == append(100, value=1).audio


def test_another_format_is_not_spoken_here() -> None:
    talk = live()
    talk.ask(ev.SessionUpdate(event_id="e", session=cfg.RealtimeSession(audio=ULAW)))
    assert talk.caller.ear.format.encoding == "pcm16"


ULAW = cfg.AudioConfig(input=cfg.AudioInput(format=cfg.PcmuFormat()))


def test_another_session_hears_the_turn_again_that_was_being_spoken_and_nothing_else() -> None:
    talk = live(detection=SERVER_VAD)
    talk.say(Ask(append(3_000, value=1)))
    talk.after(3_000)
    assert "send input_audio_buffer.append" not in moved(talk)
    talk.say(Ask(append(2_000, value=2)), started(at_ms=500))
    assert [len(event.audio) for event in resent(talk)] == [1_500 * 48]


def test_nor_more_than_can_be_made_up_for() -> None:
    talk = live(detection=SERVER_VAD)
    talk.say(started(at_ms=0), Ask(append(60_000, value=1)))
    assert [len(event.audio) for event in resent(talk)] == [LIVE_AGAIN_MS_MAX * 48]


def moved(talk: Dialogue) -> list[str]:
    return talk.say(Lost()) + talk.say(Restored(conversation_of(detection=SERVER_VAD)))


def resent(talk: Dialogue) -> list[ev.InputAudioBufferAppend]:
    moved(talk)
    found = [event for event in talk.sent() if isinstance(event, ev.InputAudioBufferAppend)]
    talk.say(Connected())
    return found
