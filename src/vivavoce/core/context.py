"""What the language model is told: the conversation as it was really heard, by the user and by us.

A user's audio stands there as its transcript, whether or not the client asked to see one; an assistant's speech that
was cut off stands there up to the word that was heard, although the client's copy has no transcript any more. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import UNSET, structs

from vivavoce.protocol.base import given
from vivavoce.protocol.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    Item,
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    Message,
    OutputAudio,
)

from .conversation import Conversation
from .hearing import Hearing
from .spoken import Said, heard

SILENCE = "(The user has said nothing for a while.)"
"""What the model reads where a timeout let it speak: to an empty message most have nothing to say."""


def spoken_item(item_id: str, transcript: str | None = None) -> Message:
    """What the user said in a turn: as the client is told it, without, and as the model is, with its transcript."""
    content = (InputAudio(transcript=transcript),)
    return Message(id=item_id, object="realtime.item", status="completed", role="user", content=content)


def is_final(item: Item) -> bool:
    """Whether the item is complete, so that a model may see it and a client may delete it."""
    return getattr(item, "status", UNSET) != "in_progress"


def as_heard(
    items: Iterable[Item],
    hearing: Hearing,
    said: dict[str, Said],
    conversation: Conversation,
    name_of: Callable[[str, str], str],
) -> tuple[Item, ...]:
    """The items as the model may know them: messages, functions' calls and their outputs, MCP calls among these.

    `name_of` gives the name under which the model knows a tool, by the label of its MCP server and its name there.
    """

    def view(item: Item) -> tuple[Item, ...]:
        match item:
            case Message():
                return (_heard_message(item, hearing, said, conversation),)
            case FunctionCall() | FunctionCallOutput():
                return (item,)
            case McpCall():
                return _as_function(item, name_of(item.server_label, item.name))
            case McpApprovalResponse() if not item.approve:
                return _as_declined(item, conversation, name_of)
            case _:
                return ()

    return tuple(seen for item in items for seen in view(item))


def without_noises(
    items: tuple[Item, ...], hearing: Hearing, said: dict[str, Said], conversation: Conversation
) -> tuple[Item, ...]:
    """The items without those messages at the end of which nobody heard a word: noises, and what they cut off."""
    end = len(items)
    while end and isinstance(last := items[end - 1], Message):
        if _says_something(_heard_message(last, hearing, said, conversation)):
            break
        end -= 1
    return items[:end]


def _says_something(message: Message) -> bool:
    return any(
        isinstance(part, InputImage) or getattr(part, "text", None) or given(getattr(part, "transcript", None), None)
        for part in message.content
    )


def _heard_message(item: Message, hearing: Hearing, said: dict[str, Said], conversation: Conversation) -> Message:
    item_id = given(item.id, "")
    if known := hearing.get(item_id):
        nothing = SILENCE if known.is_silence else ""
        return _replace(item, InputAudio(transcript=known.transcript or nothing))
    entry = conversation.entry(item_id)
    if entry is not None and entry.truncated:
        return _replace(item, OutputAudio(transcript=heard(said.get(item_id, []), entry.audio_bytes)))
    return item


def _as_function(call: McpCall, name: str) -> tuple[Item, ...]:
    """A call that is over, as a function's call and output; one that still runs is not seen."""
    output, error = given(call.output, None), given(call.error, None)
    if output is None and error is None:
        return ()
    call_id = given(call.id, "")
    said = output if error is None else f"Error: {error.message}"
    return (
        FunctionCall(id=call_id, call_id=call_id, name=name, arguments=call.arguments, status="completed"),
        FunctionCallOutput(call_id=call_id, output=said or ""),
    )


def _as_declined(
    answer: McpApprovalResponse, conversation: Conversation, name_of: Callable[[str, str], str]
) -> tuple[Item, ...]:
    """A call that the user did not allow, as one that came to nothing."""
    entry = conversation.entry(answer.approval_request_id)
    if entry is None or not isinstance(asked := entry.item, McpApprovalRequest):
        return ()
    reason = given(answer.reason, None)
    said = "The user did not allow this call." + (f" Reason: {reason}" if reason else "")
    call_id, name = given(asked.id, ""), name_of(asked.server_label, asked.name)
    return (
        FunctionCall(id=call_id, call_id=call_id, name=name, arguments=asked.arguments, status="completed"),
        FunctionCallOutput(call_id=call_id, output=said),
    )


def with_audio(item: Item, audio: bytes) -> Item:
    """The message with its audio, as `conversation.item.retrieved` shows it."""
    assert isinstance(item, Message)
    content = tuple(
        structs.replace(part, audio=audio) if isinstance(part, InputAudio | OutputAudio) else part
        for part in item.content
    )
    return structs.replace(item, content=content)


def _replace(message: Message, audio_part: Content) -> Message:
    kind = type(audio_part)
    return structs.replace(
        message, content=tuple(audio_part if isinstance(part, kind) else part for part in message.content)
    )
