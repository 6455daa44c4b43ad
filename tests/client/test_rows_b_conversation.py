"""Row B9: the conversation as the client keeps it, to the byte."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from row_sessions import DIALECTS, fields_of, played, record, run, session, until

import vivavoce
from vivavoce import ConnectionClosed
from vivavoce.core.caller.updates import ConversationUpdated
from vivavoce.protocol import events as ev
from vivavoce.protocol import items
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

ANSWER = "It rains in Oslo, and in Bergen it pours."


@pytest.fixture
def server(realtime_server: RealServer) -> RealServer:
    return realtime_server


def part_of(delta: Any) -> Any:
    """The one thing that was added."""
    (name,) = fields_of(delta)
    return getattr(delta, name)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b9_get_items_is_the_conversation_in_order_and_get_item_one_of_it(server: RealServer, dialect: str) -> None:
    server.answers(ANSWER)

    async def main() -> list[tuple[str, str | None, str | None, str]]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(modality="text", turn_detection=None)
            last = await talk.create_item(items.user_message("Last", id="item_last"))
            await talk.create_item(items.system_message("First"), after="root")
            await talk.create_item(items.assistant_message("Middle", id="item_mid"), after=None)
            await talk.create_item(
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
            )
            await talk.delete_item("item_mid")
            await (await talk.create_response())
            view = talk.get_item("item_last")
            assert view is not None
            assert (view.id, view.text) == (last.id, "Last")
            assert talk.get_item("item_mid") is None
            assert talk.get_item("item_of_nobody") is None
            return [(item.type, item.role, item.status, item.text) for item in talk.get_items()]

    assert run(main()) == [
        ("message", "system", "completed", "First"),
        ("message", "user", "completed", "Last"),
        ("message", "user", "completed", "x"),
        ("message", "assistant", "completed", ANSWER),
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("modality", ["text", "audio"])
def test_b9_each_delta_has_exactly_one_field_and_together_they_are_the_item(
    server: RealServer, dialect: str, modality: Any
) -> None:
    server.calls("weather", {"city": "Oslo", "days": [1, 2, 3]}, saying=ANSWER)
    grown: dict[str, dict[str, list[Any]]] = {}

    def grow(event: ConversationUpdated) -> None:
        if event.delta is not None:
            (name,) = fields_of(event.delta)
            grown.setdefault(event.item.type, {}).setdefault(name, []).append(part_of(event.delta))

    async def main() -> tuple[Any, Any]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(modality=modality, turn_detection=None)
            talk.on("conversation.updated", grow)
            await (await talk.send_user_message("Weather?"))
            _, message, call = talk.get_items()
            return message, call

    message, call = run(main())
    told = grown["message"]
    if modality == "text":
        assert set(told) == {"text"}
        assert "".join(told["text"]) == message.text == ANSWER
    else:
        assert set(told) == {"audio", "transcript"}
        assert "".join(told["transcript"]) == message.text == ANSWER
        assert b"".join(told["audio"]) == message.audio
        sent = [event["delta"] for event in server.sent("response.*audio.delta")]
        assert message.audio == b"".join(base64.b64decode(delta) for delta in sent)
        assert message.audio_ms == len(ANSWER) * 60
    assert set(grown["function_call"]) == {"arguments"}
    assert "".join(grown["function_call"]["arguments"]) == call.arguments
    assert (call.name, call.status) == ("weather", "completed")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b9_speech_is_cut_out_of_what_was_sent_by_the_positions_of_the_server(server: RealServer, dialect: str) -> None:
    """Two turns in one stream: each item has exactly the samples between the positions that the server named."""
    stream = silence(720) + tone(410) + silence(900) + tone(620) + silence(900)
    detection = {"type": "server_vad", "silence_duration_ms": 500, "prefix_padding_ms": 240, "create_response": False}

    async def main() -> list[tuple[str, bytes]]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=detection)
            committed = record(talk, "input_audio_buffer.committed")
            for at in range(0, len(stream), 1_234):  # cut nowhere in particular, and never in a sample
                talk.append_audio(stream[at : at + 1_234])
            await until(lambda: len(committed) == 2 and len(talk.get_items()) == 2)
            return [(item.id, item.audio) for item in talk.get_items()]

    spoken = run(main())
    starts = {event["item_id"]: event["audio_start_ms"] for event in server.sent("input_audio_buffer.speech_started")}
    stops = {event["item_id"]: event["audio_end_ms"] for event in server.sent("input_audio_buffer.speech_stopped")}
    assert len(spoken) == 2
    for item_id, audio in spoken:
        assert audio == stream[starts[item_id] * 48 : stops[item_id] * 48]
        assert tone(400)[:9_600] in audio
    assert min(starts.values()) == 720 - 240


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b9_speech_that_was_committed_by_hand_is_all_since_the_last_cut(server: RealServer, dialect: str) -> None:
    first, second, forgotten = tone(120), silence(70) + tone(50), tone(30)

    async def main() -> tuple[bytes, bytes, tuple[str, str]]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None)
            talk.append_audio(first)
            one = await talk.commit_audio()
            assert (await talk.wait_for_next_item(10)).id == one
            talk.append_audio(forgotten)
            talk.clear_audio()
            talk.append_audio(second)
            two = await talk.commit_audio()
            await until(lambda: len(talk.get_items()) == 2)
            views = talk.get_item(one), talk.get_item(two)
            assert views[0] is not None
            assert views[1] is not None
            return views[0].audio, views[1].audio, (one, repr(views[0]))

    one, two, (one_id, shown) = run(main())
    assert (one, two) == (first, second)
    assert shown == f"<message of the user {one_id} completed: ''>"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b9_the_transcript_of_the_users_speech_is_told_when_it_comes(server: RealServer, dialect: str) -> None:
    server.hears("I would like two tickets.")

    async def main() -> tuple[str, str, str]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None, transcription="whisper-1")
            grown = record(talk, "conversation.updated")
            talk.append_audio(tone(500))
            item_id = await talk.commit_audio()
            await talk.wait_for("conversation.item.input_audio_transcription.completed", 10)
            await until(lambda: server.sent("conversation.item.input_audio_transcription.completed"))
            view = talk.get_item(item_id)
            assert view is not None
            await until(lambda: grown)
            told = "".join(event.delta.transcript for event in grown if event.delta)
            return view.text, told, view.role or ""

    assert run(main()) == ("I would like two tickets.", "I would like two tickets.", "user")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b9_truncation_cuts_audio_and_words_alike(server: RealServer, dialect: str) -> None:
    server.answers(ANSWER)

    async def main() -> tuple[bytes, Any, str, int]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None)
            await (await talk.send_user_message("Weather?"))
            item = talk.get_items()[-1]
            whole = item.audio
            updated = record(talk, "conversation.updated")
            await talk.truncate_item(item.id, 1_020)
            await until(lambda: updated)
            return whole, item, updated[-1].item.text, item.audio_ms

    whole, item, text, audio_ms = run(main())
    assert item.audio == whole[: 1_020 * 48]
    assert audio_ms == 1_020
    assert item.is_truncated
    assert text == item.text
    assert ANSWER.startswith(text)
    assert "It rains" in text
    assert len(text) <= 1_020 // 60 + 1


async def feed(server: Any, talk: vivavoce.Session, *events: Any) -> None:
    """Say all this, and wait until it was taken."""
    for event in events:
        await server.say(event)
    await server.say({"type": "rate_limits.updated", "rate_limits": []})
    await talk.wait_for("rate_limits.updated", 5)


STRAY = [
    {"type": "conversation.item.deleted", "item_id": "item_x"},
    {"type": "conversation.item.truncated", "item_id": "item_x", "content_index": 0, "audio_end_ms": 100},
    {
        "type": "conversation.item.input_audio_transcription.delta",
        "item_id": "item_x",
        "content_index": 0,
        "delta": "a",
    },
    {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "item_x",
        "content_index": 0,
        "transcript": "a",
    },
    {"type": "input_audio_buffer.speech_started", "item_id": "item_x", "audio_start_ms": 10**9},
    {"type": "input_audio_buffer.speech_stopped", "item_id": "item_y", "audio_end_ms": 5},
    {"type": "input_audio_buffer.committed", "item_id": "item_z", "previous_item_id": "item_of_nobody"},
    *(
        {
            "type": f"response.{kind}.delta",
            "response_id": "r",
            "item_id": "item_x",
            "output_index": 7,
            "content_index": 9,
            "delta": delta,
        }
        for kind, delta in (("output_text", "a"), ("output_audio_transcript", "a"), ("output_audio", "AAAA"))
    ),
    {
        "type": "response.function_call_arguments.delta",
        "response_id": "r",
        "item_id": "item_x",
        "output_index": 0,
        "call_id": "c",
        "delta": "{",
    },
    {
        "type": "response.output_item.done",
        "response_id": "r",
        "output_index": 0,
        "item": {"type": "hologram", "id": "h"},
    },
    {"type": "conversation.item.added", "previous_item_id": None, "item": {"type": "hologram", "id": "h", "depth": 3}},
    {
        "type": "conversation.item.added",
        "previous_item_id": "item_of_nobody",
        "item": {
            "type": "message",
            "id": "item_m",
            "role": "assistant",
            "content": [{"type": "output_scent", "of": "tea"}],
        },
    },
    {"type": "response.done", "response": {"id": "r", "status": "completed", "output": []}},
    {"type": "session.danced", "steps": 3},
]


@pytest.mark.parametrize("event", STRAY, ids=lambda event: str(event["type"]))
def test_b9_unknown_items_and_events_never_crash_it(event: Any) -> None:
    async def main() -> list[str]:
        async with played() as (server, talk):
            talk.on("*", lambda event: None)
            talk.on("conversation.updated", lambda event: None)
            await feed(server, talk, event, event)
            assert talk.is_connected
            return [repr(item) for item in talk.get_items()]

    run(main())


@pytest.mark.parametrize("message", ["no JSON at all", '{"type": 7}', "[]"])
def test_b9_what_is_no_message_at_all_ends_the_session_with_the_reason(message: str) -> None:
    async def main() -> None:
        async with played() as (server, talk):
            errors = record(talk, "error")
            await server.say(message)
            with pytest.raises(ConnectionClosed, match="the server sent a message that"):
                await talk.wait_for("response.done", 5)
            await until(lambda: errors)
            assert not talk.is_connected

    run(main())


def test_b9_items_of_unknown_types_are_kept_as_they_are() -> None:
    async def main() -> None:
        async with played() as (server, talk):
            appended = record(talk, "conversation.item.appended")
            await feed(server, talk, *STRAY)
            kept = talk.get_item("h")
            assert kept is not None
            assert kept.type == "hologram"
            assert isinstance(kept.item, items.UnknownItem)
            assert kept.item.fields["depth"] == 3
            assert (kept.text, kept.audio, kept.name, kept.output) == ("", b"", None, None)
            assert [event.item.id for event in appended] == ["h", "item_m"]

    run(main())


def test_b9_old_speech_is_let_go_and_the_item_stays() -> None:
    from vivavoce.core.caller import CallerLimits

    async def main() -> list[int]:
        limits = CallerLimits(speech_bytes_max=10_000)
        async with played(limits=limits) as (server, talk):
            await feed(server, talk)
            for number in range(3):
                talk.append_audio(tone(100))
                committed = asyncio.ensure_future(_awaited(talk.commit_audio()))
                item_id = f"item_{number}"
                await server.say({"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": None})
                message = {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
                await server.say({"type": "conversation.item.added", "previous_item_id": None, "item": message})
                assert await committed == item_id
                await feed(server, talk)
            return [len(view.audio) for n in range(3) if (view := talk.get_item(f"item_{n}"))]

    assert run(main()) == [0, 4_800, 4_800]


async def _awaited(ack: Any) -> Any:
    return await ack


def test_b9_what_an_event_tells_is_in_the_conversation_already(server: RealServer) -> None:
    server.answers(ANSWER)
    missing: list[str] = []

    async def main() -> None:
        async with session(server) as talk:
            await talk.update_session(modality="text")
            asking = asyncio.ensure_future(talk.ask("Weather?"))
            async for event in talk:
                if isinstance(event, ev.ConversationItemAdded) and talk.get_item(str(event.item.id)) is None:
                    missing.append(event.type)
                if isinstance(event, ev.ResponseDone):
                    break
            assert await asking == ANSWER

    run(main())
    assert missing == []
