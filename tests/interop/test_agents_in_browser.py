"""`@openai/agents-realtime` in a browser, unmodified: its own bundle, its WebRTC transport, its microphone.

The page that uses it comes from another origin than the server, as a developer's own does. It gets a short-lived key
that was made for it, and nothing else of ours but the address.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import SHOWN_MS_MAX, any_page_at, heard, listen
from conversations import MODEL
from environments import HERE, install_npm
from heard import BYTES_PER_MS, CALL_REQUEST, CHARACTER_MS
from openai.types.realtime import RealtimeServerEvent
from playwright.async_api import Page, TimeoutError
from strictness import GA, Judge

from vivavoce.audio.levels import rms_db
from vivavoce.testing.sounds import silence, tone

pytestmark = pytest.mark.interop

SECONDS_MAX = 120
BUNDLE = "node_modules/@openai/agents-realtime/dist/bundle"
TURN = silence(4000) + tone(1000) + silence(12_000)
"""A turn that comes again every 17 s, so that a page that is slow to connect misses no more than the first."""
LONG_MS = 12_000
STORY = "Once there was a fox who lived by a river and he was hungry so he went out and nobody ever saw him again. " * 8
"""Longer than the microphone is silent, several times."""
PAGE = b"""<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,">
<audio id="loudspeaker" autoplay></audio><script type="module" src="/page.mjs"></script></html>"""


class Files(SimpleHTTPRequestHandler):
    """The page, its script, and the bundle."""

    def __init__(self, bundle: Path, *arguments: Any) -> None:
        self._bundle = bundle
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path != "/":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)
        return None

    def translate_path(self, path: str) -> str:
        folder = self._bundle if path.startswith("/bundle/") else HERE / "js"
        return str(folder / Path(path).name)

    def guess_type(self, path: Any) -> str:
        return "text/javascript"

    def log_message(self, *_: Any) -> None:
        """Nobody reads along."""


@pytest.fixture(scope="module")
def page_url() -> Iterator[str]:
    """The origin of the page."""
    bundle = install_npm().place / BUNDLE
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, bundle)) as files:
        serving = threading.Thread(target=files.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{files.server_port}/"
        finally:
            files.shutdown()
            serving.join()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, SECONDS_MAX))


@asynccontextmanager
async def session(page_url: str, server_url: str, name: str, microphone: bytes = silence(500)) -> AsyncIterator[Page]:
    """The page, with a session that is open. In the end every event must be as the types have it, and none an error."""
    url = f"{server_url.replace('ws://', 'http://')}/v1/realtime"
    async with httpx.AsyncClient() as http:
        made = await http.post(f"{url}/client_secrets", json={"session": {"type": "realtime", "model": MODEL}})
    async with any_page_at(page_url, f"agents-{name}", microphone, loops=True) as page:
        await page.wait_for_function("() => window.begin")
        await page.evaluate(
            "(how) => begin(how)", {"apiKey": made.json()["value"], "url": f"{url}/calls", "model": MODEL}
        )
        yield page
        told = await page.evaluate("() => told")
        await page.evaluate("() => session.close()")
    assert told["errors"] == []
    assert told["callId"].startswith("rtc_")
    assert "response.output_audio.delta" not in told["kinds"]
    Judge(RealtimeServerEvent, GA).check_all(told["wire"])


async def until(page: Page, condition: str, value: Any = None) -> None:
    """Wait until this holds, an expression over `told` and `value`."""
    try:
        await page.wait_for_function(f"(value) => {condition}", arg=value, timeout=SHOWN_MS_MAX)
    except TimeoutError:
        told = await page.evaluate("() => ({...told, wire: told.wire.slice(-3)})")
        raise AssertionError(f"waited in vain for {condition}: {told}") from None


async def until_kind(page: Page, kind: str, times: int = 1) -> None:
    await until(page, "told.kinds.filter((kind) => kind === value[0]).length >= value[1]", [kind, times])


async def until_said(page: Page, pattern: str, role: str = "assistant") -> str:
    """Wait until the history has a message like this; its words."""
    like = "([role, words]) => role === value[0] && new RegExp(value[1]).test(words)"
    await until(page, f"told.said.some({like})", [role, pattern])
    said: str = await page.evaluate(f"(value) => told.said.find({like})[1]", [role, pattern])
    return said


async def send(page: Page, text: str) -> None:
    await page.evaluate("(text) => session.sendMessage(text)", text)


def test_a_written_turn_is_spoken_and_kept_in_the_history(page_url: str, server_url: str) -> None:
    async def main() -> None:
        async with session(page_url, server_url, "written") as page:
            await listen(page)
            await send(page, "Good morning")
            await until_said(page, "^echo: Good morning$")
            await until_kind(page, "output_audio_buffer.stopped")
            sound = await heard(page)
            assert len(sound) > 500 * BYTES_PER_MS
            assert rms_db(sound) > -40
            said = await page.evaluate("() => told.said")
            assert said == [
                ["user", "Good morning", "completed"],
                ["assistant", "echo: Good morning", "completed"],
            ]

    run(main())


def test_a_function_is_called_in_the_page(page_url: str, server_url: str) -> None:
    async def main() -> None:
        async with session(page_url, server_url, "call") as page:
            await send(page, CALL_REQUEST)
            await until_said(page, "^tool said: 18 degrees in Paris$")
            await until_kind(page, "response.done", 2)
            assert await page.evaluate("() => told.tools") == ["18 degrees in Paris"]
            calls = await page.evaluate("() => session.history.filter((item) => item.type === 'function_call')")
            assert [(call["name"], call["status"]) for call in calls] == [("get_weather", "completed")]

    run(main())


def test_a_spoken_turn_is_understood_and_answered(page_url: str, server_url: str) -> None:
    async def main() -> None:
        async with session(page_url, server_url, "spoken", TURN) as page:
            asked = await until_said(page, r"^audio of \d+ ms$", "user")
            await until_said(page, f"^echo: {asked}$")
            await until_kind(page, "output_audio_buffer.stopped")
            assert 900 <= int(re.sub(r"\D", "", asked)) <= 2500

    run(main())


def test_who_speaks_up_stops_the_answer_where_it_was_heard(page_url: str, server_url: str) -> None:
    """Late enough for an item that does not fit into a message of the data channel, which the SDK then retrieves."""

    async def main() -> None:
        microphone = silence(LONG_MS) + tone(1000) + silence(LONG_MS)
        async with session(page_url, server_url, "barge-in", microphone) as page:
            await send(page, STORY)
            await until_kind(page, "output_audio_buffer.cleared")
            await until_said(page, r"^echo: audio of \d+ ms$")
            (cut,) = await page.evaluate("() => wire('conversation.item.truncated')")
            assert 0 < cut["audio_end_ms"] < len(STORY) * CHARACTER_MS
            kinds = await page.evaluate("() => told.kinds")
            assert kinds.index("input_audio_buffer.speech_started") < kinds.index("output_audio_buffer.cleared")
            assert (await page.evaluate("() => told.said"))[:2] == [
                ["user", STORY, "completed"],
                ["assistant", "", "incomplete"],  # the service takes away the words of what was cut
            ]

    run(main())


def test_the_page_stops_the_answer(page_url: str, server_url: str) -> None:
    async def main() -> None:
        async with session(page_url, server_url, "interrupt") as page:
            await send(page, STORY)
            await until_kind(page, "output_audio_buffer.started")
            await page.evaluate("() => session.interrupt()")
            await until_kind(page, "output_audio_buffer.cleared")
            await until_kind(page, "conversation.item.truncated")
            await until(
                page, "told.said.some(([role, words, status]) => role === 'assistant' && status === 'incomplete')"
            )
            await send(page, "Go on")
            await until_said(page, "^echo: Go on$")

    run(main())
