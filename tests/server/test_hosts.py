"""Where clients may send the server."""

from __future__ import annotations

import pytest

from vivavoce.errors import SettingsError
from vivavoce.server.hosts import HostRules, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "fec0::1",
    ],
)
def test_addresses_inside(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_addresses_outside(address: str) -> None:
    assert is_public(address)


def test_any_public_host() -> None:
    rules = HostRules(("*",))
    assert rules.may_admit("example.com", 443)
    assert rules.admits("example.com", 443, ["8.8.8.8"])
    assert not rules.admits("example.com", 443, ["8.8.8.8", "10.0.0.1"])


def test_listed_hosts_wherever_they_are() -> None:
    rules = HostRules(("Inside.Example", "[::1]:8000", "127.0.0.1:9000"))
    assert rules.admits("inside.example.", 80, ["10.0.0.1"])
    assert rules.admits("::1", 8000, ["::1"])
    assert rules.admits("127.0.0.1", 9000, ["127.0.0.1"])
    assert not rules.admits("127.0.0.1", 9001, ["127.0.0.1"])
    assert not rules.may_admit("example.com", 443), "not even asked for its address"


def test_none_at_all() -> None:
    assert not HostRules(())
    assert HostRules(("*",))


@pytest.mark.parametrize("entry", ["", "http://a", "a/b", "a:", "a:x", "a:0", "a:70000", "*.a", "a b", "a:²", ":80"])
def test_what_is_no_host(entry: str) -> None:
    with pytest.raises(SettingsError, match="allowed hosts"):
        HostRules((entry,))


@pytest.mark.parametrize("entry", ["::1", "[::1]", "fe80::1"])
def test_addresses_without_port(entry: str) -> None:
    assert HostRules((entry,)).may_admit(entry.strip("[]"), 1234)
