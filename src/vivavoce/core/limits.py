"""Every limit of a session, by name, with what happens at it. One place to look them up, one place to change them."""

from __future__ import annotations

from dataclasses import dataclass

SWITCHED_OFF = frozenset({"speculation_ms"})
"""Limits that may be 0, which switches off what they limit; all others are at least 1."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may hold and how long things may take."""

    session_ms_max: int = 60 * 60 * 1000
    """Then `session_expired` and close 1001 (reference §1.7, T23)."""

    input_ms_max: int = 10 * 60 * 1000
    """Audio in the input buffer. Beyond it append is refused; what is there stays."""

    turn_ms_max: int = 4 * 60 * 1000
    """Longest turn that voice activity finds; there it ends, as if by silence."""

    audio_bytes_max: int = 64 * 1024 * 1024
    """Audio kept for items, each of user and assistant. Beyond it the oldest items keep text and duration only."""

    items_max: int = 4_096
    """Items in the conversation, or in the context of one response. Beyond it `conversation.item.create`, a client's
    commit, and such a response are refused; turns that voice activity finds and answers still enter."""

    text_chars_max: int = 4 * 1024 * 1024
    """Text that clients create: of the conversation's items, and likewise of one response's own context. Beyond it the
    event is refused."""

    image_chars_max: int = 32 * 1024 * 1024
    """Images that clients create, as data URIs, likewise. Beyond it the event is refused."""

    responses_max: int = 8
    """Responses running at once, out-of-band ones included. Beyond it `response.create` is refused."""

    response_chars_max: int = 100_000
    """Text and arguments of one response. Beyond it the response fails."""

    engine_silence_ms_max: int = 60_000
    """Time without any report of an engine for a running response. Beyond it the response fails."""

    commit_ms_min: int = 100
    """Least audio for a client's commit (reference §1.8)."""

    mcp_servers_max: int = 16
    """MCP servers that a session may define. Beyond it the tools are refused."""

    mcp_approvals_max: int = 64
    """Approval requests that wait for an answer. Beyond it the oldest can be answered no more."""

    speculation_ms: int = 150
    """Silence in a turn after which the answer is prepared, in case the turn ends with it. 0: it never is."""

    speculations_max: int = 4
    """Pauses of one turn at which an answer is prepared. At later ones it is not."""

    speculation_along_ms: int = 32
    """The silence where engines hear along and read along, so that trying costs little: one frame of voice activity,
    which falls a tenth of a second late as it is. At most `speculation_ms`."""

    speculations_along_max: int = 64
    """The pauses likewise."""

    speculated_phrases_max: int = 2
    """Phrases of an answer that are spoken before the turn has ended. The others are spoken from then on."""

    speculation_bytes_max: int = 8 * 1024 * 1024
    """What is held of an answer that is prepared: its audio, and its text. Beyond it the preparation is given up."""

    judged_ms_max: int = 8_000
    """How much of a turn, counted from its end, is judged for whether the user has finished."""

    @property
    def session_duration(self) -> str:
        """How long a session may last, in words."""
        seconds = self.session_ms_max // 1000
        return f"{seconds // 60} minutes" if seconds >= 60 and seconds % 60 == 0 else f"{seconds} seconds"
