"""What a session hears: by matching, by listeners, by waiting. A type as a name says what a callback gets."""

from typing import assert_type

import vivavoce
from vivavoce import events, items, updates


async def by_matching(session: vivavoce.Session) -> str:
    async for event in session:
        assert_type(event.type, str)
        assert_type(event.raw, bytes)
        match event:
            case events.ResponseOutputTextDelta():
                assert_type(event.delta, str)
            case events.ResponseOutputAudioDelta(delta=audio):
                assert_type(audio, bytes)
            case events.ResponseOutputItemDone(item=items.FunctionCall(name="get_weather") as call):
                assert_type(call, items.FunctionCall)
                await session.send_function_output(call, {"sky": "sunny"})
            case events.ResponseDone():
                return event.response.id
            case events.ErrorEvent():
                assert_type(event.error.message, str)
            case events.Unknown():
                assert_type(event.kind, str)
            case _:
                pass
    assert_type(await session.recv(), events.AnyServerEvent | events.Unknown)
    return ""


def by_listeners(session: vivavoce.Session) -> None:
    @session.on("conversation.updated")
    async def updated(event: updates.ConversationUpdated) -> None:
        assert_type(event.item, vivavoce.ItemView)
        if event.delta:
            assert_type(event.delta.audio, bytes | None)

    @session.on(events.ResponseDone)
    def done(event: events.ResponseDone) -> int:
        return len(event.response.output)

    @session.once("response.*")
    def anything(event: events.ResponseCreated | events.ResponseDone) -> None: ...

    # What the callback gets is inferred, from the type and from the names that are used most.
    session.on(events.RateLimitsUpdated, lambda event: print(event.rate_limits))
    session.on(events.ResponseCreate, lambda event: print(event.response))
    session.on(updates.Interrupted, lambda event: [heard.samples for heard in event.heard])
    session.on("conversation.item.completed", lambda event: print(event.item.text))
    session.on("response.output_audio.delta", lambda event: len(event.delta))
    session.once("response.done", lambda event: print(event.response.status))
    session.on("error", lambda event: print(event.error.code, event.error.message))
    session.on("realtime.event", lambda event: print(event.time, event.source))
    session.on("connection.lost", lambda event: print(event.what, event.details))

    session.off(events.ResponseDone, done)
    session.off("response.*", anything)


async def by_waiting(session: vivavoce.Session) -> None:
    assert_type(await session.wait_for(events.ResponseDone, timeout_s=5), events.ResponseDone)
    assert_type(await session.wait_for("response.done"), events.ResponseDone)
    started = await session.wait_for("input_audio_buffer.speech_started")
    assert_type(started.audio_start_ms, int)
    await session.wait_for(events.ResponseDone, where=lambda event: event.response.status == "completed")
    assert_type(await session.wait_for_next_completed_item(), vivavoce.ItemView)
