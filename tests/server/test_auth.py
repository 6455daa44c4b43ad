from __future__ import annotations

from typing import Any

import pytest

from vivavoce.errors import SettingsError
from vivavoce.server.auth import Asked, Keys, Refusal, Surface, check_binding, is_loopback
from vivavoce.server.settings import settings_of

KEY = "sk-the-right-key-0001"
BROWSER = ("realtime", f"openai-insecure-api-key.{KEY}")


def asked(
    surface: Surface = "openai",
    *,
    headers: dict[str, str] | None = None,
    query: str = "model=gpt-realtime",
    subprotocols: tuple[str, ...] = (),
) -> Asked:
    scope = {
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "query_string": query.encode(),
        "subprotocols": list(subprotocols),
    }
    return Asked.of(surface, scope)


def refused(check: Any, *arguments: Any) -> tuple[int, str, str | None]:
    with pytest.raises(Refusal) as raised:
        check(*arguments)
    detail = raised.value.detail
    assert detail.param is None
    assert isinstance(detail.code, str | None)
    return raised.value.close.code, raised.value.close.reason, detail.code


# --- keys (§1.2, §1.3, §1.5) ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client",
    [
        asked(headers={"Authorization": f"Bearer {KEY}"}),
        asked(headers={"authorization": f"bearer  {KEY} "}),
        asked(headers={"api-key": KEY}),
        asked(query=f"model=m&api-key={KEY}"),
        asked(subprotocols=BROWSER),
        asked("azure-preview", headers={"api-key": KEY}, query="api-version=2025-04-01-preview&deployment=d"),
    ],
)
def test_a_key_is_taken_from_wherever_a_client_can_put_it(client: Asked) -> None:
    Keys(settings_of({"api_keys": ["another", KEY], "pipeline": "scripted"})).check(client)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer "}, {"api-key": ""}])
def test_without_a_key_the_error_has_no_code(headers: dict[str, str]) -> None:
    keys = Keys(settings_of({"api_keys": [KEY]}))
    assert refused(keys.check, asked(headers=headers)) == (3000, "invalid_request_error", None)


@pytest.mark.parametrize("key", ["wrong", KEY[:-1], KEY + "x", "schlüssel"])
def test_a_wrong_key_is_refused_and_not_repeated(key: str) -> None:
    keys = Keys(settings_of({"api_keys": [KEY]}))
    client = asked(headers={"Authorization": f"Bearer {key}"})
    assert refused(keys.check, client) == (3000, "invalid_request_error.invalid_api_key", "invalid_api_key")
    with pytest.raises(Refusal) as raised:
        keys.check(client)
    assert key not in raised.value.detail.message


def test_a_server_without_keys_takes_any() -> None:
    keys = Keys(settings_of({}))
    keys.check(asked())
    keys.check(asked(headers={"Authorization": "Bearer whatever"}))


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://app.example"])
def test_a_server_without_keys_takes_pages_of_this_machine_and_those_it_is_told(origin: str) -> None:
    Keys(settings_of({"origins": ["https://app.example/"]})).check(asked(headers={"origin": origin}))


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[::1"])
def test_a_server_without_keys_refuses_other_pages(origin: str) -> None:
    keys = Keys(settings_of({"origins": ["https://app.example"]}))
    assert refused(keys.check, asked(headers={"origin": origin}))[0] == 3000


def test_a_page_with_a_key_may_come_from_anywhere() -> None:
    keys = Keys(settings_of({"api_keys": [KEY]}))
    keys.check(asked(headers={"origin": "https://app.example"}, subprotocols=BROWSER))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_a_server_without_keys_may_bind_to_loopback(host: str) -> None:
    assert is_loopback(host)
    check_binding(settings_of({"host": host}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", ""])
def test_a_server_without_keys_binds_nowhere_else(host: str) -> None:
    with pytest.raises(SettingsError, match=r"host: .* no api_keys are set"):
        check_binding(settings_of({"host": host}))
    check_binding(settings_of({"host": host, "api_keys": [KEY]}))


# --- dialects (§1.4) and sub-protocols (§1.3) -------------------------------------------------------------------------

BETA = {"OpenAI-Beta": "realtime=v1"}


@pytest.mark.parametrize(
    ("client", "dialect"),
    [
        (asked(), "ga"),
        (asked(headers=BETA), "beta"),
        (asked(headers={"openai-beta": "assistants=v2, realtime=v1"}), "beta"),
        (asked(headers={"openai-beta": "assistants=v2"}), "ga"),
        (asked(subprotocols=("realtime", "openai-beta.realtime-v1")), "beta"),
        (asked("azure"), "ga"),
        (asked("azure", headers=BETA), "ga"),
        (asked("azure", query="model=m&dialect=beta"), "ga"),
        (asked("azure-preview"), "beta"),
        (asked("translation", headers=BETA), "ga"),
        (asked(query="model=m&dialect=beta"), "beta"),
        (asked(query="model=m&dialect=overview"), "overview"),
        (asked("azure", query="model=m&dialect=overview"), "ga"),
        (asked(query="model=m&dialect=ga", headers=BETA), "ga"),
    ],
)
def test_the_dialect_follows_the_decision_table(client: Asked, dialect: str) -> None:
    assert client.dialect == dialect


@pytest.mark.parametrize(
    ("offered", "chosen"), [((), None), (BROWSER, "realtime"), (BROWSER[1:], None), (("chat", "realtime"), "realtime")]
)
def test_only_realtime_is_chosen_and_only_where_it_was_offered(offered: tuple[str, ...], chosen: str | None) -> None:
    assert asked(subprotocols=offered).subprotocol == chosen
