"""Every row that the conformance report must have: computed from the schemas, and listed from the reference."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

from conformance_oracle import EXCEPTIONS, SERVER_MODELS, root
from conformance_paths import all_paths, children, paths, without_kinds

from vivavoce.protocol import events as ev
from vivavoce.protocol import shapes
from vivavoce.protocol import translation as tr
from vivavoce.protocol.dialects import beta_events

__all__ = ["CLIENT_STRUCTS", "paths"]

CLIENT_STRUCTS: dict[str, dict[str, Any]] = {
    dialect: {str(shapes.tag(struct)): struct for struct in get_args(union)}
    for dialect, union in {
        "ga": ev.AnyClientEvent,
        "beta": beta_events.ClientEvent,
        "translation": tr.TranslationClientEvent,
    }.items()
}
INTEROP = Path(__file__).parent.parent / "interop"
COLUMNS = ("ga", "ga playback", "ga transcription", "beta", "translation")
DIALECTS = ("ga", "beta", "translation")


# --- what clients send ------------------------------------------------------------------------------------------------

NOT_IN_COLUMN = {
    ("ga", "output_audio_buffer.clear"): "refused on a plain WebSocket (§3.1)",
    ("ga transcription", "output_audio_buffer.clear"): "nothing is played (§3.1)",
    ("beta", "output_audio_buffer.clear"): "beta over WebRTC only (§3.1)",
}
"""Client events that a column does not have, and why."""


def client_events(column: str) -> list[str]:
    """The client events of a column."""
    names = CLIENT_STRUCTS[column.partition(" ")[0]]
    return [name for name in names if (column, name) not in NOT_IN_COLUMN]


@cache
def client_fields(dialect: str) -> tuple[tuple[str, str], ...]:
    """Every field of every client event of a dialect: the event and the path."""
    return tuple(
        (name, path)
        for name, struct in CLIENT_STRUCTS[dialect].items()
        for path in dict.fromkeys(["type", *all_paths(struct)])
    )


def any_value(dialect: str, name: str, path: str) -> str:
    """Why a field cannot be wrong; "" where it can."""
    for pattern, why in FORGIVEN.items():
        if re.fullmatch(pattern, without_kinds(path)):
            return why
    kind = _kinds(CLIENT_STRUCTS[dialect][name])[path]
    return "any JSON is taken" if kind is Any or Any in shapes.members(kind) else ""


FORGIVEN = {
    r"(item|response\.input\[\])\.(object|status)": "taken and not looked at (§3.8)",
    r"type": "what names the event",
}


@cache
def _kinds(struct: Any, at: str = "") -> dict[str, Any]:
    """The type at every path."""
    found: dict[str, Any] = {}
    for name, field in children(struct).items():
        path = f"{at}.{name}".removeprefix(".")
        found[path] = field.kind
        for place, part in field.parts(path):
            found |= _kinds(part, place)
    return found


# --- what servers say -------------------------------------------------------------------------------------------------

BEYOND_TYPES = tuple((one.dialect, one.place) for one in EXCEPTIONS if one.kind == "field")


@cache
def server_fields(dialect: str) -> tuple[tuple[str, str], ...]:
    """Every field of every server event of a dialect: whose it is (an event's or a resource's), and the path."""
    found = {}
    for name, model in SERVER_MODELS[dialect].items():
        if name in TELEPHONY:
            continue
        for path in all_paths(model, anew=True):
            found[root(name, path), path] = None
    return tuple(sorted(found))


# --- what the reference lists -----------------------------------------------------------------------------------------

GENERIC_CODES = (
    "invalid_json",
    "invalid_event",
    "invalid_value",
    "missing_required_parameter",
    "unknown_parameter",
    "invalid_type",
    "integer_below_min_value",
    "integer_above_max_value",
    "decimal_below_min_value",
    "decimal_above_max_value",
    "string_above_max_length",
    "array_above_max_length",
    "array_below_min_length",
)
DOMAIN_CODES = (
    "input_audio_buffer_commit_empty",
    "conversation_already_has_active_response",
    "response_cancel_not_active",
    "cannot_update_voice",
    "item_delete_invalid_item_id",
    "item_retrieve_invalid_item_id",
    "item_truncate_invalid_item_id",
    "unsupported_content_type",
    "invalid_tool_call_id",
    "item_create_invalid_previous_item_id",
    "session_expired",
    "invalid_api_key",
    "invalid_model",
    "missing_model",
)
RETIRED_CODES = {
    "beta_api_shape_disabled": "what the live service says to beta clients since it retired the dialect; this server "
    "serves it"
}
RESPONSE_CODES = ("rate_limit_exceeded",)
"""Codes of failed responses that the reference names (§4.3) and that a server of one's own has."""

TRACES = {
    "T1": "Connect",
    "T2": "session.update",
    "T3": "Text turn, text output",
    "T4": "Text turn, audio output",
    "T5": "Audio turn by server_vad, with input transcription",
    "T6": "Manual commit",
    "T7": "Barge-in on WebSocket",
    "T8": "Barge-in where the server plays (WebRTC)",
    "T9": "Function call turn",
    "T10": "Out-of-band response",
    "T11": "response.cancel",
    "T12": "response.create while active",
    "T13": "item.create with previous_item_id",
    "T14": "delete, retrieve, truncate",
    "T15": "Idle timeout",
    "T16": "Transcription-only session",
    "T17": "MCP",
    "T18": "Translation session",
    "T20": "rate_limits.updated",
    "T21": "Error, then continue",
    "T22": "Failed response",
    "T23": "Session end by time",
}
"""T19 is DTMF, which is SIP's."""


GOLDEN = "tests/core/test_golden_traces.py::test_golden_trace"
TRACE_TESTS = {"T18": "tests/conformance/test_translation_trace.py::test_t18_golden_trace"}

SERVER = "tests/server/"
CLOSE_CODES = {
    1000: ("the translation is over", f"{SERVER}test_translation.py::test_t18_alive"),
    1001: (
        "the session's time is over, or the server stops",
        f"{SERVER}test_runtime.py::test_a_session_ends_at_its_time_to_the_millisecond",
    ),
    1008: (
        "the client takes nothing, or the budget is spent",
        f"{SERVER}test_runtime.py::test_a_client_that_stops_reading_is_closed_with_1008_after_the_stall_limit",
    ),
    1009: ("a message is too big", f"{SERVER}test_serve.py::test_a_message_above_every_limit_closes_with_1009"),
    1011: ("the server has failed", f"{SERVER}test_runtime.py::test_a_bug_in_the_session_closes_with_1011"),
    3000: ("authentication failed", f"{SERVER}test_serve.py::test_a_refused_client_gets_an_error_event_and_a_close"),
    4000: ("no model, or one that there is not", f"{SERVER}test_handshakes.py::test_no_model_is_refused"),
}


def clients() -> list[tuple[str, str, str, str]]:
    """Client, version, conversations, test; versions from where the tests pin them."""
    js = json.loads((INTEROP / "js" / "package.json").read_text("utf-8"))["dependencies"]
    openai = "written, spoken, manual, calling, cancelled, barged_in, mistaken, transcribed"
    agents = "defaults, written, spoken, manual, calling, cancelled, barged_in, mistaken"
    here = "tests/interop/"
    return [
        ("openai (Python), asynchronous, GA", "as locked", openai, f"{here}test_openai.py::test_asynchronous_client"),
        ("openai (Python), synchronous, GA", "as locked", openai, f"{here}test_openai.py::test_synchronous_client"),
        (
            "openai (Python), beta, plain and Azure",
            "as locked",
            openai,
            f"{here}test_openai.py::test_beta_types_of_the_current_package",
        ),
        (
            "openai (Python), beta",
            _pinned("test_openai_1_60.py"),
            openai,
            f"{here}test_openai_1_60.py::test_conversation",
        ),
        ("openai (npm), GA", js["openai"], openai, f"{here}test_npm_openai.py::test_conversation"),
        (
            "openai (npm), beta",
            js["openai-4"].rpartition("@")[2],
            openai,
            f"{here}test_npm_openai.py::test_conversation",
        ),
        (
            "openai-agents (Python), realtime",
            _pinned("test_openai_agents.py"),
            agents,
            f"{here}test_openai_agents.py::test_conversation",
        ),
        (
            "@openai/agents-realtime (npm)",
            js["@openai/agents-realtime"],
            agents,
            f"{here}test_openai_agents.py::test_conversation",
        ),
        (
            "livekit-plugins-openai",
            _pinned("test_livekit.py"),
            "written, spoken, manual, calling, cancelled, barged_in, mistaken, transcription, Azure's beta",
            f"{here}test_livekit.py::test_spoken",
        ),
        (
            "pipecat-ai",
            _pinned("test_pipecat.py"),
            "written, spoken, semantic turns, calling, interruption, transcription, errors",
            f"{here}test_pipecat.py::test_spoken",
        ),
    ]


def _version(package: str) -> str:
    return package.rpartition("@")[2]


def _pinned(file: str) -> str:
    found = re.search(r'^VERSION = "(.+)"', (INTEROP / file).read_text("utf-8"), re.MULTILINE)
    assert found is not None, file
    return found[1]


# --- rows without a session that says them ----------------------------------------------------------------------------

TELEPHONY = frozenset({"input_audio_buffer.dtmf_event_received"})
"""SIP's, which has no rows."""
_TRANSCRIPTION = r"conversation\.item\.input_audio_transcription\."
_IN_BOTH = {
    _TRANSCRIPTION + r"failed/error\.param": "no field of an event is to blame",
    r"response\.content_part\.(added|done)/part\.audio": "the deltas have the audio (§4.2)",
}
UNSAID: dict[str, dict[str, str]] = {
    "ga": {
        **_IN_BOTH,
        r"conversation\.created(/.*)?": "in the types, and never on GA's wire (§8.16)",
        r"conversation\.item\.created(/.*)?": "in the types; GA says `added` and `done` (§8.17)",
        r".*/obfuscation": "padding of the live service, off here (§8.27)",
        r"session/.*\{mcp\}\.(authorization|headers)": "secret: taken, and never told",
        r"session/.*\{mcp\}\.(connector_id|tunnel_id)": "refused: tool servers are reached by their URL",
        r"session/session\{transcription\}\..*\.(create_response|interrupt_response|idle_timeout_ms)": "taken, and not "
        "told: there are no responses (§8.13)",
    },
    "beta": {
        **_IN_BOTH,
        r"session/session\.client_secret.*": "there only where a session is made over REST (§2.6)",
        r"item/item\.content\[\]\.id": "of a reference among the parts, which no item of a conversation has",
    },
    "translation": {},
}
"""Server events and fields that no server of ours sends, and why."""
_TOKENS = {_TRANSCRIPTION + r"completed/usage\{tokens\}.*": "the transcribers here are counted in seconds of audio"}
CODEC_ALONE: dict[str, dict[str, str]] = {
    "ga": {
        **_TOKENS,
        _TRANSCRIPTION + r"segment(/.*)?": "for transcribers that tell speakers apart, and there is none",
        _TRANSCRIPTION + r"completed/languages.*": "for transcribers of several languages at once, and there is none",
    },
    "beta": _TOKENS,
    "translation": {},
}
"""Server events and fields that the codec can write and read, and that no session here has a cause to send."""


def unsaid(dialect: str, name: str, path: str) -> str:
    """Why nobody sends this server event or this field of it; "" where somebody does."""
    return _reason(UNSAID[dialect], name, path)


def codec_alone(dialect: str, name: str, path: str) -> str:
    """Why only the codec can write it; "" where a session must say it."""
    return _reason(CODEC_ALONE[dialect], name, path)


def _reason(reasons: dict[str, str], name: str, path: str) -> str:
    place = f"{name}/{path}" if path else name
    return next((why for pattern, why in reasons.items() if re.fullmatch(pattern, place)), "")


@cache
def beyond_types(dialect: str) -> tuple[tuple[str, str], ...]:
    """Fields that the reference has and the types have not."""
    kinds = ("{realtime}", "{transcription}") if dialect == "ga" else ("",)
    found = []
    for place in (place for of, place in BEYOND_TYPES if of == dialect):
        start, _, rest = place.partition(".")
        found += [(start, f"{start}{kind}.{rest}") for kind in (kinds if start == "session" else ("",))]
    return tuple(found)
