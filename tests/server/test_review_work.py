"""Engine work that a session may have at once: counted in tasks, and in bytes of audio that wait to be transcribed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.messages import (
    EngineReport,
    JudgeTurn,
    Transcribe,
    TranscriptEnded,
    TranscriptFailed,
    TurnJudged,
    WordsHeard,
)
from vivavoce.engines.scripted import ScriptedSettings, scripted_pipeline
from vivavoce.protocol.config import McpTool
from vivavoce.protocol.items import McpListedTool
from vivavoce.server import work
from vivavoce.server.work import Work


def transcribe(item_id: str, size: int) -> Transcribe:
    return Transcribe(item_id, bytes(size), PCM16_24K)


def test_audio_that_waits_to_be_transcribed_is_limited_until_some_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "TRANSCRIPTION_BYTES_MAX", 10_000)

    async def main() -> None:
        reports: asyncio.Queue[EngineReport] = asyncio.Queue()
        busy = Work(scripted_pipeline(transcriber=ScriptedSettings(first_delay_s=3_600)), reports.put, "session")
        busy.transcribe(transcribe("one", 6_000))
        (first,) = busy._tasks
        busy.transcribe(transcribe("two", 6_000))
        refused = await reports.get()
        assert isinstance(refused, TranscriptFailed)
        assert (refused.item_id, refused.code) == ("two", "too_much_work")
        busy.transcribe(transcribe("three", 4_000))
        busy.cancel("one")
        await asyncio.wait((first,))
        busy.transcribe(transcribe("four", 6_000))
        for _ in range(20):
            await asyncio.sleep(0)
        assert reports.empty()
        await busy.end(1)

    asyncio.run(main())


def test_what_is_done_does_not_count() -> None:
    async def main() -> None:
        reports: asyncio.Queue[EngineReport] = asyncio.Queue()
        idle = Work(scripted_pipeline(), reports.put, "session")
        for item_id in ("one", "two", "three"):
            idle.transcribe(transcribe(item_id, work.TRANSCRIPTION_BYTES_MAX // 1_000))
            while not isinstance(await reports.get(), TranscriptEnded):
                pass
            await idle.end(1)
            assert idle._bytes == 0

    asyncio.run(main())


class Deaf:
    """A turn detector that never answers, and fails when it is cancelled for the second time."""

    rate_hz = 16_000

    async def warm_up(self) -> None:
        """Nothing to load."""

    async def judge(self, audio: bytes, transcript: str) -> float:
        """Never."""
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        raise RuntimeError("too late")

    async def close(self) -> None:
        """Nothing to free."""


def test_a_judgement_that_cannot_be_stopped_counts_as_undecided_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "JUDGEMENT_S_MAX", 0.01)

    async def main() -> None:
        reports: asyncio.Queue[EngineReport] = asyncio.Queue()
        pipeline = replace(scripted_pipeline(), turn_detector=Deaf())
        busy = Work(pipeline, reports.put, "session")
        busy.judge(JudgeTurn("item", 7, bytes(4_800), PCM16_24K))
        assert await asyncio.wait_for(reports.get(), 5) == TurnJudged("item", 7, None)
        reported = {task for task in busy._tasks if task.get_coro().__name__ != "_judgement"}  # type: ignore[union-attr]
        (left,) = busy._tasks - reported
        left.cancel()
        await asyncio.wait((left, *reported))
        assert not busy._tasks
        await busy.end(1)

    asyncio.run(main())


def test_words_of_a_turn_are_joined_while_nobody_takes_them_and_those_of_many_turns_are_limited() -> None:
    async def main() -> None:
        taking, reports = asyncio.Event(), []

        async def report(report: EngineReport) -> None:
            reports.append(report)
            await taking.wait()

        busy = Work(scripted_pipeline(), report, "session")
        for word in ("one", " two", " three"):
            busy._told("first", word, "")
        for number in range(work.WORDS_MAX):
            busy._told(f"turn {number}", "a", "")
            busy._told(f"turn {number}", "b", "")
        await asyncio.sleep(0)
        assert reports == [WordsHeard("first", "one")]
        taking.set()
        await busy.end(1)
        for _ in range(20):
            await asyncio.sleep(0)
        told = [(told.item_id, told.text) for told in reports if isinstance(told, WordsHeard)]
        assert told[:3] == [("first", "one"), ("first", " two three"), ("turn 0", "ab")]
        assert len(told) == work.WORDS_MAX

    asyncio.run(main())


class Abroad:
    """The MCP servers of a session, as a double that notes its end."""

    is_closed = False

    async def list_tools(self, server: McpTool) -> tuple[McpListedTool, ...]:
        raise NotImplementedError

    async def call(self, server: McpTool, name: str, arguments: str) -> str:
        raise NotImplementedError

    async def close(self) -> None:
        self.is_closed = True


def test_tool_servers_are_left_also_where_nobody_waits_for_the_engines_any_more() -> None:
    async def main() -> None:
        async def deaf(report: EngineReport) -> None:
            while not may_end.is_set():
                with suppress(asyncio.CancelledError):
                    await may_end.wait()

        servers, may_end = Abroad(), asyncio.Event()
        busy = Work(scripted_pipeline(), deaf, "session", servers)
        busy.transcribe(transcribe("one", 6_000))
        for _ in range(20):
            await asyncio.sleep(0)
        ending = asyncio.create_task(busy.end(3_600))
        await asyncio.sleep(0)
        was_closed = servers.is_closed
        ending.cancel()
        await asyncio.wait((ending,))
        may_end.set()
        assert (was_closed, servers.is_closed) == (False, True)

    asyncio.run(main())
