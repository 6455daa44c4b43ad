"""A session from opening to end, and what it can be told: an acknowledgement has the type of its answer."""

from typing import assert_type

import vivavoce
from vivavoce import config, events, items


async def open_it() -> None:
    session = vivavoce.connect("gpt-realtime", url="http://127.0.0.1:8080/v1", api_key="k", reconnect=False)
    assert_type(session, vivavoce.Session)
    assert_type(await session, vivavoce.Session)
    assert_type(await session.connect(), vivavoce.Session)
    async with session as same:
        assert_type(same, vivavoce.Session)
        assert_type(same.is_connected, bool)
        assert_type(same.conversation, vivavoce.Conversation)
        assert_type(same.get_item("item_1"), vivavoce.ItemView | None)
        assert_type(same.get_items(), tuple[vivavoce.ItemView, ...])
        assert_type(same.meter.total.cost, float | None)


async def azure(token: str) -> None:
    async def fresh() -> str:
        return token

    vivavoce.connect(azure_endpoint="https://r.openai.azure.com", azure_deployment="voice", token_provider=fresh)
    vivavoce.connect("m", token_provider=lambda: token, player=vivavoce.VirtualPlayer(), tape="talk.tape.jsonl")


async def tell(session: vivavoce.Session) -> None:
    resource = await session.update_session(
        instructions="Be brief.",
        voice="marin",
        modality="text",
        turn_detection="semantic_vad",
        transcription="whisper-1",
        noise_reduction=None,
        input_format="g711_ulaw",
        max_output_tokens="inf",
    )
    assert_type(resource, config.RealtimeSessionResource | config.TranscriptionSessionResource)
    await session.update_session(config.RealtimeSession(instructions="Be brief."))
    await session.update_session({"instructions": "Be brief."})
    await session.update_session(turn_detection=None)

    assert_type(await session.send_audio("speech.wav", pace=1.0), float)
    assert_type(await session.append_audio(b"\0\0"), None)
    assert_type(await session.commit_audio(), str)
    created = await session.create_item(items.user_message("Hello!"), after="root")
    if isinstance(created, items.Message):
        assert_type(created.content, tuple[items.Content, ...])
    await session.create_item({"type": "message", "role": "user", "content": []})
    assert_type(await session.delete_item("item_1"), None)
    assert_type(await session.truncate_item("item_1", 300), None)
    assert_type(await session.cancel_response(), items.Response)
    session.interrupt("item_1", 24_000)
    session.send_raw({"type": "anything"})
    await session.send(events.ResponseCancel())


async def ask(session: vivavoce.Session) -> None:
    assert_type(await session.ask("Why?"), str)
    assert_type(await session.ask(["What is this?", items.image(b"\x89PNG")]), str)
    response = await session.send_user_message(["Listen:", b"\0\0"])
    assert_type(response, vivavoce.LiveResponse)
    async for item in response:
        assert_type(item.id, str)
        async for chunk in item:
            assert_type(chunk.audio, bytes | None)
        async for audio in item.audio():
            assert_type(audio, bytes)
        async for words in item.words():
            assert_type(words, str)
    assert_type(await response, items.Response)
    assert_type(await response.text(), str)
    assert_type(await response.audio(), bytes)
    beside = await session.create_response(instructions="Sum up.", modality="text", out_of_band=True)
    assert_type(await beside.done(), items.Response)
    async for response in session.responses():
        assert_type(response, vivavoce.LiveResponse)
