"""Every field of every client event, wrong in every way: the code and the dotted param of §3.2, and no event.

Generated from the structs, so that no field is forgotten; what is told otherwise than by rule is listed here.
"""

import json
import re
from typing import get_args

import pytest
from protocol_mistakes import BOGUS, all_bounds, mistakes
from protocol_samples import every

from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.codec import ServerCodec, TranslationServerCodec
from vivavoce.protocol.dialects import beta_events, overview_events
from vivavoce.protocol.events import ErrorDetail
from vivavoce.protocol.shapes import tag
from vivavoce.protocol.violations import dotted
from vivavoce.protocol.wire import write

CODECS = {
    "ga": (lambda: ServerCodec(playback=True), get_args(ev.AnyClientEvent)),
    "beta": (lambda: ServerCodec("beta", playback=True), get_args(beta_events.ClientEvent)),
    "overview": (lambda: ServerCodec("overview", playback=True), get_args(overview_events.ClientEvent)),
    "translation": (TranslationServerCodec, get_args(tr.TranslationClientEvent)),
}
# What is forgiven (see `leniency`): where, which mistake, and which value if not any. Beta has one kind of tools.
FORGIVEN = [
    (r"(?:data\.)?(?:item|response\.input\[\d+\])\.(?:object|status)", None, ...),
    (r"response\.instructions", "invalid_type", None),
    (r"(?:session|data)\.truncation\.type", "missing_required_parameter", ...),
]
FORGIVEN_IN_BETA = [(r"(?:session|data|response)\.(?:tools\[0\]|tool_choice)\.type", "missing_required_parameter", ...)]


def is_forgiven(dialect, param, code, value):
    rows = FORGIVEN + (FORGIVEN_IN_BETA if dialect in ("beta", "overview") else [])
    return any(
        re.fullmatch(where, param) and what in (None, code) and (which is ... or which == value)
        for where, what, which in rows
    )


def asked(codec, event):
    return codec.decode(json.dumps({**event, "event_id": event.get("event_id", "e1")}))


@pytest.mark.parametrize(
    ("dialect", "struct"),
    [(dialect, struct) for dialect, (_, structs) in CODECS.items() for struct in structs],
    ids=lambda part: part if isinstance(part, str) else str(tag(part)),
)
def test_every_mistake_in_every_field_is_told_with_its_code_and_its_place(dialect, struct):
    codec, wrong, count = CODECS[dialect][0](), [], 0
    for sample in every((struct,)):
        event = json.loads(write(sample))
        if "max_output_tokens" in event.get("response", {}):
            event["response"].pop("max_response_output_tokens", None)  # beta has two names, of which one
        for made, code, path, value in mistakes(struct, event):
            param = dotted(path)
            if is_forgiven(dialect, param, code, value):
                continue
            count += 1
            error = asked(codec, made)
            told = (error.code, error.param) if isinstance(error, ErrorDetail) else ("an event", None)
            if told != (code, param):
                wrong.append((code, param, told, json.dumps(made)[:300]))
    assert not wrong
    assert count >= 1


@pytest.mark.parametrize("dialect", CODECS)
def test_the_error_names_the_event(dialect):
    codec, structs = CODECS[dialect]
    for struct in structs:
        event = json.loads(write(every((struct,))[0])) | {BOGUS: 1, "event_id": "mine"}
        error = codec().decode(json.dumps(event))
        assert (error.type, error.event_id) == ("invalid_request_error", "mine")


# --- the bounds themselves --------------------------------------------------------------------------------------------

VAD = {
    "threshold": ("0 <= x <= 1",),
    "prefix_padding_ms": ("0 <= x",),
    "silence_duration_ms": ("0 <= x",),
    "idle_timeout_ms": ("5000 <= x <= 30000",),
}
EVERYWHERE = {
    "event_id": ("0..512",),
    "content_index": ("0 <= x",),
    "audio_end_ms": ("0 <= x",),
    "call_id": (r"^[a-zA-Z0-9_-]+$",),
    "speed": ("0.25 <= x <= 1.5",),
    "retention_ratio": ("0 <= x <= 1",),
    "post_instructions": ("0 <= x",),
    "metadata": ("0..16", "0..512", "0..64"),
    **VAD,
}
BOUNDS = {  # reference §1.8, §2.1, §2.3
    "ga": {
        **EVERYWHERE,
        "rate": ("24000 <= x <= 24000",),
        "languages": ("1..",),
        "strength": ("0 <= x <= 1",),
        "output_modalities": ("1..1",),
        "max_output_tokens": ("1 <= x <= 4096",),
        "tunnel_id": (r"^tunnel_[a-z0-9]{32}$",),
    },
    "beta": {
        **EVERYWHERE,
        "temperature": ("0.6 <= x <= 1.2",),
        "max_output_tokens": ("1 <= x <= 4096",),
        "max_response_output_tokens": ("1 <= x <= 4096",),
    },
    "translation": {"event_id": ("0..512",), "strength": ("0 <= x <= 1",)},
}


@pytest.mark.parametrize("dialect", BOUNDS)
def test_the_bounds_are_those_of_the_reference(dialect):
    found = {}
    for struct in CODECS[dialect][1]:
        for name, bounds in all_bounds(struct):
            assert found.setdefault(name, bounds) == bounds, name
    assert found == BOUNDS[dialect]
