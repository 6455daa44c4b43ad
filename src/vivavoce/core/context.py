"""What the language model is told: the conversation as it was really heard, by the user and by us.

A user's audio stands there as its transcript, whether or not the client asked to see one; an assistant's speech that
was cut off stands there up to the word that was heard, although the client's copy has no transcript any more. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET, structs

from vivavoce.protocol.base import given
from vivavoce.protocol.items import Content, InputAudio, Item, Message, OutputAudio

from .conversation import Conversation
from .hearing import Hearing
from .response import Said, heard


def is_final(item: Item) -> bool:
    """Whether the item is complete, so that a model may see it and a client may delete it."""
    return getattr(item, "status", UNSET) != "in_progress"


def as_heard(
    items: Iterable[Item], hearing: Hearing, said: dict[str, Said], conversation: Conversation
) -> tuple[Item, ...]:
    """The items as the model may know them."""

    def view(item: Item) -> Item:
        if not isinstance(item, Message):
            return item
        item_id = given(item.id, "")
        if known := hearing.get(item_id):
            return _replace(item, InputAudio(transcript=known.transcript))
        entry = conversation.entry(item_id)
        if entry is not None and entry.truncated:
            return _replace(item, OutputAudio(transcript=heard(said.get(item_id, []), entry.audio_bytes)))
        return item

    return tuple(view(item) for item in items)


def with_audio(item: Item, audio: bytes) -> Item:
    """The item with its audio, as `conversation.item.retrieved` shows it."""
    if not isinstance(item, Message):
        return item
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
