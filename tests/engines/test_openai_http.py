"""What all engines behind HTTP have in common: options, refusals, silence, secrets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpx
import pytest
from http_double import Behaviour, Exchange, http_double

from vivavoce.engines import Prompt, TranscriptionHints
from vivavoce.engines.openai_chat import create as create_chat
from vivavoce.engines.openai_http import EVENT_BYTES_MAX, Endpoint, EndpointSettings, events
from vivavoce.engines.openai_speech import create as create_speech
from vivavoce.engines.openai_transcription import create as create_transcription
from vivavoce.engines.registry import PRESETS, EngineSettings
from vivavoce.errors import EngineError, SettingsError
from vivavoce.protocol.items import InputText, Message

KEY = "sk-very-secret-key"
PROMPT = Prompt(instructions="", items=(Message(role="user", content=(InputText(text="hi"),)),))


def run(main: Coroutine[Any, Any, None]) -> None:
    async def within_time() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(within_time())


def everything(create: Any, url: str, **options: object) -> tuple[Any, AsyncIterator[object]]:
    """An engine, and its answer to something."""
    engine = create({"url": url, "model": "m", **options})
    if create is create_chat:
        return engine, engine.generate(PROMPT)
    if create is create_speech:
        return engine, engine.speak("hello", "", 1.0)
    return engine, engine.transcribe(bytes(3_200), TranscriptionHints())


async def failure(create: Any, url: str, **options: object) -> EngineError:
    engine, answer = everything(create, url, **options)
    with pytest.raises(EngineError) as error:
        async for _ in answer:
            pass
    await engine.close()
    return error.value


def answering(status: int, body: object, kind: str = "application/json") -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(status, body, kind)

    return behaviour


engines = pytest.mark.parametrize("create", [create_chat, create_speech, create_transcription])


# --- refusals ---------------------------------------------------------------------------------------------------------


@engines
def test_a_refusal_carries_the_servers_message_and_code(create: Any) -> None:
    async def main() -> None:
        body = {"error": {"message": "Slow down.", "type": "tokens", "code": "rate_limit_exceeded"}}
        async with http_double(answering(429, body)) as url:
            error = await failure(create, url)
            assert error.code == "rate_limit_exceeded"
            assert "HTTP 429" in error.message
            assert "Slow down." in error.message
            assert error.message.startswith("openai-")

    run(main())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "no such model"}, "no such model"),
        ({"error": {"message": "overloaded", "code": 503}}, "overloaded"),
        ({"object": "error", "message": "too long"}, "too long"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"error": "two\n  lines"}, ": two lines"),
        ("<html>" + "x" * 30_000, ": " + "x" * 160),
        ("plain\r\ntext\n" + "x" * 30_000, ": plain text xxx"),
        ("", "HTTP 500 from"),
    ],
)
def test_refusals_in_other_shapes(body: object, said: str) -> None:
    async def main() -> None:
        async with http_double(answering(500, body)) as url:
            error = await failure(create_chat, url)
            assert said in error.message
            assert len(error.message) < 1_000
            assert error.code == "http_500"

    run(main())


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("<html><head><TITLE>\n502 Bad &amp; Gateway </TITLE></head><body>nginx</body></html>", "502 Bad & Gateway"),
        ("<!DOCTYPE html><style>p {}</style><!-- <p>no --><p>Down for\n<b>repairs</b></p>", "Down for repairs"),
        ("<script>let a = '<p>';</script><h1>Gone", "Gone"),
        ("<script>" * 2_000, "/chat/completions"),
        ("<html></html>", "/chat/completions"),
    ],
)
def test_of_a_page_only_what_it_says_is_told(page: str, said: str) -> None:
    async def main() -> None:
        async with http_double(answering(502, page, "text/html")) as url:
            error = await failure(create_chat, url)
            assert error.code == "http_502"
            assert error.message.endswith(said)
            assert "\n" not in error.message
            assert len(error.message) < 300

    run(main())


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Too long.", "type": "invalid_request_error", "code": "context_length_exceeded"}},
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        {
            "error": {
                "code": 400,
                "message": "request exceeds the available context size",
                "type": "exceed_context_size",
            }
        },
    ],
)
def test_a_prompt_that_is_too_long_has_one_code(body: object) -> None:
    async def main() -> None:
        async with http_double(answering(400, body)) as url:
            assert (await failure(create_chat, url)).code == "context_length_exceeded"

    run(main())


def test_no_secret_in_errors_even_where_the_server_repeats_it() -> None:
    async def behaviour(exchange: Exchange) -> None:
        assert exchange.request.headers["authorization"] == f"Bearer {KEY}"
        assert exchange.request.headers["x-other"] == "another-secret"
        await exchange.answer(401, {"error": f"{KEY} and another-secret are wrong"})

    async def main() -> None:
        async with http_double(behaviour) as url:
            error = await failure(
                create_chat, url + "?key=in-the-url", api_key=KEY, headers={"X-Other": "another-secret"}
            )
            assert "[key] and [key] are wrong" in error.message
            assert "look at api_key" in error.message
            assert "in-the-url" not in error.message

    run(main())


@engines
def test_nobody_listens(create: Any) -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
            error = await failure(create, url)
            assert error.code == "engine_unreachable"
            assert f"cannot reach {url}" in error.message

    run(main())


@engines
def test_a_server_that_says_nothing(create: Any) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.until_gone()

    async def main() -> None:
        async with http_double(behaviour) as url:
            error = await failure(create, url, silence_timeout_s=0.05)
            assert error.code == "engine_timeout"
            assert "silent" in error.message

    run(main())


@engines
@pytest.mark.parametrize("begun", [True, False])
def test_a_server_that_hangs_up(create: Any, begun: bool) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if begun:
            await exchange.begin("audio/pcm")
            await exchange.chunk(b"data: ")
        await exchange.hang_up()

    async def main() -> None:
        async with http_double(behaviour) as url:
            assert (await failure(create, url)).code == "engine_connection"

    run(main())


@engines
def test_cancelling_closes_the_request(create: Any) -> None:
    async def main() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def behaviour(exchange: Exchange) -> None:
            await exchange.begin("audio/pcm")
            asked.set()
            await exchange.until_gone()
            gone.set()

        async def listen(answer: AsyncIterator[object]) -> None:
            async for _ in answer:
                pass

        async with http_double(behaviour) as url:
            engine, answer = everything(create, url)
            listening = asyncio.create_task(listen(answer))
            await asked.wait()
            listening.cancel()
            await gone.wait()
            await asyncio.gather(listening, return_exceptions=True)
            assert listening.cancelled()
            await engine.close()

    run(main())


# --- warming up -------------------------------------------------------------------------------------------------------


@engines
@pytest.mark.parametrize("status", [200, 404, 405])
def test_warming_up_asks_for_the_models_and_does_not_insist(create: Any, status: int) -> None:
    async def main() -> None:
        targets: list[str] = []

        async def behaviour(exchange: Exchange) -> None:
            targets.append(f"{exchange.request.method} {exchange.request.target}")
            await exchange.answer(status, {"data": []})

        async with http_double(behaviour) as url:
            engine = create({"url": url + "/?version=1", "model": "m"})
            await engine.warm_up()
            await engine.close()
            await engine.close()
        assert targets == ["GET /v1/models?version=1"]

    run(main())


@engines
def test_warming_up_tells_what_is_wrong(create: Any) -> None:
    async def main() -> None:
        async with http_double(answering(401, {"error": {"message": "Bad key."}})) as url:
            engine = create({"url": url, "model": "m"})
            with pytest.raises(EngineError, match=r"HTTP 401 .* \(look at api_key or api_key_env\): Bad key\."):
                await engine.warm_up()
            await engine.close()

    run(main())


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"model": "m"}, "missing required field `url`"),
        ({"url": "http://h/v1"}, "missing required field `model`"),
        ({"url": "ftp://h/v1", "model": "m"}, "'url' must begin with http"),
        ({"url": "http:///v1", "model": "m"}, "'url' must begin with http"),
        ({"url": "http://h:port/", "model": "m"}, "'url' is no URL"),
        ({"url": "http://h", "model": "m", "silence_timeout_s": 0}, "'silence_timeout_s'"),
        ({"url": "http://h", "model": "m", "tempo": 0}, "no option 'tempo'; it takes url, model, api_key"),
        ({"url": "http://h", "model": "m", "api_key": "a", "api_key_env": "B"}, "not both"),
        (
            {"url": "http://h", "model": "m", "api_key_env": "VIVAVOCE_NO_SUCH_KEY"},
            "VIVAVOCE_NO_SUCH_KEY .* is not set",
        ),
        ({"url": "http://h", "model": "m", "api_key": f"{KEY}\nX: y"}, "'Authorization' holds characters"),
        ({"url": "http://h", "model": "m", "headers": {"X-Ä": "1"}}, "'X-Ä' holds characters"),
    ],
)
@engines
def test_wrong_options_are_told(create: Any, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as error:
        create(options)
    assert KEY not in str(error.value)


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVAVOCE_TEST_KEY", f" {KEY}\n")

    async def behaviour(exchange: Exchange) -> None:
        assert exchange.request.headers["authorization"] == f"Bearer {KEY}"
        await exchange.answer(200, {"text": "heard"})

    async def main() -> None:
        async with http_double(behaviour) as url:
            engine, answer = everything(create_transcription, url, api_key_env="VIVAVOCE_TEST_KEY")
            assert [piece async for piece in answer] == ["heard"]
            await engine.close()

    run(main())


@pytest.mark.parametrize("root", ["", "/", "/openai", "/openai/"])
@engines
def test_a_deployment_on_azure(create: Any, root: str) -> None:
    async def main() -> None:
        asked: list[tuple[str, str | None, bool]] = []

        async def behaviour(exchange: Exchange) -> None:
            headers = exchange.request.headers
            asked.append((exchange.request.target, headers.get("api-key"), "authorization" in headers))
            await exchange.answer(500, {})

        async with http_double(behaviour) as url:
            at = url.removesuffix("/v1") + root
            options: dict[str, Any] = {"url": at, "api_key": KEY, "azure_api_version": "2024-10-21"}
            engine = create({**options, "model": "m"})
            with pytest.raises(EngineError):
                await engine.warm_up()
            await engine.close()
            assert KEY not in (await failure(create, **options)).message
        assert asked[0] == ("/openai/models?api-version=2024-10-21", KEY, False)
        path = {create_chat: "chat/completions", create_speech: "audio/speech"}.get(create, "audio/transcriptions")
        assert asked[1] == (f"/openai/deployments/m/{path}?api-version=2024-10-21", KEY, False)

    run(main())


def test_the_name_of_a_deployment_is_one_step_of_the_path() -> None:
    async def main() -> None:
        targets: list[str] = []

        async def behaviour(exchange: Exchange) -> None:
            targets.append(exchange.request.target)
            await exchange.answer(500, {})

        async with http_double(behaviour) as url:
            engine = create_chat({"url": url, "model": "my model/1", "azure_api_version": "v"})
            with pytest.raises(EngineError):
                await anext(engine.generate(PROMPT))
            await engine.close()
        assert targets == ["/v1/openai/deployments/my%20model%2F1/chat/completions?api-version=v"]

    run(main())


def test_the_header_of_the_key_can_be_chosen() -> None:
    async def main() -> None:
        asked: list[dict[str, str]] = []

        async def behaviour(exchange: Exchange) -> None:
            asked.append(exchange.request.headers)
            await exchange.answer(500, {})

        async with http_double(behaviour) as url:
            await failure(create_chat, url, api_key=KEY, api_key_header="api-key")
            await failure(create_chat, url, api_key=KEY, api_key_header="Authorization", azure_api_version="2024-10-21")
        assert [(one.get("api-key"), one.get("authorization")) for one in asked] == [
            (KEY, None),
            (None, f"Bearer {KEY}"),
        ]

    run(main())


def test_no_secret_in_reprs() -> None:
    settings = EndpointSettings(url="http://me:pw@h/v1?key=k", model="m", api_key=KEY, headers={"X": KEY})
    engine = create_chat({"url": "http://h/v1", "model": "m", "api_key": KEY})
    chosen = EngineSettings("openai-chat", {"api_key": KEY})
    shown = repr((settings, engine, engine._settings, Endpoint("e", settings), chosen, PRESETS["local"]))
    assert KEY not in shown
    assert "pw" not in shown
    assert "http://h/v1" in shown


# --- server-sent events -----------------------------------------------------------------------------------------------


def read(wire: bytes, size: int) -> list[bytes]:
    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for at in range(0, len(wire), size):
                yield wire[at : at + size]

    async def main() -> list[bytes]:
        return [event async for event in events(httpx.Response(200, stream=Stream()))]

    return asyncio.run(main())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1_000])
def test_events_survive_any_cut(size: int) -> None:
    wire = 'data: {"a": "x\u2028y\x85"}\n\n: note\nevent: e\nid: 1\ndata:two\r\ndata: lines\r\n\r\n\n\n'
    wire += "data: 🙂\n\ndata: last"
    expected = ['{"a": "x\u2028y\x85"}', "two\nlines", "🙂", "last"]
    assert read(wire.encode(), size) == [event.encode() for event in expected]


def test_an_endless_event_is_refused() -> None:
    with pytest.raises(httpx.RemoteProtocolError, match=str(EVENT_BYTES_MAX)):
        read(b"data: " + b"x" * (EVENT_BYTES_MAX + 1), 65_536)
    with pytest.raises(httpx.RemoteProtocolError, match=str(EVENT_BYTES_MAX)):
        read(b"data: xxxxxxxxxxxx\n" * (EVENT_BYTES_MAX // 12 + 1), 65_536)
