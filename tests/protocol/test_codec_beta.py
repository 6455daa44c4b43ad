"""The beta dialect at both ends: the rest of the program hears and speaks GA (§2.6, §2.7)."""

import json
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from protocol_mutations import damaged
from protocol_samples import every

from vivavoce.errors import LocalProtocolError, RemoteProtocolError
from vivavoce.protocol import config, items
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ClientCodec, ServerCodec
from vivavoce.protocol.dialects import beta, beta_events
from vivavoce.protocol.wire import write

BETA_CLIENT_EVENTS = every(get_args(beta_events.ClientEvent))
SERVER_EVENTS = every(get_args(ev.AnyServerEvent))


def hear(**fields):
    """What the server understands of a beta client's event."""
    return ServerCodec("beta").decode(json.dumps(fields))


def hear_session(**session):
    event = hear(type="session.update", event_id="e1", session=session)
    return event.session if isinstance(event, ev.SessionUpdate) else event


def hear_response(**response):
    event = hear(type="response.create", event_id="e1", response=response)
    return event.response if isinstance(event, ev.ResponseCreate) else event


def say(event):
    """What a beta client is told of an event."""
    frame = ServerCodec("beta").encode(event)
    return None if frame is None else json.loads(frame)


def ask(event):
    """What a client that thinks in GA sends to a beta server."""
    return json.loads(ClientCodec("beta").encode(event))


def learn(**fields):
    """What a client that thinks in GA understands of a beta server's event."""
    return ClientCodec("beta").decode(json.dumps(fields))


VAD = config.ServerVad(
    threshold=0.5,
    prefix_padding_ms=300,
    silence_duration_ms=200,
    idle_timeout_ms=None,
    create_response=True,
    interrupt_response=True,
)
SESSION = config.RealtimeSessionResource(
    id="sess_1",
    object="realtime.session",
    expires_at=5,
    model="m",
    output_modalities=("audio",),
    instructions="Be brief.",
    audio=config.AudioConfig(
        input=config.AudioInput(
            format=config.PcmFormat(), transcription=None, noise_reduction=None, turn_detection=VAD
        ),
        output=config.AudioOutput(format=config.PcmuFormat(), voice="alloy", speed=1.0),
    ),
    tools=(config.FunctionTool(name="f"),),
    tool_choice=config.ToolChoiceFunction(name="f"),
    max_output_tokens="inf",
    truncation="auto",
    tracing=None,
    prompt=None,
    include=None,
)
FLAT_SESSION = {
    "id": "sess_1",
    "object": "realtime.session",
    "expires_at": 5,
    "model": "m",
    "modalities": ["text", "audio"],
    "instructions": "Be brief.",
    "voice": "alloy",
    "input_audio_format": "pcm16",
    "output_audio_format": "g711_ulaw",
    "input_audio_transcription": None,
    "input_audio_noise_reduction": None,
    "turn_detection": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    },
    "tools": [{"type": "function", "name": "f"}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "temperature": 0.8,
    "max_response_output_tokens": "inf",
    "speed": 1.0,
    "truncation": "auto",
    "tracing": None,
    "prompt": None,
    "include": None,
}
RESPONSE = items.Response(
    id="resp_1",
    status="completed",
    output=(items.Message(id="item_1", role="assistant", content=(items.OutputAudio(transcript="hi"),)),),
    output_modalities=("text",),
    max_output_tokens=7,
    audio=items.ResponseAudioResource(
        output=items.AudioOutputResource(format=config.PcmaFormat(), voice=config.VoiceRef(id="voice_1"))
    ),
)
FLAT_RESPONSE = {
    "object": "realtime.response",
    "id": "resp_1",
    "status": "completed",
    "output": [
        {
            "type": "message",
            "id": "item_1",
            "object": "realtime.item",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "audio", "transcript": "hi"}],
        }
    ],
    "modalities": ["text"],
    "max_output_tokens": 7,
    "voice": "voice_1",
    "output_audio_format": "g711_alaw",
    "temperature": 0.8,
}

# --- sessions, client to server ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flat", "nested"),
    [
        ({"modalities": ["text", "audio"]}, {"output_modalities": ("audio",)}),
        ({"modalities": ["audio", "text"]}, {"output_modalities": ("audio",)}),
        ({"modalities": ["text"]}, {"output_modalities": ("text",)}),
        ({"max_response_output_tokens": 5}, {"max_output_tokens": 5}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": config.ToolChoiceFunction(name="f")},
        ),
        ({"tool_choice": {"type": "function", "name": "f"}}, {"tool_choice": config.ToolChoiceFunction(name="f")}),
        ({"instructions": ""}, {"instructions": ""}),
        ({"tools": []}, {"tools": ()}),
        ({"tracing": "auto", "model": "m"}, {"tracing": "auto", "model": "m"}),
        ({"temperature": 0.6, "client_secret": {"expires_after": {}}}, {"temperature": 0.6}),
    ],
)
def test_a_flat_session_is_understood(flat, nested):
    assert hear_session(**flat) == config.RealtimeSession(**nested)


@pytest.mark.parametrize(
    ("flat", "nested"),
    [
        ({"input_audio_format": "pcm16"}, {"format": config.PcmFormat()}),
        ({"input_audio_format": "g711_ulaw"}, {"format": config.PcmuFormat()}),
        ({"input_audio_format": "g711_alaw"}, {"format": config.PcmaFormat()}),
        ({"input_audio_transcription": None}, {"transcription": None}),
        ({"input_audio_transcription": {"model": "m"}}, {"transcription": config.Transcription(model="m")}),
        (
            {"input_audio_noise_reduction": {"type": "far_field"}},
            {"noise_reduction": config.NoiseReduction(type="far_field")},
        ),
        ({"turn_detection": None}, {"turn_detection": None}),
        ({"turn_detection": {"type": "none"}}, {"turn_detection": None}),
        ({"turn_detection": {}}, {"turn_detection": config.ServerVad()}),
        ({"turn_detection": {"threshold": 0.1}}, {"turn_detection": config.ServerVad(threshold=0.1)}),
        (  # one object for both kinds: what does not concern the kind has no effect
            {"turn_detection": {"type": "semantic_vad", "eagerness": "low", "threshold": 0.1}},
            {"turn_detection": config.SemanticVad(eagerness="low")},
        ),
    ],
)
def test_a_flat_audio_input_is_understood(flat, nested):
    assert hear_session(**flat) == config.RealtimeSession(audio=config.AudioConfig(input=config.AudioInput(**nested)))


def test_a_flat_audio_output_is_understood():
    output = config.AudioOutput(format=config.PcmuFormat(), voice="verse", speed=1.5)
    assert hear_session(output_audio_format="g711_ulaw", voice="verse", speed=1.5) == config.RealtimeSession(
        audio=config.AudioConfig(output=output)
    )


def test_a_transcription_session_has_its_own_event():
    event = hear(
        type="transcription_session.update",
        session={"modalities": ["audio"], "input_audio_format": "pcm16", "turn_detection": {"type": "none"}},
    )
    audio = config.TranscriptionAudioConfig(input=config.AudioInput(format=config.PcmFormat(), turn_detection=None))
    assert event == ev.SessionUpdate(session=config.TranscriptionSession(audio=audio))
    assert ClientCodec("beta").encode(event) == (
        b'{"type":"transcription_session.update","session":{"input_audio_format":"pcm16","turn_detection":null}}'
    )


MISSING, UNKNOWN, VALUE, TYPE = "missing_required_parameter", "unknown_parameter", "invalid_value", "invalid_type"


@pytest.mark.parametrize(
    ("session", "code", "param", "says"),
    [
        ({"audio": {}}, UNKNOWN, "session.audio", ""),
        ({"type": "realtime"}, UNKNOWN, "session.type", ""),
        ({"output_modalities": ["text"]}, UNKNOWN, "session.output_modalities", ""),
        ({"max_output_tokens": 5}, UNKNOWN, "session.max_output_tokens", ""),
        ({"reasoning": {}}, UNKNOWN, "session.reasoning", ""),
        ({"modalities": ["audio"]}, VALUE, "session.modalities", "['text'] and ['audio', 'text']"),
        ({"modalities": []}, VALUE, "session.modalities", "Invalid modalities: []."),
        ({"modalities": ["smell"]}, VALUE, "session.modalities[0]", "'text'"),
        ({"voice": {"id": "v"}}, TYPE, "session.voice", "a string, but got an object"),
        ({"input_audio_format": "opus"}, VALUE, "session.input_audio_format", "'pcm16', 'g711_ulaw', and 'g711_alaw'"),
        ({"temperature": 0.5}, "decimal_below_min_value", "session.temperature", ">= 0.6"),
        ({"temperature": 1.3}, "decimal_above_max_value", "session.temperature", "<= 1.2"),
        ({"turn_detection": {"threshold": 2}}, "decimal_above_max_value", "session.turn_detection.threshold", ""),
        ({"turn_detection": {"type": "x"}}, VALUE, "session.turn_detection.type", "'server_vad', 'semantic_vad', and"),
        ({"tools": [{"type": "mcp", "server_label": "a"}]}, VALUE, "session.tools[0].type", "'function'."),
        ({"tool_choice": {"type": "function"}}, MISSING, "session.tool_choice.name", ""),
        ({"max_response_output_tokens": 0}, "integer_below_min_value", "session.max_response_output_tokens", ""),
    ],
)
def test_a_mistake_is_told_in_words_of_beta(session, code, param, says):
    error = hear_session(**session)
    assert (error.code, error.param, error.event_id) == (code, param, "e1")
    assert says in error.message


# --- responses and items, client to server ----------------------------------------------------------------------------


def test_a_bare_response_create_is_understood():
    assert hear(type="response.create") == ev.ResponseCreate()


def test_a_flat_response_is_understood():
    heard = hear_response(
        modalities=["text"],
        voice="verse",
        output_audio_format="g711_ulaw",
        temperature=1.0,
        conversation="none",
        metadata={"a": "b"},
        input=[{"type": "item_reference", "id": "item_1"}],
    )
    output = config.ResponseAudioOutput(format=config.PcmuFormat(), voice="verse")
    assert heard == ev.ResponseParams(
        output_modalities=("text",),
        audio=config.ResponseAudioConfig(output=output),
        temperature=1.0,
        conversation="none",
        metadata={"a": "b"},
        input=(items.ItemReference(id="item_1"),),
    )


@pytest.mark.parametrize("name", ["max_response_output_tokens", "max_output_tokens"])
def test_the_token_limit_goes_by_two_names(name):
    assert hear_response(**{name: 5}) == ev.ResponseParams(max_output_tokens=5)


@pytest.mark.parametrize(
    ("response", "code", "param"),
    [
        ({"max_response_output_tokens": 5, "max_output_tokens": 5}, VALUE, "response.max_output_tokens"),
        ({"commits": True}, UNKNOWN, "response.commits"),
        ({"modalities": ["audio"]}, VALUE, "response.modalities"),
        ({"output_modalities": ["text"]}, UNKNOWN, "response.output_modalities"),
        ({"temperature": 2}, "decimal_above_max_value", "response.temperature"),
        ({"speed": 1.0}, UNKNOWN, "response.speed"),
    ],
)
def test_a_mistaken_response_is_told_in_words_of_beta(response, code, param):
    error = hear_response(**response)
    assert (error.code, error.param, error.event_id) == (code, param, "e1")


def item_of(*parts, role="assistant", **more):
    return {"type": "message", "role": role, "content": list(parts), **more}


def test_an_assistants_parts_have_both_names():
    said = {"text": "hi"}
    event = hear(
        type="conversation.item.create",
        previous_item_id="root",
        item=item_of({"type": "text", **said}, {"type": "output_text", **said}, id="a"),
    )
    parts = (items.OutputText(text="hi"), items.OutputText(text="hi"))
    assert event == ev.ConversationItemCreate(
        item=items.Message(id="a", role="assistant", content=parts), previous_item_id="root"
    )
    assert hear_response(input=[item_of({"type": "text", **said})]).input[0].content == parts[:1]


def test_audio_of_an_item_is_bytes():
    event = hear(type="conversation.item.create", item=item_of({"type": "input_audio", "audio": "AAEC"}, role="user"))
    assert event.item.content == (items.InputAudio(audio=b"\0\1\2"),)


@pytest.mark.parametrize(
    ("item", "param", "says"),
    [
        (item_of({"type": "text", "text": "a"}, role="user"), "item.content[0].type", "'input_text' and 'input_audio'"),
        (item_of({"type": "input_text", "text": "a"}), "item.content[0].type", "'text', 'audio'"),
        (item_of({"type": "input_image", "image_url": "a"}, role="user"), "item.content[0].type", "'input_image'"),
        ({"type": "mcp_approval_response"}, "item.type", "'message', 'function_call', and 'function_call_output'"),
        ({"type": "vivavoce.unknown_item"}, "item.type", "'message'"),
    ],
)
def test_a_mistaken_item_is_told_in_words_of_beta(item, param, says):
    error = hear(type="conversation.item.create", event_id="e1", item=item)
    assert (error.code, error.param, error.event_id) == (VALUE, param, "e1")
    assert says in error.message


@pytest.mark.parametrize(
    "event",
    [
        ev.InputAudioBufferAppend(audio=b"abc"),
        ev.InputAudioBufferCommit(event_id="e"),
        ev.InputAudioBufferClear(),
        ev.ConversationItemDelete(item_id="a"),
        ev.ConversationItemRetrieve(item_id="a"),
        ev.ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=5),
        ev.ResponseCancel(response_id="r"),
    ],
    ids=lambda event: event.type,
)
def test_other_events_are_the_same(event):
    frame = ClientCodec("beta").encode(event)
    assert frame == ClientCodec().encode(event)
    assert ServerCodec("beta").decode(frame.decode()) == event


def test_playback_may_be_cleared_where_the_server_plays():
    frame = '{"type":"output_audio_buffer.clear"}'
    assert ServerCodec("beta", playback=True).decode(frame) == ev.OutputAudioBufferClear()
    error = ServerCodec("beta").decode(frame)
    assert (error.code, error.param) == (VALUE, "type")
    assert "'transcription_session.update'" in error.message


# --- server to client -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("struct", [ev.SessionCreated, ev.SessionUpdated])
def test_a_session_is_stated_flat_and_understood(struct):
    event = struct(event_id="e", session=SESSION)
    assert say(event) == {"type": event.type, "event_id": "e", "session": FLAT_SESSION}
    learnt = learn(**say(event))
    assert learnt == struct(event_id="e", session=msgspec.structs.replace(SESSION, temperature=0.8))


def test_what_beta_does_not_have_is_not_stated():
    tools = (config.McpTool(server_label="a"), config.FunctionTool(name="f"))
    session = config.RealtimeSessionResource(
        tools=tools, parallel_tool_calls=True, reasoning=config.Reasoning(), tool_choice="auto"
    )
    stated = say(ev.SessionCreated(event_id="e", session=session))["session"]
    assert stated == {"tools": [{"type": "function", "name": "f"}], "tool_choice": "auto", "temperature": 0.8}


@pytest.mark.parametrize("verb", ["created", "updated"])
def test_a_transcription_session_is_stated_under_its_own_name(verb):
    struct = {"created": ev.SessionCreated, "updated": ev.SessionUpdated}[verb]
    heard = config.AudioInput(
        format=config.PcmFormat(),
        transcription=config.Transcription(model="whisper-1", language=None, prompt=None),
        noise_reduction=config.NoiseReduction(type="near_field"),
        turn_detection=config.SemanticVad(eagerness="low"),
    )
    session = config.TranscriptionSessionResource(
        id="s",
        object="realtime.transcription_session",
        expires_at=5,
        audio=config.TranscriptionAudioConfig(input=heard),
        include=("item.input_audio_transcription.logprobs",),
    )
    event = struct(event_id="e", session=session)
    said = say(event)
    assert said["type"] == f"transcription_session.{verb}"
    assert said["session"] == {
        "id": "s",
        "object": "realtime.transcription_session",
        "expires_at": 5,
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1", "language": None, "prompt": None},
        "input_audio_noise_reduction": {"type": "near_field"},
        "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
        "include": ["item.input_audio_transcription.logprobs"],
    }
    assert learn(**said) == event
    # Some servers say it under the plain name.
    assert learn(**said | {"type": f"session.{verb}"}) == event


def test_a_transcription_session_says_nothing_about_responses():
    """Reference §8.13."""
    audio = config.TranscriptionAudioConfig(input=config.AudioInput(turn_detection=VAD))
    session = config.TranscriptionSessionResource(audio=audio)
    stated = say(ev.SessionUpdated(event_id="e", session=session))["session"]["turn_detection"]
    assert stated == {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200}
    manual = config.TranscriptionAudioConfig(input=config.AudioInput(turn_detection=None))
    session = config.TranscriptionSessionResource(audio=manual)
    assert say(ev.SessionUpdated(event_id="e", session=session))["session"] == {"turn_detection": None}


def test_a_transcription_session_is_configured_flat():
    event = hear(
        type="transcription_session.update",
        event_id="e1",
        session={
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "gpt-4o-transcribe", "prompt": "names", "language": "en"},
            "input_audio_noise_reduction": {"type": "far_field"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.4,
                "prefix_padding_ms": 100,
                "silence_duration_ms": 300,
                "create_response": False,
                "interrupt_response": False,
            },
            "include": ["item.input_audio_transcription.logprobs"],
            "modalities": ["text"],
            "client_secret": {"expires_at": {"anchor": "created_at", "seconds": 10}},
        },
    )
    heard = config.AudioInput(
        format=config.PcmuFormat(),
        transcription=config.Transcription(model="gpt-4o-transcribe", prompt="names", language="en"),
        noise_reduction=config.NoiseReduction(type="far_field"),
        turn_detection=config.ServerVad(
            threshold=0.4,
            prefix_padding_ms=100,
            silence_duration_ms=300,
            create_response=False,
            interrupt_response=False,
        ),
    )
    assert event == ev.SessionUpdate(
        event_id="e1",
        session=config.TranscriptionSession(
            audio=config.TranscriptionAudioConfig(input=heard), include=("item.input_audio_transcription.logprobs",)
        ),
    )


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"voice": "verse"}, UNKNOWN, "session.voice"),
        ({"instructions": "Hi"}, UNKNOWN, "session.instructions"),
        ({"temperature": 0.8}, UNKNOWN, "session.temperature"),
        ({"input_audio_format": "opus"}, VALUE, "session.input_audio_format"),
        ({"input_audio_noise_reduction": {"type": "middle"}}, VALUE, "session.input_audio_noise_reduction.type"),
        ({"include": ["x"]}, VALUE, "session.include[0]"),
    ],
)
def test_a_mistaken_transcription_session_is_told_in_words_of_beta(session, code, param):
    error = hear(type="transcription_session.update", event_id="e1", session=session)
    assert (error.code, error.param, error.event_id) == (code, param, "e1")


def test_the_wrong_kind_of_session_is_the_wrong_event_in_beta():
    detail = ev.ErrorDetail(type="invalid_request_error", code=VALUE, message="", param="session.type")
    assert say(ev.ErrorEvent(event_id="e", error=detail))["error"]["param"] == "type"


def test_what_beta_knows_of_the_input_is_stated_and_no_more():
    heard = config.AudioInput(
        transcription=config.Transcription(model="m", language="en", languages=("en",), keywords=("a",), delay="low"),
        noise_reduction=config.NoiseReduction(type="far_field", strength=0.5),
        turn_detection=config.SemanticVad(eagerness="auto", create_response=True, interrupt_response=False),
    )
    session = config.RealtimeSessionResource(audio=config.AudioConfig(input=heard))
    assert say(ev.SessionUpdated(event_id="e", session=session))["session"] == {
        "input_audio_transcription": {"model": "m", "language": "en"},
        "input_audio_noise_reduction": {"type": "far_field"},
        "turn_detection": {
            "type": "semantic_vad",
            "eagerness": "auto",
            "create_response": True,
            "interrupt_response": False,
        },
        "temperature": 0.8,
    }
    # A client that wants what beta does not have is told so.
    update = ev.SessionUpdate(session=config.RealtimeSession(audio=config.AudioConfig(input=heard)))
    with pytest.raises(LocalProtocolError):
        ask(update)


LATE_ADDITIONS = {
    "turn_detection": {"type": "semantic_vad", "eagerness": "high", "create_response": False},
    "input_audio_noise_reduction": {"type": "near_field"},
    "truncation": {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": {"post_instructions": 5}},
    "tracing": {"workflow_name": "w", "group_id": "g", "metadata": {"a": 1}},
    "prompt": {"id": "pmpt_1", "version": "2", "variables": {"city": "Paris"}},
    "include": ["item.input_audio_transcription.logprobs"],
}


def test_late_additions_are_understood_and_stated_again():
    session = hear_session(**LATE_ADDITIONS)
    resource = config.RealtimeSessionResource(**{name: getattr(session, name) for name in session.__struct_fields__})
    assert say(ev.SessionUpdated(event_id="e", session=resource))["session"] == LATE_ADDITIONS | {"temperature": 0.8}


def test_an_idle_timeout_may_be_set():
    detection = hear_session(turn_detection={"type": "server_vad", "idle_timeout_ms": 5_000}).audio.input.turn_detection
    assert detection == config.ServerVad(idle_timeout_ms=5_000)
    error = hear_session(turn_detection={"type": "server_vad", "idle_timeout_ms": 4_999})
    assert (error.code, error.param) == ("integer_below_min_value", "session.turn_detection.idle_timeout_ms")


# --- limits, stated twice by the session ------------------------------------------------------------------------------

REQUESTS = ev.RateLimit(name="requests", limit=10, remaining=9, reset_seconds=6.0)
TOKENS = ev.RateLimit(name="tokens", limit=100, remaining=90, reset_seconds=0.5)


def test_limits_are_stated_when_a_response_begins_in_beta_and_when_it_is_done_in_ga():
    """Reference §8.15."""
    early = ev.RateLimitsUpdated(event_id="e", rate_limits=(REQUESTS, TOKENS))
    late = ev.RateLimitsUpdated(event_id="e", rate_limits=(TOKENS,))
    assert say(early) == json.loads(write(early))
    assert say(late) is None
    assert ServerCodec().encode(early) is None
    assert ServerCodec().encode(late) == write(late)


@pytest.mark.parametrize("struct", [ev.ResponseCreated, ev.ResponseDone])
def test_a_response_is_stated_flat_and_understood(struct):
    event = struct(event_id="e", response=RESPONSE)
    assert say(event) == {"type": event.type, "event_id": "e", "response": FLAT_RESPONSE}
    learnt = learn(**say(event)).response
    assert learnt.output[0].content == RESPONSE.output[0].content
    assert learnt.audio.output == items.AudioOutputResource(format=config.PcmaFormat(), voice="voice_1")
    assert learnt.output_modalities == ("text",)


def test_usage_has_no_images():
    details = items.InputTokenDetails(
        text_tokens=1, image_tokens=0, cached_tokens_details=items.CachedTokenDetails(text_tokens=1, image_tokens=0)
    )
    response = items.Response(id="r", usage=items.Usage(total_tokens=1, input_token_details=details))
    assert say(ev.ResponseDone(event_id="e", response=response))["response"]["usage"] == {
        "total_tokens": 1,
        "input_token_details": {"text_tokens": 1, "cached_tokens_details": {"text_tokens": 1}},
    }


def test_an_item_is_announced_once():
    item = items.Message(id="i", role="assistant", content=(items.OutputText(text="hi"),), status="in_progress")
    added = ev.ConversationItemAdded(event_id="e", item=item, previous_item_id=None)
    said = say(added)
    assert said == {
        "type": "conversation.item.created",
        "event_id": "e",
        "previous_item_id": None,
        "item": {
            "type": "message",
            "id": "i",
            "object": "realtime.item",
            "status": "in_progress",
            "role": "assistant",
            "content": [{"type": "text", "text": "hi"}],
        },
    }
    assert say(ev.ConversationItemDone(event_id="e", item=item)) is None
    learnt = learn(**said)
    assert isinstance(learnt, ev.ConversationItemAdded)
    assert learnt.item.content == item.content
    assert say(ev.ConversationItemCreated(event_id="e", item=item))["type"] == "conversation.item.created"


@pytest.mark.parametrize(
    "event", [event for event in SERVER_EVENTS if event.type in beta.EVENT_NAMES], ids=lambda event: event.type
)
def test_renamed_events_differ_in_nothing_else(event):
    frame = ServerCodec("beta").encode(event)
    assert json.loads(frame) == json.loads(write(event)) | {"type": beta.EVENT_NAMES[event.type]}
    learnt = ClientCodec("beta").decode(frame)
    assert learnt == event
    assert type(learnt) is type(event)
    assert learnt.raw == frame


@pytest.mark.parametrize(
    "event", [event for event in SERVER_EVENTS if event.type in beta.GA_ONLY], ids=lambda event: event.type
)
def test_beta_has_no_such_event(event):
    assert say(event) is None


def test_the_conversation_is_announced():
    event = ev.ConversationCreated(event_id="e", conversation=ev.ConversationResource(id="conv_1"))
    assert say(event) == json.loads(write(event))


def test_a_finished_call_does_not_name_the_function():
    event = ev.ResponseFunctionCallArgumentsDone(
        event_id="e", response_id="r", item_id="i", output_index=0, call_id="c", arguments="{}", name="f"
    )
    said = say(event)
    assert "name" not in said
    assert learn(**said).call_id == "c"
    call = items.FunctionCall(id="i", name="f", arguments="{}")
    item = say(ev.ResponseOutputItemDone(event_id="e", response_id="r", output_index=0, item=call))["item"]
    assert (item["name"], item["object"], item["status"]) == ("f", "realtime.item", "completed")


@pytest.mark.parametrize(
    ("param", "named"),
    [
        ("session.audio.input.turn_detection.threshold", "session.turn_detection.threshold"),
        ("session.audio.output.voice", "session.voice"),
        ("session.audio.input.format", "session.input_audio_format"),
        ("session.output_modalities[0]", "session.modalities[0]"),
        ("session.max_output_tokens", "session.max_response_output_tokens"),
        ("response.audio.output.format.type", "response.output_audio_format.type"),
        ("response.max_output_tokens", "response.max_response_output_tokens"),
        ("session.audio.outputs", "session.audio.outputs"),
        ("session.model", "session.model"),
        ("item.id", "item.id"),
        (None, None),
    ],
)
def test_the_param_of_an_error_is_told_in_words_of_beta(param, named):
    detail = ev.ErrorDetail(type="invalid_request_error", message=f"Wrong: '{param}'.", param=param)
    error = say(ev.ErrorEvent(event_id="e", error=detail))["error"]
    assert (error["param"], error["message"]) == (named, f"Wrong: '{named}'.")


# --- temperature ------------------------------------------------------------------------------------------------------


def test_a_temperature_goes_in_where_ga_has_none_and_comes_out_again():
    assert hear_session(temperature=1.1).temperature == 1.1
    assert hear_session(voice="verse").temperature is ev.UNSET
    assert hear_response(temperature=0.6).temperature == 0.6
    session = msgspec.structs.replace(SESSION, temperature=1.1)
    response = msgspec.structs.replace(RESPONSE, temperature=0.6)
    for event in (ev.SessionCreated(session=session), ev.SessionUpdated(session=session)):
        assert say(event)["session"] == FLAT_SESSION | {"temperature": 1.1}
        assert learn(**say(event)) == event
    for event in (ev.ResponseCreated(response=response), ev.ResponseDone(response=response)):
        assert say(event)["response"] == FLAT_RESPONSE | {"temperature": 0.6}
        assert learn(**say(event)).response.temperature == 0.6


def test_a_client_that_thinks_in_ga_can_say_a_temperature_in_beta():
    update = ev.SessionUpdate(session=config.RealtimeSession(temperature=0.7))
    assert ask(update) == {"type": "session.update", "session": {"temperature": 0.7}}
    create = ev.ResponseCreate(response=ev.ResponseParams(temperature=0.7))
    assert ask(create) == {"type": "response.create", "response": {"temperature": 0.7}}


def test_our_name_for_it_is_no_word_of_beta():
    for error in (hear_session(**{config.TEMPERATURE: 0.7}), hear_response(**{config.TEMPERATURE: 0.7})):
        assert (error.code, error.event_id) == (UNKNOWN, "e1")
    error = ev.ErrorDetail(type="invalid_request_error", message="", param=f"session.{config.TEMPERATURE}")
    assert say(ev.ErrorEvent(error=error))["error"]["param"] == "session.temperature"


# --- a client that thinks in GA ---------------------------------------------------------------------------------------


def test_a_session_update_is_said_flat():
    session = config.RealtimeSession(
        output_modalities=("audio",),
        audio=config.AudioConfig(
            input=config.AudioInput(turn_detection=None), output=config.AudioOutput(voice=config.VoiceRef(id="v"))
        ),
        tool_choice=config.ToolChoiceFunction(name="f"),
        max_output_tokens=5,
    )
    assert ask(ev.SessionUpdate(event_id="e", session=session)) == {
        "type": "session.update",
        "event_id": "e",
        "session": {
            "modalities": ["text", "audio"],
            "turn_detection": None,
            "voice": "v",
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "max_response_output_tokens": 5,
        },
    }


def test_a_response_create_is_said_flat():
    assert ask(ev.ResponseCreate()) == {"type": "response.create"}
    message = items.Message(role="assistant", content=(items.OutputText(text="hi"),))
    params = ev.ResponseParams(
        output_modalities=("text",),
        max_output_tokens=5,
        audio=config.ResponseAudioConfig(output=config.ResponseAudioOutput(voice="verse")),
        input=(message, items.ItemReference(id="a")),
    )
    assert ask(ev.ResponseCreate(response=params))["response"] == {
        "modalities": ["text"],
        "max_response_output_tokens": 5,
        "voice": "verse",
        "input": [
            {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "hi"}]},
            {"type": "item_reference", "id": "a"},
        ],
    }


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (ev.SessionUpdate(session=config.RealtimeSession(reasoning=config.Reasoning())), "'session.reasoning'"),
        (ev.SessionUpdate(session=config.RealtimeSession(parallel_tool_calls=True)), "'session.parallel_tool_calls'"),
        (ev.SessionUpdate(session=config.RealtimeSession(tools=(config.McpTool(server_label="a"),))), "'mcp'"),
        (ev.ResponseCreate(response=ev.ResponseParams(reasoning=config.Reasoning())), "'response.reasoning'"),
        (ev.ConversationItemCreate(item=items.McpApprovalResponse(approval_request_id="a", approve=True)), "'mcp_"),
        (ev.ConversationItemCreate(item=items.UnknownItem(fields={"type": "x"})), "'x'"),
    ],
)
def test_what_beta_cannot_say_is_the_callers_mistake(event, says):
    with pytest.raises(LocalProtocolError, match="beta dialect cannot say this") as caught:
        ClientCodec("beta").encode(event)
    assert says in str(caught.value)


def test_what_a_beta_server_says_and_ga_does_not_know_is_left_out():
    event = learn(
        type="session.created",
        session={
            "modalities": ["audio"],
            "input_audio_format": ["pcm16"],
            "turn_detection": {"type": ["x"]},
            "voice": "verse",
            "temperature": 0.8,
            "tool_choice": {"type": "function"},
            "new": 1,
        },
    )
    audio = config.AudioConfig(input=config.AudioInput(), output=config.AudioOutput(voice="verse"))
    assert event == ev.SessionCreated(session=config.RealtimeSessionResource(audio=audio, temperature=0.8))


def test_unknown_events_of_a_beta_server_are_kept_whole():
    fields = {"type": "response.hologram.delta", "event_id": "e", "item": {"content": [{"type": "text"}]}}
    assert learn(**fields) == ev.Unknown(
        kind="response.hologram.delta", fields=fields, event_id="e", raw=json.dumps(fields).encode()
    )
    assert learn(type="session.updated", session=5).fields == {"type": "session.updated", "session": 5}
    with pytest.raises(RemoteProtocolError):
        ClientCodec("beta").decode("[]")


def test_a_server_that_speaks_ga_is_understood_all_the_same():
    event = ev.ConversationItemDone(event_id="e", item=items.FunctionCall(name="f", arguments=""))
    assert ClientCodec("beta").decode(write(event)) == event


# --- never raises -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", BETA_CLIENT_EVENTS, ids=lambda event: event.type)
def test_every_beta_event_is_understood_or_refused(event):
    heard = ServerCodec("beta", playback=True).decode(write(event).decode())
    if not isinstance(heard, ev.ErrorDetail):
        assert ServerCodec("beta", playback=True).decode(ClientCodec("beta").encode(heard).decode()) == heard


@settings(max_examples=400, deadline=None)
@given(damaged([json.loads(write(event)) for event in BETA_CLIENT_EVENTS]))
def test_no_damaged_event_of_a_client_raises(fields):
    assert isinstance(hear(**fields), (ev.ErrorDetail, *get_args(ev.AnyClientEvent)))


@settings(max_examples=400, deadline=None)
@given(damaged([fields for event in SERVER_EVENTS if (fields := say(event)) is not None]))
def test_no_damaged_event_of_a_server_raises(fields):
    event = learn(**fields)
    assert event.raw == json.dumps(fields).encode()
    if not isinstance(event, ev.Unknown):
        assert isinstance(ServerCodec("beta").encode(event), (bytes, type(None)))


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ({"type": "session.update", "session": {"output_modalities": ["text"]}}, "session.output_modalities"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type"),
        ({"type": "response.create", "response": {"output_modalities": ["text"]}}, "response.output_modalities"),
    ],
)
def test_a_name_of_ga_is_refused_where_the_client_wrote_it(frame: dict[str, object], param: str) -> None:
    codec = ServerCodec("beta")
    error = codec.decode(json.dumps(frame))
    assert isinstance(error, ev.ErrorDetail)
    told = json.loads(codec.encode(ev.ErrorEvent(event_id="event_1", error=error)) or b"")["error"]
    assert (told["code"], told["param"]) == ("unknown_parameter", param)
    assert f"Unknown parameter: '{param}'" in told["message"]
