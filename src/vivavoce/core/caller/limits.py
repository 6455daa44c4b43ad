"""Every limit of a caller, by name, with what happens at it."""

from __future__ import annotations

import msgspec


class CallerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller holds and how long it waits."""

    answer_ms_max: int = 30_000
    """Time for the acknowledgement of an event that has one. Then the ticket fails with `no_answer`."""

    response_silence_ms_max: int = 60_000
    """Time in which a response that was asked for, or that is running, shows no sign of life. Then it is cancelled, and
    fails with `response_timeout`."""

    requests_max: int = 64
    """`response.create` events that wait for their turn. Beyond it another one is refused."""

    busy_tries_max: int = 20
    """How often a `response.create` is sent again that the server refused because of a response that we know nothing
    of. Then the refusal stands."""

    busy_wait_ms: int = 250
    """The wait before that."""

    turn_answer_ms_max: int = 2_000
    """How long the response is waited for that the end of a user's turn should bring, by tool outputs and by renewals.
    Then one is asked for, where there are outputs."""

    tool_rounds_max: int = 32
    """Responses in a row that were asked for because of tool outputs alone. Then no more is, until somebody speaks."""

    unsent_max: int = 4_096
    """Events that are kept while there is no connection. Beyond it another one is refused."""

    unsent_audio_ms_max: int = 30_000
    """Own audio that is kept while there is no connection. Beyond it the oldest is dropped, and that is told."""

    input_ms_max: int = 120_000
    """Own audio that is kept, to be cut into turns and to be sent again. Older audio is let go."""

    speech_bytes_max: int = 32 * 1024 * 1024
    """Audio of the user's turns that is kept. Beyond it the oldest turns lose theirs."""

    items_remembered_max: int = 4_096
    """Items of which is remembered what was heard, and that they were stopped."""
