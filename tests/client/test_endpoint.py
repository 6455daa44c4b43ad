from __future__ import annotations

import pytest

from vivavoce.client.endpoint import endpoint, is_same_host
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol.codec import Dialect


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://api.openai.com/v1", "wss://api.openai.com/v1/realtime?model=m"),
        ("https://api.openai.com/v1/", "wss://api.openai.com/v1/realtime?model=m"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/realtime?model=m"),
        ("ws://127.0.0.1:8080/v1/realtime", "ws://127.0.0.1:8080/v1/realtime?model=m"),
        ("wss://host/v1/realtime?x=1", "wss://host/v1/realtime?x=1&model=m"),
        ("wss://host/v1/realtime?model=other", "wss://host/v1/realtime?model=other"),
        ("wss://host/v1/realtime?intent=transcription", "wss://host/v1/realtime?intent=transcription"),
        ("https://r.example/openai/v1", "wss://r.example/openai/v1/realtime?model=m"),
        (
            "wss://r.example/openai/realtime?api-version=2025-04-01-preview&deployment=d",
            "wss://r.example/openai/realtime?api-version=2025-04-01-preview&deployment=d",
        ),
        ("http://[::1]:8080/v1", "ws://[::1]:8080/v1/realtime?model=m"),
    ],
)
def test_every_form_of_url_leads_to_the_websocket(given: str, url: str) -> None:
    assert endpoint(given, model="m", api_key=None, dialect="ga").url == url


def test_a_model_is_quoted_and_may_be_left_out() -> None:
    assert endpoint("ws://h/v1", model="a b/c", api_key=None, dialect="ga").url == "ws://h/v1/realtime?model=a+b%2Fc"
    assert endpoint("ws://h/v1", model=None, api_key=None, dialect="ga").url == "ws://h/v1/realtime"


@pytest.mark.parametrize(
    "given",
    ["", "127.0.0.1:8080", "ftp://host/v1", "wss:///v1/realtime", "host", "http://[::1/v1", "ws://host:99999/v1"],
)
def test_what_is_no_url_of_an_endpoint_is_refused(given: str) -> None:
    with pytest.raises(LocalProtocolError, match="is no URL of an endpoint"):
        endpoint(given, model="m", api_key=None, dialect="ga")
    with pytest.raises(LocalProtocolError, match="is no URL of an endpoint"):
        is_same_host(given, "https://api.openai.com")


@pytest.mark.parametrize(
    ("url", "dialect", "headers"),
    [
        ("wss://h/v1", "ga", {"Authorization": "Bearer k"}),
        ("wss://h/v1", "beta", {"Authorization": "Bearer k", "OpenAI-Beta": "realtime=v1"}),
        ("wss://h/openai/v1", "ga", {"api-key": "k"}),
        ("wss://h/openai/realtime", "beta", {"api-key": "k"}),
    ],
)
def test_the_key_and_the_dialect_go_into_the_headers(url: str, dialect: Dialect, headers: dict[str, str]) -> None:
    assert endpoint(url, model="m", api_key="k", dialect=dialect).headers == headers


def test_headers_of_the_caller_win_and_no_key_shows_itself() -> None:
    target = endpoint("wss://h/v1", model="m", api_key="k", dialect="ga", headers={"Authorization": "mine", "x": "y"})
    assert target.headers == {"Authorization": "mine", "x": "y"}
    assert "mine" not in repr(target)


def test_hosts_are_compared_without_port_and_case() -> None:
    assert is_same_host("wss://API.openai.com:443/v1", "https://api.openai.com")
    assert not is_same_host("wss://api.openai.com.evil.example", "https://api.openai.com")
