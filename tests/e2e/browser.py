"""A real browser at the server's console: headless Chromium, with a file as its microphone and a recorder at its ear.

What cannot be had skips the test and says why: Chromium is a package of the system (`apt-get install chromium`), or the
variable `VIVAVOCE_CHROMIUM` names one. Of a test that fails, a trace is kept in `vivavoce-e2e` in the folder for
temporary files; `playwright show-trace FILE` opens it.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import av
import pytest
from playwright.async_api import Browser, Locator, Page, TimeoutError, async_playwright, expect

from vivavoce.audio import wav
from vivavoce.audio.resample import resample
from vivavoce.testing.sounds import silence

RATE_HZ = 24_000
START_S_MAX = 120
STOP_S_MAX = 15
READY = "vivavoce.server.serve: ready\n"
"""What it says once its engines are loaded."""
SHOWN_MS_MAX = 30_000
"""For whatever a page is expected to show: models are slow where others work, too."""
TRACES = Path(tempfile.gettempdir()) / "vivavoce-e2e"
SILENCE = silence(500)
"""Without a file Chromium's microphone hears beeps."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)

Started = TypeVar("Started", bound="Program")

expect.set_options(timeout=SHOWN_MS_MAX)


def chromium() -> str:
    """Where it is; skips the test where it is not."""
    found = os.environ.get("VIVAVOCE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)}; VIVAVOCE_CHROMIUM names another)")
    return found


# --- the server -------------------------------------------------------------------------------------------------------


class Program:
    """A command of `vivavoce` that listens, in a process of its own, which can be started again at the same port."""

    def __init__(self, *arguments: str, ready: str, environment: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self._ready = ready
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self._said: list[str] = []
        self._reading: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens; at a server, where the page is."""
        return f"http://127.0.0.1:{self._port}/"

    @property
    def said(self) -> str:
        """All that it has written to its output so far."""
        return "".join(self._said)

    def start(self) -> None:
        """Start, and wait until it is ready. Raises `RuntimeError` with what it said where it is not."""
        command = [sys.executable, "-m", "vivavoce", *self._arguments, "--port", str(self._port)]
        environment = {**os.environ, "NO_COLOR": "1", **self._environment}
        process = self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        alarm = threading.Timer(START_S_MAX, process.kill)
        alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            self._said.append(line)
            if found := re.search(r"ws://127\.0\.0\.1:(\d+)", line):
                self._port = int(found[1])
            if self._ready in line:
                break
        else:
            alarm.cancel()
            raise RuntimeError(f"it did not start: {self.said}")
        alarm.cancel()
        self._reading = threading.Thread(target=self._said.extend, args=(process.stdout,), daemon=True)
        self._reading.start()

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reading is not None:
            self._reading.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None


class Server(Program):
    """`vivavoce serve`."""

    def __init__(self, model: str, *arguments: str) -> None:
        super().__init__("serve", "--model", model, *arguments, ready=READY)


@contextmanager
def started(program: Started) -> Iterator[Started]:
    """A program for the length of the block."""
    try:
        program.start()
        yield program
    finally:
        program.stop()


def serving(model: str, *arguments: str) -> AbstractContextManager[Server]:
    """A server for the length of the block."""
    return started(Server(model, *arguments))


# --- the browser ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def browsing(microphone: bytes, *, loops: bool = False) -> AsyncIterator[Browser]:
    """A browser whose microphone hears this, PCM16 at 24 kHz, from the moment in which it is opened: once, or if it
    loops again and again, so that who comes too late to hear it hears it the next time.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "microphone.wav")
        wav.write(path, resample(microphone, RATE_HZ, 48_000), 48_000)
        arguments = [*ARGUMENTS, f"--use-file-for-fake-audio-capture={path}{'' if loops else '%noloop'}"]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium(), args=arguments)
            try:
                yield browser
            finally:
                await browser.close()


@asynccontextmanager
async def any_page_at(
    url: str,
    name: str,
    microphone: bytes = SILENCE,
    *,
    loops: bool = False,
    expects: tuple[str, ...] = (),
    **how: Any,
) -> AsyncIterator[Page]:
    """The page at this URL. It must end without an error in its console, but for those that are expected."""
    errors: list[str] = []

    def complain(text: str) -> None:
        if not any(expected in text for expected in expects):
            errors.append(text)

    async with browsing(microphone, loops=loops) as browser:
        context = await browser.new_context(permissions=["microphone"], **how)
        await context.tracing.start(screenshots=True, snapshots=True)
        page = await context.new_page()
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("console", lambda said: complain(said.text) if said.type == "error" else None)
        try:
            await page.goto(url)
            yield page
            assert not errors, errors
        except BaseException:
            TRACES.mkdir(exist_ok=True)
            await page.screenshot(path=TRACES / f"{name}.png")
            await context.tracing.stop(path=TRACES / f"{name}.zip")
            raise
        await context.tracing.stop()


@asynccontextmanager
async def page_at(url: str, name: str, microphone: bytes = SILENCE, **how: Any) -> AsyncIterator[Page]:
    """The console at this URL, as `any_page_at`; its states are watched, see `passed`."""
    async with any_page_at(url, name, microphone, **how) as page:
        await page.evaluate(WATCH)
        yield page


WATCH = """() => {
  const name = document.getElementById("state-name");
  window.statesSeen = [name.textContent];
  new MutationObserver(() => window.statesSeen.push(name.textContent))
    .observe(name, {childList: true, characterData: true, subtree: true});
}"""


async def passed(page: Page, *states: str) -> None:
    """Wait until the page has been in these states, one after the other, however short each was."""
    script = """(wanted) => {
      let at = 0;
      for (const seen of window.statesSeen) if (seen === wanted[at]) at += 1;
      return at >= wanted.length;
    }"""
    try:
        await page.wait_for_function(script, arg=list(states), timeout=SHOWN_MS_MAX)
    except TimeoutError:
        seen = await page.evaluate("() => window.statesSeen")
        raise AssertionError(f"expected {' → '.join(states)}, saw {' → '.join(seen)}") from None


def entries(page: Page, who: str) -> Locator:
    """What was said by `user` or `assistant`, as the page shows it."""
    return page.locator(f"#conversation > .said.{who}")


async def write(page: Page, text: str) -> None:
    """Send a message by the field for it."""
    await page.get_by_label("Message", exact=True).fill(text)
    await page.get_by_role("button", name="Send").click()


# --- what the page's loudspeaker gets ---------------------------------------------------------------------------------

RECORD = """() => {
  const pieces = [];
  const voice = document.getElementById("loudspeaker").srcObject;
  const recorder = new MediaRecorder(voice, {mimeType: "audio/webm;codecs=opus"});
  recorder.addEventListener("dataavailable", ({data}) => pieces.push(data));
  window.heardByTheTest = async () => {
    const over = new Promise((resolve) => recorder.addEventListener("stop", resolve, {once: true}));
    recorder.stop();
    await over;
    const bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text);
  };
  recorder.start();
}"""


async def listen(page: Page) -> None:
    """Record the voice of the call from now on."""
    await page.wait_for_function('() => document.getElementById("loudspeaker").srcObject?.getAudioTracks().length')
    await page.evaluate(RECORD)


async def heard(page: Page) -> bytes:
    """What was recorded, PCM16 at 24 kHz."""
    recorded = base64.b64decode(await page.evaluate("() => window.heardByTheTest()"))
    resampler = av.AudioResampler("s16", "mono", RATE_HZ)
    with av.open(io.BytesIO(recorded)) as file:
        pieces = [piece for frame in file.decode(audio=0) for piece in resampler.resample(frame)]
    return b"".join(bytes(piece.planes[0])[: 2 * piece.samples] for piece in pieces)
