"""Rows D1, D2 and D4 to D7: where to connect, what can be said, and what is given to whoever iterates."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from row_sessions import DIALECTS, played, record, run, session

import vivavoce
from vivavoce import LocalProtocolError, Reconnect, ServerError
from vivavoce.engines.scripted import ScriptedSettings
from vivavoce.protocol import events as ev
from vivavoce.protocol import items
from vivavoce.testing.real_server import API_KEY, RealServer
from vivavoce.testing.sounds import tone

VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_API_VERSION", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
AZURE_VARIABLES = ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_DEPLOYMENT")


@pytest.fixture
def server(realtime_server: RealServer, monkeypatch: pytest.MonkeyPatch) -> RealServer:
    for name in (*VARIABLES, *AZURE_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    return realtime_server


def root(server: RealServer) -> str:
    return server.url.removesuffix("/v1")


# --- D1: where --------------------------------------------------------------------------------------------------------

GA, PREVIEW = "/openai/v1/realtime", "/openai/realtime"
VERSION = "2025-04-01-preview"


@pytest.mark.parametrize(
    ("how", "environment", "path", "query", "header", "dialect"),
    [
        ({"azure_deployment": "d", "api_key": API_KEY}, {}, GA, "model=d", "api-key", "ga"),
        ({"model": "d", "api_key": API_KEY}, {}, GA, "model=d", "api-key", "ga"),
        ({"azure_deployment": "d", "azure_ad_token": API_KEY}, {}, GA, "model=d", "authorization", "ga"),
        (
            {"azure_deployment": "d", "api_version": VERSION, "api_key": API_KEY},
            {},
            PREVIEW,
            f"api-version={VERSION}&deployment=d",
            "api-key",
            "beta",
        ),
        (
            {"azure_deployment": "d", "api_version": VERSION, "token_provider": lambda: API_KEY},
            {},
            PREVIEW,
            f"api-version={VERSION}&deployment=d",
            "authorization",
            "beta",
        ),
        ({}, {"AZURE_OPENAI_API_KEY": API_KEY, "AZURE_OPENAI_DEPLOYMENT": "d"}, GA, "model=d", "api-key", "ga"),
        ({"model": "d"}, {"AZURE_OPENAI_AD_TOKEN": API_KEY}, GA, "model=d", "authorization", "ga"),
        (
            {"model": "d"},
            {"AZURE_OPENAI_API_KEY": API_KEY, "OPENAI_API_VERSION": VERSION},
            PREVIEW,
            f"api-version={VERSION}&deployment=d",
            "api-key",
            "beta",
        ),
    ],
)
def test_d1_azure_by_endpoint_deployment_and_key_or_token_as_the_server_sees_it(
    server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
    how: dict[str, Any],
    environment: dict[str, str],
    path: str,
    query: str,
    header: str,
    dialect: str,
) -> None:
    if environment:
        environment = {"AZURE_OPENAI_ENDPOINT": root(server), **environment}
    else:
        how = {"azure_endpoint": root(server), **how}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    async def main() -> str:
        async with vivavoce.connect(**how) as talk:
            return await talk.ask("Hi")

    assert run(main()) == "echo: Hi"
    (seen,) = server.connections
    assert (seen.path, seen.query) == (path, query)
    assert {name for name in ("api-key", "authorization") if name in seen.headers} == {header}
    assert seen.headers[header] == (API_KEY if header == "api-key" else f"Bearer {API_KEY}")
    assert bool(server.sent("conversation.item.created")) == (dialect == "beta")


@pytest.mark.parametrize("form", ["{root}", "{root}/v1", "{root}/v1/", "{root}/v1/realtime", "ws+{root}/v1/realtime"])
def test_d1_openai_by_any_form_of_url_or_by_the_environment(
    server: RealServer, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    url = form.format(root=root(server)).replace("ws+http", "ws")
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)

    async def main() -> None:
        async with vivavoce.connect("gpt-realtime", url=url, api_key=API_KEY):
            pass
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        async with vivavoce.connect("gpt-realtime", dialect="beta"):
            pass

    run(main())
    for seen in server.connections:
        assert (seen.path, seen.query) == ("/v1/realtime", "model=gpt-realtime")
        assert seen.headers["authorization"] == f"Bearer {API_KEY}"
    assert "openai-beta" not in server.connections[0].headers
    assert server.connections[1].headers["openai-beta"] == "realtime=v1"


@pytest.mark.parametrize("resume", [True, False])
def test_d1_the_token_provider_is_asked_at_every_connection(server: RealServer, resume: bool) -> None:
    server.cut(after="session.updated")
    asked: list[str] = []

    async def provider() -> str:
        asked.append(f"Bearer {API_KEY}")
        return API_KEY

    async def main() -> str:
        policy = Reconnect(first_s=0.001, max_s=0.01, resume=resume)
        how = {"azure_endpoint": root(server), "azure_deployment": "d", "token_provider": provider}
        async with vivavoce.connect(reconnect=policy, **how) as talk:  # type: ignore[arg-type]
            back = asyncio.create_task(talk.wait_for("connection.*", 10, lambda event: event.what != "lost"))
            await asyncio.sleep(0)
            talk.update_session(modality="text")
            await back
            return await talk.ask("Still there?")

    assert run(main()) == "echo: Still there?"
    assert len(asked) == len(server.connections) >= 2
    assert [seen.headers["authorization"] for seen in server.connections] == asked


# --- D2: the calls ----------------------------------------------------------------------------------------------------


def wav(audio: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(24_000)
        out.writeframes(audio)
    return file.getvalue()


async def pieces(audio: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(audio), 777):  # odd: cut in the middle of samples
        yield audio[at : at + 777]


@pytest.mark.parametrize("kind", ["bytes", "path", "name", "file", "iterable", "stream"])
def test_d2_send_audio_takes_any_stream_and_cuts_it_into_chunks(server: RealServer, tmp_path: Path, kind: str) -> None:
    audio = tone(1_050)
    path = tmp_path / "hello.wav"
    path.write_bytes(wav(audio))
    sources: dict[str, Any] = {
        "bytes": audio,
        "path": path,
        "name": str(path),
        "file": io.BytesIO(wav(audio)),
        "iterable": [audio[:1_001], audio[1_001:]],
        "stream": pieces(audio),
    }

    async def main() -> tuple[float, bytes]:
        async with session(server) as talk:
            await talk.update_session(turn_detection=None)
            seconds = await talk.send_audio(sources[kind])
            item_id = await talk.commit_audio()
            item = await talk.retrieve_item(item_id)
            return seconds, item.content[0].audio  # type: ignore[union-attr, return-value]

    seconds, heard = run(main())
    assert seconds == pytest.approx(1.05)
    assert heard == audio
    sent = [base64.b64decode(event["audio"]) for event in server.received("input_audio_buffer.append")]
    assert b"".join(sent) == audio
    assert [len(chunk) for chunk in sent] == [4_800] * 10 + [2_400]


def test_d2_a_second_stream_at_once_is_refused_and_the_first_goes_on(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as talk:
            await talk.update_session(turn_detection=None)
            go_on = asyncio.Event()

            async def slowly() -> AsyncIterator[bytes]:
                yield tone(100)
                await go_on.wait()
                yield tone(100)

            first = asyncio.create_task(talk.send_audio(slowly()))
            await talk.wait_for("client.input_audio_buffer.append", 10)
            with pytest.raises(LocalProtocolError, match="another send_audio is going on"):
                await talk.send_audio(tone(100))
            go_on.set()
            assert await first == pytest.approx(0.2)
            assert await talk.send_audio(tone(100)) == pytest.approx(0.1)  # and now it may

            cancelled = asyncio.create_task(talk.send_audio(slowly(), pace=1.0))
            await talk.wait_for("client.input_audio_buffer.append", 10)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            await talk.send_audio(tone(100))
            with pytest.raises(OSError, match="nowhere"):
                await talk.send_audio("nowhere.wav")
            await talk.send_audio(tone(100))

    run(main())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_d2_items_are_put_where_they_belong(server: RealServer, dialect: str) -> None:
    async def main() -> list[str]:
        async with session(server, dialect=dialect) as talk:
            for name, after in (("b", None), ("d", None), ("a", "root"), ("c", "item_b"), ("e", "item_d")):
                await talk.create_item(items.user_message(name, id=f"item_{name}"), after=after)
            await talk.delete_item("item_d")
            return [item.text for item in talk.get_items()]

    assert run(main()) == ["a", "b", "c", "e"]


def test_d2_start_response_takes_overrides_by_keyword_or_whole(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as talk:
            told = record(talk, "response.created", "response.done")
            await talk.create_item(items.user_message("Hi"))
            first = await talk.create_response(
                instructions="Be brief.", modality="text", metadata={"topic": "a"}, max_output_tokens=50
            )
            ended = await first
            assert (ended.output_modalities, ended.max_output_tokens) == (("text",), 50)
            second = await talk.create_response({"output_modalities": ["text"], "metadata": {"topic": "b"}})
            assert (await second).metadata == {"topic": "b"}
            with pytest.raises(LocalProtocolError, match="either whole parameters or keywords"):
                talk.create_response({"instructions": "x"}, modality="text")
            with pytest.raises(LocalProtocolError, match=r"response: .*mood"):
                talk.create_response({"mood": "good"})
            assert first.response.metadata == {"topic": "a"}
            shown = [(event.type, event.response.metadata["topic"], len(event.response.metadata)) for event in told]
            assert [one[:2] for one in shown] == [
                ("response.created", "a"),
                ("response.done", "a"),
                ("response.created", "b"),
                ("response.done", "b"),
            ]
            assert all(pairs == 1 for *_, pairs in shown)  # what recognises a response is not shown, ...
            assert all(len(json.loads(event.raw)["response"]["metadata"]) == 2 for event in told)  # ... but as it came

    run(main())
    first, second = server.received("response.create")
    assert first["response"]["instructions"] == "Be brief."
    assert first["response"]["metadata"]["topic"] == "a"
    assert "instructions" not in second["response"]


# --- D4: typed updates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_d4_iterating_gives_every_event_typed_from_the_first_on(server: RealServer, dialect: str) -> None:
    server.inject({"type": "weather.changed", "to": "blue"}, after="session.updated")

    async def main() -> list[Any]:
        seen = []
        async with session(server, dialect=dialect) as talk:
            talk.update_session(modality="text")
            talk.send_user_message("Hi")
            async for event in talk:
                seen.append(event)
                if isinstance(event, ev.ResponseDone):
                    break
        seen += [event async for event in talk]  # what was still to come, and then the end
        return seen

    seen = run(main())
    assert isinstance(seen[0], ev.SessionCreated)
    wire = [event["event_id"] for event in server.sent() if not event["type"].startswith("vivavoce.")]
    assert [event.event_id for event in seen if not isinstance(event, ev.Unknown)] == [
        event_id for event_id in wire[: len(seen)] if event_id != "event_injected"
    ]
    (unknown,) = (event for event in seen if isinstance(event, ev.Unknown))
    assert unknown.kind == "weather.changed"
    assert json.loads(unknown.raw)["to"] == "blue"
    assert all(isinstance(event.type, str) for event in seen if not isinstance(event, ev.Unknown))


def test_d4_only_one_iterates_at_a_time_and_before_connecting_nobody() -> None:
    async def main() -> None:
        talk = vivavoce.connect("m", url="ws://127.0.0.1:1")
        with pytest.raises(LocalProtocolError, match="not connected"):
            async for _ in talk:
                pass

    run(main())


# --- D5: nested iteration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_d5_a_response_is_its_items_and_each_item_its_chunks_side_by_side(server: RealServer, dialect: str) -> None:
    server.calls("weather", {"city": "Oslo"}, saying="Let me look.")

    async def main() -> tuple[list[tuple[str, list[str]]], Any, str, bytes]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None)
            response = await talk.send_user_message("Weather?")
            found = []
            async for item in response:
                kinds: list[str] = []
                async for chunk in item:
                    (kind,) = (name for name in chunk.__struct_fields__ if getattr(chunk, name) is not None)
                    kinds.append(kind)
                found.append((item.item.__struct_config__.tag, kinds))
                assert item.is_call == (len(found) == 2)
            return found, await response, await response.text(), await response.audio()

    found, ended, text, audio = run(main())
    (kind, chunks), (call, arguments) = found
    assert (kind, call) == ("message", "function_call")
    assert set(chunks) == {"audio", "transcript"}
    assert set(arguments) == {"arguments"}
    assert (ended.status, text, len(audio)) == ("completed", "Let me look.", len(text) * 60 * 48)


def test_d5_audio_and_words_can_be_followed_apart_at_the_same_time_and_late(server: RealServer) -> None:
    server.answers("one two three")

    async def main() -> tuple[str, bytes, str]:
        async with session(server) as talk:
            responses = talk.responses()
            response = await talk.send_user_message("Count")
            await response.done()
            words = "".join([piece async for piece in response.words()])  # everything, though it is over
            same = await anext(aiter(responses))
            assert same is response
            server.answers("four")
            item = await anext(aiter(await talk.send_user_message("And?")))
            return words, b"".join([piece async for piece in item.audio()]), await response.text()

    words, audio, text = run(main())
    assert words == text == "one two three"
    assert len(audio) == len("four") * 60 * 48


def test_d5_a_response_that_fails_raises_and_its_iteration_ends(server: RealServer) -> None:
    server.behave(language_model=ScriptedSettings(fail_at_piece=1))

    async def main() -> str:
        async with session(server, text_fallback=False) as talk:
            response = await talk.send_user_message("Hi")
            assert [item async for item in response] == []
            with pytest.raises(vivavoce.ResponseFailed) as failed:
                await response
            assert failed.value.response_id == response.id
            return response.status

    assert run(main()) == "failed"


# --- D6: factories ----------------------------------------------------------------------------------------------------

PIXEL = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_d6_factories_make_every_item_that_a_server_takes(server: RealServer, dialect: str) -> None:
    made = [
        items.user_message("Hello", tone(100)),
        items.system_message("Be kind."),
        items.assistant_message("Hi."),
        items.function_call("f", '{"n":1}', call_id="call_1"),
        items.function_output("call_1", "2"),
        items.user_message(items.InputAudio(audio=tone(20), transcript="um"), id="item_mine"),
    ]
    if dialect == "ga":
        made.append(items.user_message("See:", items.image(PIXEL, detail="low")))

    async def main() -> list[str]:
        async with session(server, dialect=dialect) as talk:
            for item in made:
                await talk.create_item(item)
            return [item.type for item in talk.get_items()]

    assert run(main()) == ["message"] * 3 + ["function_call", "function_call_output"] + ["message"] * (len(made) - 5)
    sent = [event["item"] for event in server.received("conversation.item.create")]
    assert [part["type"] for part in sent[0]["content"]] == ["input_text", "input_audio"]
    assert base64.b64decode(sent[0]["content"][1]["audio"]) == tone(100)
    assert [item.get("role") for item in sent[:3]] == ["user", "system", "assistant"]
    assert sent[2]["content"][0]["type"] == ("output_text" if dialect == "ga" else "text")
    assert (sent[3]["call_id"], sent[3]["arguments"], sent[4]["output"]) == ("call_1", '{"n":1}', "2")
    assert (sent[5]["id"], sent[5]["content"][0]["transcript"]) == ("item_mine", "um")
    if dialect == "ga":
        image = sent[6]["content"][1]
        assert image["image_url"] == "data:image/png;base64," + base64.b64encode(PIXEL).decode()
        assert image["detail"] == "low"


# --- D7: raw ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_d7_the_hook_sees_every_frame_of_both_directions_byte_for_byte(server: RealServer, dialect: str) -> None:
    raw: list[tuple[str, str | bytes]] = []
    odd = '{"type" :"nonsense",  "ä": "\\u00e4"}'
    server.inject('{ "type": "odd" ,"n":1.50 }', after="session.updated")

    async def main() -> None:
        hook = lambda source, frame: raw.append((source, frame))  # noqa: E731
        async with session(server, dialect=dialect, on_raw=hook) as talk:
            errors = record(talk, "error")
            await talk.update_session(modality="text")
            await talk.send_raw(odd)
            await talk.ask("Hi")
            assert len(errors) == 1

    run(main())
    for source in ("client", "server"):
        seen = [frame if isinstance(frame, str) else frame.decode() for who, frame in raw if who == source]
        wire = [one.text for one in server.messages if one.dir == source and not one.type.startswith("vivavoce.")]
        assert seen == wire[: len(seen)]
        assert len(seen) > 3
    assert ("client", odd.encode()) in raw
    assert ("server", '{ "type": "odd" ,"n":1.50 }') in raw


def test_d7_a_hook_beside_the_debug_log_and_over_memory() -> None:
    raw: list[tuple[str, Any]] = []

    async def main() -> None:
        async with played(on_raw=lambda source, frame: raw.append((source, frame)), debug=True) as (server, talk):
            talk.clear_audio()
            heard = await server.hear()
            assert json.loads(raw[-1][1]) == heard

    run(main())
    assert [source for source, _ in raw] == ["server", "client"]


def test_d2_errors_name_code_param_and_event(server: RealServer) -> None:
    async def main() -> ServerError:
        async with session(server) as talk:
            with pytest.raises(ServerError) as refused:
                await talk.send({"type": "conversation.item.delete", "item_id": "item_none", "event_id": "mine"})
            return refused.value

    error = run(main())
    assert (error.event_id, error.type) == ("mine", "invalid_request_error")
