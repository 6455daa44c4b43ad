"""A session of the client among lines that are cut: its server, its user, and who notes what can be seen of it.

One seed makes one conversation: text and speech, interruptions, tools, responses beside it, changes of the past. Every
message has a fate. Three kinds of server: one that keeps sessions for their clients, one that does not, and
one that is another after every cut. Everything is on virtual time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from chaos_judge import judge
from chaos_user import Seen, Speaker, Visitor

from vivavoce import connect
from vivavoce.client.line import Reconnect
from vivavoce.core.session import Session as Machine
from vivavoce.engines import Prompt
from vivavoce.engines.scripted import (
    Answer,
    Call,
    ScriptedLanguageModel,
    ScriptedSettings,
    answer_by_rules,
    scripted_pipeline,
)
from vivavoce.errors import ConnectionClosed, ConnectionFailed, VivavoceError
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput
from vivavoce.server.auth import Asked
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import Settings
from vivavoce.testing.complaints import Complaints
from vivavoce.testing.network import Fate, Line, Weather
from vivavoce.testing.simulation import Trace
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport

World = Literal["kept", "forgotten", "restarted"]
"""What the server does when a connection is lost: it keeps the session; it knows nothing of that; it is another one."""

PATIENCE_S = 3_600.0
NOT_RENEWED = "the session could not be renewed"


# --- what happens to messages -----------------------------------------------------------------------------------------


class Cuts:
    """Which messages are fatal, counted over both directions and all lines; `happened` is told of each cut."""

    def __init__(self, fates: Mapping[int, Fate], share: float, random: Random) -> None:
        self.messages = 0
        self.cuts = 0
        self.happened: Callable[[], None] = lambda: None
        self.trace = Trace()
        self._fates = fates
        self._share = share
        self._random = random
        self.is_over = False

    def omen(self, direction: str, message: str) -> Fate:
        """What becomes of it."""
        if self.is_over:
            return "arrives"
        self.messages += 1
        fate = self._fates.get(self.messages, "arrives")
        if self._share and self._random.random() < self._share:
            fate = self._random.choice(("lost", "last"))
        self.trace.take(direction, message)
        if fate != "arrives":
            self.cuts += 1
            self.trace.entries.append({"note": fate, "at": self.messages})
            self.happened()
        return fate


class House:
    """The server: real sessions with scripted engines, reached over lines with weather."""

    def __init__(self, world: World, cuts: Cuts, random: Random, session_ms_max: int) -> None:
        self.prompts: list[Prompt] = []
        self.dials = 0
        self._world = world
        self._cuts = cuts
        self._random = random
        self._session_ms_max = session_ms_max
        pace = ScriptedSettings(first_delay_s=random.choice((0.0, 0.2)), piece_delay_s=random.choice((0.0, 0.05, 0.2)))
        self._weather = Weather(delay_s_max=random.choice((0.0, 0.02)), messages_max=random.choice((8, 256)))
        pipeline = scripted_pipeline(language_model=pace, synthesizer=pace, transcriber=pace)
        model = ScriptedLanguageModel(script=self._answer, settings=pipeline.language_model._settings)  # type: ignore[attr-defined]
        self._pipelines = Pipelines({"scripted": _with_model(pipeline, model)}, default="scripted", models={})
        self._numbers = itertools.count(1)
        self._houses: list[Sessions] = []
        self._lines: list[Line] = []
        self._serving: set[asyncio.Task[None]] = set()
        self.sessions = self._build()
        if world == "restarted":
            cuts.happened = self._restart

    def _answer(self, prompt: Prompt) -> Answer:
        self.prompts.append(prompt)
        if prompt.items and isinstance(prompt.items[-1], FunctionCallOutput):
            fresh = itertools.takewhile(lambda item: isinstance(item, FunctionCallOutput), reversed(prompt.items))
            return ("tool said: " + " ".join(item.output for item in fresh if isinstance(item, FunctionCallOutput)),)
        made = {item.arguments for item in prompt.items if isinstance(item, FunctionCall)}
        answer = answer_by_rules(prompt)
        calls = [part for part in answer if isinstance(part, Call)]
        fresh_calls = [call for call in calls if call.arguments not in made]
        if calls and not fresh_calls:
            return ("echo: that was answered",)
        return fresh_calls or answer

    def _build(self) -> Sessions:
        limits = Settings().session_limits.__class__(session_ms_max=self._session_ms_max)
        settings = Settings(
            pipeline="scripted", resume_ms_max=0 if self._world == "forgotten" else 30_000, session_limits=limits
        )
        clock = asyncio.get_running_loop().time
        house = Sessions(settings, self._pipelines, wall_s=clock, new_ids=self._ids)
        self._houses.append(house)
        return house

    def _ids(self) -> Callable[[str], str]:
        """Ids that no other session has, as those of any service."""
        session, counts = next(self._numbers), Counter[str]()

        def new_id(prefix: str) -> str:
            counts[prefix] += 1
            return f"{prefix}_{session}_{counts[prefix]}"

        return new_id

    def _restart(self) -> None:
        self.sessions.stop()
        self.sessions = self._build()

    async def dial(self, headers: Mapping[str, str]) -> Transport:
        """A line to the server; now and then there is no way."""
        self.dials += 1
        if self._cuts.cuts and self._random.random() < 0.2:
            raise ConnectionFailed("there is no network") from OSError("unreachable")
        line = await Line(self._random, self._weather, omen=self._cuts.omen).__aenter__()
        self._lines.append(line)
        asked = Asked("openai", dict(headers), {"model": "any"})
        serving = asyncio.create_task(self.sessions.serve(asked, line.server))
        self._serving.add(serving)
        return line.client

    @property
    def machines(self) -> list[Machine]:
        """The sessions that live."""
        return [runtime.session for runtime in self.sessions if isinstance(runtime.session, Machine)]

    async def close(self) -> None:
        """All lines, all sessions, all tasks."""
        for house in self._houses:
            await house.drain(PATIENCE_S)
        await asyncio.wait(self._serving)
        for serving in self._serving:
            serving.result()
        for line in self._lines:
            await line.__aexit__()
        await self._pipelines.close()


def _with_model(pipeline: Any, model: ScriptedLanguageModel) -> Any:
    return replace(pipeline, language_model=model)


# --- a whole conversation ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What was left of a conversation."""

    messages: int
    cuts: int
    changes: tuple[str, ...]
    kinds: frozenset[str]


class Chaos(AssertionError):
    """A conversation in which a promise was broken; `trace` shows the way to it."""

    def __init__(self, what: str, trace: Trace) -> None:
        super().__init__(what)
        self.trace = trace


async def converse(
    seed: int,
    world: World,
    fates: Mapping[int, Fate],
    share: float,
    steps: int,
    session_ms_max: int,
    renew_before_s: float,
) -> Outcome:
    """Hold one conversation; judge it. Raises `Chaos`."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    cuts = Cuts(fates, share, Random(f"{seed} cuts"))
    house = House(world, cuts, Random(f"{seed} weather"), session_ms_max)
    random = Random(f"{seed} user")
    player = Speaker() if random.random() < 0.7 else None
    seen = Seen()
    complaints = Complaints()
    logging.getLogger("asyncio").addHandler(complaints)
    complaints.setLevel("WARNING")
    try:
        with complaints:
            session = connect(
                dial=house.dial,
                player=player,
                reconnect=Reconnect(first_s=0.1, max_s=2.0, tries=1_000, renew_before_s=renew_before_s),
            )
            session._options.random = Random(f"{seed} client")
            session._options.wall_s = loop.time
            session._begin_anew()
            visitor = Visitor(session, seen, random, player)
            seen.listen_to(session)
            seen.note_losses(session)
            await visitor.prepare()
            for attempt in itertools.count():
                try:
                    await session.connect()
                    break
                except (ConnectionFailed, ConnectionClosed):
                    assert attempt < 20, "there is no way in"
            reading = asyncio.create_task(seen.read(session))
            reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            await visitor.act(steps)
            cuts.is_over = True
            for what, ack in visitor.acks:
                assert ack.done(), f"nobody has answered: {what}"
            await judge(session, seen, visitor, house, world)
            await session.disconnect()
            await asyncio.wait_for(reading, PATIENCE_S)
            await house.close()
        records = [record for record in complaints.records if not record.startswith(NOT_RENEWED)]
        assert not records, f"complaints: {records}"
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, f"tasks are left: {left}"
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert not timers, f"timers are left: {timers}"
    except (AssertionError, ExceptionGroup, TimeoutError, VivavoceError) as error:
        raise Chaos(f"{type(error).__name__}: {error}", cuts.trace) from error
    finally:
        logging.getLogger("asyncio").removeHandler(complaints)
    return Outcome(
        cuts.messages, cuts.cuts, tuple(seen.changes), frozenset(what.split()[0] for what, _ in visitor.acks)
    )


def hold(
    seed: int,
    world: World,
    fates: Mapping[int, Fate],
    share: float,
    steps: int,
    session_ms_max: int,
    renew_before_s: float,
) -> Outcome:
    """The same, on virtual time from its beginning to its end."""
    return run(converse(seed, world, fates, share, steps, session_ms_max, renew_before_s))
