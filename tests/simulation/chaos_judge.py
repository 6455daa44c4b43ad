"""What must hold at the end of a conversation, however often its line was cut."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from vivavoce.client.session import Session
from vivavoce.core.caller.turns import answers_turns
from vivavoce.errors import ResponseFailed
from vivavoce.protocol.base import given
from vivavoce.protocol.config import FunctionTool, RealtimeSession
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Message,
    OutputAudio,
    OutputText,
)

if TYPE_CHECKING:
    from chaos_user import Seen, Visitor
    from chaos_world import House, World

PATIENCE_S = 3_600.0
CHARACTER_BYTES = 60 * 48
"""What the scripted voice makes of a character."""
QUESTION = re.compile(r"question(\d+)")
FOUND = re.compile(r"tool said: \"?found(\d+)")


async def judge(session: Session, seen: Seen, visitor: Visitor, house: House, world: World) -> None:
    """Raises `AssertionError` for the first promise that was broken."""
    assert not [error for error in seen.errors if getattr(error, "code", "") not in visitor.honest], seen.errors
    _same_state(session, house, is_same=not {"restored", "renewed"} & {*seen.changes})
    _nothing_twice(session, seen, visitor)
    _nothing_lost(session, seen, world)
    _tools(session, seen, visitor, house)
    _configured(session, visitor)
    await _spoken(session, visitor)
    await _heard(session, visitor, house)


def _same_state(session: Session, house: House, *, is_same: bool) -> None:
    """Both ends hold the same conversation; `is_same`: it was one session from the beginning to the end."""
    (machine,) = (one for one in house.machines if _id(one) == _id(session))
    mine, theirs = machine.conversation, session.conversation
    assert theirs.item_ids == mine.item_ids
    for ours, yours in zip(mine.items, theirs.items, strict=True):
        assert ours == yours
    assert theirs.session == mine.session
    assert not theirs.active_responses, theirs.active_responses
    if is_same:
        assert theirs.responses == mine.responses
    for item_id in mine.item_ids:
        one, other = mine.entry(item_id), theirs.entry(item_id)
        assert one is not None
        assert other is not None
        if one.audio or is_same:
            assert one.audio == other.audio, f"audio of {item_id}"


def _nothing_twice(session: Session, seen: Seen, visitor: Visitor) -> None:
    twice = [event_id for event_id, count in seen.event_ids.items() if count > 1 and event_id]
    assert not twice, f"events came twice: {twice}"
    answers = Counter(n for response_id, n in seen.begun.items() if n and response_id in seen.said)
    for n, count in answers.items():
        assert count == 1, f"request {n} was answered {count} times"
    for name, what in (("appended", seen.appended), ("completed", seen.completed)):
        again = {item_id for item_id, count in what.items() if count > 1} - seen.deleted  # what was cut may be put anew
        assert not again, f"told twice as {name}: {what}"
    for item_id, words in seen.words.items():
        assert words.startswith(("echo: ", "tool said: ")[words.startswith("tool")][: len(words)]), words
        numbers = QUESTION.findall(words)
        assert len(numbers) <= 1, f"{item_id} says more than one answer: {words}"
        limit = (len(words) + 1) * CHARACTER_BYTES
        assert seen.sound[item_id] <= limit, f"{item_id}: {seen.sound[item_id]} bytes of sound for {words!r}"
    if visitor.player is not None:
        for item_id, size in visitor.player.given.items():
            assert size <= seen.sound[item_id], f"{item_id} was played more than it was sent"
        for item_id, audio in visitor.player.played.items():
            assert len(audio) <= visitor.player.given[item_id], f"{item_id} was played twice"


def _nothing_lost(session: Session, seen: Seen, world: World) -> None:
    """What was known to be there is there, in its order; answers of which nothing was heard may be gone."""
    there = session.conversation.item_ids
    for order in seen.orders:
        kept = [item_id for item_id in order if item_id in there]
        assert kept == [item_id for item_id in there if item_id in order], "the order has changed"
        gone = {item_id for item_id in order if item_id not in there} - seen.deleted
        assert not gone - seen.mute - seen.stopped, f"lost: {gone - seen.mute - seen.stopped}"
    gone = {item_id for item_id in seen.created if item_id not in there} - seen.deleted
    assert not gone, f"acknowledged, and lost: {gone}"
    for item_id, text in seen.completed_texts.items():
        view = session.get_item(item_id)
        if view is None or item_id in seen.truncated or view.is_truncated or not text or item_id not in there:
            continue
        assert view.text.startswith(text), f"{item_id}: {view.text!r} was {text!r}"


def _configured(session: Session, visitor: Visitor) -> None:
    """What was changed is in force."""
    assert isinstance(session.session, RealtimeSession)
    assert given(session.session.instructions, "") == visitor.instructions, "the instructions are others"
    assert [tool.name for tool in given(session.session.tools, ()) if isinstance(tool, FunctionTool)] == ["look_up"]


async def _spoken(session: Session, visitor: Visitor) -> None:
    """What was held down a key for is one message, whole, wherever its audio had to be sent again."""
    for length_ms, ack in visitor.spoken:
        view = session.get_item(await ack)
        if view is not None:
            assert view.text == f"audio of {length_ms} ms", f"{view.text!r} was {length_ms} ms"


def _tools(session: Session, seen: Seen, visitor: Visitor, house: House) -> None:
    for n, count in visitor.runs.items():
        assert count == 1, f"call {n} was run {count} times"
    calls = [item for item in session.conversation.items if isinstance(item, FunctionCall)]
    outputs = [item for item in session.conversation.items if isinstance(item, FunctionCallOutput)]
    answered = Counter(item.call_id for item in outputs)
    assert all(count == 1 for count in answered.values()), f"answered twice: {answered}"
    for call in calls:
        if call.status == "completed":
            assert given(call.call_id, "") in answered, f"a call without an answer: {call}"
    read = {item.call_id for prompt in house.prompts for item in prompt.items if isinstance(item, FunctionCallOutput)}
    ended = {
        given(item.call_id, "")
        for response in seen.done.values()
        if response.status != "completed"
        for item in response.output
        if isinstance(item, FunctionCall)
    }
    unread = {item.call_id for item in outputs} - read - ended
    assert not unread, f"the model was never shown the outputs of {unread}"
    told = Counter(number for words in seen.words.values() for number in FOUND.findall(words))
    for number, count in told.items():
        assert count == 1, f"output {number} was talked about {count} times"


async def _heard(session: Session, visitor: Visitor, house: House) -> None:
    """What the model is told is what the client shows, word for word."""
    if answers_turns(session.session):
        await session.update_session(turn_detection=None)
    shown = [(view.id, view.role, view.text) for view in session.get_items() if view.type == "message"]
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await (await session.create_response())
                break
            except ResponseFailed as error:
                if error.code != "session_expired":
                    raise
    prompt = house.prompts[-1]
    read = {given(item.id, ""): _text(item) for item in prompt.items if isinstance(item, Message)}
    for item_id, role, text in shown:
        if role == "user" and not text:
            continue  # nobody told us what was understood
        assert read.get(item_id, "") == text, f"{item_id}: shown {text!r}, read {read.get(item_id)!r}"


def _text(message: Message) -> str:
    def words(part: Any) -> str:
        match part:
            case InputText() | OutputText():
                return part.text
            case InputAudio() | OutputAudio():
                return given(part.transcript, None) or ""
        return ""

    return "".join(map(words, message.content))


def _id(end: Any) -> str:
    """Of the session that one end knows."""
    return str(end.conversation.session.id)
