"""The console in a real browser, against scripted engines: every way to talk, look inside and recover."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from browser import Server, entries, heard, listen, page_at, passed, serving, write
from playwright.async_api import Page, Route, expect

from vivavoce.audio.levels import rms_db
from vivavoce.testing.sounds import silence, tone

SECONDS_MAX = 120
AXE = Path(AXE_FILE_PATH).read_text("utf-8")
STORY = "Once there was a fox who lived by a river and he was hungry so he went out and nobody ever saw him again. " * 3


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, SECONDS_MAX))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("scripted") as server:
        yield server


async def start(page: Page) -> None:
    """Press the button, and wait until the call is open."""
    await page.get_by_role("button", name="Start talking").click()
    await expect(page.locator("#state-name")).to_have_text("Listening")


def test_a2_a_spoken_turn_goes_both_ways(server: Server) -> None:
    async def main() -> None:
        microphone = silence(5000) + tone(1200) + silence(20_000)
        async with page_at(server.url, "turn", microphone) as page:
            await start(page)
            await listen(page)
            await expect(entries(page, "user").locator(".words")).to_have_text(re.compile(r"audio of \d+ ms"))
            await expect(entries(page, "assistant").locator(".words")).to_have_text(
                re.compile(r"echo: audio of \d+ ms")
            )
            await passed(page, "Hearing you", "Speaking", "Listening")
            sound = await heard(page)
            assert len(sound) > 48 * 1000
            assert rms_db(sound) > -40

    run(main())


def test_f6_states_levels_and_the_waterfall_are_shown(server: Server) -> None:
    async def main() -> None:
        async with page_at(server.url, "waterfall", silence(5000) + tone(1000) + silence(20_000)) as page:
            await start(page)
            await passed(page, "Listening", "Hearing you", "Thinking", "Speaking", "Listening")
            await page.get_by_role("tab", name="Timing").click()
            turn = page.locator("#turns > li").first
            for stage in ("transcript", "first token", "first audio", "heard here"):
                await expect(turn).to_contain_text(re.compile(stage, re.IGNORECASE))
            await expect(turn.get_by_label("Stages on the server")).to_contain_text("First phrase")
            await page.get_by_role("tab", name="Usage").click()
            await expect(page.locator("#usage")).to_contain_text(re.compile(r"[1-9]\d*"))

    run(main())


def test_a8_barge_in_cuts_the_answer_and_strikes_what_was_not_heard(server: Server) -> None:
    async def main() -> None:
        async with page_at(server.url, "barge-in", silence(9000) + tone(1000) + silence(30_000)) as page:
            await start(page)
            await write(page, STORY)
            answer = entries(page, "assistant").first
            await expect(answer).to_contain_text("cut off after")
            words, struck = await answer.locator(".words").inner_text(), await answer.locator("del").inner_text()
            shown = words.removesuffix(struck)
            assert f"echo: {STORY}".startswith(shown.strip())
            assert shown.strip()
            said = re.search(r"cut off after ([\d.]+) (s|ms)", await answer.inner_text())
            assert said is not None
            ms = float(said[1]) * (1000 if said[2] == "s" else 1)
            assert abs(len(shown) * 60 - ms) <= 1000
            await expect(entries(page, "assistant").nth(1)).to_contain_text("echo: audio of")

    run(main())


def test_a9_a_call_is_answered_from_the_page(server: Server) -> None:
    async def main() -> None:
        async with page_at(server.url, "call") as page:
            await start(page)
            await write(page, 'call get_weather {"city": "Lisbon"} call get_time {}')
            for value in ("sunny", "noon"):
                card = page.locator("[data-test=call].asks").first
                await card.get_by_label("What the function returns").fill(value)
                await card.get_by_role("button", name="Answer").click()
            await expect(entries(page, "assistant").last).to_contain_text("tool said: noon")
            await page.get_by_role("tab", name="Events").click()
            sent = page.locator("#events > li", has_text="response.create")
            await expect(sent.filter(has_not_text="response.created")).to_have_count(2)

    run(main())


def test_g3_the_tape_of_the_page_is_one(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with page_at(server.url, "tape") as page:
            await start(page)
            await write(page, "Hello")
            await expect(entries(page, "assistant").locator(".words")).to_have_text("echo: Hello")
            await expect(page.locator("#state-name")).to_have_text("Listening")
            await page.get_by_role("tab", name="Usage").click()
            async with page.expect_download() as download:
                await page.get_by_role("button", name="Save the tape").click()
            await (await download.value).save_as(tmp_path / "page.tape.jsonl")

    run(main())
    from vivavoce.cli import main as command

    assert command(["tape", "show", str(tmp_path / "page.tape.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "echo: Hello" in shown
    assert "ek_" not in (tmp_path / "page.tape.jsonl").read_text("utf-8")


def test_a_server_that_is_started_again_is_found_again() -> None:
    async def main() -> None:
        with serving("scripted") as server:
            async with page_at(server.url, "restart", expects=("401", "ERR_CONNECTION_REFUSED")) as page:
                await start(page)
                await write(page, "Before")
                await expect(entries(page, "assistant").locator(".words")).to_have_text("echo: Before")
                await expect(page.locator("#state-name")).to_have_text("Listening")
                await asyncio.to_thread(server.stop)
                await passed(page, "Listening", "Reconnecting")
                await asyncio.to_thread(server.start)
                await expect(page.locator("#state-name")).to_have_text("Listening")
                await write(page, "After")
                await expect(entries(page, "assistant").last.locator(".words")).to_have_text("echo: After")
                assert await entries(page, "user").count() == 2

    run(main())


def test_b13_a_key_is_used_once_and_kept_nowhere() -> None:
    async def main() -> None:
        with serving("scripted", "--api-key", "sk-the-key-of-this-test") as server:
            async with page_at(server.url, "key", expects=("401",)) as page:
                sent: list[tuple[str, str]] = []
                page.on("request", lambda request: sent.append((request.url, json.dumps(request.headers))))
                await page.get_by_role("button", name="Start talking").click()
                await page.get_by_label("This server asks for a key").fill("sk-the-key-of-this-test")
                await page.get_by_role("button", name="Use it").click()
                await expect(page.locator("#state-name")).to_have_text("Listening")
                assert [url for url, headers in sent if "sk-the-key" in headers] == [
                    f"{server.url}v1/realtime/client_secrets"
                ]
                kept = await page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}])")
                assert "sk-" not in kept
                assert "ek_" not in kept
                assert await page.locator("#key").input_value() == ""

    run(main())


def test_everything_comes_from_this_server_alone(server: Server) -> None:
    async def main() -> None:
        async with page_at(server.url, "origins") as page:
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            answer = await page.reload()
            assert answer is not None
            policy = (await answer.all_headers())["content-security-policy"]
            assert "default-src 'self'" in policy or "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            await start(page)
            assert len(asked) > 10
            assert all(url.startswith((server.url, "data:", "blob:")) for url in asked)

    run(main())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_serious(server: Server, scheme: str, width: int) -> None:
    async def main() -> None:
        size = {"width": width, "height": 844}
        async with page_at(server.url, f"axe-{scheme}-{width}", color_scheme=scheme, viewport=size) as page:
            await page.evaluate(AXE)
            await look(page, "empty")
            await start(page)
            await write(page, 'call get_weather {"city": "Lisbon"}')
            await expect(page.get_by_label("What the function returns")).to_be_visible()
            await write(page, "Hello")
            await expect(entries(page, "assistant").last).to_contain_text("echo: Hello")
            await look(page, "talking")
            for view in ("Session", "Events", "Timing", "Usage", "Server"):
                await page.get_by_role("tab", name=view).click()
                await look(page, view)

    async def look(page: Page, where: str) -> None:
        found = await page.evaluate("() => axe.run()")
        bad = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert not bad, (where, [(one["id"], [node["html"] for node in one["nodes"]]) for one in bad])

    run(main())


def test_the_page_can_be_used_by_the_keyboard_alone(server: Server) -> None:
    async def main() -> None:
        async with page_at(server.url, "keyboard") as page:
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")  # the link that skips to the field
            await page.keyboard.type(STORY)
            await page.keyboard.press("Enter")
            await expect(page.locator("#state-name")).to_have_text("Speaking")
            await page.keyboard.press("Escape")
            await expect(entries(page, "assistant").first).to_contain_text("cut off after")

    run(main())


def test_there_is_room_to_write_and_nothing_written_is_lost(server: Server) -> None:
    async def main() -> None:
        async with page_at(server.url, "room", viewport={"width": 1280, "height": 800}) as page:
            field = page.locator("#text")
            is_written = asyncio.Event()

            async def hold(route: Route) -> None:
                await is_written.wait()
                await route.continue_()

            await page.route("**/v1/realtime/calls", hold)
            await field.fill("Hello!")
            await field.press("Enter")
            await field.fill("What I write while the call begins")
            is_written.set()
            await expect(entries(page, "assistant").locator(".words")).to_have_text("echo: Hello!")
            await expect(field).to_have_value("What I write while the call begins")
            box = await field.bounding_box()
            assert box is not None
            assert (box["width"] > 500, box["height"] < 50) == (True, True), box

    run(main())


def test_a_view_comes_back_when_the_window_is_wide_again(server: Server) -> None:
    async def main() -> None:
        async with page_at(server.url, "widths", viewport={"width": 1280, "height": 800}) as page:
            await page.get_by_role("tab", name="Events").click()
            await page.set_viewport_size({"width": 390, "height": 844})
            await expect(page.get_by_role("tab", name="Talk")).to_have_attribute("aria-selected", "true")
            await page.set_viewport_size({"width": 1280, "height": 800})
            await expect(page.get_by_role("tab", name="Events")).to_have_attribute("aria-selected", "true")

    run(main())
