"""What is made of a tape: a test that replays it, and a tape that tells less.

Invariant: the test that is written passes as it is, and fails when the other end no longer does what is on the tape.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import msgspec

from vivavoce.errors import VivavoceError
from vivavoce.transports.redaction import Redact, Redaction
from vivavoce.transports.taping import Header, encode_line

from .entries import Message
from .reading import Tape

End = Literal["client", "server"]

_AS_CLIENT = '''\
"""The server answers as it did on {name}. Written by `vivavoce tape to-test`."""

from pathlib import Path

from vivavoce.testing.tapes import Tape, replay_to_scripted

TAPE = Tape.load({path})


def test_{test}() -> None:
    assert replay_to_scripted(TAPE).diff == ""
'''

_AS_SERVER = '''\
"""The client does what it did on {name}. Written by `vivavoce tape to-test`."""

import asyncio
from pathlib import Path

from vivavoce.testing.tapes import Tape, replay_as_client, replay_server

TAPE = Tape.load({path})


async def client(url: str) -> None:
    """The client of the tape itself: put the call of your program in its place."""
    await replay_as_client(TAPE, url)


def test_{test}() -> None:
    async def replay() -> None:
        async with replay_server(TAPE) as server:
            await client(server.url)

    asyncio.run(replay())
'''


def to_test(tape: Tape, *, plays: End = "client", folder: str | Path | None = None) -> str:
    """A pytest file that replays the tape.

    `plays` is the end that the tape plays: "client" says its part to the scripted server, "server" answers a client.
    `folder` is where the file will be; without one it is taken to be beside the tape. Raises `VivavoceError` for a tape
    that was not read from a file.
    """
    if tape.path is None:
        raise VivavoceError("a test needs a tape that is in a file; load it from there")
    home = Path(folder or tape.path.parent).resolve()
    steps = Path(os.path.relpath(tape.path.resolve(), home)).parts
    path = " / ".join(("Path(__file__).parent", *(f'"{step}"' for step in steps)))
    name = re.sub(r"\W+", "_", tape.path.name.removesuffix(".jsonl").removesuffix(".tape")).strip("_").lower()
    template = _AS_CLIENT if plays == "client" else _AS_SERVER
    return template.format(name=tape.path.name, path=path, test=name or "tape")


def redact_tape(tape: Tape, target: str | Path, redact: Collection[Redact]) -> None:
    """Write the tape again, without what `redact` names and without secrets. Raises `OSError`."""
    redaction = Redaction(redact)
    redacted = tuple(sorted({*tape.header.redacted, *redaction.what}))
    header: Header = msgspec.structs.replace(tape.header, redacted=redacted)
    with open(target, "wb") as file:
        file.write(msgspec.json.encode(header) + b"\n")
        for entry in tape.entries:
            if isinstance(entry, Message):
                file.write(encode_line(redaction, entry.t_ms, entry.dir, entry.frame))
            else:
                file.write(msgspec.json.encode({"t_ms": entry.t_ms, "note": entry.kind, **entry.fields}) + b"\n")
