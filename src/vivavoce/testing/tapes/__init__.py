"""Tapes, the reading side: look at a recorded session, hear it, replay it as either end, make a test of it.

Recording is in `vivavoce.transports.taping`. Begin with `Tape.load`; `replay_server` and `ReplayServer` answer a client
as the tape's server did, `replay_as_client` says to a server what the tape's client said, `to_test` writes a test.
"""

from .client import Replayed, replay_as_client, replay_to_scripted
from .entries import Message, Note
from .reading import BadTape, Said, Tape
from .server import Deviation, Listening, ReplayServer, replay_server
from .tracks import Tracks
from .turns import Turn
from .writing import redact_tape, to_test

__all__ = [
    "BadTape",
    "Deviation",
    "Listening",
    "Message",
    "Note",
    "ReplayServer",
    "Replayed",
    "Said",
    "Tape",
    "Tracks",
    "Turn",
    "redact_tape",
    "replay_as_client",
    "replay_server",
    "replay_to_scripted",
    "to_test",
]
