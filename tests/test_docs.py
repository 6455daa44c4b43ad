"""The pages under docs/ and beside the README: links lead somewhere, settings are settings, programs run and print.

On a how-to page and in the README a `python` block is a program. It is run against a server with the scripted engines,
which has the settings of the last `# vivavoce.toml` before it; a `text` block right below is what it prints, `…`
standing for anything. Blocks that begin with `# NAME.toml` are files. Commands that begin with `vivavoce` or `uv run`
are parsed, not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from vivavoce.cli import _parser
from vivavoce.engines import (
    dtln,
    endings,
    hibari,
    openai_chat,
    openai_http,
    openai_speech,
    openai_transcription,
    scripted,
    silero,
    smollm,
    whisper,
)
from vivavoce.engines.registry import GROUPS, Registry
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol.codec import ServerCodec
from vivavoce.protocol.events import ErrorDetail
from vivavoce.server import load_settings, running
from vivavoce.server.pipelines import build

ROOT = Path(__file__).parent.parent
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("*.md"))
SETTINGS = "vivavoce.toml"
URL = "127.0.0.1:8080"
TIMEOUT_S = 30.0
LINES_MAX = 160

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
KEY_VARIABLE = re.compile(r'api_key_env = "(\w+)"')
COMMAND = re.compile(r"(?:\w+=\S* )*(?:uv run )?vivavoce (.*)")
FILE_NAME = re.compile(r"# ([\w./-]+\.toml)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block and its language; `follows` is what stands between it and the one before."""

    language: str
    text: str
    follows: str


def blocks(page: Path) -> Iterator[Block]:
    text, end = page.read_text(encoding="utf-8"), 0
    for found in BLOCK.finditer(text):
        yield Block(found[1], found[2], text[end : found.start()].strip())
        end = found.end()


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of them where pages are shown."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_what_there_is(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", HOW_TO, ids=name)
def test_a_page_is_in_the_index_and_has_a_size_to_read(page: Path) -> None:
    assert f"how-to/{page.name}" in (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert len(page.read_text(encoding="utf-8").splitlines()) <= LINES_MAX


@pytest.mark.parametrize("page", [ROOT / "README.md", *HOW_TO], ids=name)
def test_commands_are_commands(page: Path) -> None:
    for block in blocks(page):
        for line in block.text.splitlines() if block.language in ("", "sh") else ():
            if found := COMMAND.match(line):
                assert _parser().parse_args(shlex.split(found[1], comments=True)).command, line


@pytest.mark.parametrize("page", HOW_TO, ids=name)
def test_events_are_events_of_a_client(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json" and isinstance(event := msgspec.json.decode(block.text), dict) and "type" in event:
            decoded = ServerCodec("ga").decode(block.text)
            assert not isinstance(decoded, ErrorDetail), decoded


@pytest.mark.parametrize("page", [ROOT / "README.md", *HOW_TO], ids=name)
def test_settings_are_settings_and_programs_print_what_is_shown(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("VIVAVOCE_CONFIG", "VIVAVOCE_API_KEYS", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    config: Path | None = None
    printed: str | None = None
    for block in blocks(page):
        if block.language == "toml" and (found := FILE_NAME.match(block.text)):
            file = tmp_path / found[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            config = file if found[1] == SETTINGS else config
            for variable in KEY_VARIABLE.findall(block.text):
                monkeypatch.setenv(variable, "sk-test")
        elif block.language == "python":
            printed = run(block.text, config)
        elif block.language == "text" and printed is not None and not block.follows:
            pattern = ".*?".join(re.escape(part) for part in block.text.split("…"))
            assert re.fullmatch(pattern, printed, re.DOTALL), printed
    if config is not None:
        asyncio.run(built(config))


def run(program: str, config: Path | None) -> str:
    """What the program prints, run in a thread beside the server."""

    path = Path("program.py")

    async def main() -> str:
        settings = load_settings(config=config, port=0)
        named = dict.fromkeys({settings.pipeline, *settings.pipelines, *settings.models.values()}, scripted_pipeline())
        async with asyncio.timeout(TIMEOUT_S), running(settings, pipelines=named) as server:
            return await asyncio.to_thread(output_of, path, program.replace(URL, f"{server.host}:{server.port}"))

    return asyncio.run(main())


def output_of(path: Path, program: str) -> str:
    path.write_text(program, encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(path), run_name="__main__")
    return printed.getvalue()


async def built(config: Path) -> None:
    """Every engine of every pipeline in use takes its options; nothing is loaded."""
    for pipeline in build(load_settings(config=config)).values():
        await pipeline.close()


# --- the reference of the engines -------------------------------------------------------------------------------------

ENGINES = ROOT / "docs" / "reference" / "engines.md"
OPTIONS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "silero": (silero.SileroSettings,),
    "whisper": (whisper.WhisperSettings,),
    "smollm": (smollm.SmolLMSettings,),
    "hibari": (hibari.HibariSettings,),
    "endings": (endings.EndingsSettings,),
    "dtln": (dtln.DtlnSettings,),
    "Behind HTTP": (openai_http.EndpointSettings,),
    "openai-chat": (openai_chat.ChatSettings,),
    "openai-transcription": (openai_transcription.TranscriptionSettings,),
    "openai-speech": (openai_speech.SpeechSettings,),
    "scripted": (
        scripted.ScriptedSettings,
        scripted.ScriptedVadSettings,
        scripted.ScriptedTurnSettings,
        scripted.ScriptedModelSettings,
    ),
}


def options_of(engine: str) -> dict[str, str]:
    """Each option that an engine has beyond those that all engines of its kind share, and its default as text."""
    shared = set(openai_http.EndpointSettings.__struct_fields__) if engine.startswith("openai-") else set[str]()
    return {
        field.name: shown(field.default)
        for struct in OPTIONS[engine]
        for field in msgspec.structs.fields(struct)
        if field.name not in shared
    }


def shown(default: object) -> str:
    """As TOML has it; nothing where there is no default."""
    if default is None or default is msgspec.NODEFAULT:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


@pytest.mark.parametrize("engine", OPTIONS)
def test_an_engine_has_the_options_that_its_reference_says(engine: str) -> None:
    sections = re.split(r"^## ", ENGINES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = (text for text in sections if text.split("\n", 1)[0].strip("`") == engine)
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", section, re.MULTILINE)
    assert {name: default.strip() for name, default in rows} == options_of(engine)


def test_every_engine_is_in_the_reference_of_its_role() -> None:
    registry = Registry.load()
    text = ENGINES.read_text(encoding="utf-8")
    for role in GROUPS:
        (row,) = re.findall(rf"^\| `{role}` \| ([^|]*) \|", text, re.MULTILINE)
        assert tuple(sorted(re.findall(r"`([\w-]+)`", row))) == registry.names(role)
        assert set(registry.names(role)) <= set(OPTIONS)
