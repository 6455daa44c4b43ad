"""Keys and tokens before they are sent: what is plainly wrong with one, and where it may go.

A key of the environment goes only to the host that it belongs to. Pure, but for asking a provider of tokens. Invariant:
no text that is made here shows more of a key than its first three characters.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from vivavoce.errors import ConnectionFailed, LocalProtocolError

Vendor = Literal["openai", "azure", "other"]
TokenProvider = Callable[[], str | Awaitable[str]]
"""Gives a token of Microsoft Entra that is valid now. A function that is not `async` is called in a thread."""

KEY_PARAMETERS = frozenset({"api-key", "api_key", "apikey", "subscription-key"})
"""Query parameters that carry a key where somebody has put it into the URL."""

SHORT_LIVED = "ek_"

_AZURE_HOSTS = (
    ".openai.azure.com",
    ".cognitiveservices.azure.com",
    ".services.ai.azure.com",
    ".openai.azure.us",
    ".cognitiveservices.azure.us",
)
_LIKE_OPENAI = re.compile(r"sk-|ek_|sess-")
_LIKE_AZURE = re.compile(r"[0-9a-fA-F]{32}|[0-9A-Za-z]{84}")
_LIKE_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_NOT_IN_KEYS = re.compile(r"[^\x21-\x7e]")


def vendor_of(host: str) -> Vendor:
    """Whose host it is; only what is surely OpenAI's or Azure's is called that."""
    host = host.lower()
    if host == "api.openai.com" or host.endswith(".api.openai.com"):
        return "openai"
    return "azure" if host.endswith(_AZURE_HOSTS) else "other"


def is_like_a_key(text: str) -> bool:
    """Whether some text looks like somebody's key, so that it should not stand in a URL."""
    return len(text) >= 20 and _LIKE_OPENAI.match(text) is not None


def checked_key(key: str, name: str, host: str) -> str:
    """The key, if nothing is plainly wrong with it; `name` is where it was given. Raises `LocalProtocolError`."""
    vendor = vendor_of(host)
    _check_text(key, name)
    if vendor == "azure" and _LIKE_OPENAI.match(key) and not key.startswith(SHORT_LIVED):
        raise LocalProtocolError(
            f"{name} ({masked(key)}) looks like a key of OpenAI, and {host} is Azure's; use a key of the resource "
            "(Keys and Endpoint in its portal page)"
        )
    if vendor == "azure" and _LIKE_TOKEN.fullmatch(key):
        raise LocalProtocolError(
            f"{name} ({masked(key)}) looks like a token of Microsoft Entra; give it as azure_ad_token, or better a "
            "token_provider, which is asked anew at each connection"
        )
    if vendor == "openai" and _LIKE_AZURE.fullmatch(key):
        raise LocalProtocolError(
            f"{name} ({masked(key)}) looks like a key of Azure, and {host} is OpenAI's; give azure_endpoint to connect "
            "to Azure, or a key of OpenAI, which begins with 'sk-'"
        )
    return key


def checked_token(token: object, name: str) -> str:
    """The token, if it can be one. Raises `LocalProtocolError`."""
    if not isinstance(token, str):
        raise LocalProtocolError(f"{name} gave {type(token).__name__}; expected the token as str")
    _check_text(token, name)
    return token


def masked(key: str) -> str:
    """What may be said of a key: its first three characters, and its length."""
    return f"'{key[:3]}…', {len(key)} characters"


async def token_of(provider: TokenProvider) -> str:
    """A token that is valid now.

    Raises `ConnectionFailed` where the provider fails, `LocalProtocolError` for what is no token.
    """
    try:
        if inspect.iscoroutinefunction(provider):
            token: object = await provider()
        else:
            token = await asyncio.to_thread(provider)
            if inspect.isawaitable(token):
                token = await token
    except Exception as error:
        raise ConnectionFailed(
            f"token_provider gave no token: {type(error).__name__}: {error}; nothing was sent to the endpoint"
        ) from error
    return checked_token(token, "token_provider")


def from_environment(
    host: str, home: str | None, environ: Mapping[str, str], *, is_azure: bool
) -> tuple[str, str] | None:
    """The name and the value of the variable whose key or token belongs to this host.

    `home` is the host of `OPENAI_BASE_URL`, or OpenAI's own. Azure's variables belong to the host of
    `AZURE_OPENAI_ENDPOINT`, or where that is not set to any host of Azure; a token counts before a key.
    """
    names: list[str] = []
    if is_azure and _is_azures_own(host, environ):
        names += ["AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY"]
    if host == home:
        names.append("OPENAI_API_KEY")
    return next(((name, environ[name]) for name in names if environ.get(name)), None)


def without_key(host: str, home: str | None, environ: Mapping[str, str], *, is_azure: bool) -> str:
    """What to do where a vendor's host wants a key and there is none; and why one that is set was not sent."""
    name = "AZURE_OPENAI_API_KEY" if is_azure else "OPENAI_API_KEY"
    owner = "AZURE_OPENAI_ENDPOINT" if is_azure else "OPENAI_BASE_URL"
    if environ.get(name) and (is_azure or host != home):
        return f"no key for {host}: give api_key. {name} goes to the host of {owner} alone, which is another"
    also = "" if is_azure else ". A server of your own is url=…, and needs none"
    return f"no key for {host}: give api_key, or set {name}{also}"


def _is_azures_own(host: str, environ: Mapping[str, str]) -> bool:
    given = environ.get("AZURE_OPENAI_ENDPOINT")
    if not given:
        return vendor_of(host) == "azure"
    found = re.match(r"\w+://([^/?#:]+)", given)
    return found is not None and found[1].lower() == host


def _check_text(key: str, name: str) -> None:
    if not key:
        raise LocalProtocolError(f"{name} is empty; leave it out where no key is needed")
    if key.lower().startswith("bearer "):
        raise LocalProtocolError(f"{name} begins with 'Bearer'; give the key alone, the header is made of it")
    if _NOT_IN_KEYS.search(key):
        kind = "white space" if re.search(r"\s", key) else "a character that no key has"
        raise LocalProtocolError(
            f"{name} ({len(key)} characters) has {kind} in it; it was perhaps copied with too much"
        )
