"""A page in a real browser that has a short-lived key and nothing else talks to a service through the relay.

The service is `serve --model scripted`, which demands a key; the relay, at its most talkative, has that key, the page's
backend one of the relay's. Everything that reaches the browser is kept, both legs' frames as Chromium's own protocol
tells them included, and searched for the keys in every form in which one could have got there.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from browser import Program, Server, any_page_at, serving, started
from playwright.async_api import Page, Response, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from vivavoce.server.hosting import Hosting, hosted, listening

SERVICE_KEY = "sk-proj-Vq7+Zt/4mWx0Lr8=Kd2Hy6Nc9Bf3Gs5Jp1"
BACKEND_KEY = "rk-Tb8+Yw/5nQz1Ms9=Le3Jx7Pd0Cg4Ht6Kr2"
OPERATOR_KEY = "op-Uc9+Xv/6oRa2Nt0=Mf4Kw8Qe1Dh5Ju7Ls3"
KEYS = (SERVICE_KEY, BACKEND_KEY, OPERATOR_KEY)
PAGE = Path(__file__).with_name("relay_page.html").read_text("utf-8")
PART_CHARS_MIN = 12
SECONDS_MAX = 180
FRAMES = ("webSocketWillSendHandshakeRequest", "webSocketHandshakeResponseReceived")
FRAMES += ("webSocketFrameReceived", "webSocketFrameSent", "webSocketFrameError", "webSocketClosed")


# --- what a key looks like that has got out ---------------------------------------------------------------------------


def forms(key: str) -> Iterator[tuple[str, str]]:
    """By name, what would show that a key, or half of it, is in a text."""
    middle = len(key) // 2
    for part, piece in (("", key), ("first half, ", key[:middle]), ("second half, ", key[middle:])):
        assert len(piece) >= PART_CHARS_MIN
        yield f"{part}raw", piece
        yield f"{part}escaped for JSON", json.dumps(piece)[1:-1].replace("/", "\\/")
        yield f"{part}percent-encoded", quote(piece, safe="")
        yield f"{part}hexadecimal", piece.encode().hex()
        for shift in range(3):  # where it begins decides how it is written; the ends depend on what stands beside it
            coded = b64encode(b"." * shift + piece.encode()).decode().rstrip("=")[(0, 2, 3)[shift] : -2]
            yield f"{part}base64", coded
            yield f"{part}base64 for URLs", coded.replace("+", "-").replace("/", "_")


def leaks(text: str, keys: tuple[str, ...] = KEYS) -> set[str]:
    """In which forms there is a key in this text."""
    lower = text.lower()  # hexadecimal and percent-encoding have two spellings
    return {name for key in keys for name, form in forms(key) if form.lower() in lower}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (f"Authorization: Bearer {SERVICE_KEY}", "raw"),
        (f"Incorrect API key provided: ***{SERVICE_KEY[-22:]}", "second half, raw"),
        (json.dumps({"a": SERVICE_KEY}).replace("/", "\\/"), "escaped for JSON"),
        (f"/v1/realtime?key={quote(SERVICE_KEY, safe='')}&model=m", "percent-encoded"),
        *((b64encode(f"{'x' * n}{SERVICE_KEY}:y".encode()).decode(), "base64") for n in range(4)),
        (SERVICE_KEY.encode().hex().upper(), "hexadecimal"),
    ],
)
def test_a_leak_would_be_found(text: str, form: str) -> None:
    assert form in leaks(text)
    assert not leaks(text.swapcase()[:11])


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with serving("scripted", "--api-key", SERVICE_KEY) as server:
        yield server


@contextmanager
def relay_to(service: Server, tapes: Path, key: str) -> Iterator[Program]:
    names = {
        "UPSTREAM_KEY": key,
        "API_KEYS": BACKEND_KEY,
        "ADMIN_KEYS": OPERATOR_KEY,
        "LOG_LEVEL": "debug",
        "MODEL": "scripted",
    }
    environment = {f"VIVAVOCE_RELAY_{name}": value for name, value in names.items()}
    environment |= {"PYTHONASYNCIODEBUG": "1", "OPENAI_API_KEY": key}
    arguments = ("relay", "--upstream", service.url + "v1", "--tapes", str(tapes))
    with started(Program(*arguments, ready="relaying ws://", environment=environment)) as relay:
        yield relay


@asynccontextmanager
async def site(relay: Program, seen: list[str]) -> AsyncIterator[str]:
    """The site of the page: the page, and a backend that has short-lived keys made for it."""

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE.replace("RELAY", relay.url.replace("http", "ws")))

    async def key(request: Request) -> JSONResponse:
        made = await asked(relay, "POST", "v1/realtime/client_secrets", BACKEND_KEY, seen)
        return JSONResponse({"value": made.json()["value"]})

    app = Starlette(routes=[Route("/", page), Route("/key", key, methods=["POST"])])
    with listening("127.0.0.1", 0) as listener:
        async with hosted(app, listener, Hosting(message_bytes_max=1, ping_s=None, stop_s=1)) as url:
            yield url


async def asked(relay: Program, method: str, path: str, key: str | None, seen: list[str]) -> httpx.Response:
    """An answer of the relay by HTTP, which is kept as well."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.request(method, relay.url + path, headers=headers, timeout=SECONDS_MAX)
    seen.append(f"{answer.headers} {answer.text}")
    return answer


@asynccontextmanager
async def watched(page: Page, seen: list[str]) -> AsyncIterator[None]:
    """Keep all that reaches the page, or that it has at the end."""
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    inside = await page.context.new_cdp_session(page)
    await inside.send("Network.enable")
    for name in FRAMES:
        inside.on(f"Network.{name}", lambda told: seen.append(json.dumps(told)))
    await page.reload()
    yield
    seen += [f"{await answer.all_headers()} {await answer.text()}" for answer in answers]
    seen.append(await page.content())
    stored = "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    seen.append(await page.evaluate(stored))


async def talk(relay: Program, name: str, ends: re.Pattern[str]) -> tuple[str, list[str]]:
    """Press the button and wait for this state; what the page shows then, and everything that was seen."""
    seen: list[str] = []
    async with site(relay, seen) as url, any_page_at(url, name) as page, watched(page, seen):
        await page.get_by_role("button", name="Talk").click()
        await expect(page.locator("#state")).to_have_text(ends)
        shown = await page.inner_text("body")
    for path, key in (("metrics", OPERATOR_KEY), ("metrics", None), ("healthz", None), ("v1/realtime", None)):
        await asked(relay, "GET", path, key, seen)
    return shown, seen


def test_a_page_with_a_short_lived_key_talks_and_no_other_key_is_anywhere(service: Server, tmp_path: Path) -> None:
    with relay_to(service, tmp_path, SERVICE_KEY) as relay:
        run = talk(relay, "relay", re.compile("completed, closed 1000"))
        shown, seen = asyncio.run(asyncio.wait_for(run, SECONDS_MAX))
    assert "echo: good morning" in shown
    assert int(shown.split()[-1]) > 48_000, "bytes of sound"
    everything = "\n".join(seen)
    for kind in ("session.created", "response.output_audio.delta", "vivavoce_relay_sessions_total", "101 Switching"):
        assert kind in everything, "it would not be found here either"
    (tape,) = tmp_path.iterdir()
    assert "response.done" in tape.read_text("utf-8")
    assert "has ended" in relay.said
    for text in (everything, tape.read_text("utf-8"), relay.said):
        assert not leaks(text)
    (short_lived,) = set(re.findall(r"ek_[\w.-]{20,}", json.dumps(seen)))
    assert not leaks(tape.read_text("utf-8") + relay.said, (short_lived,)), "not even the page's own key is kept"


def test_a_service_that_refuses_the_relays_key_shows_the_page_nothing_of_it(service: Server, tmp_path: Path) -> None:
    wrong = SERVICE_KEY[::-1]
    with relay_to(service, tmp_path, wrong) as relay:
        run = talk(relay, "refused", re.compile("closed 1014"))
        shown, seen = asyncio.run(asyncio.wait_for(run, SECONDS_MAX))
    assert "The service did not accept the key of the relay." in shown
    everything = "\n".join([*seen, relay.said, *(tape.read_text("utf-8") for tape in tmp_path.iterdir())])
    assert "upstream_refused" in everything
    assert not leaks(everything, (*KEYS, wrong))
