"""The phone as an app on real sockets: webhooks, streams, outgoing calls; and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from phone_house import House, ask
from starlette.applications import Starlette
from starlette.routing import Mount

import vivavoce
from vivavoce.bridge.phone import (
    Credentials,
    PhoneOptions,
    create_phone_app,
    place_call,
    served,
    sign,
    ticket_for,
    twiml,
)
from vivavoce.bridge.phone import app as app_module
from vivavoce.bridge.phone.app import FORM_BYTES_MAX
from vivavoce.bridge.phone.twilio import PARAMETER_CHARS_MAX, TICKET, is_signed
from vivavoce.errors import ConnectionClosed, ConnectionFailed, LocalProtocolError
from vivavoce.protocol.client_codec import Dialect
from vivavoce.testing.phone_call import PhoneCall, ring
from vivavoce.testing.real_server import RealServer
from vivavoce.transports.websocket import dial

TOKEN = "0123456789abcdef0123456789abcdef"
ACCOUNT = Credentials(account_sid="AC" + "a" * 32, auth_token=TOKEN)
SECONDS_MAX = 20
FORM = {"CallSid": "CA" + "1" * 32, "From": "+15550001111", "To": "+15552223333", "Direction": "inbound"}


def never(**how: Any) -> vivavoce.Session:
    raise AssertionError("nobody was to be connected")


@asynccontextmanager
async def phone_app(options: PhoneOptions, mounted: str = "") -> AsyncIterator[str]:
    """The app on a free port of loopback; its URL."""
    app = create_phone_app(options)
    outer = Starlette(routes=[Mount(mounted, app)]) if mounted else app
    async with asyncio.timeout(SECONDS_MAX), served(outer) as (host, port):
        yield f"http://{host}:{port}{mounted}"


async def post(url: str, form: Mapping[str, str] | str = FORM, signature: str | None = None) -> httpx.Response:
    headers = {} if signature is None else {"X-Twilio-Signature": signature}
    async with httpx.AsyncClient() as client:
        if isinstance(form, str):
            return await client.post(url, content=form, headers=headers)
        return await client.post(url, data=dict(form), headers=headers)


# --- whole calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mounted", "dialect"), [("", None), ("/phone", "beta")])
def test_a_call_from_the_webhook_to_the_answer(mounted: str, dialect: Dialect | None) -> None:
    """Over sockets all the way: the webhook, the stream, and the session with a server that is elsewhere."""

    async def main(server: RealServer) -> None:
        server.answers("Hello, caller.")

        def connect(**how: Any) -> vivavoce.Session:
            session = vivavoce.connect("any", url=server.url, api_key=server.api_key, dialect=dialect, **how)
            session.update_session(turn_detection={"type": "server_vad", "silence_duration_ms": 200})
            return session

        async with phone_app(PhoneOptions(connect=connect, auth_token=TOKEN), mounted) as url:
            async with await ring(f"{url}/incoming", auth_token=TOKEN) as phone:
                phone.say(ask())
                await phone.until(lambda: len(phone.heard) == len("Hello, caller.") * 60 * 8, SECONDS_MAX)
            async with httpx.AsyncClient() as client:
                while (await client.get(f"{url}/healthz")).json()["calls"]:  # noqa: ASYNC110 - over HTTP
                    await asyncio.sleep(0)

    with RealServer() as server:
        asyncio.run(main(server))


def test_beyond_the_limit_the_line_is_busy() -> None:
    async def main() -> None:
        house = House()
        options = PhoneOptions(connect=house.connect, calls_max=1)
        async with phone_app(options) as url, await ring(f"{url}/incoming") as phone:
            await phone.until(lambda: house.opened and house.opened[0].is_connected)
            busy = await post(f"{url}/incoming")
            assert ElementTree.fromstring(busy.text)[0].attrib == {"reason": "busy"}
            with pytest.raises(ConnectionFailed, match="busy"):
                await ring(f"{url}/incoming")
            further = await dial(url.replace("http", "ws") + "/media")
            async with PhoneCall(further, call_sid="CA" + "2" * 32) as second:
                await second.until(lambda: second.closed)
                assert second.closed is not None
                assert second.closed.code == 1013

    asyncio.run(main())


def test_a_call_has_one_stream() -> None:
    async def main() -> None:
        house = House()
        async with phone_app(PhoneOptions(connect=house.connect)) as url, await ring(f"{url}/incoming") as phone:
            await phone.until(lambda: house.opened and house.opened[0].is_connected)
            async with await ring(f"{url}/incoming") as again:
                await again.until(lambda: again.closed)
                assert again.closed is not None
                assert again.closed.code == 1013
            assert len(house.opened) == 1
            assert phone.closed is None

    asyncio.run(main())


def test_streams_that_say_nothing_take_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "OPENINGS_MAX", 2)

    async def main() -> None:
        house = House()
        async with phone_app(PhoneOptions(connect=house.connect, calls_max=1)) as url:
            media = url.replace("http", "ws") + "/media"
            silent = await dial(media)
            async with await ring(f"{url}/incoming") as phone:
                await phone.until(lambda: house.opened and house.opened[0].is_connected)
                another = await dial(media)
                too_many = await dial(media)
                with pytest.raises(ConnectionClosed) as closed:
                    await too_many.receive()
                assert closed.value.code == 1013
            for one in (silent, another, too_many):
                await one.close()

    asyncio.run(main())


# --- the webhook ------------------------------------------------------------------------------------------------------


def test_the_answer_connects_the_stream_with_what_is_known() -> None:
    async def main() -> None:
        public = "https://phone.example.org/here"
        async with phone_app(PhoneOptions(connect=never, auth_token=TOKEN, public_url=public)) as url:
            form = FORM | {"CallerName": 'A "B" <C> & co', "Other": "x"}
            answer = await post(f"{url}/incoming?a=1", form, sign(TOKEN, f"{public}/incoming?a=1", form.items()))
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/xml")
            assert TOKEN not in answer.text
            root = ElementTree.fromstring(answer.text)
            assert [one.tag for one in root] == ["Connect", "Hangup"]
            (stream,) = root[0]
            assert stream.get("url") == "wss://phone.example.org/here/media"
            parameters = {one.get("name"): one.get("value") for one in stream}
            assert parameters == {
                "from": "+15550001111",
                "to": "+15552223333",
                "direction": "inbound",
                "caller_name": 'A "B" <C> & co',
                TICKET: ticket_for(TOKEN, FORM["CallSid"]),
            }

    asyncio.run(main())


def test_without_its_signature_a_webhook_is_refused() -> None:
    async def main() -> None:
        public = "https://phone.example.org"
        async with phone_app(PhoneOptions(connect=never, auth_token=TOKEN, public_url=public)) as url:
            right = sign(TOKEN, f"{public}/incoming", FORM.items())
            for form, signature in (
                (FORM, None),
                (FORM, ""),
                (FORM, "nonsense"),
                (FORM | {"From": "+1"}, right),
                (FORM, sign("another token", f"{public}/incoming", FORM.items())),
                (FORM, sign(TOKEN, f"{public}/elsewhere", FORM.items())),
            ):
                refused = await post(f"{url}/incoming", form, signature)
                assert refused.status_code == 403
                assert "Stream" not in refused.text
            assert (await post(f"{url}/incoming", FORM, right)).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"From": "+1"}, 400),
        ("x=" + "y" * FORM_BYTES_MAX, 413),
        ("&".join(f"a{n}=1" for n in range(300)), 400),
        (b"\xff\xfe".decode("latin-1"), 400),
        ("", 400),
    ],
)
def test_what_is_no_webhook_is_refused(form: Any, status: int) -> None:
    async def main() -> None:
        async with phone_app(PhoneOptions(connect=never)) as url:
            assert (await post(f"{url}/incoming", form)).status_code == status

    asyncio.run(main())


def test_behind_a_proxy_the_url_is_the_one_that_twilio_knows() -> None:
    async def main() -> None:
        async with phone_app(PhoneOptions(connect=never, auth_token=TOKEN)) as url:
            signature = sign(TOKEN, "https://phone.example.org/incoming", FORM.items())
            headers = {
                "X-Twilio-Signature": signature,
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "phone.example.org",
            }
            async with httpx.AsyncClient() as client:
                answer = await client.post(f"{url}/incoming", data=FORM, headers=headers)
            assert 'url="wss://phone.example.org/media"' in answer.text

    asyncio.run(main())


@pytest.mark.parametrize(
    "url", ["phone.example.org", "wss://phone.example.org", "https://a@b.org", "https://b.org?x=1"]
)
def test_a_public_url_that_is_none(url: str) -> None:
    with pytest.raises(LocalProtocolError, match="public_url"):
        create_phone_app(PhoneOptions(connect=never, public_url=url))


# --- the signature ----------------------------------------------------------------------------------------------------


def test_the_published_example_of_a_signature() -> None:
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    form = [
        ("To", "+18005551212"),
        ("CallSid", "CA1234567890ABCDE"),
        ("From", "+12349013030"),
        ("Digits", "1234"),
        ("Caller", "+12349013030"),
    ]
    assert sign("12345", url, form) == "0/KCTR6DLpKmkAf8muzZqo1nDgQ="
    assert is_signed("12345", url, form, "0/KCTR6DLpKmkAf8muzZqo1nDgQ=")
    assert is_signed("12345", url.replace(".com/", ".com:443/"), form, "0/KCTR6DLpKmkAf8muzZqo1nDgQ=")
    assert is_signed("12345", url, form, sign("12345", url.replace(".com/", ".com:443/"), form))
    assert is_signed("12345", url.replace(".com/", ".com:8443/"), form, sign("12345", url, form))
    assert not is_signed("12345", url.replace("mycompany", "yours"), form, "0/KCTR6DLpKmkAf8muzZqo1nDgQ=")
    assert not is_signed("12345", url, form[1:], "0/KCTR6DLpKmkAf8muzZqo1nDgQ=")


def test_a_parameter_that_is_too_long_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    (stream,) = ElementTree.fromstring(twiml("wss://h/media", {"note": "ä" * 1_000}))[0]
    assert len(stream[0].get("value", "")) + len("note") < PARAMETER_CHARS_MAX
    assert "note" in caplog.text


# --- outgoing calls ---------------------------------------------------------------------------------------------------


class Twilio:
    """Twilio's end of an outgoing call, as a test double: notes what it is asked, answers what it is told to."""

    def __init__(self, status: int = 201, body: bytes = b'{"sid":"CA2"}') -> None:
        self.asked: list[tuple[str, Mapping[str, str], Sequence[str]]] = []
        self._answer = status, body

    async def post(self, url: str, form: Mapping[str, str], auth: tuple[str, str]) -> tuple[int, bytes]:
        self.asked.append((url, form, auth))
        return self._answer


def call(twilio: Twilio, **how: str) -> str:
    given = {"to": "+15550001111", "sender": "+15552223333", "webhook_url": "https://h.org/incoming"} | how
    to = given.pop("to")
    return asyncio.run(place_call(to, credentials=ACCOUNT, post=twilio.post, **given))


def test_an_outgoing_call_is_asked_for_with_our_webhook() -> None:
    twilio = Twilio()
    assert call(twilio) == "CA2"
    ((url, form, auth),) = twilio.asked
    assert url == f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT.account_sid}/Calls.json"
    assert form == {"To": "+15550001111", "From": "+15552223333", "Url": "https://h.org/incoming", "Method": "POST"}
    assert auth == (ACCOUNT.account_sid, TOKEN)


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (400, b'{"code":21211,"message":"The number is invalid"}', r"400, The number is invalid \(21211\)"),
        (401, f'{{"message":"no: {TOKEN}"}}'.encode(), r"401, no: \*\*\*"),
        (500, b"<html>", "500, no reason"),
        (200, b"{}", "200, no reason"),
    ],
)
def test_what_twilio_refuses_is_said_in_its_words_and_without_the_token(status: int, body: bytes, what: str) -> None:
    with pytest.raises(ConnectionFailed, match=what) as failed:
        call(Twilio(status, body))
    assert TOKEN not in str(failed.value)


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"to": "5551234"}, "to"),
        ({"sender": "+0"}, "sender"),
        ({"webhook_url": "h.org/incoming"}, "webhook_url"),
    ],
)
def test_what_cannot_be_called_is_said_before(how: dict[str, str], field: str) -> None:
    twilio = Twilio()
    with pytest.raises(LocalProtocolError, match=field):
        call(twilio, **how)
    assert not twilio.asked


def test_an_outgoing_call_over_http() -> None:
    """By httpx, to a server of our own in Twilio's place."""

    async def main() -> None:
        from starlette.requests import Request
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route

        seen: list[Any] = []

        async def calls(request: Request) -> Response:
            seen.append((request.headers["authorization"], (await request.body()).decode()))
            return JSONResponse({"sid": "CA3"}, 201)

        app = Starlette(routes=[Route(f"/Accounts/{ACCOUNT.account_sid}/Calls.json", calls, methods=["POST"])])
        async with served(app) as (host, port):
            how = {"sender": "+15552223333", "webhook_url": "https://h.org/incoming", "credentials": ACCOUNT}
            api = f"http://{host}:{port}"
            assert await place_call("+15550001111", api=api, **how) == "CA3"  # type: ignore[arg-type]
            assert seen[0][0].startswith("Basic ")
            assert "To=%2B15550001111" in seen[0][1]
        with pytest.raises(ConnectionFailed, match="cannot be reached") as failed:
            await place_call("+15550001111", api=api, **how)  # type: ignore[arg-type]
        assert TOKEN not in repr(failed.value)

    asyncio.run(main())


def test_credentials_come_from_the_environment_and_show_nothing() -> None:
    found = Credentials.of_environment({"TWILIO_ACCOUNT_SID": " AC1 ", "TWILIO_AUTH_TOKEN": TOKEN})
    assert (found.account_sid, found.auth_token) == ("AC1", TOKEN)
    assert TOKEN not in repr(found)
    with pytest.raises(LocalProtocolError, match="TWILIO_AUTH_TOKEN"):
        Credentials.of_environment({"TWILIO_ACCOUNT_SID": "AC1"})
