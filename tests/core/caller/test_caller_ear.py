"""Own audio is cut where the server cuts it, by position (ear.py)."""

from __future__ import annotations

from caller_dialogue import SERVER_VAD, Dialogue, append, committed, error, session, started, stopped

from vivavoce.audio.formats import PCM16_24K, ULAW_8K
from vivavoce.core.caller import CallerLimits
from vivavoce.core.caller.messages import Ask, Connected, Lost, ToolEnded
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev

COMMIT = ev.InputAudioBufferCommit(event_id="commit")
CLEAR = ev.InputAudioBufferClear(event_id="clear")
ULAW = cfg.AudioConfig(input=cfg.AudioInput(format=cfg.PcmuFormat()))


def ms(number: int) -> bytes:
    """A millisecond of which every byte is that number."""
    return bytes((number,)) * 48


def counted(talk: Dialogue, begin: int, end: int) -> None:
    """Append the milliseconds from one number to another."""
    talk.ask(ev.InputAudioBufferAppend(event_id="a", audio=b"".join(ms(number) for number in range(begin, end))))


def heard_as(talk: Dialogue, item_id: str) -> list[int]:
    """The milliseconds that an item holds."""
    audio = talk.caller.memory.speech(item_id)
    return [audio[at] for at in range(0, len(audio), 48)]


def test_a_turn_is_cut_by_its_positions_however_the_audio_was_sent() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    for begin, end in ((0, 7), (7, 30), (30, 100)):
        counted(talk, begin, end)
    talk.say(started("a", 10), stopped("a", 25), committed("a"), started("b", 40), stopped("b", 60), committed("b"))
    assert heard_as(talk, "a") == list(range(10, 25))
    assert heard_as(talk, "b") == list(range(40, 60))


def test_commits_by_hand_cut_where_they_were_sent() -> None:
    talk = Dialogue()
    counted(talk, 0, 10)
    assert talk.caller.ear.has_audio
    talk.ask(COMMIT)
    assert not talk.caller.ear.has_audio
    counted(talk, 10, 30)
    talk.ask(ev.InputAudioBufferCommit(event_id="second"))
    counted(talk, 30, 40)
    talk.say(committed("a"), committed("b"))
    assert (heard_as(talk, "a"), heard_as(talk, "b")) == (list(range(10)), list(range(10, 30)))
    assert talk.caller.ear.has_audio


def test_a_commit_by_hand_ends_the_turn_that_the_server_hears() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    counted(talk, 0, 50)
    talk.say(started("a", 20))
    talk.ask(COMMIT)
    counted(talk, 50, 60)
    talk.say(committed("a"))
    assert heard_as(talk, "a") == list(range(20, 50))
    assert not talk.caller.requests.user_speaks


def test_a_turn_of_which_the_end_is_not_told_goes_to_the_end() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    counted(talk, 0, 50)
    talk.say(started("a", 20), committed("a"))
    assert heard_as(talk, "a") == list(range(20, 50))


def test_a_turn_of_which_the_beginning_is_not_told_begins_where_the_last_ended() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    counted(talk, 0, 50)
    talk.say(started("a", 5), stopped("a", 10), committed("a"), stopped("b", 30), committed("b"))
    assert heard_as(talk, "b") == list(range(10, 30))


def test_silence_that_timed_out_is_an_item_too() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    counted(talk, 0, 50)
    talk.say(ev.InputAudioBufferTimeoutTriggered(item_id="a", audio_start_ms=10, audio_end_ms=40), committed("a"))
    assert heard_as(talk, "a") == list(range(10, 40))


def test_what_was_cleared_is_in_no_item() -> None:
    talk = Dialogue()
    counted(talk, 0, 10)
    talk.ask(CLEAR)
    counted(talk, 10, 20)
    talk.ask(COMMIT)
    talk.say(ev.InputAudioBufferCleared(), committed("a"))
    assert heard_as(talk, "a") == list(range(10, 20))
    counted(talk, 20, 30)
    talk.say(ev.InputAudioBufferCleared())  # by the server itself
    assert not talk.caller.ear.has_audio


def test_a_refused_commit_leaves_the_audio_where_it_was() -> None:
    talk = Dialogue()
    counted(talk, 0, 10)
    talk.ask(COMMIT)
    counted(talk, 10, 20)
    talk.ask(ev.InputAudioBufferCommit(event_id="second"))
    talk.say(error("input_audio_buffer_commit_empty", "commit"), committed("a"))
    assert heard_as(talk, "a") == list(range(20))


def test_a_commit_that_is_never_answered_cuts_nothing() -> None:
    talk = Dialogue(limits=CallerLimits(answer_ms_max=100))
    counted(talk, 0, 10)
    talk.ask(CLEAR, COMMIT)
    talk.after(100)
    talk.ask(COMMIT)
    talk.say(committed("a"))
    assert heard_as(talk, "a") == list(range(10))


def test_after_a_change_of_format_positions_go_on() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    counted(talk, 0, 10)
    update = ev.SessionUpdate(event_id="u", session=cfg.RealtimeSession(audio=ULAW))
    talk.ask(update, ev.InputAudioBufferAppend(event_id="a", audio=bytes(range(160))))  # 20 ms, before the answer
    assert talk.caller.ear.format == ULAW_8K
    talk.say(ev.SessionUpdated(session=session(SERVER_VAD, format=cfg.PcmuFormat())))
    talk.say(started("a", 15), stopped("a", 25), committed("a"))
    assert talk.caller.memory.speech("a") == bytes(range(40, 120))


def test_a_refused_change_of_format_is_taken_back() -> None:
    talk = Dialogue()
    update = ev.SessionUpdate(event_id="u", session=cfg.RealtimeSession(audio=ULAW))
    talk.ask(update)
    talk.say(error("invalid_value", "u"))
    assert talk.caller.ear.format == PCM16_24K


def test_the_last_change_on_its_way_says_the_format() -> None:
    talk = Dialogue()
    pcm = cfg.AudioConfig(input=cfg.AudioInput(format=cfg.PcmFormat()))
    for number, audio in enumerate((ULAW, pcm)):
        talk.ask(ev.SessionUpdate(event_id=f"u{number}", session=cfg.RealtimeSession(audio=audio)))
    talk.say(ev.SessionUpdated(session=session(format=cfg.PcmuFormat())))
    assert talk.caller.ear.format == PCM16_24K


def test_old_audio_is_let_go() -> None:
    talk = Dialogue(detection=SERVER_VAD, limits=CallerLimits(input_ms_max=20))
    counted(talk, 0, 50)
    assert talk.caller.ear._audio.ticks == 20 * 24
    talk.say(started("a", 10), stopped("a", 40), committed("a"))
    assert heard_as(talk, "a") == list(range(30, 40))


def test_old_turns_are_let_go() -> None:
    talk = Dialogue(detection=SERVER_VAD, limits=CallerLimits(speech_bytes_max=48 * 15))
    counted(talk, 0, 50)
    for number, name in enumerate("abc"):
        talk.say(started(name, number * 10), stopped(name, number * 10 + 10), committed(name))
    assert [len(heard_as(talk, name)) for name in "abc"] == [0, 0, 10]


def test_another_session_is_sent_what_no_item_holds_with_the_cuts_on_their_way() -> None:
    talk = Dialogue()
    counted(talk, 0, 10)
    talk.ask(COMMIT)
    talk.say(committed("a"))
    counted(talk, 10, 20)
    talk.ask(COMMIT)
    counted(talk, 20, 30)
    talk.ask(CLEAR)
    counted(talk, 30, 40)
    pieces = talk.caller.ear.begin_again()
    audio = [piece if isinstance(piece, bool) else [piece[at] for at in range(0, len(piece), 48)] for piece in pieces]
    assert audio == [list(range(10, 20)), True, list(range(20, 30)), False, list(range(30, 40))]
    assert not talk.caller.ear.has_audio


def test_audio_of_a_time_without_connection_is_kept_up_to_a_limit_and_that_is_told() -> None:
    talk = Dialogue(limits=CallerLimits(unsent_audio_ms_max=30))
    talk.say(Lost())
    for number in range(5):
        assert talk.ask(append(10, number)) == [f"ack {number + 1}"]
    talk.ask(ev.InputAudioBufferAppend(event_id="a", audio=b""), COMMIT)
    lines = talk.say(Connected())
    assert lines[0] == "tell error audio_dropped"
    assert lines[1:] == ["send input_audio_buffer.append"] * 3 + ["send input_audio_buffer.commit"]
    talk.say(committed("a"))
    assert heard_as(talk, "a") == [2] * 10 + [3] * 10 + [4] * 10
    assert talk.say(Lost(), Connected()) == []


def test_the_oldest_audio_is_dropped_wherever_it_stands() -> None:
    talk = Dialogue(limits=CallerLimits(unsent_audio_ms_max=10))
    talk.say(Lost())
    talk.ask(CLEAR)
    talk.say(Ask(append(10, 1)), ToolEnded("call", ""), Ask(append(10, 2)))
    assert talk.say(Connected()) == [
        "tell error audio_dropped",
        "send input_audio_buffer.clear",
        "send input_audio_buffer.append",
    ]


def test_a_clear_of_the_server_s_own_takes_no_commit_of_ours_away() -> None:
    talk = Dialogue()
    counted(talk, 0, 10)
    talk.ask(COMMIT)
    counted(talk, 10, 20)
    talk.ask(CLEAR)
    talk.say(error("bad", "commit"), ev.InputAudioBufferCleared(), ev.InputAudioBufferCleared())
    counted(talk, 20, 30)
    talk.ask(COMMIT)
    talk.say(ev.InputAudioBufferCleared(), committed("a"))
    assert heard_as(talk, "a") == []  # the server has thrown it away before
    assert not talk.caller.ear.has_audio
