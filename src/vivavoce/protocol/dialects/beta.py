"""The beta dialect of 2024-25: flat sessions, older names, one announcement per item. Reference §2.6, §2.7.

The tables of names and places, and the few functions that apply them to a whole event, as plain JSON. Everything that
is not named here is the same as in GA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from vivavoce.protocol import config, shapes
from vivavoce.protocol.meant import Word, Words
from vivavoce.protocol.walk import Json, with_items, with_parts

from .beta_events import ResponseCreate, SessionUpdate, TranscriptionSessionUpdate, Translated
from .table import Place, Table, Untranslatable, from_ga, into_ga, path_from_ga

# --- tables -----------------------------------------------------------------------------------------------------------

EVENT_NAMES: Final = {  # GA's name of a server event: beta's
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
}
GA_ONLY: Final = frozenset(
    {
        "conversation.item.done",
        "conversation.item.input_audio_transcription.segment",
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.dtmf_event_received",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
        "response.mcp_call.in_progress",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
    }
)
TRANSLATED_BY_FIELDS: Final = frozenset(
    {
        "error",
        "session.created",
        "session.updated",
        "conversation.item.created",
        "conversation.item.added",
        "conversation.item.retrieved",
        "response.created",
        "response.done",
        "response.output_item.added",
        "response.output_item.done",
        "response.function_call_arguments.done",
    }
)
_PART_NAMES: Final = {"output_text": "text", "output_audio": "audio"}
_FORMATS: Final = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}


def _modalities_to_ga(value: Any) -> Any:
    if value in (["text", "audio"], ["audio", "text"]):
        return ["audio"]
    if value == ["text"]:
        return ["text"]
    said = msgspec.json.encode(value).decode()
    raise Untranslatable(f"Invalid modalities: {said}. Supported combinations are: ['text'] and ['audio', 'text'].")


def _modalities_from_ga(value: Any) -> Any:
    return ["text", "audio"] if value == ["audio"] else value


def _format_to_ga(value: Any) -> Any:
    for ga, beta in _FORMATS.items():
        if value == beta:
            return {"type": ga, "rate": 24_000} if ga == "audio/pcm" else {"type": ga}
    raise Untranslatable("Invalid audio format.")


def _format_from_ga(value: Any) -> Any:
    return _FORMATS[value["type"]]


_TURN_FIELDS: Final = {
    "server_vad": frozenset(shapes.fields(config.ServerVad)),
    "semantic_vad": frozenset(shapes.fields(config.SemanticVad)),
}


def _turn_detection_to_ga(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value.get("type", "server_vad")
    if kind == "none":
        return None
    known = _TURN_FIELDS.get(kind, frozenset()) if isinstance(kind, str) else frozenset()
    return {"type": kind} | {name: part for name, part in value.items() if name in known}


def _only(*names: str) -> Callable[[Any], Any]:
    """What beta has of an object."""
    return lambda value: {name: value[name] for name in names if name in value} if isinstance(value, dict) else value


def _tool_choice_to_ga(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("function"), dict):
        return value
    return {"type": "function"} | value["function"]


def _tool_choice_from_ga(value: Any) -> Any:
    if isinstance(value, dict) and value["type"] == "function":
        return {"type": "function", "function": {"name": value["name"]}}
    return value


def _voice_from_ga(value: Any) -> Any:
    return value["id"] if isinstance(value, dict) else value


_MODALITIES = Place(("output_modalities",), "modalities", _modalities_to_ga, _modalities_from_ga)
_VOICE = Place(("audio", "output", "voice"), "voice", from_ga=_voice_from_ga)
_FORMAT_OUT = Place(("audio", "output", "format"), "output_audio_format", _format_to_ga, _format_from_ga)
_TOOL_CHOICE = Place(("tool_choice",), "tool_choice", _tool_choice_to_ga, _tool_choice_from_ga)
_TRANSCRIPTION = Place(("audio", "input", "transcription"), "input_audio_transcription")
_NOISE_REDUCTION = Place(("audio", "input", "noise_reduction"), "input_audio_noise_reduction")
_TURN_DETECTION = Place(("audio", "input", "turn_detection"), "turn_detection", _turn_detection_to_ga)
_TEMPERATURE = Place((config.TEMPERATURE,), "temperature")

SESSION: Final[Table] = (
    _MODALITIES,
    _VOICE,
    Place(("audio", "input", "format"), "input_audio_format", _format_to_ga, _format_from_ga),
    _FORMAT_OUT,
    _TRANSCRIPTION,
    _NOISE_REDUCTION,
    _TURN_DETECTION,
    Place(("audio", "output", "speed"), "speed"),
    _TOOL_CHOICE,
    Place(("max_output_tokens",), "max_response_output_tokens"),
    _TEMPERATURE,
    Place((), "client_secret"),
)
# What a server says of a session: of what GA has more than beta, nothing.
_STATED: Final = {
    _TRANSCRIPTION: _TRANSCRIPTION._replace(from_ga=_only("model", "language", "prompt")),
    _NOISE_REDUCTION: _NOISE_REDUCTION._replace(from_ga=_only("type")),
}
STATED_SESSION: Final[Table] = tuple(_STATED.get(row, row) for row in SESSION)
# A transcription session has no output and no responses, and beta lets its clients name modalities all the same.
TRANSCRIPTION_SESSION: Final[Table] = (
    Place((), "modalities"),
    _TURN_DETECTION._replace(
        from_ga=_only("type", "threshold", "prefix_padding_ms", "silence_duration_ms", "eagerness")
    ),
    *(row for row in STATED_SESSION if row not in (_MODALITIES, _TURN_DETECTION)),
)
REQUEST: Final[Table] = (
    _MODALITIES,
    _VOICE,
    _FORMAT_OUT,
    _TOOL_CHOICE,
    _TEMPERATURE,
    Place(("max_output_tokens",), "max_response_output_tokens"),
)
# The other name of the token limit, understood but not spoken.
_REQUEST_IN: Final[Table] = (*REQUEST, Place(("max_output_tokens",), "max_output_tokens"))
RESPONSE: Final[Table] = (_MODALITIES, _VOICE, _FORMAT_OUT, _TEMPERATURE)
# GA's names that the tables above make flat; and those which a beta session does not have at all.
_FLATTENED: Final = frozenset({"type", "audio", "output_modalities", "max_output_tokens", config.TEMPERATURE})
_NOT_IN_BETA: Final = frozenset({"reasoning", "parallel_tool_calls"})
_PARAMETERS: Final = tuple((root, row) for root, rows in (("session", SESSION), ("response", REQUEST)) for row in rows)


def _name_in_ga(root: str, row: Place) -> str | None:
    return None if row.ga == (config.TEMPERATURE,) else ".".join((root, *row.ga))


def _words_of_ga() -> Words:
    words: dict[str, tuple[Word, ...]] = {
        f"{root}.{name}": (Word((root, name), None),)
        for root, names in (("session", _NOT_IN_BETA | {"type"}), ("response", _NOT_IN_BETA))
        for name in names
    }
    for root, row in _PARAMETERS:
        if row.ga and row.ga != (row.name,):
            path = f"{root}.{row.ga[0]}"
            words[path] = (*words.get(path, ()), Word((root, *row.ga), f"{root}.{row.name}"))
    return words


# What the one dialect's parameters are called in the other, for those who take the one for the other.
GA_IN_BETA: Final[Words] = _words_of_ga()
BETA_IN_GA: Final[Words] = {
    f"{root}.{row.name}": (Word((root, row.name), _name_in_ga(root, row)),)
    for root, row in _PARAMETERS
    if row.ga and row.ga != (row.name,)
}

TEMPERATURE_DEFAULT: Final = 0.8

# --- items ------------------------------------------------------------------------------------------------------------


def _renamed_parts(item: Json, names: dict[str, str]) -> Json:
    def rename(part: Json) -> Json:
        kind = part.get("type")
        return {**part, "type": names.get(kind, kind)} if isinstance(kind, str) else part

    return with_parts(item, rename)


_PART_NAMES_TO_GA: Final = {beta: ga for ga, beta in _PART_NAMES.items()}


def _item_to_ga(item: Json) -> Json:
    return _renamed_parts(item, _PART_NAMES_TO_GA)


def _item_from_ga(item: Json) -> Json:
    return {"object": "realtime.item", "status": "completed"} | _renamed_parts(item, _PART_NAMES)


# --- client events ----------------------------------------------------------------------------------------------------


def client_event_to_ga(event: Translated) -> Json:
    """What a beta client said, in GA's words. Raises `Untranslatable` with the dotted path in beta's words."""
    fields: Json = msgspec.json.decode(msgspec.json.encode(event))
    try:
        if isinstance(event, TranscriptionSessionUpdate):
            fields["type"] = "session.update"
            fields["session"] = {"type": "transcription"} | into_ga(fields["session"], TRANSCRIPTION_SESSION)
        elif isinstance(event, SessionUpdate):
            fields["session"] = {"type": "realtime"} | into_ga(fields["session"], SESSION)
        elif isinstance(event, ResponseCreate) and "response" in fields:
            fields["response"] = into_ga(fields["response"], _REQUEST_IN)
    except Untranslatable as error:
        root = "response" if isinstance(event, ResponseCreate) else "session"
        raise Untranslatable(error.message, f"{root}.{error.name}") from error
    return with_items(fields, _item_to_ga)


def client_event_from_ga(fields: Json) -> Json:
    """What a client wants to say, in beta's words; what beta cannot say stays, for the schema to refuse."""
    kind = fields["type"]
    if kind == "session.update":
        session = fields["session"]
        if session["type"] == "transcription":
            fields["type"] = "transcription_session.update"
        fields["session"] = from_ga(session, SESSION, _FLATTENED)
    elif kind == "response.create" and "response" in fields:
        fields["response"] = from_ga(fields["response"], REQUEST, _FLATTENED)
    return with_items(fields, lambda item: _renamed_parts(item, _PART_NAMES))


# --- server events ----------------------------------------------------------------------------------------------------


def server_event_from_ga(fields: Json) -> Json:
    """One of the events that are `TRANSLATED_BY_FIELDS`, in beta's words."""
    kind = fields["type"]
    if kind in ("conversation.item.added", "conversation.item.created"):
        fields["type"] = "conversation.item.created"
    elif kind == "response.function_call_arguments.done":
        fields.pop("name", None)
    elif kind == "error":
        fields["error"] = _error_from_ga(fields["error"])
    elif kind in ("session.created", "session.updated"):
        fields = _session_from_ga(fields)
    elif kind in ("response.created", "response.done"):
        fields["response"] = _response_from_ga(fields["response"])
    return with_items(fields, _item_from_ga)


def _session_from_ga(fields: Json) -> Json:
    session = fields["session"]
    if session["type"] == "transcription":
        flat = from_ga(session, TRANSCRIPTION_SESSION, _FLATTENED)
        return fields | {"type": f"transcription_{fields['type']}", "session": flat}
    flat = from_ga(session, STATED_SESSION, _FLATTENED | _NOT_IN_BETA)
    if "tools" in flat:
        flat["tools"] = [tool for tool in flat["tools"] if tool["type"] == "function"]
    return fields | {"session": {"temperature": TEMPERATURE_DEFAULT} | flat}


def _response_from_ga(response: Json) -> Json:
    details = (response.get("usage") or {}).get("input_token_details", {})
    for counts in (details, details.get("cached_tokens_details", {})):
        counts.pop("image_tokens", None)
    return {"temperature": TEMPERATURE_DEFAULT} | from_ga(response, RESPONSE, _FLATTENED - {"max_output_tokens"})


def _error_from_ga(error: Json) -> Json:
    path = error.get("param") or ""
    if path == "session.type":  # here the kind of the session is that of the event
        named = "type"
    else:
        named = path_from_ga(path_from_ga(path, "session", SESSION), "response", REQUEST)
    if named == path:
        return error
    return error | {"param": named, "message": error["message"].replace(f"'{path}'", f"'{named}'")}


_GA_NAMES: Final = {beta: ga for ga, beta in EVENT_NAMES.items()} | {
    "conversation.item.created": "conversation.item.added",
    "transcription_session.created": "session.created",
    "transcription_session.updated": "session.updated",
}


def server_event_to_ga(fields: Json) -> Json:
    """What a beta server said, in GA's words as far as there are any; the rest stays as it is. Takes any JSON."""
    kind = fields["type"]
    fields = fields | {"type": _GA_NAMES.get(kind, kind)}
    session, response = fields.get("session"), fields.get("response")
    if isinstance(session, dict):
        transcribes = session.get("object") == "realtime.transcription_session" or kind.startswith("transcription_")
        table, name = (TRANSCRIPTION_SESSION, "transcription") if transcribes else (SESSION, "realtime")
        fields["session"] = {"type": name} | into_ga(session, table, lenient=True)
    if isinstance(response, dict):
        fields["response"] = into_ga(response, RESPONSE, lenient=True)
    return with_items(fields, _item_to_ga)
