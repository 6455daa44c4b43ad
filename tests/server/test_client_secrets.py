"""Short-lived keys: made over HTTP, used over WebSocket (reference §1.9). Time is injected."""

from __future__ import annotations

import asyncio
import json
import re
import string
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_auth import asked, refused
from test_serve import closing, receive, scripted, socket_to, within_time

from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol.config import RealtimeSession
from vivavoce.server import Server, rest, running
from vivavoce.server.app import create_app
from vivavoce.server.auth import Asked, Keys, Refusal
from vivavoce.server.client_secrets import VALUE_CHARS_MAX, ClientSecret, Seal
from vivavoce.server.minting import Mint
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import Secret, settings_of

KEY = "sk-the-right-key-0001"
OTHER = "sk-another-key-0002"
NOW_S = 1_800_000_000.5
SIGNING_KEY = "a signing key that is long enough for this"
NOISE = "".join(Random(1).choices(string.printable, k=20_000))
"""Text that hardly gets shorter by compression."""
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Clock:
    """Unix seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


class Ground:
    """A server's sessions and mint without a server."""

    def __init__(self, **values: Any) -> None:
        self.clock = Clock()
        settings = settings_of({"pipeline": "scripted", "api_keys": [KEY, OTHER], **values})
        pipelines = Pipelines({"scripted": scripted_pipeline()}, default="scripted", models=settings.models)
        self.sessions = Sessions(settings, pipelines, wall_s=self.clock)
        self.mint = Mint(self.sessions)
        self.keys = self.sessions.keys

    def secret(self, body: Any = None, **values: Any) -> dict[str, Any]:
        """What the GA endpoint answers."""
        return self.mint.client_secret(caller(**values), written(body))

    def opened(self, value: str) -> ClientSecret:
        """What a key says, as it counts now."""
        secret = self.keys.check(caller(value)).secret
        assert secret is not None
        return secret


def caller(key: str = KEY, **headers: str) -> Asked:
    return asked(headers={"Authorization": f"Bearer {key}", **headers}, query="")


def written(body: Any) -> bytes:
    return b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()


def said(mint: Callable[[Asked, bytes], Any], body: Any, key: str = KEY) -> tuple[int, str | None, str | None]:
    """Status, code and param of a refusal."""
    with pytest.raises(Refusal) as raised:
        mint(caller(key), written(body))
    error = raised.value.body["error"]
    return raised.value.status, error["code"], error["param"]


# --- the seal ---------------------------------------------------------------------------------------------------------

NOTE = ClientSecret(
    kind="realtime",
    dialect="ga",
    issued_at=10,
    expires_at=20,
    minted_by="id",
    model="m",
    session=b'{"type":"realtime","instructions":"The password is swordfish."}',
    safety_identifier="user-1",
)


def test_what_is_sealed_can_be_opened_by_whoever_has_the_signing_key() -> None:
    value = Seal(Secret(SIGNING_KEY)).close(NOTE)
    assert Seal(Secret(SIGNING_KEY)).open(value) == NOTE
    assert Seal(Secret(SIGNING_KEY + "!")).open(value) is None
    assert Seal().open(value) is None
    own = Seal()
    assert own.open(own.close(NOTE)) == NOTE


def test_a_key_can_travel_as_a_sub_protocol() -> None:
    seal = Seal()
    for length in range(8):
        value = seal.close(ClientSecret(**{**fields(NOTE), "minted_by": "x" * length}))
        assert value.startswith("ek_")
        assert TOKEN.fullmatch(value)
        assert seal.open(value) is not None


def fields(secret: ClientSecret) -> dict[str, Any]:
    return {name: getattr(secret, name) for name in secret.__struct_fields__}


@given(st.integers(0, 10_000), st.sampled_from("Aa0_-"))
def test_a_key_that_was_changed_is_none(place: int, char: str) -> None:
    value = SEALED[: 3 + place % (len(SEALED) - 3)] + char + SEALED[4 + place % (len(SEALED) - 3) :]
    found = SEAL.open(value)
    # Of the last character of base64 some bits mean nothing.
    assert found is None or value == SEALED or value[:-1] == SEALED[:-1]


SEAL = Seal()
SEALED = SEAL.close(NOTE)


@given(st.text(max_size=300))
def test_anything_else_is_none(text: str) -> None:
    assert SEAL.open(text) is None
    assert SEAL.open("ek_" + text) is None


# --- the GA endpoint (§1.9.1) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [None, {}, b"  {} ", {"expires_after": {}}, {"expires_after": {"anchor": "created_at"}}]
)
def test_a_key_lives_ten_minutes_where_nobody_says_otherwise(body: Any) -> None:
    made = Ground().secret(body)
    assert set(made) == {"value", "expires_at", "session"}
    assert made["value"].startswith("ek_")
    assert made["expires_at"] == 1_800_000_600
    session = made["session"]
    assert (session["type"], session["object"], session["expires_at"]) == ("realtime", "realtime.session", 0)
    assert session["id"].startswith("sess_")
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 200
    assert "model" not in session, "the URL will name it"


def test_the_answer_shows_the_configuration_in_force() -> None:
    session = {
        "type": "realtime",
        "model": "gpt-realtime",
        "instructions": "Be brief.",
        "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}}, "output": {"voice": "echo"}},
        "tools": [{"type": "function", "name": "f"}],
    }
    made = Ground().secret({"session": session, "expires_after": {"seconds": 60}})
    assert made["expires_at"] == 1_800_000_060
    effective = made["session"]
    assert (effective["model"], effective["instructions"]) == ("gpt-realtime", "Be brief.")
    assert effective["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
    assert effective["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "voice": "echo",
        "speed": 1.0,
    }
    assert effective["tools"][0]["name"] == "f"


BAD: list[tuple[Any, str, str | None]] = [
    (b"{", "invalid_json", None),
    (b"\xff{}", "invalid_json", None),
    ([], "invalid_type", None),
    ("text", "invalid_type", None),
    ({"bogus": 1}, "unknown_parameter", "bogus"),
    ({"expires_after": None}, "invalid_type", "expires_after"),
    ({"expires_after": {"seconds": 9}}, "integer_below_min_value", "expires_after.seconds"),
    ({"expires_after": {"seconds": 7201}}, "integer_above_max_value", "expires_after.seconds"),
    ({"expires_after": {"seconds": "60"}}, "invalid_type", "expires_after.seconds"),
    ({"expires_after": {"anchor": "later"}}, "invalid_value", "expires_after.anchor"),
    ({"expires_after": {"until": 3}}, "unknown_parameter", "expires_after.until"),
    ({"session": None}, "invalid_type", "session"),
    ({"session": {}}, "missing_required_parameter", "session.type"),
    ({"session": {"type": "spoken"}}, "invalid_value", "session.type"),
    ({"session": {"type": "realtime", "voice": "echo"}}, "unknown_parameter", "session.voice"),
    (
        {"session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}}},
        "integer_below_min_value",
        "session.audio.input.format.rate",
    ),
    (
        {"session": {"type": "realtime", "tools": [{"type": "function", "name": "f"}] * 2}},
        "invalid_value",
        "session.tools[1].name",
    ),
    (
        {"session": {"type": "realtime", "instructions": "x", "temperature": 0.8}},
        "unknown_parameter",
        "session.temperature",
    ),
]


@pytest.mark.parametrize(("body", "code", "param"), BAD)
def test_a_bad_request_is_refused_to_the_field_as_an_event_is(body: Any, code: str, param: str | None) -> None:
    assert said(Ground().mint.client_secret, body) == (400, code, param)


def test_a_key_that_would_be_too_long_for_a_header_is_refused_with_a_way_out() -> None:
    ground = Ground()
    with pytest.raises(
        Refusal, match=r"more than 6144 does not fit.*Shorten the instructions.*session.update"
    ) as raised:
        ground.secret({"session": {"type": "realtime", "instructions": NOISE}})
    assert (raised.value.status, raised.value.detail.param) == (400, "session")
    plain = "Talk like a librarian who has all the time in the world. " * 300
    assert len(ground.secret({"session": {"type": "realtime", "instructions": plain}})["value"]) < VALUE_CHARS_MAX


def test_the_configuration_cannot_be_read_from_the_key() -> None:
    import base64
    import zlib

    session = {"type": "realtime", "instructions": "The password is swordfish."}
    value = Ground().secret({"session": session})["value"].removeprefix("ek_")
    raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    assert b"swordfish" not in raw
    for start in range(len(raw) - 2):
        with pytest.raises(zlib.error):
            zlib.decompress(raw[start:])


# --- the other endpoints (§1.9.2–§1.9.4) ------------------------------------------------------------------------------


def test_a_beta_key_comes_within_the_flat_session_and_lives_a_minute() -> None:
    ground = Ground()
    body = {"model": "gpt-4o-realtime-preview", "voice": "echo", "modalities": ["text"], "temperature": 0.6}
    made = ground.mint.beta_session(caller(), written(body))
    assert made["client_secret"]["expires_at"] == 1_800_000_060
    assert (made["object"], made["model"], made["voice"]) == ("realtime.session", body["model"], "echo")
    assert (made["modalities"], made["temperature"]) == (["text"], 0.6)
    assert "audio" not in made
    secret = ground.opened(made["client_secret"]["value"])
    assert (secret.kind, secret.dialect, secret.model) == ("realtime", "beta", body["model"])
    expiry = {"client_secret": {"expires_after": {"anchor": "created_at", "seconds": 7200}}}
    assert ground.mint.beta_session(caller(), written(expiry))["client_secret"]["expires_at"] == 1_800_007_200


def test_a_beta_transcription_key_lives_ten_minutes_and_names_its_expiry_otherwise() -> None:
    ground = Ground()
    body = {
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1", "language": "en"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 700},
    }
    made = ground.mint.beta_transcription_session(caller(), written(body))
    assert made["object"] == "realtime.transcription_session"
    assert made["input_audio_format"] == "g711_ulaw"
    assert made["input_audio_transcription"]["model"] == "whisper-1"
    assert made["turn_detection"]["silence_duration_ms"] == 700
    assert made["client_secret"]["expires_at"] == 1_800_000_600
    secret = ground.opened(made["client_secret"]["value"])
    assert (secret.kind, secret.dialect, secret.model) == ("transcription", "beta", None)
    expiry = {"client_secret": {"expires_at": {"anchor": "created_at", "seconds": 30}}}
    made = ground.mint.beta_transcription_session(caller(), written(expiry))
    assert made["client_secret"]["expires_at"] == 1_800_000_030


def test_a_transcription_key_is_made_by_the_ga_endpoint_as_well() -> None:
    ground = Ground()
    session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    made = ground.secret({"session": session})
    assert (made["session"]["type"], made["session"]["object"]) == ("transcription", "realtime.transcription_session")
    assert made["session"]["audio"]["input"]["transcription"]["model"] == "whisper-1"
    secret = ground.opened(made["value"])
    assert (secret.kind, secret.dialect, secret.model) == ("transcription", "ga", None)


BETA_BAD: list[tuple[Any, str, str | None]] = [
    (b'{"voice":', "invalid_json", None),
    (3, "invalid_type", None),
    ({"bogus": 1}, "unknown_parameter", "bogus"),
    ({"type": "realtime"}, "unknown_parameter", "type"),
    ({"temperature": 2}, "decimal_above_max_value", "temperature"),
    ({"modalities": ["audio"]}, "invalid_value", "modalities"),
    ({"turn_detection": {"threshold": 2}}, "decimal_above_max_value", "turn_detection.threshold"),
    (
        {"client_secret": {"expires_after": {"seconds": 60}}},
        "missing_required_parameter",
        "client_secret.expires_after.anchor",
    ),
    ({"client_secret": {"expires_at": {"seconds": 60}}}, "unknown_parameter", "client_secret.expires_at"),
    (b'{}},"x":{"y":1', "invalid_json", None),
]


@pytest.mark.parametrize(("body", "code", "param"), BETA_BAD)
def test_a_bad_beta_request_is_refused_by_its_own_field_names(body: Any, code: str, param: str | None) -> None:
    mint = Ground().mint
    assert said(mint.beta_session, body) == (400, code, param)
    with pytest.raises(Refusal) as raised:
        mint.beta_session(caller(), written(body))
    assert "session." not in str(raised.value)


def test_a_session_that_is_refused_here_is_refused_before_there_is_a_key() -> None:
    tool = {"type": "function", "name": "f"}
    assert said(Ground().mint.beta_session, {"tools": [tool, tool]}) == (400, "invalid_value", "tools[1].name")
    strict = Ground(unknown_models="refuse")
    wanted = {"session": {"type": "realtime", "model": "unknown"}}
    assert said(strict.mint.client_secret, wanted) == (404, "invalid_model", None)


def test_a_translation_key_is_made_by_its_own_endpoint() -> None:
    ground = Ground()
    body = {"session": {"model": "m", "audio": {"output": {"language": "de"}}}, "expires_after": {"seconds": 20}}
    made = ground.mint.translation_secret(caller(), written(body))
    assert set(made) == {"value", "expires_at", "session"}
    assert made["expires_at"] == 1_800_000_020
    session = made["session"]
    assert (session["type"], session["model"], session["expires_at"]) == ("translation", "m", 0)
    assert session["audio"]["output"]["language"] == "de"
    secret = ground.opened(made["value"])
    assert (secret.kind, secret.model) == ("translation", "m")


TRANSLATION_BAD: list[tuple[Any, str, str | None]] = [
    (None, "missing_required_parameter", "session"),
    ({"session": {}}, "missing_required_parameter", "session.model"),
    ({"session": {"model": 3}}, "invalid_type", "session.model"),
    ({"session": {"model": "m", "type": "translation"}}, "unknown_parameter", "session.type"),
    (
        {"session": {"model": "m", "audio": {"output": {"voice": "v"}}}},
        "unknown_parameter",
        "session.audio.output.voice",
    ),
    (
        {"session": {"model": "m", "audio": {"input": {"transcription": {}}}}},
        "missing_required_parameter",
        "session.audio.input.transcription.model",
    ),
]


@pytest.mark.parametrize(("body", "code", "param"), TRANSLATION_BAD)
def test_a_bad_request_for_a_translation_is_refused_to_the_field(body: Any, code: str, param: str | None) -> None:
    assert said(Ground().mint.translation_secret, body) == (400, code, param)


# --- who may make keys, and what they are good for --------------------------------------------------------------------


def test_only_a_key_of_the_settings_makes_others() -> None:
    ground = Ground()
    value = ground.secret()["value"]
    assert said(ground.mint.client_secret, {}, value) == (403, "insufficient_permissions", None)
    assert said(ground.mint.client_secret, {}, "wrong") == (401, "invalid_api_key", None)
    assert said(ground.mint.client_secret, {}, "") == (401, None, None)


def test_a_page_from_elsewhere_makes_no_keys_on_a_server_without_keys() -> None:
    mint = Ground(api_keys=[]).mint
    assert mint.client_secret(asked(headers={"origin": "http://localhost:3000"}), b"")["value"].startswith("ek_")
    with pytest.raises(Refusal) as raised:
        mint.client_secret(asked(headers={"origin": "https://evil.example"}), b"")
    assert (raised.value.status, raised.value.detail.code) == (403, "origin_not_allowed")


def test_a_key_ends_when_its_time_is_over_and_the_message_says_so() -> None:
    ground = Ground()
    value = ground.secret({"expires_after": {"seconds": 10}})["value"]
    ground.clock.now_s += 9
    assert ground.opened(value).expires_at == 1_800_000_010
    ground.clock.now_s += 0.6
    close, reason, code = refused(ground.keys.check, caller(value))
    assert (close, reason, code) == (3000, "invalid_request_error.invalid_api_key", "invalid_api_key")
    with pytest.raises(Refusal, match="has expired"):
        ground.keys.check(caller(value))


def test_revoking_a_key_revokes_what_it_made() -> None:
    ground = Ground(signing_key=SIGNING_KEY)
    mine, theirs = ground.secret()["value"], ground.secret(key=OTHER)["value"]
    after = Ground(signing_key=SIGNING_KEY, api_keys=[OTHER])
    with pytest.raises(Refusal, match="not accepted any more"):
        after.keys.check(caller(mine))
    assert after.opened(theirs).minted_by == after.keys.check(caller(OTHER)).key_id


def test_processes_with_one_signing_key_take_each_others_keys_and_others_do_not() -> None:
    value = Ground(signing_key=SIGNING_KEY).secret()["value"]
    assert Ground(signing_key=SIGNING_KEY).opened(value)
    for other in (Ground(), Ground(signing_key=SIGNING_KEY + "?")):
        with pytest.raises(Refusal, match="share its 'signing_key'") as raised:
            other.keys.check(caller(value))
        assert value not in str(raised.value)


def test_a_short_lived_key_is_checked_also_where_nobody_needs_one() -> None:
    ground = Ground(api_keys=[])
    credential = ground.keys.check(caller(ground.secret()["value"]))
    assert credential.secret is not None
    with pytest.raises(Refusal, match="Incorrect API key"):
        ground.keys.check(caller("ek_forged"))
    assert ground.keys.check(caller("anything")).secret is None


def test_a_key_of_the_settings_may_look_like_a_short_lived_one() -> None:
    keys = Keys(settings_of({"api_keys": ["ek_is_what_we_call_ours"]}))
    assert keys.check(caller("ek_is_what_we_call_ours")).secret is None


def test_what_a_key_made_counts_against_that_key() -> None:
    ground = Ground(sessions_per_minute_max=1)
    value = ground.secret({"session": {"type": "realtime", "model": "m"}})["value"]

    async def main() -> None:
        with ground.sessions.admitted(caller(value)):
            pass
        for key in (value, KEY):
            with pytest.raises(Refusal, match="sessions a minute"), ground.sessions.admitted(wanting("m", key)):
                pass
        with ground.sessions.admitted(wanting("m", OTHER)):
            pass

    asyncio.run(main())


def wanting(model: str, key: str) -> Asked:
    return asked(headers={"api-key": key}, query=f"model={model}")


def test_the_user_is_bound_to_the_key() -> None:
    ground = Ground()
    headers = {"OpenAI-Safety-Identifier": "user-1" + "x" * 500}
    secret = ground.opened(ground.secret(**headers)["value"])
    assert secret.safety_identifier == ("user-1" + "x" * 500)[:128]


# --- over the wire ----------------------------------------------------------------------------------------------------


async def post(server: Server, path: str, body: Any = None, key: str | None = KEY, **headers: str) -> httpx.Response:
    sent = {"Authorization": f"Bearer {key}", **headers} if key else headers
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.post(f"http://{server.host}:{server.port}{path}", content=written(body), headers=sent)


SESSION = {
    "type": "realtime",
    "model": "m",
    "instructions": "Be brief.",
    "audio": {"output": {"voice": "echo"}, "input": {"turn_detection": None}},
}


@pytest.mark.parametrize("prefix", ["/v1/realtime", "/openai/v1/realtime"])
def test_a_key_opens_sessions_with_what_was_attached(prefix: str) -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            made = await post(server, f"{prefix}/client_secrets", {"session": SESSION})
            assert made.status_code == 200
            assert made.headers["cache-control"] == "no-store"
            value = made.json()["value"]
            for options in (
                {"headers": {"Authorization": f"Bearer {value}"}},
                {"subprotocols": ["realtime", f"openai-insecure-api-key.{value}"]},
            ):
                async with socket_to(server, prefix, **options) as socket:
                    session = (await receive(socket))["session"]
                    assert (session["model"], session["instructions"]) == ("m", "Be brief.")
                    assert session["audio"]["output"]["voice"] == "echo"
                    assert session["audio"]["input"]["turn_detection"] is None
                    assert session["expires_at"] > 0
                    update = {"type": "session.update", "session": {"type": "realtime", "instructions": "Go on."}}
                    await socket.send(json.dumps(update))
                    assert (await receive(socket))["session"]["instructions"] == "Go on."
            async with socket_to(server, f"{prefix}?model=other", headers={"api-key": value}) as socket:
                assert (await receive(socket))["error"]["code"] == "invalid_model"
                assert await closing(socket) == (4000, "invalid_request_error.invalid_model")

    within_time(main())


MANY_SESSIONS: list[dict[str, Any]] = [
    {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.9}}}},
    {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}}},
    {"type": "realtime", "audio": {"input": {"noise_reduction": {"type": "far_field"}, "transcription": None}}},
    {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "w"}}}},
    {"type": "realtime", "output_modalities": ["text"], "max_output_tokens": 50, "truncation": "disabled"},
    {
        "type": "realtime",
        "tools": [{"type": "function", "name": "f"}],
        "tool_choice": {"type": "function", "name": "f"},
    },
    {"type": "realtime", "instructions": "", "tracing": {"workflow_name": "w"}},
    {"type": "transcription", "audio": {"input": {"turn_detection": None, "transcription": {"model": "w"}}}},
]


@pytest.mark.parametrize("session", MANY_SESSIONS, ids=lambda session: json.dumps(session)[:60])
def test_the_session_is_what_the_answer_said_it_would_be(session: dict[str, Any]) -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            made = (await post(server, "/v1/realtime/client_secrets", {"session": session})).json()
            async with socket_to(server, "/v1/realtime?model=m", headers={"api-key": made["value"]}) as socket:
                created = (await receive(socket))["session"]
        fresh = {"id", "expires_at", "model"}
        assert {name: value for name, value in created.items() if name not in fresh} == {
            name: value for name, value in made["session"].items() if name not in fresh
        }

    within_time(main())


SECRETIVE = {
    "type": "mcp",
    "server_label": "shop",
    "server_url": "https://mcp.example/mcp",
    "authorization": "tok-very-secret",
    "headers": {"X-Shop": "hdr-very-secret"},
}


def test_what_mcp_servers_want_to_know_goes_into_the_key_and_nowhere_else() -> None:
    ground = Ground(mcp_hosts=["mcp.example"])
    made = ground.secret({"session": {"type": "realtime", "model": "m", "tools": [SECRETIVE]}})
    assert made["session"]["tools"][0]["server_label"] == "shop"
    assert "very-secret" not in json.dumps(made["session"])
    session = ground.opened(made["value"]).configured
    assert isinstance(session, RealtimeSession)
    assert json.loads(msgspec.json.encode(session.tools))[0] == SECRETIVE


def test_a_beta_key_opens_beta_sessions() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            body = {"model": "m", "voice": "echo", "temperature": 0.6, "turn_detection": None}
            made = (await post(server, "/v1/realtime/sessions", body, **{"OpenAI-Beta": "assistants=v2"})).json()
            value = made["client_secret"]["value"]
            async with socket_to(server, "/v1/realtime", headers={"api-key": value}) as socket:
                session = (await receive(socket))["session"]
                assert (session["voice"], session["turn_detection"], session["temperature"]) == ("echo", None, 0.6)

    within_time(main())


def test_a_transcription_key_opens_a_transcription_session_with_and_without_the_intent() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
            value = (await post(server, "/v1/realtime/client_secrets", {"session": session})).json()["value"]
            for path in ("/v1/realtime", "/v1/realtime?intent=transcription"):
                async with socket_to(server, path, headers={"api-key": value}) as socket:
                    found = (await receive(socket))["session"]
                    assert found["type"] == "transcription"
                    assert found["audio"]["input"]["transcription"]["model"] == "whisper-1"

    within_time(main())


def test_a_translation_key_opens_a_translation_session() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            body = {"session": {"model": "m", "audio": {"output": {"language": "de"}}}}
            value = (await post(server, "/v1/realtime/translations/client_secrets", body)).json()["value"]
            for query in ("", "?model=m"):
                path = f"/v1/realtime/translations{query}"
                async with socket_to(server, path, headers={"api-key": value}) as socket:
                    session = (await receive(socket))["session"]
                    assert (session["type"], session["audio"]["output"]["language"]) == ("translation", "de")
            async with socket_to(server, "/v1/realtime?model=m", headers={"api-key": value}) as socket:
                assert (await receive(socket))["error"]["code"] == "session_kind_mismatch"

    within_time(main())


def test_the_longest_key_still_fits_into_every_place_for_it() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            value, size = "", 2_000
            while True:
                session = SESSION | {"instructions": NOISE[:size]}
                made = await post(server, "/v1/realtime/client_secrets", {"session": session})
                if made.status_code == 400:
                    break
                value, size = made.json()["value"], size + 200
            assert VALUE_CHARS_MAX - 500 < len(value) <= VALUE_CHARS_MAX
            subprotocols = ["realtime", f"openai-insecure-api-key.{value}", "openai-beta.realtime-v1"]
            async with socket_to(server, "/v1/realtime", subprotocols=subprotocols) as socket:
                assert (await receive(socket))["type"] == "session.created"
            async with socket_to(server, "/v1/realtime", headers={"Authorization": f"Bearer {value}"}) as socket:
                assert (await receive(socket))["type"] == "session.created"

    within_time(main())


def test_the_end_of_a_key_does_not_end_its_session() -> None:
    ground = Ground()
    value = ground.secret({"session": {"type": "realtime", "model": "m"}, "expires_after": {"seconds": 10}})["value"]

    async def main() -> None:
        with ground.sessions.admitted(caller(value)) as admitted:
            ground.clock.now_s += 100
            machine = ground.sessions.machine(admitted, id="sess_1", new_id=lambda prefix: prefix, expires_at=0)
            assert machine is not None
            with pytest.raises(Refusal, match="has expired"), ground.sessions.admitted(caller(value)):
                pass

    asyncio.run(main())


def test_neither_kind_of_key_reaches_the_log_and_failures_do(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            made = await post(
                server, "/v1/realtime/client_secrets", {"session": SESSION}, **{"OpenAI-Safety-Identifier": "u1"}
            )
            value = made.json()["value"]
            async with socket_to(server, "/v1/realtime", headers={"Authorization": f"Bearer {value}"}) as socket:
                await receive(socket)
            async with socket_to(server, f"/v1/realtime?api-key={value}x") as socket:
                await receive(socket)
            await post(server, "/v1/realtime/client_secrets", {}, key="sk-a-wrong-key-0009")
            await post(server, "/v1/realtime/sessions", {"bogus": 1})

    with caplog.at_level("DEBUG"):
        within_time(main())
    of_server = [
        record for record in caplog.records if record.name.split(".")[0] in ("vivavoce", "uvicorn", "starlette")
    ]
    lines = "\n".join(record.getMessage() for record in of_server)
    assert "ek_" not in lines
    assert "sk-" not in lines
    assert "user 'u1'" in lines
    assert lines.count("refused on openai: invalid_request_error.invalid_api_key") == 2
    assert "unknown_parameter" in lines


@asynccontextmanager
async def http_to(**values: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(scripted(api_keys=[KEY], **values)))
    async with httpx.AsyncClient(transport=transport, base_url="http://server", headers={"api-key": KEY}) as http:
        yield http


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_a_body_above_the_limit_is_refused_whether_its_length_is_declared_or_not() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10

    async def main() -> None:
        async with http_to(request_bytes_max=500) as http:
            for content in (b" " * 501, pieces()):
                response = await http.post("/v1/realtime/client_secrets", content=content)
                assert response.status_code == 413
                assert "larger than 500 bytes" in response.json()["error"]["message"]
            assert (await http.post("/v1/realtime/client_secrets", content=b"{}" + b" " * 498)).status_code == 200

    run(main())


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "BODY_S_MAX", 0.01)

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def main() -> None:
        async with http_to() as http:
            response = await http.post("/v1/realtime/client_secrets", content=never())
            assert response.status_code == 408
            assert "did not come within" in response.json()["error"]["message"]

    run(main())


def test_the_endpoints_take_posts_alone() -> None:
    async def main() -> None:
        async with http_to() as http:
            for path in ("client_secrets", "translations/client_secrets", "transcription_sessions"):
                response = await http.get(f"/v1/realtime/{path}")
                assert response.status_code == 405
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}
                assert response.headers["allow"] == "POST"

    run(main())


def test_who_may_not_ask_is_not_listened_to() -> None:
    ground, heard = Ground(), []

    async def main() -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []

        async def receive_body() -> dict[str, Any]:
            heard.append("a body")
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        (route,) = (
            route
            for route in rest.key_routes(ground.mint, bytes_max=100)
            if route.path == "/v1/realtime/client_secrets"
        )
        headers = [(b"authorization", b"Bearer wrong")]
        scope = {"type": "http", "method": "POST", "path": route.path, "headers": headers, "query_string": b""}
        await route.handle(scope, receive_body, send)
        return said

    start, body = asyncio.run(main())
    assert (start["status"], heard) == (401, [])
    assert json.loads(body["body"])["error"]["code"] == "invalid_api_key"
