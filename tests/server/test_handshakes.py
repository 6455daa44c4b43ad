"""What a client gets for what it asks: kinds of session, dialects, models, refusals in both forms (reference §1)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from test_auth import asked, refused
from test_serve import KEY, closing, is_true_soon, receive, scripted, socket_to, until, within_time
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import InvalidStatus

from vivavoce.client import connect
from vivavoce.errors import ConnectionFailed
from vivavoce.protocol.config import RealtimeSession
from vivavoce.server import Server, running
from vivavoce.server.admission import Admitted, admission
from vivavoce.server.app import create_app
from vivavoce.server.auth import Asked, Credential
from vivavoce.server.client_secrets import ClientSecret, written
from vivavoce.server.settings import settings_of

pytestmark = pytest.mark.usefixtures("door")

ANYBODY = Credential("")


def holder(**values: Any) -> Credential:
    """Somebody with a short-lived key."""
    fields = {"kind": "realtime", "dialect": "ga", "model": None, "session": None, **values}
    return Credential("id", ClientSecret(issued_at=0, expires_at=10, minted_by="id", **fields))


# --- models and kinds (§1.1, §8.8) ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "model"),
    [("model=m", "m"), ("deployment=d&api-version=1", "d"), ("model=a%2Fb&x=1", "a/b"), ("model=m&deployment=d", "m")],
)
def test_the_model_comes_from_the_query(query: str, model: str) -> None:
    assert admission(asked(query=query), ANYBODY).model == model


@pytest.mark.parametrize("query", ["", "model=", "x=1"])
def test_no_model_is_refused(query: str) -> None:
    said = refused(admission, asked(query=query), ANYBODY)
    assert said == (4000, "invalid_request_error.missing_model", "missing_model")


@pytest.mark.parametrize(
    ("client", "kind", "model"),
    [
        (asked(), "realtime", "gpt-realtime"),
        (asked(query="intent=transcription"), "transcription", ""),
        (asked(query="intent=transcription&model=m"), "transcription", ""),
        (asked(query="intent=conversation&model=m"), "realtime", "m"),
        (asked("azure-preview", query="intent=transcription"), "transcription", ""),
        (asked("translation", query="model=m"), "translation", "m"),
    ],
)
def test_the_kind_of_session_follows_the_selectors(client: Asked, kind: str, model: str) -> None:
    admitted = admission(client, ANYBODY)
    assert (admitted.kind, admitted.model) == (kind, model)


@pytest.mark.parametrize("query", ["call_id=rtc_1", "call_id=rtc_1&model=m&intent=transcription"])
def test_a_call_comes_before_every_other_selector_and_is_nothing_to_begin(query: str) -> None:
    assert refused(admission, asked(query=query), ANYBODY)[2] == "session_kind_not_available"


def test_a_short_lived_key_brings_its_model_configuration_dialect_and_user() -> None:
    session = RealtimeSession(instructions="Be brief.")
    key = holder(model="m", dialect="beta", session=written(session), safety_identifier="user-1")
    assert admission(asked(query=""), key) == Admitted("id", "realtime", "beta", "m", session, "user-1")
    assert admission(asked(query="model=m"), key).model == "m"
    assert admission(asked(query="", headers={"OpenAI-Safety-Identifier": "user-2"}), key).safety_identifier == "user-1"


def test_the_url_names_the_model_where_the_key_has_none() -> None:
    assert admission(asked(query="model=m"), holder()).model == "m"
    assert refused(admission, asked(query=""), holder())[2] == "missing_model"


def test_a_key_for_one_model_is_refused_for_another() -> None:
    said = refused(admission, asked(query="model=other"), holder(model="m"))
    assert said == (4000, "invalid_request_error.invalid_model", "invalid_model")


@pytest.mark.parametrize(
    ("client", "kind"),
    [
        (asked(query=""), "transcription"),
        (asked(query="intent=transcription"), "transcription"),
        (asked(query="model=m"), "transcription"),
        (asked("translation", query=""), "translation"),
    ],
)
def test_a_key_opens_sessions_of_its_kind(client: Asked, kind: str) -> None:
    assert admission(client, holder(kind=kind, model="m" if kind == "translation" else None)).kind == kind


@pytest.mark.parametrize(
    ("client", "kind"),
    [
        (asked(query="intent=transcription"), "realtime"),
        (asked("translation", query="model=m"), "realtime"),
        (asked("translation", query="model=m"), "transcription"),
        (asked(query="model=m"), "translation"),
        (asked(query=""), "translation"),
    ],
)
def test_a_key_opens_no_session_of_another_kind(client: Asked, kind: str) -> None:
    assert refused(admission, client, holder(kind=kind, model="m"))[2] == "session_kind_mismatch"


@pytest.mark.parametrize(
    ("client", "of_key", "dialect"),
    [
        (asked(), "ga", "ga"),
        (asked(), "beta", "beta"),
        (asked(headers={"OpenAI-Beta": "realtime=v1"}), "ga", "beta"),
        (asked("azure"), "beta", "ga"),
        (asked("azure-preview"), "ga", "beta"),
        (asked(query="model=m&dialect=ga"), "beta", "ga"),
    ],
)
def test_a_key_implies_its_dialect_unless_the_client_says_otherwise(client: Asked, of_key: str, dialect: str) -> None:
    assert admission(client, holder(dialect=of_key)).dialect == dialect


def test_a_dialect_that_there_is_not_is_refused() -> None:
    assert refused(admission, asked(query="model=m&dialect=delta"), ANYBODY)[2] == "invalid_value"


# --- over a socket ----------------------------------------------------------------------------------------------------


def test_the_overview_vocabulary_is_spoken_to_those_who_ask_for_it() -> None:
    async def main() -> None:
        async with running(scripted()) as server:
            async with socket_to(server, "/v1/realtime?model=m&dialect=overview") as socket:
                await socket.send('{"type": "no.such.event"}')
                assert "'conversation.create'" in (await until(socket, "error"))["data"]["message"]
            async with socket_to(server, "/v1/realtime?model=m&dialect=delta") as socket:
                assert (await receive(socket))["error"]["code"] == "invalid_value"

    within_time(main())


def test_unknown_models_may_be_refused_and_those_that_are_known_are_not() -> None:
    async def main() -> None:
        settings = scripted(unknown_models="refuse", models={"gpt-realtime": "scripted"})
        async with running(settings) as server:
            async with socket_to(server, "/v1/realtime?model=gpt-5") as socket:
                error = (await receive(socket))["error"]
                assert error["code"] == "invalid_model"
                assert "gpt-realtime, scripted" in error["message"]
                assert await closing(socket) == (4000, "invalid_request_error.invalid_model")
            for model in ("gpt-realtime", "scripted"):
                async with socket_to(server, f"/v1/realtime?model={model}") as socket:
                    assert (await receive(socket))["session"]["model"] == model

    within_time(main())


STATUSES: list[tuple[str, dict[str, str], int, str | None]] = [
    ("/v1/realtime?model=scripted", {}, 401, None),
    ("/v1/realtime?model=scripted", {"api-key": "wrong"}, 401, "invalid_api_key"),
    ("/openai/realtime?deployment=scripted", {"api-key": "wrong"}, 401, "invalid_api_key"),
    ("/v1/realtime", {"api-key": KEY}, 400, "missing_model"),
    ("/v1/realtime?model=unknown", {"api-key": KEY}, 404, "invalid_model"),
    ("/v1/realtime?call_id=rtc_1", {"api-key": KEY}, 404, "call_not_found"),
]


async def denied(server: Server, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any], Any]:
    with pytest.raises(InvalidStatus) as raised:
        async with socket_to(server, path, headers=headers):
            raise AssertionError("it must not open")
    response = raised.value.response
    return response.status_code, json.loads(response.body or b"")["error"], response.headers


def test_a_refusal_may_be_a_status_with_the_body_of_an_http_error() -> None:
    async def main() -> None:
        settings = scripted(api_keys=[KEY], refusals="http", unknown_models="refuse")
        async with running(settings) as server:
            for path, headers, status, code in STATUSES:
                found, error, fields = await denied(server, path, headers)
                assert (found, error["code"]) == (status, code), path
                assert set(error) == {"message", "type", "param", "code"}
                assert fields["content-type"] == "application/json"
            async with socket_to(server, "/v1/realtime?model=scripted", headers={"api-key": KEY}) as socket:
                assert (await receive(socket))["type"] == "session.created"

    within_time(main())


def test_our_own_client_says_in_words_what_the_status_means() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY], refusals="http")) as server:
            with pytest.raises(ConnectionFailed, match=r"401 .*Incorrect API key.*: this server does not know the key"):
                await connect("m", url=server.url, api_key="sk-a-wrong-key-0009")

    within_time(main())


def test_a_page_from_elsewhere_is_forbidden_on_a_server_without_keys() -> None:
    async def main() -> None:
        async with running(scripted(refusals="http")) as server:
            status, error, _ = await denied(server, "/v1/realtime?model=m", {"Origin": "https://evil.example"})
            assert (status, error["code"]) == (403, "origin_not_allowed")

    within_time(main())


def test_a_key_may_begin_only_so_many_sessions_a_minute() -> None:
    async def main() -> None:
        keys = [KEY, "sk-another-key-0003"]
        async with running(scripted(api_keys=keys, sessions_per_minute_max=2, refusals="http")) as server:
            for _ in range(2):
                async with socket_to(server, headers={"api-key": KEY}) as socket:
                    await until(socket, "session.created")
            status, error, headers = await denied(server, "/v1/realtime?model=m", {"api-key": KEY})
            assert (status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
            assert 1 <= int(headers["retry-after"]) <= 30
            async with socket_to(server, headers={"api-key": keys[1]}) as socket:
                assert (await receive(socket))["type"] == "session.created", "the other key has its own account"

    within_time(main())


def test_a_session_too_soon_is_told_to_try_again_by_the_close_code() -> None:
    async def main() -> None:
        async with running(scripted(sessions_per_minute_max=1)) as server:
            async with socket_to(server) as socket:
                await until(socket, "session.created")
            async with socket_to(server) as socket:
                assert (await receive(socket))["error"]["code"] == "rate_limit_exceeded"
                assert await closing(socket) == (1013, "rate_limit_error.rate_limit_exceeded")

    within_time(main())


def test_a_client_that_goes_before_the_answer_gives_its_place_back() -> None:
    async def main() -> None:
        app = create_app(scripted(sessions_max=1))
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        async def gone() -> dict[str, Any]:
            return {"type": "websocket.disconnect", "code": 1006}

        scope = {
            "type": "websocket",
            "path": "/v1/realtime",
            "headers": [],
            "query_string": b"model=m",
            "subprotocols": [],
        }
        for _ in range(3):
            await app(scope, gone, send)
        assert sent == []
        with app.state.sessions.admitted(asked()):
            pass

    within_time(main())


def test_compression_is_offered_where_the_settings_say_so() -> None:
    async def main() -> None:
        for is_on in (False, True):
            async with running(scripted(compression=is_on)) as server:
                url = f"ws://{server.host}:{server.port}/v1/realtime?model=m"
                async with ws_connect(url, compression="deflate", proxy=None) as socket:
                    assert (await receive(socket))["type"] == "session.created"
                    assert bool(socket.protocol.extensions) == is_on

    within_time(main())


def test_an_idle_socket_is_pinged_as_often_as_the_settings_say() -> None:
    async def main() -> None:
        async with running(scripted(ping_interval_ms=20)) as server, socket_to(server, ping_interval=None) as socket:
            await until(socket, "session.created")
            pings = counted(socket)
            assert await is_true_soon(lambda: len(pings) >= 2)

    within_time(main())


def test_pings_can_be_switched_off() -> None:
    async def main() -> None:
        async with running(scripted(ping_interval_ms=0)) as server, socket_to(server) as socket:
            assert (await receive(socket))["type"] == "session.created"
            await socket.send('{"type": "input_audio_buffer.clear"}')
            await until(socket, "input_audio_buffer.cleared")

    within_time(main())


def counted(socket: Any) -> list[object]:
    """The pings that come in from now on."""
    pings: list[object] = []
    process: Callable[[Any], None] = socket.process_event

    def noting(event: Any) -> None:
        if event.opcode.name == "PING":
            pings.append(event)
        process(event)

    socket.process_event = noting
    return pings


# --- pages of other origins (CORS) ------------------------------------------------------------------------------------

PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang",
}


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("https://app.example", True),
        ("http://localhost:5173", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("null", False),
    ],
)
def test_only_pages_of_allowed_origins_may_use_the_http_endpoints(origin: str, is_allowed: bool) -> None:
    async def main() -> None:
        app = create_app(settings_of({"pipeline": "scripted", "api_keys": [KEY], "origins": ["https://App.example/"]}))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
            url, who = "/v1/realtime/client_secrets", {"Origin": origin}
            before = await http.options(url, headers=who | PREFLIGHT)
            assert before.status_code == (200 if is_allowed else 400)
            assert (before.headers.get("access-control-allow-origin") == origin) == is_allowed
            if is_allowed:
                assert "x-stainless-lang" in before.headers["access-control-allow-headers"]
            for headers, status in ((who | {"api-key": KEY}, 200), (who, 401)):
                response = await http.post(url, headers=headers)
                assert response.status_code == status
                assert (response.headers.get("access-control-allow-origin") == origin) == is_allowed
                if is_allowed:
                    assert response.headers["access-control-expose-headers"] == "Location"

    asyncio.run(main())
