from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from vivavoce.client.endpoint import Endpoint, Target, resolve, shown
from vivavoce.errors import ConnectionFailed, LocalProtocolError
from vivavoce.protocol.codec import Dialect
from vivavoce.server import running
from vivavoce.server.settings import settings_of
from vivavoce.transports.websocket import dial

RESOURCE = "https://res.openai.azure.com"
HOST = "wss://res.openai.azure.com"
GA, PREVIEW = f"{HOST}/openai/v1/realtime", f"{HOST}/openai/realtime?api-version=2025-04-01-preview"
VERSION = "2025-04-01-preview"
AZURE_KEY, LONG_AZURE_KEY = "0123456789abcdef" * 2, "aB3" * 28
OPENAI_KEY = "sk-proj-0123456789abcdefghij"
TOKEN = "eyJhbGciOi.eyJhdWQiOi.c2lnbmF0dXJl"


def made(environ: dict[str, str] | None = None, **target: Any) -> Endpoint:
    return resolve(Target(**target), environ or {})


def wrong(environ: dict[str, str] | None = None, **target: Any) -> str:
    with pytest.raises(LocalProtocolError) as raised:
        made(environ, **target)
    for secret in (AZURE_KEY, LONG_AZURE_KEY, OPENAI_KEY, TOKEN):
        assert secret not in str(raised.value)
    return str(raised.value)


# --- URLs (B12, D1) ---------------------------------------------------------------------------------------------------


def test_openai_is_the_default() -> None:
    found = made({"OPENAI_API_KEY": OPENAI_KEY}, model="gpt-realtime")
    assert found.url == "wss://api.openai.com/v1/realtime?model=gpt-realtime"
    assert found.headers == {"Authorization": f"Bearer {OPENAI_KEY}"}
    assert (found.vendor, found.dialect, found.has_credentials) == ("openai", "ga", True)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/realtime?model=m"),
        ("http://127.0.0.1:8080/v1/", "ws://127.0.0.1:8080/v1/realtime?model=m"),
        ("ws://127.0.0.1:8080/v1/realtime", "ws://127.0.0.1:8080/v1/realtime?model=m"),
        ("wss://host/v1/realtime?x=1", "wss://host/v1/realtime?x=1&model=m"),
        ("wss://host/v1/realtime?model=other", "wss://host/v1/realtime?model=other"),
        ("https://relay.example/voice", "wss://relay.example/voice/realtime?model=m"),
        ("https://host/openai/v1", "wss://host/openai/v1/realtime?model=m"),
        (f"ws://host/openai/realtime?api-version={VERSION}&deployment=d", None),
        ("http://[::1]:8080/v1", "ws://[::1]:8080/v1/realtime?model=m"),
        (RESOURCE, f"{GA}?model=m"),
        (f"{RESOURCE}/openai", f"{GA}?model=m"),
        (f"{RESOURCE}/openai/v1/", f"{GA}?model=m"),
        (f"{GA}?model=d", f"{GA}?model=d"),
        (f"{PREVIEW}&deployment=d", f"{PREVIEW}&deployment=d"),
    ],
)
def test_b12_every_form_of_url_leads_to_the_websocket(given: str, url: str | None) -> None:
    assert made(url=given, model="m", headers={"api-key": "k"}).url == (url or given)


def test_b12_a_relay_needs_no_key_and_gets_none() -> None:
    environ = {
        "OPENAI_API_KEY": OPENAI_KEY,
        "AZURE_OPENAI_API_KEY": AZURE_KEY,
        "AZURE_OPENAI_AD_TOKEN": TOKEN,
        "OPENAI_ORG_ID": "org",
        "OPENAI_PROJECT_ID": "proj",
    }
    for url in ("wss://relay.example/v1", "wss://relay.example/openai/v1", "ws://127.0.0.1:8080"):
        relay = made(environ, url=url, model="m")
        assert relay.headers == {}
        assert not relay.has_credentials


def test_a_model_is_quoted_and_a_self_hosted_server_may_choose_it() -> None:
    assert made(url="ws://h/v1", model="a b/c").url == "ws://h/v1/realtime?model=a+b%2Fc"
    assert made(url="ws://h/v1").url == "ws://h/v1/realtime"


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ({"kind": "transcription"}, "ws://h/v1/realtime?intent=transcription"),
        ({"kind": "transcription", "model": "whisper-1"}, "ws://h/v1/realtime?intent=transcription"),
        ({"kind": "translation", "model": "t"}, "ws://h/v1/realtime/translations?model=t"),
        ({"call_id": "rtc_1", "model": "m"}, "ws://h/v1/realtime?call_id=rtc_1"),
    ],
)
def test_other_sessions_have_other_urls(target: dict[str, Any], url: str) -> None:
    assert made(url="ws://h", **target).url == url
    assert made(url="ws://h/v1/realtime", **target).url == url


# --- Azure (D1) -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "url", "dialect"),
    [
        ({"azure_deployment": "d"}, f"{GA}?model=d", "ga"),
        ({"model": "d"}, f"{GA}?model=d", "ga"),
        ({"azure_deployment": "d", "model": "gpt-realtime"}, f"{GA}?model=d", "ga"),
        ({"model": "d", "api_version": VERSION}, f"{PREVIEW}&deployment=d", "beta"),
        ({"kind": "transcription"}, f"{GA}?intent=transcription", "ga"),
        ({"kind": "transcription", "api_version": VERSION}, f"{PREVIEW}&intent=transcription", "beta"),
        ({"kind": "translation", "model": "t"}, f"{GA}/translations?model=t", "ga"),
        ({"call_id": "rtc_1"}, f"{GA}?call_id=rtc_1", "ga"),
    ],
)
def test_d1_azure_by_endpoint_and_deployment(target: dict[str, Any], url: str, dialect: str) -> None:
    found = made(azure_endpoint=f"{RESOURCE}/", api_key=AZURE_KEY, **target)
    assert (found.url, found.dialect, found.vendor) == (url, dialect, "azure")
    assert found.headers == {"api-key": AZURE_KEY}


@pytest.mark.parametrize(
    "host", ["r.openai.azure.com", "r.cognitiveservices.azure.com", "r.services.ai.azure.com", "R.OPENAI.AZURE.COM"]
)
def test_d1_all_hosts_of_azure(host: str) -> None:
    environ = {"AZURE_OPENAI_API_KEY": LONG_AZURE_KEY}
    assert made(environ, azure_endpoint=f"https://{host}", model="d").headers == {"api-key": LONG_AZURE_KEY}
    assert made(environ, url=f"https://{host}", model="d").headers == {"api-key": LONG_AZURE_KEY}


def test_d1_azure_behind_a_gateway_keeps_its_path() -> None:
    found = made(azure_endpoint="https://gateway.example/azure", model="d", api_key="any")
    assert found.url == "wss://gateway.example/azure/openai/v1/realtime?model=d"
    assert found.headers == {"api-key": "any"}


def test_d1_a_token_goes_into_another_header_than_a_key() -> None:
    found = made(azure_endpoint=RESOURCE, model="d", azure_ad_token=TOKEN)
    assert found.headers == {"Authorization": f"Bearer {TOKEN}"}
    assert made(azure_endpoint=RESOURCE, api_key="ek_1").headers == {"Authorization": "Bearer ek_1"}


@pytest.mark.parametrize("is_async", [False, True])
def test_d1_a_token_provider_is_asked_at_every_connection(is_async: bool) -> None:
    threads: list[int] = []

    def token() -> str:
        threads.append(threading.get_ident())
        return f"token-{len(threads)}"

    async def later() -> str:
        return token()

    found = made(azure_endpoint=RESOURCE, model="d", token_provider=later if is_async else token, headers={"x": "y"})

    async def main() -> list[dict[str, str]]:
        return [await found.headers_now(), await found.headers_now()]

    assert asyncio.run(main()) == [{"x": "y", "Authorization": f"Bearer token-{n}"} for n in (1, 2)]
    assert (threading.get_ident() in threads) == is_async, "what may block does not run in the event loop"
    assert found.has_credentials
    assert found.headers == {"x": "y"}


def test_d1_a_token_provider_may_return_an_awaitable() -> None:
    async def later() -> str:
        return "t"

    found = made(azure_endpoint=RESOURCE, model="d", token_provider=lambda: later())
    assert asyncio.run(found.headers_now()) == {"Authorization": "Bearer t"}


def test_d1_a_token_provider_that_fails() -> None:
    def fail() -> str:
        raise OSError("no login")

    found = made(azure_endpoint=RESOURCE, model="d", token_provider=fail)
    with pytest.raises(ConnectionFailed, match=r"token_provider gave no token: OSError: no login"):
        asyncio.run(found.headers_now())
    nothing: Any = lambda: None  # noqa: E731
    with pytest.raises(LocalProtocolError, match="token_provider gave NoneType; expected the token as str"):
        asyncio.run(made(azure_endpoint=RESOURCE, model="d", token_provider=nothing).headers_now())


# --- the environment (D1) ---------------------------------------------------------------------------------------------


AZURE = {"AZURE_OPENAI_ENDPOINT": RESOURCE, "AZURE_OPENAI_API_KEY": AZURE_KEY}
OPENAI = {"OPENAI_API_KEY": OPENAI_KEY}


@pytest.mark.parametrize(
    ("environ", "target", "url"),
    [
        (AZURE, {"model": "d"}, f"{GA}?model=d"),
        (AZURE | {"AZURE_OPENAI_DEPLOYMENT": "d"}, {}, f"{GA}?model=d"),
        (AZURE | {"AZURE_OPENAI_DEPLOYMENT_NAME": "d"}, {}, f"{GA}?model=d"),
        (AZURE | {"AZURE_OPENAI_DEPLOYMENT": "chat"}, {"model": "d"}, f"{GA}?model=d"),
        (AZURE | {"OPENAI_API_VERSION": VERSION}, {"model": "d"}, f"{PREVIEW}&deployment=d"),
        (AZURE | {"OPENAI_API_VERSION": VERSION}, {"model": "d", "dialect": "ga"}, f"{GA}?model=d"),
        (AZURE | {"OPENAI_API_VERSION": "2024-10-21"}, {"model": "d"}, f"{GA}?model=d"),
        (AZURE | OPENAI, {"model": "m"}, "wss://api.openai.com/v1/realtime?model=m"),
        (AZURE, {"model": "m", "api_key": OPENAI_KEY}, "wss://api.openai.com/v1/realtime?model=m"),
        (AZURE | OPENAI, {"azure_deployment": "d"}, f"{GA}?model=d"),
        (AZURE | OPENAI, {"model": "d", "api_version": VERSION}, f"{PREVIEW}&deployment=d"),
        (AZURE | OPENAI, {"model": "d", "azure_endpoint": RESOURCE}, f"{GA}?model=d"),
        (AZURE | {"OPENAI_BASE_URL": "http://h/v1"}, {"model": "m"}, "ws://h/v1/realtime?model=m"),
        ({"OPENAI_BASE_URL": RESOURCE, "OPENAI_API_KEY": AZURE_KEY}, {"model": "d"}, f"{GA}?model=d"),
        ({"OPENAI_BASE_URL": f"{RESOURCE}/openai/v1", "OPENAI_API_KEY": AZURE_KEY}, {"model": "d"}, f"{GA}?model=d"),
    ],
)
def test_d1_the_environment_says_what_no_argument_does(
    environ: dict[str, str], target: dict[str, Any], url: str
) -> None:
    found = made(environ, **target)
    assert found.url == url
    expected = {"Authorization": f"Bearer {OPENAI_KEY}"} if "openai.com" in url else {"api-key": AZURE_KEY}
    assert found.headers == ({} if "//h/" in url else expected)


def test_d1_a_token_of_the_environment_counts_before_a_key() -> None:
    found = made(AZURE | {"AZURE_OPENAI_AD_TOKEN": TOKEN}, model="d")
    assert found.headers == {"Authorization": f"Bearer {TOKEN}"}


def test_organization_and_project_go_where_the_key_goes() -> None:
    environ = OPENAI | {"OPENAI_ORG_ID": "org", "OPENAI_PROJECT_ID": "proj"}
    named = {"OpenAI-Organization": "org", "OpenAI-Project": "proj"}
    assert made(environ, model="m").headers == named | {"Authorization": f"Bearer {OPENAI_KEY}"}
    assert made(environ, model="m", project="p").headers["OpenAI-Project"] == "p"
    assert made(environ, url="ws://h", model="m", organization="o").headers == {"OpenAI-Organization": "o"}


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        (OPENAI, {"url": "https://api.openai.com.evil.example/v1"}),
        (OPENAI, {"url": "https://evil.example/v1"}),
        (OPENAI | {"OPENAI_BASE_URL": "http://mine/v1"}, {"url": "wss://other/v1"}),
        (OPENAI | {"OPENAI_BASE_URL": "http://[broken"}, {"url": "wss://other/v1"}),
        (AZURE, {"url": "https://evil.example/openai/v1"}),
        (AZURE, {"azure_endpoint": "https://gateway.example"}),
        ({"AZURE_OPENAI_API_KEY": AZURE_KEY}, {"azure_endpoint": "https://res.openai.azure.com.evil.example"}),
    ],
)
def test_a_key_of_the_environment_goes_to_no_foreign_host(environ: dict[str, str], target: dict[str, Any]) -> None:
    assert made(environ, model="m", **target).headers == {}


def test_a_key_of_the_environment_goes_to_no_other_resource() -> None:
    assert "no key for other.openai.azure.com" in wrong(
        AZURE, azure_endpoint="https://other.openai.azure.com", model="d"
    )
    gateway = {"AZURE_OPENAI_ENDPOINT": "https://gateway.example/x", "AZURE_OPENAI_API_KEY": AZURE_KEY}
    assert made(gateway, model="d").headers == {"api-key": AZURE_KEY}
    assert "OPENAI_API_KEY goes to the host of OPENAI_BASE_URL alone" in wrong(
        OPENAI | {"OPENAI_BASE_URL": "http://h"}, url="wss://api.openai.com", model="m"
    )


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "dialect", "headers"),
    [
        ("wss://h/v1", None, {"Authorization": "Bearer k"}),
        ("wss://h/v1", "beta", {"Authorization": "Bearer k", "OpenAI-Beta": "realtime=v1"}),
        ("wss://h/openai/v1", "ga", {"api-key": "k"}),
        (f"wss://h/openai/realtime?api-version={VERSION}&deployment=d", "beta", {"api-key": "k"}),
    ],
)
def test_key_and_dialect_go_into_the_headers(url: str, dialect: Dialect | None, headers: dict[str, str]) -> None:
    found = made(url=url, model="m", api_key="k", dialect=dialect)
    assert (found.headers, found.dialect) == (headers, dialect or "ga")


def test_headers_of_the_caller_win_whatever_their_case() -> None:
    found = made(
        OPENAI | {"OPENAI_ORG_ID": "o"}, model="m", headers={"authorization": "mine", "openai-organization": "x"}
    )
    assert found.headers == {"authorization": "mine", "openai-organization": "x"}
    asked = made(azure_endpoint=RESOURCE, model="d", token_provider=lambda: "t", headers={"Api-Key": "k"})
    assert asyncio.run(asked.headers_now()) == {"Api-Key": "k"}


def test_subprotocols_are_handed_on() -> None:
    assert made(url="ws://h", subprotocols=("realtime",)).subprotocols == ("realtime",)


def test_no_repr_shows_a_secret() -> None:
    target = Target(url="ws://h/v1?ticket=t0ps3cret", api_key="t0ps3cret", headers={"x": "t0ps3cret"})
    assert "t0ps3cret" not in repr(resolve(target, {}))
    assert "t0ps3cret" not in repr(Target(api_key="t0ps3cret", azure_ad_token="t0ps3cret", headers={"x": "t0ps3cret"}))
    assert repr(resolve(target, {})) == "Endpoint('ws://h/v1/realtime?ticket=***', dialect='ga', vendor='other')"


def test_a_url_is_shown_without_its_secrets() -> None:
    assert shown("wss://me:pw@h:1/v1/realtime?model=m&token=x&intent=sk-0123456789abcdefghij#f") == (
        "wss://h:1/v1/realtime?model=m&token=***&intent=***"
    )


# --- plain mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"azure_endpoint": f"{RESOURCE}/openai/deployments/voice/chat/completions?api-version=2024-10-21"},
         f"write azure_endpoint='{RESOURCE}', azure_deployment='voice'"),
        ({"azure_endpoint": f"{RESOURCE}/openai/v1/realtime"}, f"azure_endpoint='{RESOURCE}', or give it as url"),
        ({"azure_endpoint": f"{RESOURCE}/?api-version={VERSION}"}, "api_version=… apart"),
        ({"azure_endpoint": "https://r.services.ai.azure.com/api/projects/p"}, "'/api/projects/p' is no path"),
        ({"azure_endpoint": f"{RESOURCE}/openai/v1", "api_version": VERSION}, "refuses an api_version"),
        ({"azure_endpoint": RESOURCE, "api_version": "2024-10-21"}, "'2024-10-21' is no preview"),
        ({"azure_endpoint": RESOURCE, "api_version": "v1"}, "leave api_version out"),
        ({"azure_endpoint": RESOURCE, "api_version": VERSION, "dialect": "ga"}, "preview speaks the beta dialect"),
        ({"azure_endpoint": RESOURCE, "dialect": "beta"}, f"give api_version, for example '{VERSION}'"),
        ({"azure_endpoint": RESOURCE, "api_version": VERSION, "call_id": "rtc_1"}, "neither translation nor call_id"),
        ({"azure_endpoint": "res.openai.azure.com"}, "write https://res.openai.azure.com"),
        ({"azure_endpoint": "res"}, "'res' is no URL of an endpoint"),
        ({"url": "localhost:8080/v1"}, "write http://localhost:8080/v1"),
        ({"url": f"{RESOURCE}/openai/deployments/d?api-version={VERSION}"}, f"='d', api_version='{VERSION}'"),
        ({"url": f"{HOST}/openai/deployments/d/realtime"}, f"azure_endpoint='{RESOURCE}', azure_deployment='d'"),
        ({"model": "ws://127.0.0.1:8080/v1"}, "model looks like a URL; give it by name: url=…"),
        ({"model": OPENAI_KEY, "url": "ws://h"}, "model ('sk-…', 28 characters) looks like a key"),
        ({"dialect": "Beta"}, "dialect is 'ga', 'beta' or None, not 'Beta'"),
        ({"kind": "transcribe"}, "kind is 'conversation', 'transcription', 'translation'; not 'transcribe'"),
        ({"azure_endpoint": "http://res.openai.azure.com"}, "write https:// or wss://"),
        ({"azure_endpoint": RESOURCE, "url": "ws://h"}, "url and azure_endpoint contradict each other"),
        ({"azure_deployment": "d"}, "set AZURE_OPENAI_ENDPOINT"),
        ({"url": f"{GA}?api-version={VERSION}&model=d"}, "leave it out of the URL"),
        ({"url": f"{HOST}/openai/realtime?deployment=d"}, f"needs ?api-version={VERSION}"),
        ({"url": "https://portal.azure.com/#view/x"}, "is a page for people"),
        ({"url": "https://platform.openai.com/settings"}, "is a page for people"),
        ({"url": "http://api.openai.com/v1"}, "write https:// or wss://"),
        ({"url": "https://api.openai.com/realtime"}, "'/realtime' is no path"),
        ({"url": "https://api.openai.com/v1/chat/completions"}, "a session is opened at …/v1/realtime"),
        ({"url": "http://h/v1/realtime/client_secrets"}, "a session is opened at …/v1/realtime"),
        ({"url": f"wss://h/v1?api-key={AZURE_KEY}"}, "the URL has a key in its query (api-key=…)"),
        ({"url": f"wss://h/v1?x={OPENAI_KEY}"}, "the URL has a key in its query (x=…)"),
        ({"url": "wss://me:pw@h/v1"}, "has a user or a password in it"),
        ({"url": OPENAI_KEY}, "'sk-…', 28 characters is no URL"),
        ({"url": "ws://h", "kind": "translation", "dialect": "beta"}, "no beta dialect"),
        ({"url": "ws://h", "call_id": " "}, "call_id attaches"),
        ({"url": "ws://h", "call_id": "rtc_1", "kind": "transcription"}, "call_id attaches"),
        ({"api_key": OPENAI_KEY, "model": None}, 'name a model: "gpt-realtime"'),
        ({"azure_endpoint": RESOURCE, "api_key": AZURE_KEY, "model": None}, "name a deployment: azure_deployment=…"),
        ({"azure_endpoint": RESOURCE}, "no key for res.openai.azure.com"),
        ({}, "no key for api.openai.com: give api_key, or set OPENAI_API_KEY"),
    ],
)  # fmt: skip
def test_d1_a_plain_mistake_is_told_before_anything_is_dialled(target: dict[str, Any], said: str) -> None:
    assert said in wrong(**({"model": "m"} | target))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"api_key": AZURE_KEY}, "looks like a key of Azure"),
        ({"api_key": LONG_AZURE_KEY}, "looks like a key of Azure"),
        ({"api_key": OPENAI_KEY, "azure_endpoint": RESOURCE}, "looks like a key of OpenAI"),
        ({"api_key": TOKEN, "azure_endpoint": RESOURCE}, "looks like a token of Microsoft Entra"),
        ({"api_key": f"{OPENAI_KEY}\n"}, "(29 characters) has white space in it"),
        ({"api_key": f" {OPENAI_KEY}"}, "has white space in it"),
        ({"api_key": OPENAI_KEY.replace("-", "–")}, "a character that no key has"),
        ({"api_key": f"Bearer {OPENAI_KEY}"}, "give the key alone"),
        ({"api_key": ""}, "api_key is empty"),
        ({"api_key": OPENAI_KEY, "azure_ad_token": TOKEN, "azure_endpoint": RESOURCE}, "api_key and azure_ad_token"),
        (
            {"azure_ad_token": f"{TOKEN}\n", "azure_endpoint": RESOURCE},
            "azure_ad_token (35 characters) has white space",
        ),
    ],
)
def test_d1_a_key_that_cannot_be_right_is_told_and_not_shown(target: dict[str, Any], said: str) -> None:
    assert said in wrong(model="m", **target)


def test_d1_a_key_of_the_environment_is_checked_by_its_name() -> None:
    assert "OPENAI_API_KEY (29 characters) has white space" in wrong({"OPENAI_API_KEY": f"{OPENAI_KEY}\n"}, model="m")
    assert "AZURE_OPENAI_API_KEY ('sk-…', 28 characters)" in wrong(
        AZURE | {"AZURE_OPENAI_API_KEY": OPENAI_KEY}, model="m"
    )


def test_any_key_will_do_for_a_server_of_ones_own() -> None:
    for key in (AZURE_KEY, OPENAI_KEY, TOKEN):
        assert made(url="ws://127.0.0.1:8080", api_key=key).headers == {"Authorization": f"Bearer {key}"}
        assert made(azure_endpoint="http://127.0.0.1:8080", model="m", api_key=key).headers == {"api-key": key}


# --- on a server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "first"),
    [
        ({"api_key": OPENAI_KEY, "azure_deployment": "d"}, "session.created"),
        ({"api_key": OPENAI_KEY, "azure_deployment": "d", "api_version": VERSION}, "session.created"),
        ({"token_provider": lambda: OPENAI_KEY, "model": "d"}, "session.created"),
        ({"api_key": "other", "model": "d"}, "error"),
        ({"api_key": OPENAI_KEY, "kind": "transcription"}, "session.created"),
    ],
)
def test_d1_the_forms_of_azure_open_sessions_at_our_server(target: dict[str, Any], first: str) -> None:
    async def main() -> dict[str, Any]:
        settings = settings_of({"pipeline": "scripted", "port": 0, "api_keys": [OPENAI_KEY]})
        async with asyncio.timeout(20), running(settings) as server:
            found = made(azure_endpoint=server.url.removesuffix("/v1"), **target)
            wire = await dial(found.url, headers=await found.headers_now())
            said: dict[str, Any] = json.loads(await wire.receive())
            await wire.close()
            return said

    said = asyncio.run(main())
    assert said["type"] == first
    if first == "session.created":
        assert ("modalities" in said["session"]) == ("api_version" in target), "only beta has it flat"


# --- URLs that are none -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (" ", "the URL is empty"),
        ("127.0.0.1:8080", "write http://127.0.0.1:8080"),
        ("api.example/v1", "https://api.exa"),
    ],
)
def test_a_url_that_lacks_something_is_told_what(given: str, said: str) -> None:
    assert said in wrong(url=given, model="m")


@pytest.mark.parametrize(
    "given",
    ["ftp://host/v1", "wss:///v1/realtime", "host", "http://[::1/v1", "ws://host:99999/v1"],
)
def test_what_is_no_url_of_an_endpoint_is_refused(given: str) -> None:
    assert "is no URL of an endpoint" in wrong(url=given, model="m")
