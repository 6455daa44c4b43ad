"""Translation sessions: their own small vocabulary at both ends."""

import json
from typing import get_args

import pydantic
import pytest
from openai.types.realtime import RealtimeTranslationClientEvent, RealtimeTranslationServerEvent
from protocol_samples import every

from vivavoce.protocol import translation as tr
from vivavoce.protocol.codec import AUDIO_BYTES_MAX, TranslationClientCodec, TranslationServerCodec
from vivavoce.protocol.events import ErrorDetail, ErrorEvent, Unknown


@pytest.mark.parametrize("event", every(get_args(tr.TranslationClientEvent)), ids=lambda event: event.type)
def test_what_a_client_writes_is_read(event):
    assert TranslationServerCodec().decode(TranslationClientCodec().encode(event).decode()) == event


@pytest.mark.parametrize("event", every(get_args(tr.TranslationServerEvent)), ids=lambda event: event.type)
def test_what_a_server_writes_is_read(event):
    frame = TranslationServerCodec().encode(event)
    assert TranslationClientCodec().decode(frame) == event
    assert TranslationClientCodec().decode(frame).raw == frame


# --- what is said, line by line (§3.14, T18), and as the public client's types have it --------------------------------

RESOURCE = tr.TranslationSessionResource(
    id="sess_1",
    type="translation",
    model="gpt-realtime-translate",
    expires_at=5,
    audio=tr.TranslationAudio(
        input=tr.TranslationInput(
            transcription=tr.TranslationTranscription(model="gpt-realtime-whisper"), noise_reduction=None
        ),
        output=tr.TranslationOutput(language="es"),
    ),
)
STATED = {
    "id": "sess_1",
    "type": "translation",
    "model": "gpt-realtime-translate",
    "expires_at": 5,
    "audio": {
        "input": {"transcription": {"model": "gpt-realtime-whisper"}, "noise_reduction": None},
        "output": {"language": "es"},
    },
}
SERVER = [
    (tr.TranslationSessionCreated(event_id="e", session=RESOURCE), {"type": "session.created", "session": STATED}),
    (tr.TranslationSessionUpdated(event_id="e", session=RESOURCE), {"type": "session.updated", "session": STATED}),
    (
        tr.SessionInputTranscriptDelta(event_id="e", delta="Hello", elapsed_ms=200),
        {"type": "session.input_transcript.delta", "delta": "Hello", "elapsed_ms": 200},
    ),
    (
        tr.SessionOutputTranscriptDelta(event_id="e", delta="Hola", elapsed_ms=400),
        {"type": "session.output_transcript.delta", "delta": "Hola", "elapsed_ms": 400},
    ),
    (
        tr.SessionOutputAudioDelta(
            event_id="e", delta=b"\0\1\2\3", channels=1, elapsed_ms=400, format="pcm16", sample_rate=24_000
        ),
        {
            "type": "session.output_audio.delta",
            "delta": "AAECAw==",
            "channels": 1,
            "elapsed_ms": 400,
            "format": "pcm16",
            "sample_rate": 24_000,
        },
    ),
    (tr.SessionClosed(event_id="e"), {"type": "session.closed"}),
    (
        ErrorEvent(event_id="e", error=ErrorDetail(type="invalid_request_error", message="No.", event_id="e1")),
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "code": None,
                "message": "No.",
                "param": None,
                "event_id": "e1",
            },
        },
    ),
]
CLIENT = [
    (
        {"session": {"audio": {"output": {"language": "es"}, "input": {"transcription": {"model": "m"}}}}},
        tr.TranslationSessionUpdate(
            session=tr.TranslationSession(
                audio=tr.TranslationAudio(
                    output=tr.TranslationOutput(language="es"),
                    input=tr.TranslationInput(transcription=tr.TranslationTranscription(model="m")),
                )
            )
        ),
    ),
    (
        {"session": {"audio": {"input": {"transcription": None, "noise_reduction": {"type": "near_field"}}}}},
        tr.TranslationSessionUpdate(
            session=tr.TranslationSession(
                audio=tr.TranslationAudio(
                    input=tr.TranslationInput(
                        transcription=None, noise_reduction=tr.TranslationNoiseReduction(type="near_field")
                    )
                )
            )
        ),
    ),
    ({"session": {}}, tr.TranslationSessionUpdate(session=tr.TranslationSession())),
    ({"audio": "AAECAw=="}, tr.SessionInputAudioBufferAppend(audio=b"\0\1\2\3")),
    ({}, tr.SessionClose()),
]


@pytest.mark.parametrize(
    ("event", "fields"), SERVER, ids=lambda part: part.get("type") if isinstance(part, dict) else ""
)
def test_what_the_server_says_is_this_on_the_wire(event, fields):
    frame = TranslationServerCodec().encode(event)
    assert json.loads(frame) == fields | {"event_id": "e"}
    read = pydantic.TypeAdapter(RealtimeTranslationServerEvent).validate_json(frame)
    assert read.to_dict(mode="json") == json.loads(frame)


def test_every_event_of_the_server_is_here():
    assert {type(event) for event, _ in SERVER} == set(get_args(tr.TranslationServerEvent))
    assert {type(event) for _, event in CLIENT} == set(get_args(tr.TranslationClientEvent))


@pytest.mark.parametrize(("fields", "event"), CLIENT)
def test_what_the_client_says_is_understood(fields, event):
    frame = json.dumps({"type": event.type, **fields})
    assert TranslationServerCodec().decode(frame) == event
    pydantic.TypeAdapter(RealtimeTranslationClientEvent).validate_json(frame)


def test_an_append_is_limited_as_any_other():
    frame = '{"type":"session.input_audio_buffer.append","event_id":"e1","audio":"%s"}'
    error = TranslationServerCodec().decode(frame % ("AAAA" * (AUDIO_BYTES_MAX // 3 + 1)))
    assert (error.code, error.param, error.event_id) == ("string_above_max_length", "audio", "e1")


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
