"""The settings of calls, and who is an operator."""

from __future__ import annotations

from typing import Any

import pytest
from test_auth import asked

from vivavoce.errors import SettingsError
from vivavoce.server.auth import Keys, Refusal
from vivavoce.server.settings import Secret, WebRtc, settings_of
from vivavoce.server.sources import load_settings


def test_calls_are_set_by_a_table_and_by_variables() -> None:
    settings = settings_of({"webrtc": {"peers_max": 3, "turn_server": "turns:t.example:5349", "turn_credential": "pw"}})
    assert (settings.webrtc.peers_max, settings.webrtc.setup_ms_max) == (3, WebRtc().setup_ms_max)
    assert "pw" not in repr(settings)
    environment = {"VIVAVOCE_WEBRTC__STUN_SERVER": "stun:s.example:3478", "VIVAVOCE_WEBRTC__AHEAD_MS_MAX": "5000"}
    assert load_settings(environment=environment).webrtc == WebRtc(
        stun_server="stun:s.example:3478", ahead_ms_max=5_000
    )
    assert load_settings(environment={"VIVAVOCE_ADMIN_KEYS": "a, b"}).admin_keys == (Secret("a"), Secret("b"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"webrtc": {"peers_max": -1}}, "webrtc.peers_max: Expected `int` >= 0"),
        ({"webrtc": {"setup_ms_max": 0}}, "webrtc.setup_ms_max: Expected `int` >= 1"),
        ({"webrtc": {"idle_ms_max": 0}}, "webrtc.idle_ms_max: Expected `int` >= 1"),
        ({"webrtc": {"ahead_ms_max": 10}}, "webrtc.ahead_ms_max: Expected `int` >= 1000"),
        ({"webrtc": {"stun_server": "s.example"}}, "webrtc.stun_server: expected 'stun:host:port'"),
        ({"webrtc": {"turn_server": "stun:s.example"}}, "webrtc.turn_server: expected 'turn:host:port'"),
        ({"webrtc": {"peers": 1}}, "webrtc: Object contains unknown field `peers`"),
        ({"admin_keys": [" "]}, "admin_keys[0]: a key cannot be empty"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_of(values)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("settings", "key", "origin", "status"),
    [
        ({}, None, None, None),
        ({}, None, "http://localhost:3000", None),
        ({}, None, "https://elsewhere.example", 403),
        ({"admin_keys": ["op"]}, "op", None, None),
        ({"admin_keys": ["op"]}, None, None, 403),
        ({"api_keys": ["sk"]}, "sk", None, 403),
        ({"api_keys": ["sk"]}, None, None, 401),
        ({"api_keys": ["sk"], "admin_keys": ["op"]}, "op", None, None),
        ({"api_keys": ["sk"], "admin_keys": ["op"]}, "sk", None, 403),
        ({"api_keys": ["sk"], "admin_keys": ["op"]}, "wrong", None, 401),
    ],
)
def test_operators_are_those_with_their_key_or_of_a_server_without_keys(
    settings: dict[str, Any], key: str | None, origin: str | None, status: int | None
) -> None:
    said = (("api-key", key), ("Origin", origin), ("Host", "127.0.0.1:8080"))
    headers = {name: value for name, value in said if value is not None}
    keys, client = Keys(settings_of(settings)), asked(headers=headers)
    if status is None:
        keys.check_operator(client)
    else:
        with pytest.raises(Refusal) as refused:
            keys.check_operator(client)
        assert refused.value.status == status


def test_a_name_that_only_dns_gives_this_machine_is_no_operator() -> None:
    with pytest.raises(Refusal):
        Keys(settings_of({})).check_operator(asked(headers={"Host": "rebound.example:8080"}))
