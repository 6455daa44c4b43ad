"""What the parts of a session machine share: the way out, the conversation, what was heard, the limits.

Lent to each part by the session, which stays the owner. Invariant: `send` is the only way to change what the client can
see, because it applies the event to the conversation and emits it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vivavoce.protocol import events as ev
from vivavoce.protocol.config import RealtimeSessionResource, SessionResource, TranscriptionSessionResource
from vivavoce.protocol.items import Item

from .abilities import Abilities
from .conversation import Conversation
from .hearing import Hearing
from .limits import Limits
from .messages import Effect
from .spoken import Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Shared by the parts of one session."""

    send: Callable[[ev.AnyServerEvent], None]
    ask: Callable[[Effect], None]
    new_id: Callable[[str], str]
    now_ms: Callable[[], int]
    initial: SessionResource
    """The configuration that the session began with."""
    conversation: Conversation
    conversation_id: str
    hearing: Hearing
    limits: Limits
    abilities: Abilities
    said: dict[str, Said] = field(default_factory=dict)
    """For every message that was spoken, what a truncation needs to tell what was heard."""

    @property
    def config(self) -> SessionResource:
        """The configuration in force."""
        return self.conversation.session or self.initial

    @property
    def realtime(self) -> RealtimeSessionResource:
        """The same, of a session that is a conversation."""
        config = self.config
        assert not isinstance(config, TranscriptionSessionResource)
        return config

    @property
    def is_conversation(self) -> bool:
        """Whether there is somebody to answer: a transcription session has nobody."""
        return not isinstance(self.config, TranscriptionSessionResource)

    def announce(self, item: Item, previous: str | None) -> None:
        """An item that is complete enters the conversation."""
        self.send(ev.ConversationItemAdded(item=item, previous_item_id=previous))
        self.send(ev.ConversationItemDone(item=item, previous_item_id=previous))
