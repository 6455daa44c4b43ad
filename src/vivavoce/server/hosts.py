"""Where this server may connect to because a client asked for it: its defence against being used to reach inside.

A client that names a URL has our server open the connection, from inside our network. `HostRules` decides by name
before anything is resolved, and by address afterwards; who connects must use the addresses that were checked, not the
name once more. Invariant: a host that is not listed by name is reached on public addresses only.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from vivavoce.errors import SettingsError

ANY_PUBLIC = "*"
"""Stands for every host, as long as all of its addresses are public ones."""

_ENTRY = re.compile(
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F.]*|[\w.-]+)(:(?P<port>[0-9]{1,5}))?"
)
"""A host, with or without a port; an IPv6 address goes without brackets where no port follows."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
"""What there is of the public Internet in IPv6; all the rest is reserved, for the inside of networks among others."""


class HostRules:
    """Hosts that may be reached: `*`, `host`, `host:port`, `[::1]:port`."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """Raises `SettingsError` for an entry that is none of these."""
        self._any_public = ANY_PUBLIC in hosts
        self._listed = {_entry(host) for host in hosts if host != ANY_PUBLIC}

    def __bool__(self) -> bool:
        return self._any_public or bool(self._listed)

    def admits(self, host: str, port: int, addresses: Sequence[str]) -> bool:
        """Whether a host that was resolved to these addresses may be reached."""
        return self._is_listed(host, port) or (self._any_public and all(is_public(address) for address in addresses))

    def may_admit(self, host: str, port: int) -> bool:
        """Whether it is worth resolving: names leave the house with the question for their address."""
        return self._any_public or self._is_listed(host, port)

    def _is_listed(self, host: str, port: int) -> bool:
        name = _plain(host)
        return (name, None) in self._listed or (name, port) in self._listed


def is_public(address: str) -> bool:
    """Whether an IP address, as text, belongs to the public Internet; one inside another counts like that other."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


def _entry(text: str) -> tuple[str, int | None]:
    found = _ENTRY.fullmatch(text)
    if found is None or not 0 < int(found["port"] or 1) < 65_536:
        raise SettingsError(
            f"allowed hosts: {text!r} is no host; write `host`, `host:port`, `[::1]:port`, or `*` for any public one."
        )
    return _plain(found["host"]), int(found["port"]) if found["port"] else None


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
