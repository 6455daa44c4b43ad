"""The authorities by which this machine believes a server: read once, and not while the event loop waits.

Used by whatever dials with TLS and was given no context of its own. To read them takes some 50 ms, in which a process
that speaks in other sessions would be silent. Invariant: what is believed is what the environment names now
(`SSL_CERT_FILE`, `SSL_CERT_DIR`); where that has changed, they are read anew.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading

__all__ = ["system_trust"]

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
"""What Python and OpenSSL look at when they make a context."""

_known: tuple[tuple[str | None, ...], ssl.SSLContext] | None = None
_reading = threading.Lock()


async def system_trust() -> ssl.SSLContext:
    """The context for clients that Python makes by default, one for all that dial: change nothing in it."""
    known = _there()
    return await asyncio.to_thread(_read) if known is None else known


def _there() -> ssl.SSLContext | None:
    return _known[1] if _known is not None and _known[0] == _environment() else None


def _read() -> ssl.SSLContext:
    """In a thread; whoever comes meanwhile waits for the first."""
    global _known
    with _reading:
        context = _there()
        if context is None:
            environment = _environment()
            context = ssl.create_default_context()
            _known = environment, context
        return context


def _environment() -> tuple[str | None, ...]:
    return tuple(map(os.environ.get, VARIABLES))
