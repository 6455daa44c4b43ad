"""Without an event loop: the same calls, which wait, with the types of what is waited for."""

from typing import assert_type

import vivavoce
from vivavoce import events, items, sync, updates


def talk() -> None:
    with sync.connect("gpt-realtime", url="http://127.0.0.1:8080/v1") as session:
        assert_type(session, sync.Session)
        session.update_session(modality="text", voice="marin")
        assert_type(session.ask("Why?"), str)
        assert_type(session.commit_audio(), str)
        assert_type(session.send_audio("speech.wav"), float)
        assert_type(session.get_items(), tuple[vivavoce.ItemView, ...])
        response = session.send_user_message("Hello!")
        assert_type(response, sync.LiveResponse)
        for item in response:
            for words in item.words():
                assert_type(words, str)
        assert_type(response.done(), items.Response)
        assert_type(response.text(), str)


def hear(session: sync.Session) -> None:
    @session.on(updates.ItemCompleted)
    def completed(event: updates.ItemCompleted) -> None:
        assert_type(event.item.text, str)

    session.on("response.done", lambda event: print(event.response.status))
    session.off(updates.ItemCompleted, completed)
    assert_type(session.wait_for(events.ResponseDone, 5), events.ResponseDone)
    assert_type(session.wait_for("response.done"), events.ResponseDone)
    for event in session:
        match event:
            case events.ResponseOutputTextDelta():
                assert_type(event.delta, str)
            case _:
                break
