"""Translation sessions: their own small vocabulary at both ends."""

import json
from typing import get_args

import pytest
from protocol_samples import every

from vivavoce.protocol import translation as tr
from vivavoce.protocol.codec import TranslationClientCodec, TranslationServerCodec
from vivavoce.protocol.events import Unknown


@pytest.mark.parametrize("event", every(get_args(tr.TranslationClientEvent)), ids=lambda event: event.type)
def test_what_a_client_writes_is_read(event):
    assert TranslationServerCodec().decode(TranslationClientCodec().encode(event).decode()) == event


@pytest.mark.parametrize("event", every(get_args(tr.TranslationServerEvent)), ids=lambda event: event.type)
def test_what_a_server_writes_is_read(event):
    frame = TranslationServerCodec().encode(event)
    assert TranslationClientCodec().decode(frame) == event
    assert TranslationClientCodec().decode(frame).raw == frame


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"type": "input_audio_buffer.append", "audio": ""}, "invalid_value", "type"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({"type": "session.update", "session": {"model": "m"}}, "unknown_parameter", "session.model"),
        ({"type": "session.update", "session": {"type": "translation"}}, "unknown_parameter", "session.type"),
        ({"type": "session.input_audio_buffer.append", "audio": "!"}, "invalid_value", "audio"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"transcription": {}}}}},
            "missing_required_parameter",
            "session.audio.input.transcription.model",
        ),
    ],
)
def test_an_invalid_event_is_answered_with_code_and_param(fields, code, param):
    error = TranslationServerCodec().decode(json.dumps({**fields, "event_id": "e1"}))
    assert (error.code, error.param, error.event_id) == (code, param, "e1")


def test_the_supported_events_are_those_of_translation():
    error = TranslationServerCodec().decode('{"type":"response.create"}')
    assert error.message.endswith("'session.update', 'session.input_audio_buffer.append', and 'session.close'.")


def test_what_is_not_known_is_kept():
    event = TranslationClientCodec().decode('{"type":"session.hologram.delta","event_id":"e"}')
    assert isinstance(event, Unknown)
    delta = TranslationClientCodec().decode('{"type":"session.output_transcript.delta","delta":"a","elapsed_ms":"x"}')
    assert delta == tr.SessionOutputTranscriptDelta(delta="a")
