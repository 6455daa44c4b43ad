"""What the application has changed in the configuration, as far as the server has taken it; another session is told it.

Changes that are on their way count for what is sent after them, and no more once they are refused. Invariant: audio is
cut in the format in which the server will read it.
"""

from __future__ import annotations

from vivavoce.core.conversation import Conversation, format_of
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.config import SessionConfig

from .answers import Answers
from .ear import Ear, input_format
from .restoring import merged


class Configuration:
    """That of one session. `answers` know which changes are on their way."""

    def __init__(self, conversation: Conversation, answers: Answers, ear: Ear) -> None:
        self.changed: SessionConfig | None = None
        """All that the application has changed, and that the server has taken."""
        self._conversation = conversation
        self._answers = answers
        self._ear = ear

    def sent(self, change: SessionConfig) -> None:
        """A change is on its way."""
        self._ear.use(input_format(change) or self._ear.format)

    def stated(self, event: ev.SessionCreated | ev.SessionUpdated) -> None:
        """The server says what is in force. Call it before the change counts as answered."""
        changes = self._on_their_way()
        if isinstance(event, ev.SessionUpdated) and changes:
            taken = changes.pop(0)
            self.changed = taken if self.changed is None else merged(self.changed, taken)
        self._use_format(changes)

    def refused(self) -> None:
        """A change is not on its way any more."""
        self._use_format(self._on_their_way())

    def _on_their_way(self) -> list[SessionConfig]:
        return [event.session for event in self._answers.waiting() if isinstance(event, ev.SessionUpdate)]

    def _use_format(self, changes: list[SessionConfig]) -> None:
        """What is sent now is in the format that the last change on its way says, or else in the one in force."""
        said = [format for change in changes if (format := input_format(change)) is not None]
        if said:
            self._ear.use(said[-1])
        else:
            session = self._conversation.session
            self._ear.use((input_format(session) if session else None) or format_of(UNSET))
