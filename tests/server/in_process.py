"""A real session, runtime and codec at one end of a memory transport, a real client at the other; on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vivavoce.client.connection import Connection
from vivavoce.core.limits import Limits
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import Dialect, ServerCodec
from vivavoce.protocol.items import InputText, Message
from vivavoce.server.runtime import ConnectionLimits, Runtime
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.referee import Referee
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

MANUAL = cfg.RealtimeSession(audio=cfg.AudioConfig(input=cfg.AudioInput(turn_detection=None)))
TEXT_ONLY = ev.ResponseParams(output_modalities=("text",))


@dataclass(slots=True)
class Call:
    """Both ends of a connection."""

    client: Connection
    session: Session
    runtime: Runtime
    running: asyncio.Task[None]
    wire: Transport
    """The client's transport, for what no codec would send."""
    seen: list[ev.AnyServerEvent]
    """Everything that the client has received through `until`."""

    async def until(self, *types: str) -> ev.AnyServerEvent:
        """Receive up to the next event of one of these types."""
        while True:
            event = await self.client.recv()
            assert not isinstance(event, ev.Unknown)
            self.seen.append(event)
            if event.type in types:
                return event

    async def say(self, text: str) -> None:
        """A written user message."""
        await self.client.create_item(Message(role="user", content=(InputText(text=text),)))

    async def answer(self, text: str, response: ev.ResponseParams | None = None) -> ev.ResponseDone:
        """A written turn and its whole answer."""
        await self.say(text)
        await self.client.send(ev.ResponseCreate(response=response or ev.ResponseParams()))
        done = await self.until("response.done")
        assert isinstance(done, ev.ResponseDone)
        return done

    @property
    def types(self) -> list[str]:
        """The types of what was seen."""
        return [event.type for event in self.seen]

    def audio(self) -> list[bytes]:
        """The audio deltas that were seen."""
        return [event.delta for event in self.seen if isinstance(event, ev.ResponseOutputAudioDelta)]


@asynccontextmanager
async def call(
    pipeline: Pipeline | None = None,
    *,
    limits: Limits | None = None,
    connection_limits: ConnectionLimits | None = None,
    dialect: Dialect = "ga",
    wrap: Callable[[Transport], Transport] = lambda transport: transport,
    left: int = 0,
    surroundings: Surroundings | None = None,
) -> AsyncIterator[Call]:
    """An open connection; at the end it is closed by the client, and no task may be `left` of it.

    `wrap` stands between the runtime and its end of the wire.
    """
    before = asyncio.all_tasks()
    client_end, server_end = pair(messages_max=10_000)
    session = Session(
        id="sess_1",
        model="scripted",
        ids=counting_ids(),
        expires_at=0,
        limits=limits or Limits(),
        surroundings=surroundings,
    )
    runtime = Runtime(
        session, pipeline or scripted_pipeline(), ServerCodec(dialect), wrap(server_end), limits=connection_limits
    )
    running = asyncio.create_task(runtime.run())
    client = Connection(client_end, dialect)
    await client.open()
    one = Call(client, session, runtime, running, client_end, [])
    await one.until("session.created")
    try:
        yield one
    finally:
        await client.close()
        await asyncio.wait((running,))
        if not running.cancelled():
            running.result()
        assert len(asyncio.all_tasks() - before) == left


def watched(events: list[ev.AnyServerEvent]) -> None:
    """Raises where the events break a rule of the protocol."""
    referee = Referee()
    for event in events:
        referee.server(event)
