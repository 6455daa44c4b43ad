"""Where to connect and with what: from what a user has in hand to a WebSocket URL and its headers (reference §1.1, §7).

`Target` is what was asked; `resolve` makes an `Endpoint` of it and of the environment, pure, so that every form of URL
is a line in a test. Plain mistakes are told here, before anything is dialled. Invariant: a key of the environment goes
to the host that it belongs to and to no other, and none is ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol.client_codec import Dialect

from .credentials import (
    KEY_PARAMETERS,
    SHORT_LIVED,
    TokenProvider,
    Vendor,
    checked_key,
    checked_token,
    from_environment,
    is_like_a_key,
    masked,
    token_of,
    vendor_of,
    without_key,
)

__all__ = ["OPENAI_URL", "Endpoint", "Kind", "Target", "TokenProvider", "resolve", "shown"]

OPENAI_URL = "https://api.openai.com/v1"
PREVIEW = "2025-04-01-preview"
"""The `api_version` that error messages name as an example."""

Kind = Literal["conversation", "transcription", "translation"]

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_SELECTORS = frozenset({"model", "deployment", "call_id", "intent"})
"""Query parameters that already say what session is meant."""
_SHOWN = _SELECTORS | {"api-version", "dialect"}
_PORTALS = frozenset(
    {"portal.azure.com", "ai.azure.com", "oai.azure.com", "platform.openai.com", "chatgpt.com", "openai.com"}
)
_REST = ("/sessions", "/transcription_sessions", "/client_secrets", "/calls", "/chat/completions", "/responses")
_PREVIEW_PATH, _GA_PATH = "/openai/realtime", "/openai/v1/realtime"

_SCHEMELESS = re.compile(r"(localhost|[\w-]+(?:\.[\w-]+)+)(?::\d+)?(?:/[\w/.-]*)?")
"""A host, a port and a path, and nothing else."""

Query = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What somebody wants to connect to; everything may be left out, then the environment says it.

    Without `url` it is OpenAI, or the base URL in `OPENAI_BASE_URL`. It is Azure where an `azure_…` argument or
    `api_version` says so, or where only Azure's variables are set: `AZURE_OPENAI_ENDPOINT`, but neither
    `OPENAI_API_KEY` nor `OPENAI_BASE_URL`. Where both vendors' are set and no argument decides, it is OpenAI.
    """

    model: str | None = None
    """Model or, at Azure, deployment. A transcription session names its model in its configuration instead."""
    url: str | None = None
    """A base URL or a whole one, ws(s) or http(s): self-hosted, a relay, either vendor."""
    api_key: str | None = field(default=None, repr=False)
    dialect: Dialect | None = None
    """None: what the URL speaks; beta at Azure's preview URL, else GA."""
    azure_endpoint: str | None = None
    """`https://RESOURCE.openai.azure.com`."""
    azure_deployment: str | None = None
    api_version: str | None = None
    """Azure's preview, in the beta dialect, where it is given; a variable `OPENAI_API_VERSION` counts if it says
    preview."""
    azure_ad_token: str | None = field(default=None, repr=False)
    token_provider: TokenProvider | None = field(default=None, repr=False)
    """Called at every connection; what it gives is sent as `Authorization: Bearer`."""
    organization: str | None = None
    project: str | None = None
    kind: Kind = "conversation"
    call_id: str | None = None
    """Attach to a running call."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers; they win over those that are made here."""
    subprotocols: tuple[str, ...] = ()
    """Offered to a server that insists on one."""


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """A WebSocket URL, and what opens it. Its repr may be logged."""

    url: str
    headers: Mapping[str, str]
    """All that stay the same; `headers_now` adds a provider's token."""
    dialect: Dialect = "ga"
    vendor: Vendor = "other"
    token_provider: TokenProvider | None = None
    subprotocols: tuple[str, ...] = ()
    is_call: bool = False
    """Whether it is called by WebRTC; `calling.py` makes the addresses of calls of the one of WebSockets."""

    async def headers_now(self) -> dict[str, str]:
        """The headers of one connection; asks the token provider, so call it at every one.

        Raises `ConnectionFailed` where the provider fails.
        """
        headers = dict(self.headers)
        if self.token_provider is not None:
            headers["Authorization"] = f"Bearer {await token_of(self.token_provider)}"
        return headers

    @property
    def has_credentials(self) -> bool:
        """Whether a key or a token is sent."""
        return self.token_provider is not None or _has_credentials(self.headers)

    def __repr__(self) -> str:
        return f"Endpoint({shown(self.url)!r}, dialect={self.dialect!r}, vendor={self.vendor!r})"


def resolve(target: Target, environ: Mapping[str, str]) -> Endpoint:
    """The endpoint that is meant. Raises `LocalProtocolError` for what cannot work, and says what to do.

    `environ` is read for `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID`,
    `AZURE_OPENAI_ENDPOINT`, `AZURE_OPENAI_API_KEY`, `AZURE_OPENAI_AD_TOKEN`, `AZURE_OPENAI_DEPLOYMENT` (or `…_NAME`)
    and `OPENAI_API_VERSION`. Where there is no key for a host that is neither vendor's, none is sent.
    """
    _reject_what_is_none(target)
    _reject_contradictions(target)
    site = _azure_site(target, environ)
    if site is None:
        parts, query = _whole_url(target, environ)
    else:
        parts, query = _azure_url(site, target, environ)
    host = (parts.hostname or "").lower()
    is_azure = site is not None or parts.path.startswith("/openai/")
    vendor: Vendor = "azure" if is_azure else vendor_of(host)
    dialect = _dialect(parts.path, target)
    headers, provider = _headers(target, environ, host, dialect, is_azure=is_azure)
    key = headers.get("Authorization", "")
    if vendor_of(host) != "other" and not _names(query) & _SELECTORS and SHORT_LIVED not in key:
        what = "a deployment: azure_deployment=…" if is_azure else 'a model: "gpt-realtime"'
        raise LocalProtocolError(f"{host} has to be told what to open a session with; name {what}")
    url = urlunsplit((_SCHEMES[parts.scheme], parts.netloc, parts.path, urlencode(query), ""))
    return Endpoint(url, headers, dialect, vendor, provider, target.subprotocols)


def shown(url: str) -> str:
    """A URL as it may be logged: no user and password, and the values of a query only where they say what is meant."""
    parts = urlsplit(url)
    query = [
        (name, value if name in _SHOWN and not is_like_a_key(value) else "***")
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="*"), ""))


# --- which vendor, which URL ------------------------------------------------------------------------------------------


def _reject_what_is_none(target: Target) -> None:
    if target.dialect not in (*get_args(Dialect), None):
        raise LocalProtocolError(f"dialect is 'ga', 'beta' or None, not {target.dialect!r}")
    if target.kind not in get_args(Kind):
        raise LocalProtocolError(f"kind is {', '.join(map(repr, get_args(Kind)))}; not {target.kind!r}")
    for name, value in (("model", target.model or ""), ("azure_deployment", target.azure_deployment or "")):
        if is_like_a_key(value):
            raise LocalProtocolError(f"{name} ({masked(value)}) looks like a key, and goes into the URL; give api_key")
        if "://" in value and target.url is None:
            raise LocalProtocolError(f"{name} looks like a URL; give it by name: url=…, or azure_endpoint=… for Azure")


def _reject_contradictions(target: Target) -> None:
    azure = [
        name for name in ("azure_endpoint", "azure_deployment", "api_version") if getattr(target, name) is not None
    ]
    if target.url is not None and azure:
        raise LocalProtocolError(
            f"url and {azure[0]} contradict each other; give azure_endpoint instead of url for Azure"
        )
    credentials = [
        name for name in ("api_key", "azure_ad_token", "token_provider") if getattr(target, name) is not None
    ]
    if len(credentials) > 1:
        raise LocalProtocolError(f"{' and '.join(credentials)} were given; one of them opens the connection")
    if target.call_id is not None and (not target.call_id.strip() or target.kind != "conversation"):
        raise LocalProtocolError(
            "call_id attaches to a running conversation: it is an id such as 'rtc_…', without kind"
        )
    version = target.api_version
    if version is not None and not version.endswith("-preview"):
        raise LocalProtocolError(
            f"api_version {version!r} is no preview, and only previews have a Realtime API by version, for example "
            f"{PREVIEW!r}; leave api_version out to use Azure's GA endpoint, which takes none"
        )


def _azure_site(target: Target, environ: Mapping[str, str]) -> SplitResult | None:
    """Azure's resource, if it is Azure and not a whole URL."""
    if target.url is not None:
        return _site_at_azure(target.url)
    given = environ.get("AZURE_OPENAI_ENDPOINT")
    if target.azure_endpoint is not None:
        return _parts(target.azure_endpoint)
    if target.azure_deployment or target.api_version or target.azure_ad_token:
        if not given:
            raise LocalProtocolError(
                "this is for Azure, but which resource is not said; give "
                "azure_endpoint='https://RESOURCE.openai.azure.com' or set AZURE_OPENAI_ENDPOINT"
            )
        return _parts(given)
    base = environ.get("OPENAI_BASE_URL")
    if given and not (base or environ.get("OPENAI_API_KEY") or is_like_a_key(target.api_key or "")):
        return _parts(given)
    return _site_at_azure(base) if base else None


def _site_at_azure(url: str) -> SplitResult | None:
    """The parts of a URL that names a resource of Azure, and no path of a session there."""
    parts = _parts(url)
    is_site = vendor_of(parts.hostname or "") == "azure" and "/realtime" not in parts.path
    return parts if is_site else None


def _azure_url(site: SplitResult, target: Target, environ: Mapping[str, str]) -> tuple[SplitResult, Query]:
    """Azure's URL: the preview one where a preview is asked for, else the GA one (reference §7)."""
    prefix = _azure_prefix(site, target)
    version = target.api_version
    variable = environ.get("OPENAI_API_VERSION", "")
    if version is None and variable.endswith("-preview") and target.dialect != "ga":
        version = variable
    query: Query = [] if version is None else [("api-version", version)]
    path = prefix + (_GA_PATH if version is None else _PREVIEW_PATH)
    if target.kind == "translation":
        path += "/translations"
    if version is not None and (target.kind == "translation" or target.call_id is not None):
        raise LocalProtocolError("Azure's preview has neither translation nor call_id; leave api_version out")
    deployment = (
        target.azure_deployment
        or target.model
        or environ.get("AZURE_OPENAI_DEPLOYMENT")
        or environ.get("AZURE_OPENAI_DEPLOYMENT_NAME")
    )
    return site._replace(path=path), _selected(query, target, deployment, "model" if version is None else "deployment")


def _azure_prefix(site: SplitResult, target: Target) -> str:
    """What stands before `/openai`: nothing at Azure itself, a path behind a gateway."""
    path, host = site.path.rstrip("/"), site.hostname or ""
    root = f"{site.scheme}://{site.netloc}"
    _reject_deployment(site, "azure_endpoint" if target.url is None else "the URL")
    if "/realtime" in path:
        raise LocalProtocolError(f"azure_endpoint is a whole address; write azure_endpoint={root!r}, or give it as url")
    if site.query:
        raise LocalProtocolError(
            f"azure_endpoint takes no query; write azure_endpoint={root!r}, and api_version=… apart"
        )
    if path.endswith("/openai/v1") and target.api_version is not None:
        raise LocalProtocolError(
            "/openai/v1 is Azure's GA endpoint, which refuses an api_version; leave one of them out"
        )
    prefix = path.removesuffix("/v1").removesuffix("/openai") if path.endswith(("/openai", "/openai/v1")) else path
    if prefix and vendor_of(host) == "azure":
        raise LocalProtocolError(f"{path!r} is no path of the Realtime API at {host}; write azure_endpoint={root!r}")
    return prefix


def _reject_deployment(site: SplitResult, said_in: str) -> None:
    """Where requests go at Azure, and sessions do not; the portal shows it all the same."""
    _, found, after = site.path.partition("/deployments/")
    if not found:
        return
    version = next((value for name, value in parse_qsl(site.query) if name == "api-version"), "")
    further = f", api_version={version!r}" if version.endswith("-preview") else ""
    raise LocalProtocolError(
        f"{said_in} is the whole address of a deployment, which takes no sessions; write "
        f"azure_endpoint='https://{site.netloc}', azure_deployment={after.partition('/')[0]!r}{further}"
    )


def _whole_url(target: Target, environ: Mapping[str, str]) -> tuple[SplitResult, Query]:
    """The URL that was given, completed to that of a WebSocket."""
    given = target.url or environ.get("OPENAI_BASE_URL") or OPENAI_URL
    parts = _parts(given)
    query: Query = parse_qsl(parts.query, keep_blank_values=True)
    path = parts.path.rstrip("/")
    host = (parts.hostname or "").lower()
    if vendor_of(host) == "azure":
        _reject_deployment(parts, "the URL")
    if not path:
        path = "/v1/realtime"
    if path.endswith(_REST):
        raise LocalProtocolError(f"{path!r} is a path for HTTP requests; a session is opened at …/v1/realtime")
    if "/realtime" not in path:
        path += "/realtime"
    if target.kind == "translation" and path.endswith("/realtime"):
        path += "/translations"
    if vendor_of(host) == "openai" and path not in ("/v1/realtime", "/v1/realtime/translations"):
        raise LocalProtocolError(
            f"{path!r} is no path of the Realtime API at {host}; write {OPENAI_URL!r}, or leave it out"
        )
    if path.startswith(_GA_PATH) and "api-version" in _names(query):
        raise LocalProtocolError(
            f"{_GA_PATH} is Azure's GA endpoint, which refuses an api-version; leave it out of the URL, or use "
            f"{_PREVIEW_PATH} for a preview"
        )
    if vendor_of(host) == "azure" and path.startswith(_PREVIEW_PATH) and "api-version" not in _names(query):
        raise LocalProtocolError(
            f"{_PREVIEW_PATH} is Azure's preview, which needs ?api-version={PREVIEW}&deployment=…; the GA endpoint is "
            f"{_GA_PATH}?model=…"
        )
    return parts._replace(path=path), _selected(query, target, target.model, "model")


def _selected(query: Query, target: Target, model: str | None, name: str) -> Query:
    """The query with what says which session is meant; what it says already stays (reference §1.1)."""
    if _names(query) & _SELECTORS:
        return query
    if target.call_id is not None:
        return [*query, ("call_id", target.call_id)]
    if target.kind == "transcription":
        return [*query, ("intent", "transcription")]
    return query if model is None else [*query, (name, model)]


def _dialect(path: str, target: Target) -> Dialect:
    is_azure, is_preview = path.startswith("/openai/"), path.endswith(_PREVIEW_PATH)
    if target.dialect == "ga" and is_preview:
        raise LocalProtocolError("Azure's preview speaks the beta dialect; leave out dialect, or api_version for GA")
    if target.dialect == "beta" and is_azure and not is_preview:
        raise LocalProtocolError(f"Azure's GA endpoint has no beta dialect; give api_version, for example {PREVIEW!r}")
    if target.dialect == "beta" and target.kind == "translation":
        raise LocalProtocolError("translation sessions have no beta dialect; leave dialect out")
    return target.dialect or ("beta" if is_preview else "ga")


# --- headers ----------------------------------------------------------------------------------------------------------


def _headers(
    target: Target, environ: Mapping[str, str], host: str, dialect: Dialect, *, is_azure: bool
) -> tuple[dict[str, str], TokenProvider | None]:
    """The headers, and who is to be asked for a token."""
    home = _home(environ)
    headers = {} if _has_credentials(target.headers) else _credentials(target, environ, host, home, is_azure=is_azure)
    has_own = _has_credentials(target.headers) or target.token_provider is not None
    if not headers and not has_own and vendor_of(host) != "other":
        raise LocalProtocolError(without_key(host, home, environ, is_azure=is_azure))
    if dialect == "beta" and not is_azure:
        headers["OpenAI-Beta"] = "realtime=v1"
    if not is_azure:
        at_home = environ if host == home else {}
        for name, value in (
            ("OpenAI-Organization", target.organization or at_home.get("OPENAI_ORG_ID")),
            ("OpenAI-Project", target.project or at_home.get("OPENAI_PROJECT_ID")),
        ):
            if value:
                headers[name] = value
    own = {name.lower() for name in target.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in own}
    return headers | dict(target.headers), None if _has_credentials(target.headers) else target.token_provider


def _credentials(
    target: Target, environ: Mapping[str, str], host: str, home: str | None, *, is_azure: bool
) -> dict[str, str]:
    """The header that a key or a token goes into; none where a provider will give it, or where there is none."""
    if target.token_provider is not None:
        return {}
    if target.azure_ad_token is not None:
        return {"Authorization": f"Bearer {checked_token(target.azure_ad_token, 'azure_ad_token')}"}
    if target.api_key is not None:
        found: tuple[str, str] | None = ("api_key", target.api_key)
    else:
        found = from_environment(host, home, environ, is_azure=is_azure)
    if found is None:
        return {}
    name, value = found
    if name == "AZURE_OPENAI_AD_TOKEN":
        return {"Authorization": f"Bearer {checked_token(value, name)}"}
    key = checked_key(value, name, host)
    return {"api-key": key} if is_azure and not key.startswith(SHORT_LIVED) else {"Authorization": f"Bearer {key}"}


def _has_credentials(headers: Mapping[str, str]) -> bool:
    return any(name.lower() in ("authorization", "api-key") for name in headers)


def _home(environ: Mapping[str, str]) -> str | None:
    """The host that `OPENAI_API_KEY` belongs to."""
    try:
        return urlsplit(environ.get("OPENAI_BASE_URL") or OPENAI_URL).hostname
    except ValueError:
        return None


def _names(query: Query) -> set[str]:
    return {name for name, _ in query}


# --- parts of a URL ---------------------------------------------------------------------------------------------------


def _parts(url: str) -> SplitResult:
    """The parts of a URL that may be one of an endpoint. Raises `LocalProtocolError`."""
    try:
        parts = urlsplit(url.strip())
        is_one = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port that is no number
        is_one = False
    if not is_one:
        raise LocalProtocolError(_no_url(url.strip()))
    host = (parts.hostname or "").lower()
    if host in _PORTALS:
        raise LocalProtocolError(
            f"{host} is a page for people; OpenAI's endpoint is {OPENAI_URL}, Azure's is shown there "
            "as 'Endpoint': https://RESOURCE.openai.azure.com"
        )
    if "@" in parts.netloc:
        raise LocalProtocolError("the URL has a user or a password in it, which is not sent; give api_key or headers")
    for name, value in parse_qsl(parts.query):
        if name.lower() in KEY_PARAMETERS or is_like_a_key(value):
            raise LocalProtocolError(
                f"the URL has a key in its query ({name}=…), and URLs are logged on their way; give it as api_key"
            )
    if vendor_of(host) != "other" and _SCHEMES[parts.scheme] == "ws":
        raise LocalProtocolError(
            f"{host} speaks TLS only, and a key would travel in the clear; write https:// or wss://"
        )
    return parts


def _no_url(url: str) -> str:
    if not url:
        return "the URL is empty; leave it out, or write for example http://127.0.0.1:8080/v1"
    said = masked(url) if is_like_a_key(url) else repr(url.partition("?")[0].rpartition("@")[2])
    guess = _SCHEMELESS.fullmatch(url)
    if guess is None:
        example = "http://127.0.0.1:8080/v1, wss://HOST/v1/realtime or https://RESOURCE.openai.azure.com"
        return f"{said} is no URL of an endpoint; expected for example {example}"
    scheme = "http" if guess[1] in ("localhost", "127.0.0.1") else "https"
    return f"{said} is a URL without its scheme; write {scheme}://{url}"
