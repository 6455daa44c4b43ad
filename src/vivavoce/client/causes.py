"""Why no connection came about: from what the network and the server say to a sentence that says what to do.

Stands between the transport, which knows what happened, and the user, who knows what was meant. Pure. Invariant: no
sentence shows a key or the query of a URL.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from ssl import SSLCertVerificationError, SSLError
from typing import overload
from urllib.parse import parse_qs, urlsplit

from vivavoce.errors import ConnectionClosed, ConnectionFailed, ServerError, VivavoceError

from .endpoint import Endpoint

PASSING_CODES = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1014})
"""Close codes after which another connection may well do."""
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_PASSING_ERRORS = frozenset({"rate_limit_exceeded", "session_expired", "server_error"})
_KEY_CODES = frozenset({"invalid_api_key", "missing_api_key"})
_MODEL_CODES = frozenset({"invalid_model", "model_not_found", "DeploymentNotFound"})

_NO_KEY = "no key was sent; give api_key, or set OPENAI_API_KEY, which goes to OpenAI or to the host of OPENAI_BASE_URL"

_BY_CODE: Mapping[str, str] = {
    "missing_model": 'name a model: connect("gpt-realtime")',
    "beta_api_shape_disabled": 'the endpoint has retired the beta dialect; leave out dialect="beta" and any header '
    "OpenAI-Beta",
    "session_kind_mismatch": "a short-lived key opens one kind of session only; ask for a key of this kind, or connect "
    "as the key was made for",
    "insufficient_quota": "the account has no credit left; see its billing page",
    "rate_limit_exceeded": "too much was asked for at once; wait, or raise the limit of the account",
    "session_expired": "a session may last no longer; open another",
}

_BY_CLOSE: Mapping[int, str] = {
    1001: "the server ends sessions after their longest duration, or when it shuts down; connect again",
    1002: "the two ends disagree about WebSocket; is something in between that changes messages?",
    1008: "the server does not allow this; see its log",
    1009: "a message was too big for the server; send audio in smaller pieces",
    1011: "the server has failed; see its log, or try again",
    1012: "the server restarts; connect again",
    1013: "the server is overloaded; try again later",
}

_BY_STATUS: Mapping[int, str] = {
    200: "something else answers at this address; check host, port and path",
    403: "this key may not use the model, or not from this network or country",
    404: "the address has no Realtime endpoint; a base URL mostly ends in /v1",
    405: "something else answers at this address; check host, port and path",
    407: "the proxy wants a user and a password: proxy='http://USER:PASSWORD@HOST:PORT'",
}

_GUESSED = re.compile(r"((?:HTTP|status) \d{3}[\w\s'-]*) \([^()]*\)(?=: |$)")
"""The guess that the transport makes from the status alone."""
_SAID = re.compile(r"HTTP \d{3}[\w\s'-]*(?: \([^()]*\)|\))?: (.*)", re.DOTALL)
"""What the server has said with a status."""


@overload
def explained(error: ConnectionFailed, endpoint: Endpoint) -> ConnectionFailed: ...
@overload
def explained(error: ServerError, endpoint: Endpoint) -> ServerError: ...
def explained(error: ConnectionFailed | ServerError, endpoint: Endpoint) -> ConnectionFailed | ServerError:
    """The same failure, with its likely cause in the message; itself, where there is nothing to add."""
    cause = cause_of(error, endpoint)
    if cause is None:
        return error
    said = _GUESSED.sub(r"\1", str(error), count=1).rstrip(". ")  # this one knows more
    message = f"{said}{'' if said.endswith('?') else '.'} Likely cause: {cause}"
    if isinstance(error, ServerError):
        refused = ServerError(message, type=error.type, code=error.code, param=error.param, event_id=error.event_id)
        refused.__cause__ = error.__cause__
        return refused
    failed = ConnectionFailed(message, status=error.status)
    failed.__cause__ = error.__cause__
    return failed


def cause_of(error: ConnectionFailed | ServerError | ConnectionClosed, endpoint: Endpoint) -> str | None:
    """What has probably gone wrong, and what to do; None where nobody can tell more than the error does."""
    if isinstance(error, ServerError):
        return _of_code(error.code, error.message, endpoint)
    if isinstance(error, ConnectionClosed):
        return _of_close(error, endpoint)
    if error.status is not None:
        return _of_status(error.status, str(error), endpoint)
    if isinstance(error.__cause__, ConnectionClosed):
        return _of_close(error.__cause__, endpoint)
    if " through proxy " in str(error):  # the transport knows of it, the endpoint does not
        return _of_proxy(error.__cause__)
    if " refused the WebSocket: " in str(error):
        return _BY_STATUS[200]
    return _of_network(error.__cause__ or error.__context__, endpoint)


def is_passing(error: VivavoceError) -> bool:
    """Whether trying again may help: not where the key, the address or the certificate is wrong."""
    if isinstance(error, ConnectionClosed):
        return error.code in PASSING_CODES
    if isinstance(error, ServerError):
        return error.code in _PASSING_ERRORS or error.type == "server_error"
    if not isinstance(error, ConnectionFailed):
        return False
    if error.status is not None:
        return error.status in PASSING_STATUS
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ConnectionClosed):
        return is_passing(cause)
    return isinstance(cause, OSError) and not isinstance(cause, SSLError)  # timeouts and unknown hosts are OSErrors too


# --- by what was said -------------------------------------------------------------------------------------------------


def _of_code(code: str | None, message: str, endpoint: Endpoint) -> str | None:
    if code in _KEY_CODES or (code is None and re.search(r"bearer|api.?key|authenti", message, re.IGNORECASE)):
        return _of_key(endpoint)
    if code in _MODEL_CODES:
        return _of_model(endpoint)
    return _BY_CODE.get(code or "")


def _of_close(closed: ConnectionClosed, endpoint: Endpoint) -> str | None:
    """Servers put the type and the code of their error into the reason (reference §1.5)."""
    code = closed.reason.rpartition(".")[2]
    if closed.code == 3000:
        return _of_key(endpoint)
    return _of_code(code, "", endpoint) or _BY_CLOSE.get(closed.code)


def _of_status(status: int, message: str, endpoint: Endpoint) -> str | None:
    if status == 401:
        return _of_key(endpoint)
    if endpoint.is_call and (cause := _of_call(status, message)) is not None:
        return cause
    if endpoint.vendor == "azure":
        if status == 404:
            return _of_model(endpoint)
        if status == 403:
            return (
                "the network rules of the resource keep this address out, or the identity of the token has no role "
                "'Cognitive Services OpenAI User' there"
            )
        if status == 429:
            return "the deployment's quota of tokens or requests is used up; wait, or raise it in the portal"
        if status == 400:
            return f"check the deployment ({_named(endpoint)}) and the api_version: not every model is in every preview"
    said = _SAID.search(message)
    if status == 404 and said is not None and re.search(r"model|deployment", said[1], re.IGNORECASE):
        return _of_model(endpoint)
    return _BY_STATUS.get(status)


def _of_call(status: int, message: str) -> str | None:
    said = message.partition("): ")[2] or message
    if status in (404, 405, 501) and not re.search(r"model|deployment", said, re.IGNORECASE):
        return "this server takes no calls by WebRTC; leave out transport='webrtc' to reach it by WebSocket"
    if status == 400 and "offer" in said.lower():
        return "something in between has changed the offer, or the two ends have no audio format in common"
    return None


def _of_key(endpoint: Endpoint) -> str:
    if not endpoint.has_credentials:
        if endpoint.vendor == "azure":
            return "no key was sent; give api_key, azure_ad_token or token_provider, or set AZURE_OPENAI_API_KEY"
        return _NO_KEY
    is_token = endpoint.token_provider is not None or "Authorization" in endpoint.headers
    if endpoint.vendor == "azure" and is_token:
        return (
            "the token is expired or of another scope than https://cognitiveservices.azure.com/.default, or its "
            "identity has no role 'Cognitive Services OpenAI User' on the resource"
        )
    if endpoint.vendor == "azure":
        return "the key is of another resource, or was renewed, or the resource takes tokens only (token_provider=…)"
    if endpoint.headers.get("Authorization", "").startswith("Bearer ek_"):
        return "a short-lived key ('ek_…') lives for minutes; ask for a fresh one just before connecting"
    if endpoint.vendor == "openai":
        return "the key was revoked, is of another project, or is not OpenAI's"
    return "this server does not know the key; a key of OpenAI counts at OpenAI only"


def _of_model(endpoint: Endpoint) -> str:
    if endpoint.vendor == "azure":
        return (
            f"the resource has no deployment {_named(endpoint)}, or it is of a model without Realtime API there; "
            "deployments are named in the portal, not by their model, and a new one takes some minutes"
        )
    return f"the endpoint does not know the model {_named(endpoint)}, or not for realtime sessions; check its name"


def _of_network(cause: BaseException | None, endpoint: Endpoint) -> str | None:
    parts = urlsplit(endpoint.url)
    match cause:
        case SSLCertVerificationError():
            return (
                "the server, or a proxy on the way, has a certificate of its own authority; trust that one: "
                "ssl=ssl.create_default_context(cafile='AUTHORITY.pem')"
            )
        case SSLError():
            return "the server speaks no TLS on this port; write ws:// or http:// for a server without it"
        case socket.gaierror() if endpoint.vendor == "azure":
            return "the name of the resource is not right, or it is not reachable from here: RESOURCE.openai.azure.com"
        case socket.gaierror():
            return (
                "the host is misspelt, or there is no network; behind a company's proxy give proxy='http://HOST:PORT'"
            )
        case ConnectionRefusedError() if parts.hostname in ("127.0.0.1", "localhost", "::1"):
            return f"the server is not running; start it with: vivavoce serve --port {parts.port or 80}"
        case ConnectionRefusedError():
            return "no server listens on this port, or a firewall is in between"
        case TimeoutError() if endpoint.vendor != "other":
            return "a firewall drops the connection; behind a company's proxy give proxy='http://HOST:PORT'"
        case ConnectionError() if parts.scheme == "ws":
            return "the server may want TLS; write wss:// or https://"
    return None


def _of_proxy(cause: BaseException | None) -> str | None:
    is_out_of_reach = isinstance(cause, OSError) and not isinstance(cause, SSLError)
    return "the proxy is not running there, or its address is misspelt" if is_out_of_reach else None


def _named(endpoint: Endpoint) -> str:
    """The model or the deployment as the URL has it."""
    query = parse_qs(urlsplit(endpoint.url).query)
    return next((repr(query[name][0]) for name in ("deployment", "model") if name in query), "of that name")
