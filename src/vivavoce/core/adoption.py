"""A client's item becomes the server's: checked, with an id, without its audio (reference §3.8).

Pure; raises `Refused` before anything changed. The audio is handed back beside the item, because the events never
repeat it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import UNSET, Struct, structs

from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputItem,
    InputText,
    Item,
    ItemReference,
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpListTools,
    Message,
    OutputText,
    Role,
)

from .conversation import Conversation
from .limits import Limits
from .refused import Refused, invalid

ALLOWED: dict[Role, tuple[type[Content], ...]] = {
    "user": (InputText, InputAudio, InputImage),
    "system": (InputText,),
    "assistant": (OutputText,),
}
"""What a client may put into a message of each role; assistant audio cannot be created."""

McpItem = McpApprovalRequest | McpApprovalResponse | McpCall | McpListTools

IMAGE_URLS = ("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/jpg;base64,")
"""What an image of a client may begin with (§2.7)."""

PART_CHARS = 64
"""What a content part weighs beside its text."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """An item with its id, and beside it the part of audio that the client sent, None where it has none."""

    id: str
    item: Item
    audio: InputAudio | None = None
    audio_index: int = 0
    """Where in the content the audio stands."""

    @property
    def chars(self) -> int:
        """How much it counts against the limit of text: ids count too, and parts that hold nothing."""
        parts = self.item.content if isinstance(self.item, Message) else (self.item,)
        return len(self.id) + sum(PART_CHARS + _chars(part) for part in parts)

    @property
    def image_chars(self) -> int:
        """How much it counts against the limit of images."""
        parts = self.item.content if isinstance(self.item, Message) else ()
        return sum(len(part.image_url) for part in parts if isinstance(part, InputImage))


class Adoption:
    """Admits clients' items, within the limits of a session and under ids that are free.

    `is_taken` knows the ids that are taken though no item of the conversation has them.
    """

    def __init__(
        self,
        conversation: Conversation,
        limits: Limits,
        new_id: Callable[[str], str],
        is_taken: Callable[[str], bool],
        *,
        sees_images: bool = False,
    ) -> None:
        self._sees_images = sees_images
        self._conversation = conversation
        self._limits = limits
        self._new_id = new_id
        self._is_taken = is_taken
        self._chars: dict[str, int] = {}
        self._image_chars: dict[str, int] = {}

    def require_room(self) -> None:
        """One more item must fit into the conversation."""
        if len(self._conversation) >= self._limits.items_max:
            raise Refused("conversation_full", f"A conversation holds at most {self._limits.items_max} items.")

    def item(self, item: InputItem) -> Adopted:
        """The item of a `conversation.item.create`."""
        self.require_room()
        adopted = self._adopt(item, "item")
        check_call_id(adopted.item, self._conversation)
        self._require_chars(sum(self._chars.values()) + adopted.chars)
        self._require_images(sum(self._image_chars.values()) + adopted.image_chars)
        return adopted

    def keep(self, adopted: Adopted) -> None:
        """It is in the conversation now, and its text counts."""
        self._chars[adopted.id] = adopted.chars
        if adopted.image_chars:
            self._image_chars[adopted.id] = adopted.image_chars

    def forget(self, item_id: str) -> None:
        """It was deleted."""
        self._chars.pop(item_id, None)
        self._image_chars.pop(item_id, None)

    def context(self, items: tuple[InputItem, ...]) -> list[Adopted]:
        """The items of a response's own context; references stand for items of the conversation."""
        if len(items) > self._limits.items_max:
            said = f"A response can be given at most {self._limits.items_max} items."
            raise Refused("array_above_max_length", said, "response.input")
        context: list[Adopted] = []
        own: dict[str, int] = {}
        for index, item in enumerate(items):
            where = f"response.input[{index}]"
            if isinstance(item, ItemReference):
                context.append(self._referred(item.id, where))
                continue
            adopted = self._adopt(item, where)
            if adopted.id in own:
                raise _exists(adopted.id, where)
            own[adopted.id] = adopted.chars
            context.append(adopted)
        self._require_chars(sum(own.values()))
        self._require_images(sum(adopted.image_chars for adopted in context if adopted.id in own))
        return context

    def _referred(self, item_id: str, where: str) -> Adopted:
        entry = self._conversation.entry(item_id) if item_id in self._conversation else None
        if entry is None:
            raise invalid(f"{where}.id", f"There is no item with the id '{item_id}'.")
        return Adopted(item_id, entry.item)

    def _adopt(self, item: InputItem, where: str) -> Adopted:
        adopted = adopt(item, where, self._new_id, self._conversation, sees_images=self._sees_images)
        if self._is_taken(adopted.id):
            raise _exists(adopted.id, where)
        return adopted

    def _require_chars(self, chars: int) -> None:
        if chars > self._limits.text_chars_max:
            most = self._limits.text_chars_max
            raise Refused("conversation_full", f"Items hold at most {most} characters of text together.")

    def _require_images(self, chars: int) -> None:
        if chars > self._limits.image_chars_max:
            most = self._limits.image_chars_max
            raise Refused("conversation_full", f"Items hold at most {most} characters of images together.")


def adopt(
    item: InputItem, where: str, new_id: Callable[[str], str], conversation: Conversation, *, sees_images: bool
) -> Adopted:
    """The server's version of a client's item; `where` is its path in the event, for error params."""
    if isinstance(item, ItemReference):
        raise invalid(
            f"{where}.type", "Invalid value: 'item_reference'. An item that is created cannot be a reference."
        )
    if not isinstance(item, Message | FunctionCall | FunctionCallOutput | McpItem):
        kind = type(item).__struct_config__.tag
        raise invalid(f"{where}.type", f"Items of type '{kind}' are not supported by this server.")
    if conversation.entry(given(item.id, "")) is not None:
        raise _exists(given(item.id, ""), where)
    item_id = new_id("item") if isinstance(item.id, UnsetType) or not item.id else item.id
    stamp = {"id": item_id, "object": "realtime.item", "status": "completed"}
    match item:
        case Message():
            _check_content(item, where, sees_images)
            content = tuple(_without_audio(part) for part in item.content)
            return Adopted(item_id, structs.replace(item, **stamp, content=content), *_audio(item))
        case FunctionCall():
            return Adopted(item_id, structs.replace(item, **stamp, call_id=given(item.call_id, "") or new_id("call")))
        case McpApprovalRequest() | McpApprovalResponse() | McpCall() | McpListTools():
            return Adopted(item_id, structs.replace(item, id=item_id))
        case _:
            return Adopted(item_id, structs.replace(item, **stamp))


def check_call_id(item: Item, conversation: Conversation) -> None:
    """A function's output must answer a call of the conversation."""
    if not isinstance(item, FunctionCallOutput):
        return
    if not any(isinstance(call, FunctionCall) and call.call_id == item.call_id for call in conversation):
        raise Refused("invalid_tool_call_id", f"Tool call ID '{item.call_id}' not found in conversation.")


def _exists(item_id: str, where: str) -> Refused:
    return invalid(f"{where}.id", f"An item with the id '{item_id}' exists already.")


def _chars(part: Struct) -> int:
    if isinstance(part, InputImage):
        return 0
    texts = (getattr(part, field) for field in part.__struct_fields__)
    return sum(len(text) for text in texts if isinstance(text, str))


def _check_content(message: Message, where: str, sees_images: bool) -> None:
    allowed = ALLOWED[message.role]
    for index, part in enumerate(message.content):
        path = f"{where}.content[{index}]"
        if not isinstance(part, allowed):
            names = ", ".join(f"'{kind.__struct_config__.tag}'" for kind in allowed)
            tag = type(part).__struct_config__.tag
            raise invalid(
                f"{path}.type", f"Invalid value: '{tag}'. Supported values for role '{message.role}' are: {names}."
            )
        if isinstance(part, InputImage):
            _check_image(part, path, sees_images)
        if isinstance(part, InputAudio) and given(part.audio, None) is None and not given(part.transcript, None):
            raise Refused("missing_required_parameter", f"Missing required parameter: '{path}.audio'.", f"{path}.audio")
        if isinstance(part, InputAudio) and _audio(message)[1] != index:
            raise invalid(f"{path}.type", "An item can have one part of audio on this server; create an item for each.")


def _check_image(image: InputImage, path: str, sees_images: bool) -> None:
    if not sees_images:
        raise invalid(f"{path}.type", "The language model of this session cannot see images.")
    if not image.image_url.startswith(IMAGE_URLS):
        raise invalid(
            f"{path}.image_url", "Expected a data URI of a PNG or JPEG image, such as 'data:image/png;base64,…'."
        )


def _without_audio(part: Content) -> Content:
    if not isinstance(part, InputAudio):
        return part
    return InputAudio(audio=UNSET, transcript=given(part.transcript, None))


def _audio(message: Message) -> tuple[InputAudio | None, int]:
    return next(
        ((part, index) for index, part in enumerate(message.content) if isinstance(part, InputAudio)), (None, 0)
    )
