"""Who may pass, what they may use, and that the key of the service is seen by nobody else."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from relay_house import SERVICE_KEY, at, created, end_of, event, idle, relayed, until
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidStatus

from vivavoce.bridge.relay.ledger import Ledger
from vivavoce.bridge.relay.serving import Running
from vivavoce.bridge.relay.settings import RelaySettings, relay_settings, relay_settings_of
from vivavoce.bridge.relay.settings_reference import relay_reference
from vivavoce.errors import SettingsError
from vivavoce.protocol.items import Usage
from vivavoce.server.auth import Refusal

BACKEND = "backend-key-0123456789"
PAGE = "https://shop.example"
DONE = json.dumps(
    {
        "type": "response.done",
        "response": {"usage": {"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000}},
    }
)


async def post(relay: Running, path: str, body: Any, key: str | None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"http://127.0.0.1:{relay.port}/v1/realtime{path}", json=body, headers=headers)


async def get(relay: Running, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{relay.port}{path}", headers=headers)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_page_with_only_a_short_lived_key_talks_and_the_services_key_is_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[str] = []

    async def conversation(socket: ServerConnection) -> None:
        await created(socket)
        refused = {"code": "invalid_api_key", "message": f"Incorrect API key provided: {SERVICE_KEY}"}
        await socket.send(json.dumps({"type": "error", "error": refused}))
        await socket.close(3000, "invalid_request_error.invalid_api_key")

    async def main() -> None:
        async with relayed(conversation, api_keys=[BACKEND], admin_keys=["operator"], tapes=str(tmp_path)) as house:
            _, relay = house
            minted = await post(relay, "/client_secrets", {"session": {"type": "realtime", "model": "m"}}, BACKEND)
            key = minted.json()["value"]
            offered = ["realtime", f"openai-insecure-api-key.{key}"]
            async with at(relay, subprotocols=offered, origin=PAGE) as client:
                assert client.subprotocol == "realtime"
                seen.extend([str(minted.text), str(client.response), json.dumps(await until(client, "error"))])
                assert await end_of(client) == (1014, "The service did not accept the key of the relay.")
            metrics = await get(relay, "/metrics", authorization="Bearer operator")
            assert 'vivavoce_relay_sessions_total{key="' in metrics.text
            seen.append(metrics.text)

    asyncio.run(main())
    tapes = [tape.read_text("utf-8") for tape in tmp_path.iterdir()]
    assert tapes
    assert "session.created" in tapes[0]
    for text in (*seen, *tapes, caplog.text):
        assert SERVICE_KEY not in text
        assert BACKEND not in text


def test_the_services_key_shows_itself_in_no_setting() -> None:
    settings = relay_settings(
        environment={"VIVAVOCE_RELAY_UPSTREAM": "http://h", "VIVAVOCE_RELAY_UPSTREAM_KEY": "k" * 9}
    )
    assert settings.endpoint("m", "conversation", {}, {}).headers == {"Authorization": f"Bearer {'k' * 9}"}
    assert "k" * 9 not in repr(settings)
    assert "k" * 9 not in repr(settings.endpoint("m", "conversation", {}, {}))


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_without_a_key_of_the_relay_nobody_passes(headers: dict[str, str]) -> None:
    async def main() -> None:
        async with relayed(api_keys=[BACKEND]) as (service, relay), at(relay, headers=headers) as client:
            assert (await event(client))["type"] == "error"
            assert (await end_of(client))[0] == 3000
            assert not service.requests

    asyncio.run(main())


def test_refusals_are_statuses_where_that_is_wanted() -> None:
    async def main() -> None:
        async with relayed(api_keys=[BACKEND], refusals="http") as (_, relay):
            with pytest.raises(InvalidStatus) as refused:
                await at(relay).__aenter__()
            assert refused.value.response.status_code == 401

    asyncio.run(main())


def test_a_short_lived_key_is_made_by_a_key_of_the_settings_only_and_opens_its_model_only() -> None:
    async def main() -> None:
        async with relayed(api_keys=[BACKEND]) as (_, relay):
            assert (await post(relay, "/client_secrets", {}, None)).status_code == 401
            made = await post(relay, "/client_secrets", {"session": {"type": "realtime", "model": "m"}}, BACKEND)
            key = {"Authorization": f"Bearer {made.json()['value']}"}
            assert (await post(relay, "/client_secrets", {}, made.json()["value"])).status_code == 403
            async with at(relay, "?model=other", headers=key) as client:
                assert (await event(client))["error"]["code"] == "invalid_model"
            wrong = await post(relay, "/client_secrets", {"session": {"type": "realtime", "voice": 1}}, BACKEND)
            assert wrong.status_code == 400

    asyncio.run(main())


@pytest.mark.parametrize(("origin", "passes"), [(PAGE, True), ("https://evil.example", False), (None, False)])
def test_anonymous_pages_pass_by_their_origin(origin: str | None, passes: bool) -> None:
    async def main() -> None:
        settings: dict[str, Any] = {"api_keys": [BACKEND], "anonymous": True, "origins": [PAGE]}
        async with relayed(**settings) as (_, relay), at(relay, origin=origin) as client:
            assert (await event(client))["type"] == ("session.created" if passes else "error")

    asyncio.run(main())


def test_without_keys_pages_of_elsewhere_do_not_pass() -> None:
    async def main() -> None:
        async with relayed() as (_, relay), at(relay, origin=PAGE) as client:
            assert (await event(client))["error"]["code"] == "origin_not_allowed"

    asyncio.run(main())


def test_metrics_are_for_operators() -> None:
    async def main() -> None:
        async with relayed(api_keys=[BACKEND]) as (_, relay):
            assert (await get(relay, "/metrics")).status_code == 401
            assert (await get(relay, "/metrics", authorization=f"Bearer {BACKEND}")).status_code == 403

    asyncio.run(main())


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"client_sessions_max": 1}, "too_many_sessions"),
        ({"sessions_max": 1}, "too_many_sessions"),
        ({"client_sessions_per_minute_max": 1}, "rate_limit_exceeded"),
    ],
)
def test_one_session_more_is_refused_and_the_next_after_it_is_over(settings: dict[str, Any], code: str) -> None:
    async def main() -> None:
        async with relayed(**settings) as (service, relay):
            async with at(relay) as first:
                await event(first)
                async with at(relay) as second:
                    assert (await event(second))["error"]["code"] == code
                    assert (await end_of(second))[0] == 1013
                assert len(service.requests) == 1
            assert relay.relay.ledger.counters.refusals.read()[code,] == 1
            await service.ended.wait()
            await idle(relay)
            if code == "too_many_sessions":
                async with at(relay) as third:
                    assert (await event(third))["type"] == "session.created"

    asyncio.run(main())


def test_users_behind_one_key_have_limits_of_their_own() -> None:
    async def main() -> None:
        async with relayed(api_keys=[BACKEND], client_sessions_max=1) as (_, relay):
            keys = []
            for user in ("ann", "bob"):
                headers = {"Authorization": f"Bearer {BACKEND}", "OpenAI-Safety-Identifier": user}
                async with httpx.AsyncClient(trust_env=False) as client:
                    url = f"http://127.0.0.1:{relay.port}/v1/realtime/client_secrets"
                    made = await client.post(url, json={"session": {"type": "realtime", "model": "m"}}, headers=headers)
                keys.append({"Authorization": f"Bearer {made.json()['value']}"})
            async with at(relay, headers=keys[0]) as ann, at(relay, headers=keys[1]) as bob:
                assert [(await event(one))["type"] for one in (ann, bob)] == ["session.created"] * 2
                async with at(relay, headers=keys[0]) as again:
                    assert (await event(again))["error"]["code"] == "too_many_sessions"

    asyncio.run(main())


def test_a_session_ends_at_its_duration() -> None:
    async def main() -> None:
        async with relayed(session_ms_max=50) as (service, relay), at(relay) as client:
            assert (await until(client, "error"))[-1]["error"]["code"] == "session_expired"
            assert (await end_of(client))[0] == 1001
            await service.ended.wait()
            assert service.ends[0][0] == 1001

    asyncio.run(main())


@pytest.mark.parametrize("setting", ["session_budget", "client_budget_per_day"])
def test_a_budget_ends_the_session_after_the_response_that_spent_it(setting: str) -> None:
    async def conversation(socket: ServerConnection) -> None:
        for _ in range(3):
            await socket.send(DONE)

    async def main() -> None:
        settings: dict[str, Any] = {setting: 4.0, "prices": {"m": {"text_in": 2.5}}}
        async with relayed(conversation, **settings) as (_, relay), at(relay) as client:
            heard = [told["type"] for told in await until(client, "error")]
            assert heard == ["response.done", "response.done", "error"]
            assert (await end_of(client))[0] == 1008
            async with at(relay) as again:
                code = (await until(again, "error"))[-1]["error"]["code"]
            assert code == "budget_exceeded"
            assert f'vivavoce_relay_cost_total{{key=""}} {10 if setting == "session_budget" else 5}' in (
                relay.relay.metrics()
            )

    asyncio.run(main())


def test_a_day_gives_the_budget_back_and_clients_are_forgotten() -> None:
    now = 0.0
    values = {"upstream": "http://h", "prices": {"m": {"text_in": 1.0}}, "client_budget_per_day": 1.0}
    ledger = Ledger(relay_settings_of(values), lambda: now)
    with ledger.place("ann", "") as client:
        assert ledger.spending(client, "m").used(Usage(input_tokens=2_000_000)) is not None
    with pytest.raises(Refusal) as refused, ledger.place("ann", ""):
        pass
    assert refused.value.headers == {"Retry-After": "86400"}
    now = 86_401.0
    with ledger.place("ann", ""):
        pass


def test_a_client_that_says_too_much_is_read_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty messages at twenty a second: the first twenty at once, and the client is held after them."""

    async def main() -> None:
        async with relayed(client_messages_per_second_max=20) as (service, relay), at(relay) as client:
            await event(client)
            (passage,) = relay.relay._passages.values()
            holds: list[bool] = []
            hold = passage._client.hold

            def noted(is_held: bool) -> None:
                holds.append(is_held)
                hold(is_held)

            monkeypatch.setattr(passage._client, "hold", noted)
            for number in range(30):
                await client.send(json.dumps({"type": "n", "n": number}))
            await service.has_heard(30)
            assert holds[0] is True  # what came in the same read is not held
            await client.send(json.dumps({"type": "n", "n": 30}))
            await service.has_heard(31)
            assert holds[:2] == [True, False]
            assert [json.loads(said)["n"] for said in service.heard] == list(range(31))

    asyncio.run(main())


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "upstream: say where to relay to"),
        ({"upstream": "nonsense"}, "upstream: "),
        ({"upstream": "http://h", "ports": 1}, "ports: there is no such setting of a relay"),
        ({"upstream": "http://h", "port": -1}, "port: "),
        ({"upstream": "http://h", "host": "0.0.0.0"}, "host: "),
        ({"upstream": "http://h", "anonymous": True}, "anonymous: "),
        ({"upstream": "http://h", "session_budget": 1.0}, "prices: "),
        ({"upstream": "http://h", "tapes": "/nowhere/at/all"}, "tapes: "),
        ({"upstream": "http://h", "signing_key": "short"}, "signing_key: "),
        ({"upstream": "https://api.openai.com/v1"}, "upstream: no key for api.openai.com"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        relay_settings_of(values)
    assert str(refused.value).startswith(said)


AZURE = "https://res.openai.azure.com"


@pytest.mark.parametrize(
    ("settings", "url", "dialect"),
    [
        ({"upstream": "https://api.openai.com/v1"}, "wss://api.openai.com/v1/realtime?model=x", "ga"),
        ({"upstream": AZURE}, "wss://res.openai.azure.com/openai/v1/realtime?model=x", "ga"),
        (
            {"upstream": AZURE, "api_version": "2025-04-01-preview"},
            "wss://res.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=x",
            "beta",
        ),
        (
            {"upstream": "http://127.0.0.1:1/v1", "upstream_dialect": "beta"},
            "ws://127.0.0.1:1/v1/realtime?model=x",
            "beta",
        ),
    ],
)
def test_every_form_of_upstream(settings: dict[str, Any], url: str, dialect: str) -> None:
    key = "sk-0123456789abcdefghijkl" if "openai.com" in settings["upstream"] else "0" * 32
    endpoint = relay_settings_of({**settings, "upstream_key": key}).endpoint("x", "conversation", {}, {})
    assert (endpoint.url, endpoint.dialect) == (url, dialect)
    header = "api-key" if "azure" in url else "Authorization"
    assert key in endpoint.headers[header]
    assert ("OpenAI-Beta" in endpoint.headers) == (dialect == "beta" and "azure" not in url)


def test_models_are_named_anew_and_others_refused() -> None:
    async def main() -> None:
        async with relayed(models={"fast": "gpt-x"}, model=None) as (service, relay):
            async with at(relay, "?model=fast") as client:
                await event(client)
            assert service.requests[0].path == "/v1/realtime?model=gpt-x"
            async with at(relay, "?model=gpt-x") as client:
                assert (await event(client))["error"]["code"] == "invalid_model"

    asyncio.run(main())


def test_the_defaults_are_those_of_the_struct() -> None:
    assert relay_settings_of({"upstream": "http://h"}) == RelaySettings(upstream="http://h")


def test_the_reference_of_the_settings_is_theirs() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "relay.md"
    command = "python -m vivavoce.bridge.relay.settings_reference > docs/reference/relay.md"
    assert page.read_text(encoding="utf-8") == relay_reference(), f"run: {command}"


def test_the_file_of_the_how_to_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "relay.md").read_text(encoding="utf-8")
    file = tmp_path / "relay.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    settings = relay_settings(config=file, environment={"VIVAVOCE_RELAY_UPSTREAM_KEY": "sk-0123456789abcdefghijkl"})
    assert settings.models == {"fast": "gpt-realtime-mini"}
