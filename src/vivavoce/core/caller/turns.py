"""What a configuration means for turns: who finds them, and what they bring.

Read by the client, which has to foresee what the server does by itself.
"""

from __future__ import annotations

from vivavoce.protocol.base import given
from vivavoce.protocol.config import RealtimeSession, SessionResource, TurnDetection


def answers_turns(session: SessionResource | None) -> bool:
    """Whether a session begins responses by itself, at the end of turns (reference §5.1)."""
    detection = turn_detection(session)
    return detection is not None and given(detection.create_response, True)


def interrupts(session: SessionResource | None) -> bool:
    """Whether speech of the user ends a response that is running (reference §5.4)."""
    detection = turn_detection(session)
    return detection is not None and given(detection.interrupt_response, True)


def turn_detection(session: SessionResource | None) -> TurnDetection | None:
    """What finds the turns; None where the application does."""
    if not isinstance(session, RealtimeSession):
        return None
    audio = given(session.audio, None)
    into = given(audio.input, None) if audio else None
    return given(into.turn_detection, None) if into else None
