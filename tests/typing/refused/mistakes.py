"""Mistakes: each marked line is refused by both type checkers, and no other line is."""

import vivavoce
from vivavoce import events, items, sync, tool, updates

vivavoce.connect("gpt-realtime", api_ky="k")  # error
vivavoce.connect(url=8080)  # error
vivavoce.connect(kind="conversations")  # error


@tool
async def weather(city: str, days: int = 1) -> str:
    return city * days


@tool(timeout="5 s")  # error
def late() -> None: ...


async def tell(session: vivavoce.Session) -> None:
    weather(3)  # error
    await session.update_session(voise="marin")  # error
    await session.update_session(modality="video")  # error
    await session.update_session(turn_detection="server")  # error
    await session.append_audio("speech.wav")  # error
    await session.create_item("Hello!")  # error
    await session.truncate_item("item_1", "300")  # error
    text: bytes = await session.ask("Why?")  # error
    response = await session.create_response(out_of_band="yes")  # error
    print(response.text() + text)  # error
    items.user_message(3)  # error


async def hear(session: vivavoce.Session) -> None:
    async for event in session:
        match event:
            case events.ResponseOutputTextDelta():
                print(event.text)  # error
            case events.ResponseDone():
                print(event.response.output + "!")  # error
            case _:
                print(event.delta)  # error
    done = await session.wait_for(events.ResponseDone)
    print(done.delta)  # error
    print((await session.wait_for("response.done")).delta)  # error
    session.on(events.ResponseDone, lambda event: print(event.delta))  # error


def completed(event: updates.ItemCompleted) -> None:
    print(event.item.words)  # error


def listen(session: vivavoce.Session, script: sync.Session) -> None:
    session.on(events.ResponseDone, completed)  # error
    session.on(updates.ItemCompleted, completed)
    session.on(events.ResponseDone)(completed)  # error
    session.on(3, completed)  # error
    script.on(events.ResponseDone, completed)  # error
    number: int = script.ask("Why?")  # error
    print(number)


def show(text: str) -> None:
    print(text)


def decorate(app: vivavoce.App) -> None:
    app.receiver("audio")(show)  # error
    app.receiver("audios")(show)  # error
    app.receiver("text_chunk")(show)
    app.sender(wait_for="silence")  # error
    app.sender(3)  # error
