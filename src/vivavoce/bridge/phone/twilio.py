"""Twilio besides its streams: what it is answered, whether it is really Twilio, and calls that begin here.

A webhook is signed over its URL and its parameters; the WebSocket that follows carries a ticket, which only the answer
to that webhook can have told it. Outgoing calls are asked for over HTTP and come back as webhooks, so that there is one
way. Invariant: the auth token is in no log, error, answer or repr.
"""

from __future__ import annotations

import base64
import hmac
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from xml.sax.saxutils import quoteattr

import msgspec

from vivavoce.errors import ConnectionFailed, LocalProtocolError

API: Final = "https://api.twilio.com/2010-04-01"
REQUEST_S_MAX: Final = 15.0
"""Time for Twilio to take an outgoing call."""
PARAMETER_CHARS_MAX: Final = 500
"""Name and value of one `<Parameter>`. Longer ones are cut, and logged."""
TICKET: Final = "vivavoce_ticket"
"""The parameter that says that a stream belongs to a webhook of ours."""

_NUMBER = re.compile(r"\+[1-9]\d{6,14}|sip:\S+|client:\S+")
_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}")

Post = Callable[[str, Mapping[str, str], tuple[str, str]], Awaitable[tuple[int, bytes]]]
"""Sends a form with basic authentication: URL, fields, (user, password) → status, body."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """An account at Twilio."""

    account_sid: str
    auth_token: str = field(repr=False)

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] = os.environ) -> Credentials:
        """`TWILIO_ACCOUNT_SID` and `TWILIO_AUTH_TOKEN`. Raises `LocalProtocolError` where one is missing."""
        for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"):
            if not environ.get(name, "").strip():
                raise LocalProtocolError(f"{name} is not set; Twilio's console shows it under 'Account Info'")
        return cls(account_sid=environ["TWILIO_ACCOUNT_SID"].strip(), auth_token=environ["TWILIO_AUTH_TOKEN"].strip())


# --- who is it --------------------------------------------------------------------------------------------------------


def sign(auth_token: str, url: str, form: Iterable[tuple[str, str]]) -> str:
    """`X-Twilio-Signature` of a request: HMAC-SHA1 over the URL and the sorted fields of its form, in base64."""
    fields = "".join(name + value for name, value in sorted(set(form)))
    return base64.b64encode(hmac.new(auth_token.encode(), (url + fields).encode(), sha1).digest()).decode()


def is_signed(auth_token: str, url: str, form: Sequence[tuple[str, str]], signature: str) -> bool:
    """Whether Twilio has sent this. Of ports it does not always sign what it has called."""
    signatures = [sign(auth_token, one, form) for one in _with_and_without_port(url)]
    return any(hmac.compare_digest(one.encode(), signature.encode()) for one in signatures)


def _with_and_without_port(url: str) -> tuple[str, ...]:
    parts = urlsplit(url)
    usual = {"https": 443, "wss": 443, "http": 80, "ws": 80}.get(parts.scheme)
    host, _, port = parts.netloc.partition(":") if not parts.netloc.startswith("[") else (parts.netloc, "", "")
    other = f"{host}:{usual}" if not port else host
    return url, urlunsplit(parts._replace(netloc=other))


def ticket_for(auth_token: str, call_sid: str) -> str:
    """What a stream of this call says to be let in."""
    return hmac.new(auth_token.encode(), b"vivavoce stream of " + call_sid.encode(), sha256).hexdigest()


# --- what it is answered ----------------------------------------------------------------------------------------------


def twiml(stream_url: str, parameters: Mapping[str, str]) -> str:
    """The answer to a webhook: connect the call to a stream in both directions, and hang up when that ends."""
    inner = "".join(_parameter(name, value) for name, value in parameters.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Response><Connect><Stream url={quoteattr(stream_url)}>{inner}</Stream></Connect><Hangup/></Response>"
    )


def _parameter(name: str, value: str) -> str:
    room = PARAMETER_CHARS_MAX - len(name) - 1
    if len(value) > room:
        log.warning("the parameter %s of a call is cut to %d characters", name, room)
    return f"<Parameter name={quoteattr(name)} value={quoteattr(value[:room])}/>"


# --- calls that begin here --------------------------------------------------------------------------------------------


async def place_call(
    to: str, *, sender: str, webhook_url: str, credentials: Credentials, post: Post | None = None, api: str = API
) -> str:
    """Call somebody; the SID of the call. Who picks up talks to the phone app at `webhook_url`.

    `to` and `sender` are numbers as +15551234567, or SIP addresses; `sender` is a number of the account. `post` sends
    the request, httpx where it is None. Raises `LocalProtocolError` for what cannot be called, `ConnectionFailed` with
    Twilio's own words where it refuses.
    """
    for name, number in (("to", to), ("sender", sender)):
        if not _NUMBER.fullmatch(number):
            raise LocalProtocolError(f"{name}: expected a number as +15551234567 or a SIP address, not {number!r}")
    if urlsplit(webhook_url).scheme not in ("https", "http") or not urlsplit(webhook_url).hostname:
        raise LocalProtocolError(f"webhook_url: expected https://HOST/…/incoming, not {webhook_url!r}")
    if not _ACCOUNT.fullmatch(credentials.account_sid):
        raise LocalProtocolError("account_sid: expected AC and 32 hexadecimal digits; is it an API key or a token?")
    url = f"{api}/Accounts/{credentials.account_sid}/Calls.json"
    form = {"To": to, "From": sender, "Url": webhook_url, "Method": "POST"}
    status, body = await (post or _post)(url, form, (credentials.account_sid, credentials.auth_token))
    told = _told(body)
    sid = told.get("sid")
    if not 200 <= status < 300 or not isinstance(sid, str):
        code = f" ({told['code']})" if "code" in told else ""
        message = str(told.get("message") or "no reason was given").replace(credentials.auth_token, "***")
        raise ConnectionFailed(f"Twilio does not place the call: {status}, {message}{code}", status=status)
    return sid


def _told(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


async def _post(url: str, form: Mapping[str, str], auth: tuple[str, str]) -> tuple[int, bytes]:
    import httpx

    try:
        async with httpx.AsyncClient(timeout=REQUEST_S_MAX) as client:
            answer = await client.post(url, data=dict(form), auth=auth)
    except httpx.HTTPError as error:
        raise ConnectionFailed(f"Twilio cannot be reached: {type(error).__name__}") from None
    return answer.status_code, answer.content
