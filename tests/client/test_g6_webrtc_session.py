"""G6: a session by WebRTC has the API of one by WebSocket, with our own server over loopback, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

import vivavoce
import vivavoce.transports.webrtc  # before the clock runs: it takes seconds, the first time
from vivavoce.client.player import VirtualPlayer
from vivavoce.engines import Prompt
from vivavoce.protocol.base import given
from vivavoce.protocol.items import Message, OutputAudio, OutputText
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

SECONDS_MAX = 20.0
CHARACTER_MS = 60
VAD = {"type": "server_vad", "silence_duration_ms": 300}
WORDS = "It is sunny in Oslo."
STORY = "Once there was a fox who lived by a river. It was hungry, so it went out, and nobody ever saw it again."


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it; no task may be left behind."""

    async def clean() -> None:
        await asyncio.wait_for(main, SECONDS_MAX)
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left"

    asyncio.run(clean())


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What both ends import at their first call takes its time; no test is about that."""
    with RealServer() as server:

        async def main() -> None:
            async with session(server, open_timeout_s=60.0):
                pass

        asyncio.run(main())


@pytest.fixture
def server() -> Iterator[RealServer]:
    with RealServer() as server:
        yield server


def session(server: RealServer, **how: Any) -> vivavoce.Session:
    settings = {"url": server.url, "api_key": server.api_key, "transport": "webrtc", **how}
    return vivavoce.connect("gpt-realtime", **settings)


def read(prompt: Prompt, item_id: str) -> str:
    """The words of an item as the model has read them."""
    found = (item for item in prompt.items if isinstance(item, Message) and item.id == item_id)
    return "".join(
        part.text if isinstance(part, OutputText) else given(part.transcript, None) or ""
        for item in found
        for part in item.content
        if isinstance(part, OutputText | OutputAudio)
    )


def agree(one: str, other: str) -> bool:
    """Whether both are the same beginning, but for a word."""
    shorter, longer = sorted((one.split(), other.split()), key=len)
    return longer[: len(shorter)] == shorter and len(longer) - len(shorter) <= 1


def near(ms: float, expected: float, by: float) -> bool:
    return abs(ms - expected) <= by


# --- turns ------------------------------------------------------------------------------------------------------------


def test_g6_words_and_sound_come_side_by_side(server: RealServer) -> None:
    async def main() -> None:
        server.answers(WORDS)
        async with session(server, player=(player := VirtualPlayer(keep_s_max=10))) as one:
            response = await one.send_user_message("Hello")
            kinds = ["audio" if chunk.audio is not None else "words" async for item in response async for chunk in item]
            assert kinds[0] == "words"
            assert kinds[-1] == "audio"
            assert await response.text() == WORDS
            assert len(await response.audio()) / 48 > len(WORDS) * CHARACTER_MS - 100
            [_, view] = one.get_items()
            assert (view.text, view.is_truncated) == (WORDS, False)
            assert view.audio_ms > len(WORDS) * CHARACTER_MS - 100
            assert list(player.played) == [view.id]

    run(main())


def test_g6_every_event_is_iterated_in_order(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as one:
            await one.send_user_message("Hello")
            types = []
            async for event in one:
                if not types or types[-1] != event.type:
                    types.append(event.type)
                if event.type == "output_audio_buffer.stopped":
                    break
            begins = types.index("output_audio_buffer.started")
            assert types.index("response.content_part.added") < begins
            assert begins < types.index("response.output_audio.delta")
            assert types[-2:] == ["response.output_audio.delta", "output_audio_buffer.stopped"]

    run(main())


def test_g6_speech_is_heard_as_it_is_said_and_answered(server: RealServer) -> None:
    async def main() -> None:
        server.hears("What a day!")
        async with session(server) as one:
            await one.update_session(turn_detection=VAD, transcription="whisper-1")
            responses = one.responses()
            began_s = asyncio.get_running_loop().time()
            said_s = await one.send_audio(silence(300) + tone(1000) + silence(1000))
            assert near(said_s, 2.3, 0.001)
            assert asyncio.get_running_loop().time() - began_s > 1.9  # at the pace of the track
            response = await anext(responses)
            await response
            item = next(view for view in one.get_items() if view.role == "user")
            assert item.text == "What a day!"
            loud = len(item.audio.strip(b"\0")) / 48
            assert near(loud, 1000, 120), loud

    run(main())


def test_g6_a_turn_that_the_application_ends_has_all_of_its_audio(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as one:
            await one.update_session(turn_detection=None)
            await one.clear_audio()
            one.append_audio(tone(600))
            response = await one.create_response()
            text = await response.text()
            heard_ms = int("".join(filter(str.isdigit, text)))
            assert text == f"echo: audio of {heard_ms} ms"
            assert 600 <= heard_ms <= 1000

    run(main())


# --- barge-in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "plays"), [("voice", True), ("interrupt", False), ("cancel", True)])
def test_g6_what_was_heard_is_one_truth(server: RealServer, by: str, plays: bool) -> None:
    async def main() -> None:
        prompts: list[Prompt] = []

        def again(prompt: Prompt) -> str:
            prompts.append(prompt)
            return "Yes."

        server.answers(WORDS, STORY, again, again)
        player = VirtualPlayer() if plays else None
        async with session(server, player=player) as one:
            await one.update_session(turn_detection=VAD, transcription="whisper-1")
            await (await one.send_user_message("Hello")).audio()  # how fast is spoken here is learnt
            cut = asyncio.ensure_future(one.wait_for("conversation.item.truncated"))
            began = asyncio.ensure_future(one.wait_for("output_audio_buffer.started"))
            response = await one.send_user_message("Tell me a story")
            await began
            sound = 0
            async for item in response:
                async for piece in item.audio():
                    sound += len(piece)
                    if sound > 900 * 48:
                        break
                break
            if by == "voice":
                await one.send_audio(tone(500) + silence(600))
            elif by == "interrupt":
                one.interrupt()
            else:
                one.cancel_response()
            truncated = await cut
            view = one.get_item(truncated.item_id)
            assert view is not None
            assert view.is_truncated
            # Where the machine is busy the server has left time out, and more has come than was said.
            assert truncated.audio_end_ms - 150 <= view.audio_ms <= truncated.audio_end_ms
            assert len(await response.audio()) / 48 >= truncated.audio_end_ms - 150
            await (await one.send_user_message("Go on"))
            assert STORY.startswith(view.text)
            assert 0 < len(view.text) < len(STORY)
            # The server knows how long each phrase is; the client knows how fast it has spoken so far.
            assert agree(read(prompts[-1], view.id), view.text)
            assert not server.received("conversation.item.truncate")

    run(main())


def test_g6_what_is_cut_at_once_was_not_heard_at_all(server: RealServer) -> None:
    async def main() -> None:
        server.answers(STORY, "Yes.")
        async with session(server, player=VirtualPlayer()) as one:
            errors: list[Any] = []
            one.on("error", errors.append)
            response = await one.send_user_message("Tell me a story")
            one.interrupt()
            await response.done()
            assert len(await response.audio()) < 500 * 48
            assert await one.ask("Go on") == "Yes."
            assert errors == []

    run(main())


# --- tools, tapes, threads --------------------------------------------------------------------------------------------


def test_g6_tools_are_run_and_answered(server: RealServer) -> None:
    async def main() -> None:
        def weather(city: str) -> str:
            """The weather."""
            return f"sun in {city}"

        server.calls("weather", {"city": "Oslo"})
        server.answers(WORDS)
        one = session(server)
        one.add_tool(weather)
        async with one:
            assert await one.ask("How is it?") == WORDS
            assert [view.output for view in one.get_items() if view.output] == ["sun in Oslo"]

    run(main())


def test_g6_a_tape_has_both_sides(server: RealServer, tmp_path: Any) -> None:
    async def main() -> None:
        path = tmp_path / "call.tape"
        async with session(server, tape=path) as one:
            await one.update_session(turn_detection=None)
            one.append_audio(tone(200))
            await (await one.create_response()).audio()
        text = path.read_text()
        assert "input_audio_buffer.append" in text
        assert "response.output_audio.delta" in text

    run(main())


def test_g6_without_async(server: RealServer) -> None:
    from vivavoce.sync import connect

    server.answers(WORDS)
    with connect("gpt-realtime", url=server.url, api_key=server.api_key, transport="webrtc") as one:
        assert one.ask("Hello") == WORDS
