"""Fields that no rule asks for by name: a session takes each of them, through the codec, and states it again."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from vivavoce.core.abilities import Abilities
from vivavoce.core.messages import Opened, Send, TranscriptFailed
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol.codec import Dialect, ServerCodec
from vivavoce.protocol.config import RealtimeSession, SessionConfig, TranscriptionSession
from vivavoce.testing.playbook import counting_ids

Json = dict[str, Any]
PROMPTS = {"greeting": {"2": RealtimeSession(instructions="Greet {{name}}.")}}
ABLE = Abilities(semantic_vad=True, noise_reduction=True, mcp=True, images=True, reasoning=True, logprobs=True)
SILENCE = base64.b64encode(bytes(4_800)).decode()
IMAGE = "data:image/png;base64,iVBORw0KGgo="


class Wire:
    """A session behind its codec: JSON in, JSON out."""

    def __init__(self, dialect: Dialect, configured: SessionConfig | None = None) -> None:
        self._codec = ServerCodec(dialect)
        self._machine = Session(
            id="sess_1",
            model="scripted",
            ids=counting_ids(),
            expires_at=1,
            configured=configured,
            surroundings=Surroundings(abilities=ABLE, prompts=PROMPTS),
        )
        self.hear(Opened())

    def say(self, event: Json) -> list[Json]:
        """What the server answers to a client's event."""
        said = self._codec.decode(json.dumps(event))
        assert not isinstance(said, tuple)
        return self.hear(said)

    def hear(self, input: Any) -> list[Json]:
        """What the server says when its machine hears this."""
        effects = self._machine.handle(input, 0)
        frames = [self._codec.encode(effect.event) for effect in effects if isinstance(effect, Send)]
        return [json.loads(frame) for frame in frames if frame is not None]


def is_in(part: Any, whole: Any) -> bool:
    """Everything of a part stands in the whole."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and is_in(part[name], whole[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(is_in, part, whole))
    return bool(part == whole)


# --- session.update ---------------------------------------------------------------------------------------------------

LOOK = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}
MCP = {"type": "mcp", "server_label": "files"}
URL = {"server_url": "https://files.example/mcp"}
HINTS = {"model": "whisper-1", "languages": ["de", "en"], "keywords": ["viva", "voce"], "delay": "low"}
UPDATES: list[tuple[Dialect, Json]] = [
    ("ga", {"audio": {"output": {"voice": {"id": "voice_7"}}}}),
    ("ga", {"audio": {"input": {"transcription": HINTS}}}),
    (
        "ga",
        {"tools": [LOOK]},
    ),
    ("ga", {"tools": [{**MCP, **URL, "allowed_tools": {"tool_names": ["read"], "read_only": True}}]}),
    ("ga", {"tools": [{**MCP, **URL, "allowed_callers": ["direct"], "defer_loading": True}]}),
    ("ga", {"tools": [{**MCP, **URL, "server_description": "Files."}]}),
    ("ga", {"tools": [{**MCP, **URL}], "tool_choice": {"type": "mcp", "server_label": "files", "name": "read"}}),
    ("ga", {"reasoning": {"effort": "low"}}),
    ("ga", {"tracing": {"workflow_name": "calls", "group_id": "g1", "metadata": {"topic": "x"}}}),
    (
        "ga",
        {
            "truncation": {
                "type": "retention_ratio",
                "retention_ratio": 0.5,
                "token_limits": {"post_instructions": 1_000},
            }
        },
    ),
    ("beta", {"input_audio_noise_reduction": {"type": "far_field"}}),
    (
        "beta",
        {"tools": [LOOK]},
    ),
    ("beta", {"tracing": {"workflow_name": "calls", "group_id": "g1", "metadata": {"topic": "x"}}}),
]


@pytest.mark.parametrize(("dialect", "update"), UPDATES, ids=lambda part: "" if isinstance(part, dict) else part)
def test_an_update_is_stated_as_it_was_made(dialect: Dialect, update: Json) -> None:
    kind = {"type": "realtime"} if dialect == "ga" else {}
    (said, *_) = Wire(dialect).say({"type": "session.update", "session": {**kind, **update}})
    assert said["type"] == "session.updated", said
    assert is_in(update, said["session"]), said["session"]


SECRETS = {"authorization": "Bearer secret", "headers": {"X-Key": "secret"}}


@pytest.mark.parametrize("name", SECRETS)
def test_what_opens_a_tool_server_is_taken(name: str) -> None:
    tool = {**MCP, **URL, name: SECRETS[name]}
    (said, *_) = Wire("ga").say({"type": "session.update", "session": {"type": "realtime", "tools": [tool]}})
    assert said["type"] == "session.updated", said


HEARING = [
    {"transcription": HINTS},
    {"turn_detection": {"type": "semantic_vad", "create_response": True, "interrupt_response": False}},
]


@pytest.mark.parametrize("given", HEARING, ids=lambda given: next(iter(given)))
def test_a_transcription_session_takes_what_it_does_not_need(given: Json) -> None:
    """What turns would lead to in a conversation is not stated (reference §8.13)."""
    session = {"type": "transcription", "audio": {"input": given}}
    (said,) = Wire("ga", TranscriptionSession()).say({"type": "session.update", "session": session})
    assert said["type"] == "session.updated", said
    stated = said["session"]["audio"]["input"]
    if "transcription" in given:
        assert is_in(given, stated)
    else:
        assert stated["turn_detection"]["type"] == "semantic_vad"
        assert not stated["turn_detection"].keys() & {"create_response", "interrupt_response"}


# --- items ------------------------------------------------------------------------------------------------------------

CALL = {"type": "mcp_call", "id": "call_1", "server_label": "files", "name": "read", "arguments": "{}"}


def message(role: str, **part: Any) -> Json:
    return {"type": "message", "role": role, "content": [part]}


HEARD = {"type": "input_audio", "audio": SILENCE, "transcript": "hello"}
ITEMS: list[tuple[Dialect, Json]] = [
    ("ga", message("user", type="input_image", image_url=IMAGE, detail="low")),
    ("ga", message("user", **HEARD)),
    ("ga", {**CALL, "error": {"type": "protocol_error", "code": -32_600, "message": "What?"}}),
    ("ga", {**CALL, "error": {"type": "http_error", "code": 503, "message": "Not now."}}),
    ("ga", {**CALL, "error": {"type": "tool_execution_error", "message": "No such file."}}),
    ("beta", message("user", **HEARD)),
]


@pytest.mark.parametrize(("dialect", "item"), ITEMS, ids=lambda part: part["type"] if isinstance(part, dict) else part)
def test_an_item_is_told_as_it_was_made(dialect: Dialect, item: Json) -> None:
    """Audio goes in and stays in; it comes back where the item is asked for."""
    wire = Wire(dialect)
    (told, *_) = wire.say({"type": "conversation.item.create", "item": item})
    assert told["type"] == ("conversation.item.added" if dialect == "ga" else "conversation.item.created"), told
    (again,) = wire.say({"type": "conversation.item.retrieve", "item_id": told["item"]["id"]})
    assert is_in(item, again["item"])


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_the_speech_of_an_assistant_cannot_be_made(dialect: Dialect) -> None:
    for name in ("output_audio", "audio") if dialect == "beta" else ("output_audio",):
        item = message("assistant", type=name, audio=SILENCE, transcript="hello")
        (told,) = Wire(dialect).say({"type": "conversation.item.create", "item": item})
        assert (told["type"], told["error"]["code"]) == ("error", "invalid_value")


def test_a_transcription_that_fails_is_told_in_beta() -> None:
    wire = Wire("beta")
    wire.say({"type": "session.update", "session": {"input_audio_transcription": {"model": "whisper-1"}}})
    wire.say({"type": "input_audio_buffer.append", "audio": SILENCE * 2})
    (committed, *_) = wire.say({"type": "input_audio_buffer.commit"})
    (told,) = wire.hear(TranscriptFailed(committed["item_id"], "engine_error", "No words."))
    assert told["type"] == "conversation.item.input_audio_transcription.failed"
    assert (told["item_id"], told["content_index"]) == (committed["item_id"], 0)
    assert (told["error"]["code"], told["error"]["message"]) == ("engine_error", "No words.")


# --- response.create --------------------------------------------------------------------------------------------------

CALLED = {"type": "function_call", "id": "item_c", "call_id": "call_9", "name": "look", "arguments": "{}"}
ANSWERED = {"type": "function_call_output", "id": "item_o", "call_id": "call_9", "output": "a cat"}
RESPONSES: list[tuple[Dialect, Json]] = [
    ("ga", {"input": [message("user", type="input_image", image_url=IMAGE, detail="low")]}),
    ("ga", {"input": [message("user", **HEARD)]}),
    ("ga", {"input": [message("assistant", type="output_text", text="Well.")]}),
    ("ga", {"input": [{**CALL, "error": {"type": "protocol_error", "code": -32_600, "message": "What?"}}]}),
    ("ga", {"input": [{**CALL, "error": {"type": "http_error", "code": 503, "message": "Not now."}}]}),
    ("ga", {"input": [{**CALL, "error": {"type": "tool_execution_error", "message": "No such file."}}]}),
    ("beta", {"input": [{**message("user", **HEARD), "id": "item_m"}]}),
    ("beta", {"input": [message("assistant", type="text", text="Well.")]}),
    ("beta", {"input": [message("assistant", type="output_text", text="Well.")]}),
    ("beta", {"input": [CALLED, ANSWERED]}),
    ("beta", {"tools": [LOOK], "tool_choice": {"type": "function", "name": "look"}}),
    ("beta", {"tools": [LOOK], "tool_choice": {"type": "function", "function": {"name": "look"}}}),
    ("beta", {"prompt": {"id": "greeting", "version": "2", "variables": {"name": "Ada"}}}),
]


@pytest.mark.parametrize(("dialect", "params"), RESPONSES, ids=lambda part: "" if isinstance(part, dict) else part)
def test_a_response_may_be_asked_for_with(dialect: Dialect, params: Json) -> None:
    (told, *_) = Wire(dialect).say({"type": "response.create", "response": {"conversation": "none", **params}})
    assert (told["type"], told.get("response", {}).get("status")) == ("response.created", "in_progress"), told


@pytest.mark.parametrize(
    ("dialect", "name"), [("ga", "output_audio"), ("beta", "output_audio"), ("beta", "audio")], ids=str
)
def test_the_input_of_a_response_has_no_speech_of_an_assistant(dialect: Dialect, name: str) -> None:
    part = message("assistant", type=name, audio=SILENCE, transcript="hello")
    (told, *_) = Wire(dialect).say({"type": "response.create", "response": {"conversation": "none", "input": [part]}})
    assert (told["type"], told.get("error", {}).get("code")) == ("error", "invalid_value"), told


# --- what is wrong ----------------------------------------------------------------------------------------------------

WRONG: list[tuple[Dialect, Json, str]] = [
    ("ga", {"tracing": {"workflow_name": 5}}, "session.tracing.workflow_name"),
    ("ga", {"tracing": {"group_id": 5}}, "session.tracing.group_id"),
    ("ga", {"tools": [{**LOOK, "name": 5}]}, "session.tools[0].name"),
    ("ga", {"tools": [{**LOOK, "description": 5}]}, "session.tools[0].description"),
    ("beta", {"tracing": {"workflow_name": 5}}, "session.tracing.workflow_name"),
    ("beta", {"tracing": {"group_id": 5}}, "session.tracing.group_id"),
]


@pytest.mark.parametrize(("dialect", "update", "param"), WRONG, ids=[f"{row[0]}-{row[2]}" for row in WRONG])
def test_a_wrong_type_is_told_with_its_place(dialect: Dialect, update: Json, param: str) -> None:
    kind = {"type": "realtime"} if dialect == "ga" else {}
    (told,) = Wire(dialect).say({"type": "session.update", "session": {**kind, **update}})
    assert (told["type"], told["error"]["code"], told["error"]["param"]) == ("error", "invalid_type", param)


def put(part: Json) -> Json:
    """One part in an item, of the role that may say it."""
    role = "assistant" if part["type"] in ("output_text", "output_audio", "text") else "user"
    return message(role, **part)


ITEM, INPUT = "item.content[0]", "response.input[0].content[0]"
WRONG_PARTS: list[tuple[Dialect, str, Json, str]] = [
    ("ga", ITEM, {"type": "input_audio", "transcript": 5}, "transcript"),
    ("ga", ITEM, {"type": "output_audio", "transcript": 5}, "transcript"),
    ("ga", INPUT, {"type": "input_audio", "audio": 5}, "audio"),
    ("ga", INPUT, {"type": "input_audio", "transcript": 5}, "transcript"),
    ("ga", INPUT, {"type": "input_image", "image_url": 5}, "image_url"),
    ("ga", INPUT, {"type": "input_image", "image_url": IMAGE, "detail": 5}, "detail"),
    ("ga", INPUT, {"type": "output_audio", "audio": 5}, "audio"),
    ("ga", INPUT, {"type": "output_audio", "transcript": 5}, "transcript"),
    ("beta", INPUT, {"type": "input_text", "text": 5}, "text"),
    ("beta", INPUT, {"type": "text", "text": 5}, "text"),
    ("beta", INPUT, {"type": "output_text", "text": 5}, "text"),
]


@pytest.mark.parametrize(
    ("dialect", "place", "part", "field"),
    WRONG_PARTS,
    ids=[f"{dialect}-{place}-{part['type']}-{field}" for dialect, place, part, field in WRONG_PARTS],
)
def test_a_wrong_type_in_a_part_is_told_with_its_place(dialect: Dialect, place: str, part: Json, field: str) -> None:
    event = {"type": "conversation.item.create", "item": put(part)}
    if place is INPUT:
        event = {"type": "response.create", "response": {"input": [put(part)]}}
    (told,) = Wire(dialect).say(event)
    assert (told["type"], told["error"]["code"]) == ("error", "invalid_type")
    assert told["error"]["param"] == f"{place}.{field}"


def item(**fields: Any) -> Json:
    return {"type": "conversation.item.create", "item": fields}


WRONG_VALUES: list[tuple[Dialect, Json, str, str]] = [
    ("ga", item(**CALL, error={"type": kind, "code": "503", "message": ""}), "item.error.code", "invalid_type")
    for kind in ("protocol_error", "http_error")
] + [
    (
        "ga",
        {"type": "session.update", "session": {"type": "realtime", "tools": [{**LOOK, "parameters": 5}]}},
        "session.tools[0].parameters",
        "invalid_type",
    ),
    (
        "beta",
        {"type": "response.create", "response": {"max_response_output_tokens": 0}},
        "response.max_response_output_tokens",
        "integer_below_min_value",
    ),
]


@pytest.mark.parametrize(("dialect", "event", "param", "code"), WRONG_VALUES)
def test_a_wrong_value_is_told_with_its_place(dialect: Dialect, event: Json, param: str, code: str) -> None:
    (told,) = Wire(dialect).say(event)
    assert (told["type"], told["error"]["code"], told["error"]["param"]) == ("error", code, param)
