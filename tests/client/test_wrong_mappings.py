"""The API's JSON with a mistake in it is refused before it is sent, and the message says what was probably meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vivavoce import LocalProtocolError, Session, connect


def made() -> Session:
    return connect("m", url="ws://127.0.0.1:1")


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ({"voice": "alloy"}, "Did you mean 'session.audio.output.voice'?"),
        ({"modalities": ["text"]}, "Did you mean 'session.output_modalities'?"),
        ({"type": "realtim"}, "Invalid value: 'realtim'. Supported values are: 'realtime'"),
        ({"tools": [{"type": "function", "nam": "f"}]}, "Did you mean 'session.tools[0].name'?"),
        ({"tools": [{1, 2}]}, "session: "),
    ],
)
def test_a_word_of_another_dialect_is_told_the_word_of_this_one(configuration: dict[str, Any], said: str) -> None:
    with pytest.raises(LocalProtocolError) as raised:
        made().update_session(configuration)
    assert said in str(raised.value)


def test_items_parts_and_events_are_told_what_there_is() -> None:
    session = made()
    with pytest.raises(
        LocalProtocolError,
        match=r"item\.content\[0\]\.type: Invalid value: 'text'\. Supported values are: 'input_text'",
    ):
        session.send_user_message([{"type": "text", "text": "Hello!"}])
    with pytest.raises(LocalProtocolError, match=r"Invalid value: 'mesage'\. Supported values are: 'message'"):
        session.create_item({"type": "mesage"})
    with pytest.raises(LocalProtocolError, match=r"Did you mean 'response\.output_modalities'\?"):
        session.create_response({"modalities": ["text"]})
    with pytest.raises(LocalProtocolError, match=r"Unknown parameter: 'session\..*turn_detection\.silence'"):
        session.update_session(turn_detection={"type": "server_vad", "silence": 5})
    with pytest.raises(LocalProtocolError, match=r"Did you mean 'response\.create'\?"):
        session.send({"type": "respons.create"})


def test_what_is_no_json_at_all_is_told_what_is_taken() -> None:
    session: Any = made()
    with pytest.raises(LocalProtocolError, match=r"content: expected text, .*session\.ask\(Path"):
        session.send_user_message(Path("question.wav"))
    with pytest.raises(LocalProtocolError, match=r"event: expected .* its type in it, not 'response\.create'"):
        session.send("response.create")
