"""Beginning a call by WebRTC: where the offer goes, in which form, what the server's refusals mean, and hanging up.

endpoint → `CallAddress` → offer by POST → answer → `PeerTransport` (reference §1.9.5–1.9.7). Needs the extra `webrtc`,
which is loaded when the first call is made. Invariants: an offer that comes to nothing leaves no connection behind; a
key goes to the endpoint's own host and into no message.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ssl import SSLCertVerificationError, SSLContext, SSLError
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from vivavoce.errors import ConnectionClosed, ConnectionFailed, EngineMissing, LocalProtocolError, RemoteProtocolError

from .credentials import SHORT_LIVED
from .endpoint import Endpoint
from .ice import IceServer
from .webrtc import PeerTransport

if TYPE_CHECKING:
    import httpx

    from vivavoce.transports.webrtc import Peer

INSTALL = 'pip install "vivavoce[webrtc]"'
HANG_UP_S_MAX = 2.0
"""Time for telling the server that the call is over."""
EXCERPT_CHARS_MAX = 300

_SCHEMES = {"ws": "http", "wss": "https"}
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_PREVIEW_PATH = "/openai/realtime"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallAddress:
    """Where calls of an endpoint begin."""

    url: str
    """For the offer as it is; the query says which session is meant."""
    calls_url: str
    """Under which a call has its own address."""
    session: Mapping[str, Any]
    """What the session is to be, where the offer goes in a form."""
    is_beta: bool = False

    @property
    def form_url(self) -> str:
        """For an offer in a form, which says by itself what is meant."""
        parts = urlsplit(self.url)
        query = [pair for pair in parse_qsl(parts.query) if pair[0] not in ("model", "intent")]
        return urlunsplit(parts._replace(query=urlencode(query)))

    @property
    def secrets_url(self) -> str:
        """Where short-lived keys are made."""
        return self.calls_url.removesuffix("/calls") + "/client_secrets"


def call_address(endpoint: Endpoint) -> CallAddress:
    """Where the calls of an endpoint begin. Raises `LocalProtocolError` for what no call can be."""
    parts = urlsplit(endpoint.url)
    query = dict(parse_qsl(parts.query))
    path = parts.path.rstrip("/")
    if "call_id" in query:
        raise LocalProtocolError("call_id attaches to a running call by WebSocket; leave out transport='webrtc'")
    if path.endswith("/translations"):
        raise LocalProtocolError("translation is not spoken by WebRTC here; leave out transport='webrtc'")
    if path.endswith(_PREVIEW_PATH):
        raise LocalProtocolError(
            "Azure's preview has no WebRTC at this address; leave out api_version to use its GA endpoint"
        )
    is_beta = endpoint.dialect == "beta"
    here = (_SCHEMES[parts.scheme], parts.netloc)
    calls_url = urlunsplit((*here, f"{path}/calls", "", ""))
    url = urlunsplit((*here, path if is_beta else f"{path}/calls", urlencode(query), ""))
    session = {"type": "transcription" if query.get("intent") == "transcription" else "realtime"}
    if model := query.get("model") or query.get("deployment"):
        session["model"] = model
    return CallAddress(url, calls_url, session, is_beta)


@dataclass(slots=True, kw_only=True)
class Calling:
    """Makes the calls of one session, one at every connection."""

    endpoint: Endpoint
    ssl: SSLContext | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    open_timeout_s: float
    ice_servers: Sequence[IceServer] = ()

    async def __call__(self, extra: Mapping[str, str]) -> PeerTransport:
        """Call, and wait until sound and events can flow. A `Dial`; `extra` headers are of WebSockets, and not sent.

        Raises `ConnectionFailed`, and `EngineMissing` without the extra.
        """
        address = call_address(self.endpoint)
        transport = PeerTransport(self.endpoint.dialect)
        peer = await self._peer(transport)
        try:
            offer = await peer.offer()
            answer, call_id = await self._exchange(address, offer)
            try:
                await peer.accept(answer)
            except RemoteProtocolError as error:
                raise ConnectionFailed(
                    f"{address.calls_url} accepted the call with what is no answer: {error}"
                ) from error
            hang_up = self._hanging_up(address, call_id)
            try:
                await self._be_connected(peer)
            except BaseException:
                await asyncio.shield(hang_up())
                raise
        except BaseException:
            await asyncio.shield(peer.close())
            raise
        transport.begin(peer, hang_up)
        return transport

    async def _peer(self, transport: PeerTransport) -> Peer:
        try:
            await asyncio.to_thread(_load)  # takes a second and more, the first time
        except ImportError as error:
            raise EngineMissing(f"calls by WebRTC need more packages ({error}): {INSTALL}") from error
        from vivavoce.transports.webrtc import IceServer as Server
        from vivavoce.transports.webrtc import Peer

        servers = [Server(server.url, server.username, server.credential) for server in self.ice_servers]
        is_local = urlsplit(self.endpoint.url).hostname in _LOCAL
        return Peer(hear=transport.hear, ice_servers=servers, with_loopback=is_local)

    async def _be_connected(self, peer: Peer) -> None:
        try:
            async with asyncio.timeout(self.open_timeout_s):
                await peer.connected.wait()
                await peer.channel.opened.wait()
        except TimeoutError:
            raise ConnectionFailed(f"{_UNREACHED} (nothing for {self.open_timeout_s:g} s)") from None
        if peer.state != "connected":
            raise ConnectionFailed(_UNREACHED) from ConnectionClosed(1006, peer.state)

    # --- over HTTP ----------------------------------------------------------------------------------------------------

    async def _exchange(self, address: CallAddress, offer: str) -> tuple[str, str]:
        """The answer to an offer, and the id of the call."""
        headers = await self.endpoint.headers_now()
        if self.endpoint.vendor == "azure" and not _is_short_lived(headers):
            headers = await self._short_lived(address, headers)
        headers["Accept"] = "application/sdp"
        if address.is_beta or _is_short_lived(headers):
            headers["Content-Type"] = "application/sdp"
            response = await self._post(address.url, headers, content=offer)
        else:
            form = {
                "sdp": (None, offer, "application/sdp"),
                "session": (None, msgspec.json.encode(address.session), "application/json"),
            }
            response = await self._post(address.form_url, headers, files=form)
        answer = response.text
        if not answer.startswith("v=0"):
            raise ConnectionFailed(f"{_where(address.url)} is no address of calls: it answered with no SDP")
        return answer, response.headers.get("Location", "").partition("?")[0].rstrip("/").rpartition("/")[2]

    async def _short_lived(self, address: CallAddress, headers: Mapping[str, str]) -> dict[str, str]:
        """Azure takes calls with short-lived keys only (reference §7); what makes one is the key that is here."""
        body = msgspec.json.encode({"session": address.session})
        made = await self._post(
            address.secrets_url, {**headers, "Content-Type": "application/json"}, content=body.decode()
        )
        try:
            value = str(made.json()["value"])
        except (ValueError, LookupError, TypeError) as error:
            raise ConnectionFailed(f"{_where(address.secrets_url)} made no short-lived key") from error
        own = {name: value for name, value in headers.items() if name.lower() not in ("authorization", "api-key")}
        return {**own, "Authorization": f"Bearer {value}"}

    def _hanging_up(self, address: CallAddress, call_id: str) -> Callable[[], Awaitable[None]]:
        """Tell the server that the call is over, where the key that is here may do that."""

        async def hang_up() -> None:
            if not call_id:
                return
            try:
                headers = await self.endpoint.headers_now()
                if not _is_short_lived(headers):
                    url = f"{address.calls_url}/{call_id}/hangup"
                    await self._post(url, headers, timeout_s=HANG_UP_S_MAX)
            except ConnectionFailed as error:
                if error.status != 404:  # it knows already
                    log.debug("hanging up: %s", error)

        return hang_up

    async def _post(
        self, url: str, headers: Mapping[str, str], timeout_s: float | None = None, **body: Any
    ) -> httpx.Response:
        """Raises `ConnectionFailed` for whatever is no success."""
        import httpx

        where, timeout_s = _where(url), timeout_s or self.open_timeout_s
        # In a thread, since it takes long; one of its own, since httpx sets what is spoken by it.
        verify: Any = self.ssl or (url.startswith("https") and await asyncio.to_thread(_system_trust))
        try:
            # Redirects are not followed, since the headers may carry a key.
            async with httpx.AsyncClient(verify=verify, proxy=self.proxy, trust_env=False, timeout=timeout_s) as http:
                async with asyncio.timeout(timeout_s):
                    response = await http.post(url, headers=dict(headers), **body)
        except TimeoutError:
            raise ConnectionFailed(f"{where} did not answer within {timeout_s:g} s") from TimeoutError()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failed = _unreachable(where, error)
            raise failed from failed.__cause__
        if response.is_success:
            return response
        status = response.status_code
        said = _excerpt(response.text)
        message = f"{where} refused the call (HTTP {status} {response.reason_phrase})" + (f": {said}" if said else "")
        raise ConnectionFailed(message, status=status)


_UNREACHED = (
    "the server took the call, but no way for sound was found to it: UDP does not get through a firewall, perhaps that "
    "of a company; name a TURN server with ice_servers=…, or leave out transport='webrtc'"
)


def _load() -> None:
    """Import what calls stand on."""
    import httpx  # noqa: F401

    import vivavoce.transports.webrtc  # noqa: F401


def _is_short_lived(headers: Mapping[str, str]) -> bool:
    return any(
        name.lower() == "authorization" and value.removeprefix("Bearer ").startswith(SHORT_LIVED)
        for name, value in headers.items()
    )


def _system_trust() -> SSLContext:
    import ssl

    return ssl.create_default_context()


def _unreachable(where: str, error: Exception) -> ConnectionFailed:
    """Why a server was not reached; the cause is the one that `causes` knows."""
    cause = _deepest(error)
    match cause:
        case SSLCertVerificationError():
            failed = ConnectionFailed(f"the certificate of {where} is not trusted: {cause.verify_message}")
        case SSLError():
            failed = ConnectionFailed(f"TLS with {where} failed: {cause.reason}; is TLS spoken there?")
        case socket.gaierror():
            failed = ConnectionFailed(f"the host of {where} was not found: {cause.strerror}")
        case ConnectionRefusedError():
            failed = ConnectionFailed(f"{where} refused the connection; is a server running there?")
        case _:
            failed = ConnectionFailed(f"cannot call {where}: {error}")
    failed.__cause__ = cause or ConnectionError(str(error))
    return failed


def _deepest(error: BaseException) -> OSError | None:
    """The error of the system that it began with."""
    found, at = None, [error]
    while at:
        one = at.pop()
        found = one if isinstance(one, OSError) else found
        inner = one.exceptions[:1] if isinstance(one, BaseExceptionGroup) else (one.__cause__ or one.__context__,)
        at += [other for other in inner if other is not None]
    return found


def _excerpt(text: str) -> str:
    """The message of an API error, or else the beginning of whatever it is."""
    try:
        message = msgspec.json.decode(text)["error"]["message"]
    except (msgspec.DecodeError, LookupError, TypeError):
        message = text.strip()
    return str(message)[:EXCERPT_CHARS_MAX]


def _where(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
