"""Frames that no client should send, by a seed: damaged valid events, and things that are no events at all.

`valid_events` are sound ones, with many of their fields; `frames` gives them without end, one in five as it is, the
others changed in places, or broken as text. Invariant: the same generator gives the same frames.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any, Literal

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ClientCodec, ServerCodec

from .sounds import silence, tone

__all__ = ["Vocabulary", "calming_event", "frames", "valid_events"]

Vocabulary = Literal["ga", "beta", "overview", "translation"]
Json = Any

CHANGES = (1, 1, 1, 2, 4)
DEPTH = 20_000
LONG = 50_000

# --- valid events -----------------------------------------------------------------------------------------------------

_AUDIO = base64.b64encode(tone(120) + silence(40)).decode()
_PNG = "data:image/png;base64,iVBORw0KGgo="
_FUNCTION = {"type": "function", "name": "look", "description": "Look.", "parameters": {"type": "object"}}
_SERVER = {
    "type": "mcp",
    "server_label": "notes",
    "server_url": "https://notes.example",
    "allowed_tools": ["look_up"],
    "require_approval": {"never": {"tool_names": ["look_up"]}},
    "headers": {"x-key": "k"},
}


def _session(**fields: Json) -> Json:
    return {"type": "session.update", "event_id": "mine", "session": {"type": "realtime", **fields}}


def _item(**fields: Json) -> Json:
    return {"type": "conversation.item.create", "event_id": "mine", "previous_item_id": None, "item": fields}


def _said(role: str, *content: Json) -> Json:
    return _item(type="message", role=role, content=list(content))


def _response(**fields: Json) -> Json:
    return {"type": "response.create", "event_id": "mine", "response": fields}


_GA: tuple[Json, ...] = (
    _session(instructions="be brief", output_modalities=["text"], max_output_tokens=50),
    _session(
        audio={
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "noise_reduction": {"type": "near_field", "strength": 0.5},
                "transcription": {"model": "whisper-1", "language": "en", "prompt": "names"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 200,
                    "idle_timeout_ms": 5_000,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": "alloy", "speed": 1.25},
        },
        include=["item.input_audio_transcription.logprobs"],
    ),
    _session(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}}}),
    _session(tools=[_FUNCTION], tool_choice={"type": "function", "name": "look"}, parallel_tool_calls=True),
    _session(tools=[_FUNCTION, _SERVER], tool_choice="auto"),
    _session(truncation={"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": {"post_instructions": 90}}),
    _session(tracing={"workflow_name": "a", "group_id": "b", "metadata": {"c": "d"}}, reasoning={"effort": "low"}),
    _session(prompt={"id": "none", "version": "1", "variables": {"city": "Paris"}}),
    {"type": "input_audio_buffer.append", "event_id": "mine", "audio": _AUDIO},
    {"type": "input_audio_buffer.commit", "event_id": "mine"},
    {"type": "input_audio_buffer.clear", "event_id": "mine"},
    {"type": "output_audio_buffer.clear", "event_id": "mine"},
    _said("user", {"type": "input_text", "text": "hello"}),
    _said("user", {"type": "input_text", "text": 'call look {"at": 1}'}, {"type": "input_image", "image_url": _PNG}),
    _said("user", {"type": "input_audio", "audio": _AUDIO, "transcript": "well"}),
    _said("assistant", {"type": "output_text", "text": "yes"}),
    _said("system", {"type": "input_text", "text": "be kind"}),
    _item(type="function_call", id="mine", call_id="call_mine", name="look", arguments="{}"),
    _item(type="function_call_output", call_id="call_mine", output="42"),
    _item(type="mcp_approval_response", approval_request_id="mcpr_1", approve=True, reason=None),
    {"type": "conversation.item.delete", "event_id": "mine", "item_id": "item_1"},
    {"type": "conversation.item.retrieve", "event_id": "mine", "item_id": "item_2"},
    {"type": "conversation.item.truncate", "event_id": "mine", "item_id": "x", "content_index": 0, "audio_end_ms": 9},
    _response(),
    _response(
        conversation="none",
        input=[{"type": "item_reference", "id": "item_1"}, _said("user", {"type": "input_text", "text": "a"})["item"]],
        instructions="sing",
        output_modalities=["audio"],
        metadata={"topic": "aside"},
        tools=[_FUNCTION],
        tool_choice="required",
        max_output_tokens=20,
        audio={"output": {"voice": "cedar", "format": {"type": "audio/pcma"}}},
    ),
    {"type": "response.cancel", "event_id": "mine", "response_id": "resp_1"},
    {"type": "response.cancel", "event_id": "mine"},
)
_BETA_ALONE: Json = {
    "type": "transcription_session.update",
    "event_id": "mine",
    "session": {
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": {"type": "server_vad"},
    },
}
_OVERVIEW: tuple[Json, ...] = (
    {"type": "conversation.create", "event_id": "mine", "data": {"voice": "alloy", "turn_detection": None}},
    {"type": "available_functions.create", "event_id": "mine", "data": {"functions": [{"name": "look"}]}},
    {"type": "audio", "event_id": "mine", "data": {"audio": _AUDIO}},
    {"type": "audio", "event_id": "mine", "data": _AUDIO},
    {"type": "text", "event_id": "mine", "data": {"text": "hello"}},
    {"type": "text", "event_id": "mine", "data": 'call look {"at": 1}'},
    {
        "type": "function.response",
        "event_id": "mine",
        "data": {"id": "call_1", "response": {"type": "success", "content": {"x": 1}}},
    },
    {
        "type": "conversation.item.create",
        "event_id": "mine",
        "data": {"item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}},
    },
    {"type": "conversation.item.delete", "event_id": "mine", "data": {"item_id": "item_1"}},
    {"type": "conversation.item.retrieve", "event_id": "mine", "data": {"item_id": "item_2"}},
    {
        "type": "conversation.item.truncate",
        "event_id": "mine",
        "data": {"item_id": "item_3", "content_index": 0, "audio_end_ms": 9},
    },
    {"type": "input_audio_buffer.clear", "event_id": "mine"},
    {"type": "response.create", "event_id": "mine", "data": {"response": {"modalities": ["text"]}}},
    {"type": "response.cancel", "event_id": "mine"},
    {"type": "input_audio_buffer.commit", "event_id": "mine"},
)
_TRANSLATION: tuple[Json, ...] = (
    {"type": "session.update", "event_id": "mine", "session": {"audio": {"output": {"language": "es"}}}},
    {
        "type": "session.update",
        "event_id": "mine",
        "session": {"audio": {"input": {"transcription": {"model": "m"}, "noise_reduction": {"type": "far_field"}}}},
    },
    {"type": "session.input_audio_buffer.append", "event_id": "mine", "audio": _AUDIO},
    {"type": "session.close", "event_id": "mine"},
)
_QUIET = {"turn_detection": None}
_CALM_IN_BETA = {**_QUIET, "modalities": ["text"], "tools": [], "tool_choice": "auto"}
_CALMING: dict[Vocabulary, Json] = {
    "ga": _session(audio={"input": _QUIET}, output_modalities=["text"], tools=[], tool_choice="auto"),
    "beta": {
        "type": "session.update",
        "session": {**_QUIET, "modalities": ["text"], "tools": [], "tool_choice": "auto"},
    },
    "overview": {
        "type": "conversation.create",
        "data": {**_QUIET, "modalities": ["text"], "tools": [], "tool_choice": "auto"},
    },
    "translation": {"type": "session.update", "session": {"audio": {"output": {"language": "en"}}}},
}


def calming_event(vocabulary: Vocabulary) -> Json:
    """An update of the session that always succeeds; after it nothing goes on by itself."""
    return _CALMING[vocabulary]


def valid_events(vocabulary: Vocabulary) -> tuple[Json, ...]:
    """Events that the vocabulary has, each with many of its fields."""
    if vocabulary == "beta":
        return (*_in_beta(), _BETA_ALONE)
    return {"ga": _GA, "overview": _OVERVIEW, "translation": _TRANSLATION}[vocabulary]


def _in_beta() -> Iterator[Json]:
    ga, beta = ServerCodec("ga", playback=True), ClientCodec("beta")
    for frame in _GA:
        event = ga.decode(json.dumps(frame))
        assert isinstance(event, ev.ClientEvent), event
        try:
            yield json.loads(beta.encode(event))
        except LocalProtocolError:
            continue


# --- damage -----------------------------------------------------------------------------------------------------------


def frames(vocabulary: Vocabulary, random: Random) -> Iterator[str | bytes]:
    """Frames without end: one in five is sound, most are damaged a little, some are no events at all."""
    events = valid_events(vocabulary)
    while True:
        chance, event = random.random(), copy.deepcopy(random.choice(events))
        if event["type"] == "session.close" and random.random() < 0.95:
            continue
        if chance < 0.2:
            yield json.dumps(event)
        elif chance < 0.8:
            for _ in range(random.choice(CHANGES)):
                _change(event, random)
            yield json.dumps(event)
        else:
            yield _broken(json.dumps(event), random)


def _places(value: Json) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _change(event: Json, random: Random) -> None:
    """One thing replaced, removed, added or copied from elsewhere; the `type` of the event itself stays."""
    places = [(holder, key) for holder, key in _places(event) if holder is not event or key != "type"]
    if not places:
        event[random.choice(("audio", "session", "zz"))] = _junk(random)
        return
    holder, key = random.choice(places)
    match random.choice(("replace", "replace", "remove", "copy", "add")):
        case "replace":
            holder[key] = _junk(random)
        case "remove":
            del holder[key]
        case "copy":
            other_holder, other_key = random.choice(places)
            holder[key] = copy.deepcopy(other_holder[other_key])
        case "add" if isinstance(holder, dict):
            holder[random.choice(("id", "type", "zz", "", "audio", "item_id", "é\ud800"))] = _junk(random)


_JUNK: tuple[Json, ...] = (
    *(None, True, False),
    *(0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 1.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", "a", "root", "auto", "none", "inf", "mine", "item_1", "text", "audio", "message", "server_vad", "mcp"),
    *("AAAA", "AAA", "=", "\ud800", "\udfff\ud800", "\x00", "\u2028", "🙂", "x" * 300),
    *([], [[]], [None], [{"type": "input_text"}]),
    *({}, {"": {}}, {"type": "mcp"}, {"type": 1}, {"a": {"b": [1, "c"]}}),
)


def _junk(random: Random) -> Json:
    if random.random() < 0.02:
        return "x" * LONG
    return copy.deepcopy(random.choice(_JUNK))


def _broken(text: str, random: Random) -> str | bytes:
    """What is no JSON object, or a strange one."""
    cut = random.randrange(len(text))
    inner = text.strip("{}")
    made = (
        text[:cut],
        text[:cut] + random.choice('{}[]",:\\0eE.-tn\x00\x1f') + text[cut + 1 :],
        text[:cut] + text[cut + 1 :],
        text + text,
        f"[{text}]",
        json.dumps(text),
        f"{{{inner}, {inner}}}",
        f'{{{inner}, "type": "zz"}}',
        f'{{{inner}, "event_id": 1}}',
        "\ufeff" + text,
        " \n\t" + text + "\r\n",
        text.encode(),
        bytes(random.randrange(256) for _ in range(20)),
        random.choice(("", "null", "true", "0", "1e999", '""', "[]", "{}", '{"type": null}', '{"type": "zz"}', "NaN")),
        text.replace('"mine"', "NaN").replace("24000", "1" + "0" * 500),
    )
    if random.random() < 0.02:
        deep = random.choice(("[" * DEPTH, "[" * DEPTH + "]" * DEPTH, '{"a":' * DEPTH + "1" + "}" * DEPTH))
        return random.choice((deep, f'{{{inner}, "zz": {deep}}}', f'{{"type": {deep}}}'))
    return random.choice(made)
