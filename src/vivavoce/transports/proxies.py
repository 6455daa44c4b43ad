"""What a proxy is written like; asked before anything is dialled through one.

Used by whatever opens connections, WebSocket or HTTP. Invariant: what cannot be taken is not shown, nor any part of it,
since without its scheme or with a stray character a password is not told from a host.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from vivavoce.errors import LocalProtocolError

__all__ = ["check_proxy"]

SCHEMES = ("http", "https", "socks4", "socks5")


def check_proxy(proxy: str | None) -> None:
    """Raises `LocalProtocolError` where it is not the URL of a proxy."""
    if proxy is None or _is_proxy(proxy):
        return
    raise LocalProtocolError(
        f"proxy is not the URL of a proxy: expected one of {', '.join(SCHEMES)} as its scheme, a host, and nothing "
        "after the port, as in 'http://USER:PASSWORD@HOST:PORT'; in USER and PASSWORD anything but letters and digits "
        "is percent-encoded. It is not shown here, as it may hold a password"
    )


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - which may not be a number
    except ValueError:
        return False
    if parts.path.strip("/") or parts.query or parts.fragment or url.count("@") > 1:
        return False  # a character of the password, most likely
    return parts.scheme in SCHEMES and bool(parts.hostname) and url.isascii() and url.isprintable() and " " not in url
