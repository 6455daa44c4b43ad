"""The console as the server gives it: its files, their headers, and what they may refer to."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from console_node import node
from hatchling.builders.wheel import WheelBuilder
from starlette.applications import Starlette
from starlette.routing import Mount

from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.server import console
from vivavoce.server.app import create_app
from vivavoce.server.console import TYPES, VOICES, static_files
from vivavoce.server.settings import settings_of

FOLDER = Path(__file__).parents[2] / "src" / "vivavoce" / "console"
MODULES = sorted(FOLDER.glob("*.js"))
LINES_MAX = 400
KEY = "sk-the-right-key-0001"
NAMESPACES = ("http://www.w3.org/2000/svg",)


def app_with(**values: Any) -> Starlette:
    settings = settings_of({"pipeline": "scripted", **values})
    return create_app(settings, {"scripted": scripted_pipeline()})


def asking(
    app: Any, ask: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]], base: str = "http://server"
) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
            await ask(client)

    asyncio.run(main())


def directives(policy: str) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in policy.split(";"))
    return {name: sources for name, _, sources in parts}


def test_the_page_is_at_the_root_and_allows_nothing_that_is_not_ours() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert directives(page.headers["content-security-policy"]) == {
            "default-src": "'self'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data: blob:",
            "media-src": "'self' blob:",
            "object-src": "'none'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"

    asking(app_with(), ask)


def test_every_file_is_served_with_its_type_and_under_the_same_policy() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        page = await client.get("/")
        names = {path.name for path in FOLDER.iterdir() if path.suffix in TYPES} - {"index.html"}
        for name in names:
            answer = await client.get(f"/console/{name}")
            assert answer.status_code == 200, name
            assert answer.headers["content-type"] == TYPES[Path(name).suffix]
            assert answer.headers["content-security-policy"] == page.headers["content-security-policy"]
            assert answer.content == (FOLDER / name).read_bytes()
        for path in re.findall(r'(?:href|src)="(console/[^"#]+)"', page.text):
            assert (await client.get(f"/{path}")).status_code == 200, path

    asking(app_with(), ask)


def test_what_has_not_changed_is_not_sent_again() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        first = await client.get("/console/app.js")
        again = await client.get("/console/app.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
        other = await client.get("/console/app.js", headers={"If-None-Match": '"other"'})
        assert other.status_code == 200

    asking(app_with(), ask)


@pytest.mark.parametrize(
    "path", ["/console/", "/console/nothing.js", "/console/../server/app.py", "/console/%2e%2e/app.py"]
)
def test_nothing_else_is_served(path: str) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        assert (await client.get(path)).status_code == 404

    asking(app_with(), ask)


def test_console_false_turns_it_off() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for path in ("/", "/console/app.js", "/console/facts.json"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.get("/healthz")).status_code == 200

    asking(app_with(console=False), ask)


def test_it_works_below_a_path_of_another_app() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        assert (await client.get("/voice/")).status_code == 200
        assert (await client.get("/voice/console/app.js")).status_code == 200
        assert (await client.get("/voice/console/facts.json")).json()["needs_key"] is False

    asking(Starlette(routes=[Mount("/voice", app_with())]), ask)


@pytest.mark.parametrize(("has_extra", "peers_max"), [(True, 16), (False, 16), (True, 0)])
def test_it_says_whether_one_can_talk_there(has_extra: bool, peers_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "find_spec", lambda name: object() if has_extra else None)

    async def ask(client: httpx.AsyncClient) -> None:
        facts = (await client.get("/console/facts.json")).json()
        assert facts["webrtc"] is (has_extra and peers_max > 0)

    asking(app_with(webrtc={"peers_max": peers_max}), ask)


def test_a_server_without_keys_says_what_it_has() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        facts = (await client.get("/console/facts.json")).json()
        assert facts["needs_key"] is False
        assert facts["model"] == "scripted"
        assert facts["models"] == ["gpt-realtime", "scripted"]
        assert facts["voices"] == list(VOICES)
        assert facts["prices"]["gpt-realtime"]["audio_out"] == 64.0
        assert facts["prices"]["gpt-realtime"]["audio_cached"] == 32.0  # left out, it costs what the rest costs

    prices = {"gpt-realtime": {"audio_in": 32.0, "audio_out": 64.0}}
    asking(app_with(models={"gpt-realtime": "scripted"}, prices=prices), ask)


def test_a_server_with_keys_says_to_strangers_only_that_it_has_some() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        facts = (await client.get("/console/facts.json")).json()
        assert (facts["needs_key"], facts["models"], facts["prices"]) == (True, [], {})
        known = (await client.get("/console/facts.json", headers={"Authorization": f"Bearer {KEY}"})).json()
        assert known["models"] == ["scripted"]

    asking(app_with(api_keys=[KEY], prices={"m": {"text_in": 1.0}}), ask)


def test_a_page_of_another_site_is_told_nothing_by_a_server_without_keys() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.get("/console/facts.json", headers={"Origin": "https://elsewhere.example"})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "origin_not_allowed"

    asking(app_with(), ask)


@pytest.mark.parametrize("has_console", [True, False])
def test_the_command_says_where_the_page_is(has_console: bool, tmp_path: Path) -> None:
    config = tmp_path / "vivavoce.toml"
    config.write_text(f'pipeline = "scripted"\nport = 0\nconsole = {str(has_console).lower()}\n')
    command = [sys.executable, "-m", "vivavoce", "serve", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if line.rstrip().endswith(": ready"):
                    break
            pages = [word for line in lines for word in line.split() if word.startswith("http://")]
            assert [httpx.get(page).status_code for page in pages] == ([200] if has_console else [])
        finally:
            process.terminate()
        assert process.wait(20.0) == 0


# --- the files themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_no_file_refers_to_another_host(path: Path) -> None:
    text = path.read_text()
    for namespace in NAMESPACES:
        text = text.replace(namespace, "")
    assert re.findall(r"(?:https?|wss?):?//[\w.-]+|(?<=[\"'(])//\w[\w.-]*\.\w+", text) == []
    assert "@import" not in text


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    page = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son\w+=|javascript:", page) == []


def test_no_module_makes_markup_of_strings_or_code_of_text() -> None:
    for path in MODULES:
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert re.findall(forbidden, path.read_text()) == [], path.name


def test_the_page_stores_the_choice_of_colours_and_nothing_else() -> None:
    storing = [
        path.name for path in MODULES if re.search(r"localStorage|sessionStorage|indexedDB|\.cookie", path.read_text())
    ]
    assert storing == ["views.js"]
    assert re.findall(r"setItem\((\w+), (\w+)\)", (FOLDER / "views.js").read_text()) == [("STORED", "theme")]


def test_modules_import_only_each_other_and_stay_small() -> None:
    names = {path.name for path in MODULES}
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= LINES_MAX, path.name
        assert text.startswith("/**"), f"{path.name} does not say what it is for"
        for imported in re.findall(r"""(?:from|import) ["']([^"']+)["']""", text):
            assert imported.removeprefix("./") in names, f"{path.name} imports {imported}"


def test_every_part_that_a_module_looks_for_is_in_the_page() -> None:
    made = {"list-models", "list-voices"}  # by settings.js
    ids = set(re.findall(r'\bid="([^"]+)"', (FOLDER / "index.html").read_text())) | made
    for path in MODULES:
        for wanted in re.findall(r'byId\("([^"]+)"\)', path.read_text()):
            assert wanted in ids, f"{path.name} looks for #{wanted}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_node_can_read_every_module(path: Path) -> None:
    checked = subprocess.run([node(), "--check", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_the_wheel_has_the_files(tmp_path: Path) -> None:
    builder = WheelBuilder(str(FOLDER.parents[2]))
    (wheel,) = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        packed = {name.removeprefix("vivavoce/console/") for name in archive.namelist() if "/console/" in name}
    assert packed >= set(static_files())
