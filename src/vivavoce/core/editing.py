"""A client's work on the conversation: create, delete, retrieve, truncate items (reference §3.8–§3.11).

Every method raises `Refused` before anything changed, or does the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import McpApprovalResponse, Message, OutputAudio

from .adoption import Adopted, Adoption
from .context import is_final, with_audio
from .conversation import Entry
from .desk import Desk
from .messages import Cancel
from .refused import Refused, invalid
from .tools import Toolbox


class Editing:
    """The items of the default conversation, as a client may change them."""

    def __init__(
        self,
        desk: Desk,
        adoption: Adoption,
        toolbox: Toolbox,
        listen_to: Callable[[Adopted], None],
        proceed: Callable[[], None],
        is_open: Callable[[str], bool],
    ) -> None:
        self._desk = desk
        self._adoption = adoption
        self._toolbox = toolbox
        self._listen_to = listen_to
        self._proceed = proceed
        self._is_open = is_open

    def create(self, event: ev.ConversationItemCreate) -> None:
        """`conversation.item.create`."""
        desk = self._desk
        adopted = self._adoption.item(event.item)
        previous = given(event.previous_item_id, None) or desk.conversation.last_item_id
        if previous == "root":
            previous = None
        elif previous is not None and previous not in desk.conversation:
            raise Refused(
                "item_create_invalid_previous_item_id",
                f"Error adding item: the previous item with id '{previous}' does not exist.",
            )
        if isinstance(adopted.item, McpApprovalResponse):
            self._toolbox.check_answer(adopted.item)
        self._adoption.keep(adopted)
        desk.announce(adopted.item, previous)
        self._listen_to(adopted)
        if isinstance(adopted.item, McpApprovalResponse):
            self._toolbox.answered(adopted.item)

    def delete(self, item_id: str) -> None:
        """`conversation.item.delete`."""
        item = self._find(item_id, "deleting", "item_delete_invalid_item_id").item
        if not is_final(item) or self._is_open(item_id):
            raise invalid("item_id", f"The item '{item_id}' is still being generated; cancel its response first.")
        self._desk.send(ev.ConversationItemDeleted(item_id=item_id))
        self._desk.said.pop(item_id, None)
        self._adoption.forget(item_id)
        self._toolbox.forget(item_id)
        if self.forget_heard(item_id):
            self._proceed()

    def forget_heard(self, *item_ids: str) -> bool:
        """These items are gone: their audio too, and their transcription where it goes on. Says whether one did."""
        pending = [source_id for item_id in item_ids if (source_id := self._desk.hearing.forget(item_id))]
        for source_id in pending:
            self._desk.ask(Cancel(source_id))
        return bool(pending)

    def retrieve(self, item_id: str) -> None:
        """`conversation.item.retrieve`: the item with its audio."""
        entry = self._find(item_id, "retrieving", "item_retrieve_invalid_item_id")
        known, item = self._desk.hearing.get(item_id), entry.item
        if audio := known.audio if known else entry.audio:
            item = with_audio(item, audio)
        self._desk.send(ev.ConversationItemRetrieved(item=item))

    def truncate(self, event: ev.ConversationItemTruncate) -> None:
        """`conversation.item.truncate`: nothing behind the position was heard."""
        entry = self._find(event.item_id, "truncating", "item_truncate_invalid_item_id")
        item = entry.item
        parts = item.content if isinstance(item, Message) and item.role == "assistant" else ()
        if event.content_index >= len(parts) or not isinstance(parts[event.content_index], OutputAudio):
            raise Refused("unsupported_content_type", "Only model output audio messages can be truncated.")
        if event.audio_end_ms > entry.audio_ms:
            raise invalid(
                "audio_end_ms",
                f"Audio content of {entry.audio_ms}ms is already shorter than {event.audio_end_ms}ms",
            )
        self._desk.send(
            ev.ConversationItemTruncated(
                item_id=event.item_id, content_index=event.content_index, audio_end_ms=event.audio_end_ms
            )
        )

    def _find(self, item_id: str, doing: str, code: str) -> Entry:
        conversation = self._desk.conversation
        entry = conversation.entry(item_id) if item_id in conversation else None
        if entry is None:
            raise Refused(code, f"Error {doing} item: the item with id '{item_id}' does not exist.")
        return entry
