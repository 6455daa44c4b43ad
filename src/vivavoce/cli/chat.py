"""`vivavoce chat`: a conversation in the terminal, written or spoken, with any endpoint or the embedded engines.

    keyboard, microphone → Chat → session → Story → page

The session is the public client; the story says what is shown, the page how. Whoever writes, speaks or presses Ctrl-C
interrupts the answer, which is then cut where it was heard last.
"""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vivavoce.client import Session, connect
from vivavoce.client.configuring import Part
from vivavoce.client.names import ConnectionChanged
from vivavoce.client.tools import Tool
from vivavoce.errors import ConnectionClosed, LocalProtocolError, ServerError, VivavoceError
from vivavoce.protocol import items
from vivavoce.protocol.base import given
from vivavoce.protocol.waterfall import HEADER

from .own_tools import own_tools
from .page import PlainPage, is_plain
from .story import Page, Story
from .voice import FileMicrophone, Voice, Wanted, open_voice
from .where import Where, reached

TRANSCRIBER = "whisper-1"
"""OpenAI's; other servers take any name."""
TICK_S = 0.05
TWICE_S = 2.0
"""Ctrl-C within this time of the last one ends the chat."""
ROOM_MS = 2_000
"""How long a file is followed by silence before nothing more is expected of it."""
IMAGE_BYTES_MAX = 20 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said."""

    where: Where
    is_spoken: bool = False
    voice: str | None = None
    file: Path | None = None
    microphone: int | str | None = None
    loudspeaker: int | str | None = None
    has_headphones: bool = False
    instructions: str | None = None
    tools: Path | None = None
    shows_waterfall: bool = False
    tape: Path | None = None


class Written(Page, Protocol):
    """A page on which one writes as well."""

    def asked(self) -> AsyncGenerator[str, None]:
        """What the user writes, line by line, until the input ends."""


async def chat(options: Options) -> int:
    """Hold the conversation until somebody ends it; 0 where that was the user."""
    if options.file is not None and not options.file.is_file():
        raise VivavoceError(f"--file {options.file}: there is no such file")
    tools = own_tools(options.tools) if options.tools is not None else []
    is_on_paper = is_plain()
    async with AsyncExitStack() as stack:
        wanted = Wanted(
            file=options.file,
            microphone=options.microphone,
            loudspeaker=options.loudspeaker,
            has_headphones=options.has_headphones,
        )
        # Devices first: what is wrong with them is better told before models have taken seconds to load.
        voice = await open_voice(wanted, stack) if options.is_spoken else None
        if not is_on_paper:
            import prompt_toolkit  # noqa: F401  # as is what is missing
        url = await stack.enter_async_context(reached(options.where.url, options.where.model, quiet=is_on_paper))
        call = Chat(options, voice, tools)
        page: Any = PlainPage()
        if not is_on_paper:
            from .prompt_page import PromptPage

            page = PromptPage(call.interrupt, tuple(COMMANDS))
        return await call.hold(url, page, waits=is_on_paper)


class Chat:
    """One conversation, from the first connection to the end."""

    def __init__(self, options: Options, voice: Voice | None, tools: list[Tool]) -> None:
        self.options, self.voice, self.tools = options, voice, tools
        self._clock = asyncio.get_running_loop().time
        self._attached: list[items.InputImage] = []
        self._last_interrupt_s = -TWICE_S
        self._is_over = asyncio.Event()
        self.story: Story
        self.session: Session

    async def hold(self, url: str, page: Written, *, waits: bool) -> int:
        """Until the input or the session ends; `waits`: one line after the other, each with its answer."""
        voice, where = self.voice, self.options.where
        self.story = Story(
            page,
            self._clock,
            ear=voice.ear if voice else None,
            mouth=voice.mouth if voice else None,
            tools={tool.definition.name for tool in self.tools},
        )
        self.story.shows_waterfall = self.options.shows_waterfall
        self.session = connect(
            where.model,
            url=url,
            api_key=where.api_key,
            dialect=where.dialect,
            headers={HEADER: "1"},
            player=voice.mouth if voice else None,
            tape=self.options.tape,
        )
        self._prepare()
        async with self.session:
            self.story.meter = self.session.meter
            self._greet()
            with self._interruptible():
                return await self._run(page, waits)

    def _prepare(self) -> None:
        """Everything that the session is to know when it opens."""
        session, options = self.session, self.options
        settings: dict[str, Any] = {"transcription": TRANSCRIBER} if self.voice else {"modality": "text"}
        if options.instructions is not None:
            settings["instructions"] = options.instructions
        if options.voice is not None:
            settings["voice"] = options.voice
        session.update_session(**settings)
        for tool in self.tools:
            session.add_tool(tool)
        session.on("conversation.interrupted", self._on_interrupted)
        session.on("error", lambda event: self.story.problem(event.error.message))
        session.on("connection.*", self._on_connection)

    def _greet(self) -> None:
        self.story.title = self.options.where.model
        if self.voice is not None:
            stated = self.session.session
            audio: Any = given(getattr(stated, "audio", None), None)
            output = given(getattr(audio, "output", None), None)
            name = given(getattr(output, "voice", None), None)
            self.story.title += f" · {name}" if isinstance(name, str) else ""
            for note in self.voice.notes:
                self.story.aside("note", note)
        how = "speak, or write" if self.voice else "write"
        self.story.aside("note", f"{self.story.title} · {how}; /help says what else; Ctrl-C twice ends")

    # --- while it runs ------------------------------------------------------------------------------------------------

    async def _run(self, page: Written, waits: bool) -> int:
        receiving = asyncio.ensure_future(self._receive())
        tasks: list[asyncio.Future[Any]] = [
            receiving,
            asyncio.ensure_future(self._is_over.wait()),
            asyncio.ensure_future(self._write(page, waits)),
            asyncio.ensure_future(self._tick()),
        ]
        if self.voice is not None:
            tasks.append(asyncio.ensure_future(self._speak(self.voice)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self.story.end()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return 1 if receiving in done and not self._is_over.is_set() else 0

    async def _receive(self) -> None:
        async for event in self.session:
            self.story.take(event)
        raise ConnectionClosed(1000, "the server has ended the session")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.story.tick()

    async def _speak(self, voice: Voice) -> None:
        sending = asyncio.ensure_future(self.session.send_audio(voice.ear, chunk_ms=20))
        try:
            if voice.file is None:
                await sending
                return
            answered = asyncio.ensure_future(self._answered(voice.file))
            try:
                await asyncio.wait((sending, answered), return_when=asyncio.FIRST_COMPLETED)
            finally:
                answered.cancel()
            if sending.done():
                await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _answered(self, file: FileMicrophone) -> None:
        """The file has been spoken, and nothing more comes of it."""
        while True:
            await file.room(ROOM_MS)
            await self.story.is_idle.wait()
            if self.story.is_idle.is_set():
                return

    async def _write(self, page: Written, waits: bool) -> None:
        async with aclosing(page.asked()) as asked:
            await self._obey(asked, waits)
        if waits and self.voice is not None and not self._is_over.is_set():
            await asyncio.Event().wait()  # who speaks need not write; the end of the speech is the end

    async def _obey(self, asked: AsyncGenerator[str, None], waits: bool) -> None:
        async for line in asked:
            try:
                await self._take(line.strip())
            except (VivavoceError, OSError, ValueError) as error:
                if isinstance(error, ConnectionClosed):
                    raise
                if not isinstance(error, ServerError):  # those are told as the events that they are
                    self.story.aside("problem", str(getattr(error, "strerror", None) or error))
            if self._is_over.is_set():
                return
            if waits:
                await self.story.is_idle.wait()

    async def _take(self, line: str) -> None:
        if line.startswith("/"):
            name, _, rest = line[1:].partition(" ")
            if name not in COMMANDS:
                raise LocalProtocolError(f"there is no /{name}; there are {', '.join(f'/{one}' for one in COMMANDS)}")
            await COMMANDS[name].run(self, rest.strip())
        elif line:
            if self.story.is_answering:
                self.session.interrupt()
            content: list[Part] = [*self._attached, line]
            self._attached = []
            self.session.send_user_message(content)
            self.story.wrote(line)

    # --- interruptions ------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Ctrl-C: once interrupts the answer, twice ends."""
        now = self._clock()
        if now - self._last_interrupt_s < TWICE_S:
            self._is_over.set()
            return
        self._last_interrupt_s = now
        if self.story.is_answering:
            self.session.interrupt()
        else:
            self.story.aside("note", "Ctrl-C once more ends")

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGINT, self.interrupt)
        except (NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _on_interrupted(self, event: object) -> None:
        self.story.interrupted()

    def _on_connection(self, event: ConnectionChanged) -> None:
        if event.what == "lost":
            self.story.lost()
            self.story.aside("problem", "the connection is lost; trying again")
        elif event.what in ("resumed", "restored"):
            self.story.aside("note", "connected again")
        if event.what in ("restored", "renewed") and self.voice is not None:
            self.voice.ear.begin_anew()

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _help(self, rest: str) -> None:
        for name, command in COMMANDS.items():
            self.story.aside("note", f"{f'/{name} {command.takes}'.strip():<20} {command.about}")

    async def _quit(self, rest: str) -> None:
        self._is_over.set()

    async def _voice(self, rest: str) -> None:
        await self.session.update_session(voice=_wanted(rest, "the name of a voice, for example /voice marin"))
        self.story.title = f"{self.options.where.model} · {rest}" if self.voice else self.story.title
        self.story.aside("note", f"the voice is {rest}")

    async def _instructions(self, rest: str) -> None:
        await self.session.update_session(instructions=_wanted(rest, "what the model is to do"))
        self.story.aside("note", "these are the instructions from now on")

    async def _image(self, rest: str) -> None:
        path = Path(os.path.expanduser(_wanted(rest, "the path of a picture")))  # noqa: ASYNC240 - no disk is asked
        picture = await asyncio.to_thread(path.read_bytes)
        kind = mimetypes.guess_type(path.name)[0] or ""
        if not kind.startswith("image/") or len(picture) > IMAGE_BYTES_MAX:
            raise ValueError(f"{path}: expected a picture of at most {IMAGE_BYTES_MAX >> 20} MiB")
        url = f"data:{kind};base64,{base64.b64encode(picture).decode()}"
        self._attached.append(items.InputImage(image_url=url))
        self.story.aside("note", f"{path.name} goes with what is written next")

    async def _usage(self, rest: str) -> None:
        meter = self.session.meter
        tokens = meter.total.tokens
        for what, into, cached, out in (
            ("text", tokens.text_in, tokens.text_cached, tokens.text_out),
            ("audio", tokens.audio_in, tokens.audio_cached, tokens.audio_out),
            ("image", tokens.image_in, tokens.image_cached, 0),
        ):
            if into or out:
                self.story.aside("note", f"{what:<5} {into:>9,} in ({cached:,} cached) {out:>9,} out")
        unpriced = f"; no price is known for {', '.join(sorted(meter.unpriced))}" if meter.unpriced else ""
        cost = f", ${meter.cost:.4f}" if meter.cost or not meter.unpriced else ""
        self.story.aside("note", f"{tokens.total:,} tokens{cost}{unpriced}")

    async def _waterfall(self, rest: str) -> None:
        self.story.shows_waterfall = not self.story.shows_waterfall
        self.story.aside("note", f"the waterfall is {'on' if self.story.shows_waterfall else 'off'}")

    async def _mute(self, rest: str) -> None:
        if self.voice is None:
            raise LocalProtocolError("nobody listens here; chat --voice does")
        self.voice.ear.is_muted = not self.voice.ear.is_muted
        self.story.aside("note", f"the microphone is {'off' if self.voice.ear.is_muted else 'on'}")

    async def _reset(self, rest: str) -> None:
        self.session.interrupt()
        for item in self.session.get_items():
            with suppress(ServerError):
                await self.session.delete_item(item.id)
        self.story.aside("note", "all that was said is forgotten")


@dataclass(frozen=True, slots=True)
class Command:
    """What a line that begins with / does."""

    run: Callable[[Chat, str], Awaitable[None]]
    about: str
    takes: str = ""


COMMANDS: Mapping[str, Command] = {
    "help": Command(Chat._help, "what there is"),
    "voice": Command(Chat._voice, "who answers", "NAME"),
    "instructions": Command(Chat._instructions, "what the model is to do", "TEXT"),
    "image": Command(Chat._image, "show a picture along with the next line", "PATH"),
    "usage": Command(Chat._usage, "tokens and cost so far"),
    "waterfall": Command(Chat._waterfall, "show or hide where the time of each turn goes"),
    "mute": Command(Chat._mute, "turn the microphone off or on"),
    "reset": Command(Chat._reset, "forget all that was said"),
    "quit": Command(Chat._quit, "end; so do Ctrl-D, and Ctrl-C twice"),
}


def _wanted(rest: str, what: str) -> str:
    if not rest:
        raise LocalProtocolError(f"expected {what}")
    return rest
