"""`vivavoce phone`: calls by Twilio as sessions with an endpoint, or with the embedded engines in this process.

Serves the app of `vivavoce.bridge.phone` until Ctrl-C; places a call; or holds one with a simulated phone, which needs
neither a telephone nor an account: through webhook, stream and session all the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import vivavoce
from vivavoce.audio import g711, wav
from vivavoce.audio.formats import ULAW_8K
from vivavoce.bridge.phone import Call, Credentials, PhoneOptions, create_phone_app, in_process, place_call, served
from vivavoce.client.sources import whole
from vivavoce.errors import SettingsError, VivavoceError
from vivavoce.protocol.base import UNSET
from vivavoce.server.auth import is_loopback
from vivavoce.server.serve import told_by_signals
from vivavoce.testing.phone_call import PhoneCall, Spell, ring

from . import screen
from .files import saving
from .where import Where

Connect = Callable[..., vivavoce.Session]

GOODBYE_S_MAX: Final = 20.0
"""Time for calls to end at Ctrl-C, with what was said heard."""
ANSWER_S_MAX: Final = 120.0
"""How long a simulated caller waits for an answer."""
SAID_S_MAX: Final = 120.0
"""The longest file that a simulated caller says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said."""

    where: Where
    instructions: str | None = None
    voice: str | None = None
    greeting: str | None = None
    format: Literal["pcmu", "pcma", "pcm"] = "pcmu"
    host: str = "127.0.0.1"
    port: int = 8081
    public_url: str | None = None
    calls_max: int = 100
    is_unchecked: bool = False
    call: str | None = None
    sender: str | None = None
    simulate: Path | None = None
    out: Path | None = None


async def phone(options: Options) -> int:
    """Answer calls until Ctrl-C, or hold the simulated one. The exit code. Raises `VivavoceError`."""
    token = None if options.simulate is not None or options.is_unchecked else _auth_token(options)
    if options.simulate is not None:
        speech = await _read(options.simulate)
        async with _endpoint(options) as connect:
            return await _simulate(options, connect, speech)
    async with _endpoint(options) as connect:
        return await _serve(options, connect, token)


async def _read(path: Path) -> bytes:
    """What a file says, as a phone says it."""
    try:
        return await whole(path, ULAW_8K, s_max=SAID_S_MAX)
    except OSError as error:
        raise VivavoceError(f"{path}: cannot be read: {error.strerror or error}") from None


def _auth_token(options: Options) -> str:
    token = os.environ.get("TWILIO_AUTH_TOKEN", "").strip()
    if not token:
        raise SettingsError(
            "TWILIO_AUTH_TOKEN is not set, so that nobody could tell Twilio from others; set it, or give --unchecked"
        )
    if options.call is not None and not options.sender:
        raise SettingsError("--from: who is calling? Give a number of yours, or set TWILIO_PHONE_NUMBER")
    return token


@asynccontextmanager
async def _endpoint(options: Options) -> AsyncIterator[Connect]:
    """What makes a session for each call."""
    where = options.where
    if where.url is not None:
        given = {"url": where.url, "api_key": where.api_key, "dialect": where.dialect}
        yield lambda **how: _configured(options, vivavoce.connect(where.model, **given, **how))  # type: ignore[arg-type]
        return
    from .embedded import embedded

    async with embedded(where.model) as server:
        dial = in_process(server.app, where.model)
        yield lambda **how: _configured(options, vivavoce.connect(dial=dial, **how))


def _configured(options: Options, session: vivavoce.Session) -> vivavoce.Session:
    session.update_session(
        instructions=UNSET if options.instructions is None else options.instructions,
        voice=UNSET if options.voice is None else options.voice,
    )
    return session


def _phone_options(options: Options, connect: Connect, token: str | None, public_url: str | None) -> PhoneOptions:
    return PhoneOptions(
        connect=connect,
        auth_token=token,
        public_url=public_url,
        format=options.format,
        greeting=options.greeting,
        tells_keys=True,  # nobody else is here to take them
        calls_max=options.calls_max,
    )


# --- real calls -------------------------------------------------------------------------------------------------------


async def _serve(options: Options, connect: Connect, token: str | None) -> int:
    if token is None and not is_loopback(options.host):
        raise SettingsError("--host: with --unchecked only this machine is let in; bind to 127.0.0.1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs URLs, and with them the account
    app = create_phone_app(_phone_options(options, connect, token, options.public_url))
    stopped = asyncio.Event()
    async with served(app, options.host, options.port) as (host, port):
        webhook = f"{(options.public_url or f'http://{host}:{port}').removesuffix('/')}/incoming"
        screen.say(f"answering; the voice webhook of the number is {webhook} (POST)")
        with told_by_signals(stopped.set):
            if options.call is not None:
                assert options.sender is not None
                sid = await place_call(
                    options.call,
                    sender=options.sender,
                    webhook_url=webhook,
                    credentials=Credentials.of_environment(),
                )
                screen.say(f"calling: {sid}")
            await stopped.wait()
            await _hang_up(app.state.calls)
    return 0


async def _hang_up(calls: set[Call]) -> None:
    """End what goes on, when it has been heard."""
    for call in tuple(calls):
        call.hang_up()
    try:
        async with asyncio.timeout(GOODBYE_S_MAX):
            while calls:  # noqa: ASYNC110 - a call that ends leaves the set, which tells nobody
                await asyncio.sleep(0.1)
    except TimeoutError:
        screen.note(f"{len(calls)} calls did not end and are cut")


# --- a simulated one --------------------------------------------------------------------------------------------------


class _Conversation:
    """What is said in the session of the simulated call."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.done = 0

    def connect(self, **how: Any) -> vivavoce.Session:
        """As the phone app wants it, with the words told as they come."""
        session = self._connect(**how)
        session.update_session(transcription="whisper-1")
        session.on(
            "conversation.item.input_audio_transcription.completed", lambda told: _speech("user", told.transcript)
        )
        session.on("response.output_audio_transcript.done", lambda told: _speech("assistant", told.transcript))
        session.on("response.done", self._count)
        session.on("error", lambda told: screen.note(told.error.message))
        return session

    def _count(self, told: Any) -> None:
        self.done += told.response.status == "completed" and bool(told.response.output)


def _speech(who: str, text: str) -> None:
    screen.speech(who, text.strip())


async def _simulate(options: Options, connect: Connect, speech: bytes) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    conversation, token = _Conversation(connect), secrets.token_hex(16)
    app = create_phone_app(_phone_options(options, conversation.connect, token, None))
    async with served(app) as (host, port):
        async with await ring(f"http://{host}:{port}/incoming", auth_token=token) as call:
            answers = 1
            if options.greeting is not None:
                await _answered(call, lambda: conversation.done >= 1)
                answers += 1
            call.say(speech)
            ended_s = await _said(call)
            await _answered(call, lambda: conversation.done >= answers)
        await _hang_up(app.state.calls)
    _tell(call.spells, ended_s)
    if options.out is not None:
        with saving(options.out):
            wav.write(options.out, g711.decode(b"".join(spell.audio for spell in call.spells), "ulaw"), ULAW_8K.rate_hz)
        screen.say(f"what was heard is in {options.out}")
    return 0


async def _said(call: PhoneCall) -> float:
    """Until the file is said; when that was."""
    await call.until(lambda: call.closed or not call.is_speaking)
    return asyncio.get_running_loop().time()


async def _answered(call: PhoneCall, is_done: Callable[[], bool]) -> None:
    """Until the answer has been heard. Raises `VivavoceError` where none comes, or the other side hangs up."""
    try:
        await call.until(lambda: call.closed or (is_done() and call.spells and not call.is_playing), ANSWER_S_MAX)
    except TimeoutError:
        raise VivavoceError(f"no answer came within {ANSWER_S_MAX:g} s; was there speech in the file?") from None
    if call.closed is not None and not is_done():
        raise VivavoceError("the call was ended before the answer; the lines above say why")


def _tell(spells: list[Spell], ended_s: float) -> None:
    after = [spell.began_s - ended_s for spell in spells if spell.began_s > ended_s]
    heard_s = sum(len(spell.audio) for spell in spells) / ULAW_8K.rate_hz
    soon = f", the answer from {after[0] * 1000:.0f} ms after the last word of the file on" if after else ""
    screen.say(f"heard {heard_s:.1f} s{soon}")
