"""What a client sets about its session: one configuration after another, with stored prompts beneath (reference §3.1).

An update is checked as a whole before anything changes; then `session.updated` is sent, and the parts that depend on it
are told. Invariant: what is in force is what the client was told last.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, UnsetType, given
from vivavoce.protocol.config import (
    RealtimeSession,
    RealtimeSessionResource,
    SessionConfig,
    SessionResource,
)

from . import configuration as cfg
from . import prompts
from .answering import Answering
from .conversation import format_of
from .desk import Desk
from .listening import Listening
from .refused import invalid
from .tools import Toolbox, shown


class Updating:
    """The configuration of one session. `turns_changed` is called where turns are found in another way from now on."""

    _direct: frozenset[str] = frozenset()
    """The fields that the client itself has set, which a stored prompt does not."""

    def __init__(
        self,
        desk: Desk,
        toolbox: Toolbox,
        answering: Answering,
        listening: Listening,
        stored: prompts.Prompts,
        turns_changed: Callable[[], None],
    ) -> None:
        self._desk, self._toolbox, self._answering, self._listening = desk, toolbox, answering, listening
        self._stored = stored
        self._turns_changed = turns_changed
        self._initial = desk.initial
        self._begins_with: SessionConfig | None = None

    @property
    def config(self) -> SessionResource:
        """What is in force."""
        return self._desk.conversation.session or self._initial

    def begin_with(self, configured: SessionConfig) -> None:
        """Before the session opens: begin with this, not with the default. Raises `Refused`."""
        self._begins_with = self._with_prompt(configured)
        self._initial = self._updated(self._begins_with)
        if isinstance(configured, RealtimeSession):
            self._direct |= prompts.fields_of(configured)

    def open(self) -> None:
        """The session has opened: let its parts begin with what is in force."""
        audio = cfg.audio_input(self._initial)
        self._listening.change_format(format_of(audio.format), cfg.turn_settings(given(audio.turn_detection, None)))
        self._listening.reduce_noise(cfg.reduction(audio))
        if isinstance(self._begins_with, RealtimeSession):
            self._toolbox.define(given(self._begins_with.tools, ()), is_lasting=True)

    def update(self, update: SessionConfig) -> None:
        """What the client wants from now on. Raises `Refused`, and then changes nothing."""
        before, said, update = cfg.audio_input(self.config), update, self._with_prompt(update)
        after = self._updated(update)
        into = cfg.audio_input(after)
        format, turns = format_of(into.format), cfg.turn_settings(given(into.turn_detection, None))
        if format != self._listening.format and self._listening.holds_audio_to_keep:
            raise invalid(
                "session.audio.input.format",
                "The input audio buffer holds audio in another format; commit or clear it first.",
            )
        self._desk.send(ev.SessionUpdated(session=after))
        if format != self._listening.format:
            self._listening.change_format(format, turns)
        elif into.turn_detection != before.turn_detection:
            self._listening.change(turns)
        if into.turn_detection != before.turn_detection:
            self._turns_changed()
        if cfg.reduction(into) != cfg.reduction(before):
            self._listening.reduce_noise(cfg.reduction(into))
        if isinstance(update, RealtimeSession) and isinstance(said, RealtimeSession):
            self._direct |= prompts.fields_of(said)
            self._toolbox.define(given(update.tools, ()), is_lasting=True)

    def _updated(self, update: SessionConfig) -> SessionResource:
        """The configuration after this update. Raises `Refused`, changes nothing."""
        now = self.config
        if isinstance(update, RealtimeSession) and isinstance(now, RealtimeSessionResource):
            if update.tools is not UNSET or update.tool_choice is not UNSET:
                tools, choice = given(update.tools, given(now.tools, ())), given(update.tool_choice, now.tool_choice)
                self._toolbox.check(tools, choice, "session")
            if not isinstance(update.tools, UnsetType):
                update = structs.replace(update, tools=shown(update.tools))
        after = cfg.updated(
            now,
            update,
            self._desk.abilities,
            spoken_voice=self._answering.spoken_voice,
            is_responding=len(self._answering) > 0,
        )
        return cfg.without_formats(after) if self._desk.abilities.audio_apart else after

    def _with_prompt(self, update: SessionConfig) -> SessionConfig:
        """The update with a stored prompt's fields, where neither it nor an earlier update says anything itself."""
        if not isinstance(update, RealtimeSession) or (prompt := given(update.prompt, None)) is None:
            return update
        return prompts.beneath(update, prompts.filled(self._stored, prompt, "session.prompt"), self._direct)
