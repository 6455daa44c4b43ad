"""What has to wait for the garbage collector: no audio of a session that is over, and nothing for it."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from vivavoce.core.conversation import Entry
from vivavoce.core.hearing import Heard
from vivavoce.core.input_audio import InputAudio
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.server.auth import Asked
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.serve import Server, _load_and_wait
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import settings_of
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.virtual_time import run
from vivavoce.transports.memory import pair

SPEECH = base64.b64encode(b"\x00\x20" * 24_000).decode()


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def holders_of_audio() -> list[object]:
    """What the user said, what was answered, what is not yet committed."""
    return [one for one in gc.get_objects() if isinstance(one, Heard | Entry | InputAudio)]


async def one_session(messages: list[dict[str, object]]) -> None:
    settings = settings_of({"pipeline": "scripted"})
    pipelines = Pipelines({"scripted": scripted_pipeline()}, default="scripted", models={})
    sessions = Sessions(settings, pipelines, wall_s=lambda: 1_800_000_000.0, new_ids=counting_ids)
    near, far = pair()
    serving = asyncio.create_task(sessions.serve(Asked("openai", {}, {"model": "m"}), far))
    for message in messages:
        await near.send(json.dumps(message).encode())
    while json.loads(await near.receive())["type"] != "response.done":
        pass
    await near.close()
    await serving


@pytest.mark.usefixtures("no_collector")
def test_what_was_said_is_forgotten_with_its_session() -> None:
    turn_detection = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    messages: list[dict[str, object]] = [
        {"type": "session.update", "session": turn_detection},
        {"type": "input_audio_buffer.append", "audio": SPEECH},
        {"type": "input_audio_buffer.commit"},
        {"type": "response.create"},
    ]
    before = holders_of_audio()
    run(one_session(messages))
    assert [one for one in holders_of_audio() if not any(one is other for other in before)] == []


@pytest.mark.usefixtures("no_collector")
def test_what_a_process_has_loaded_is_not_looked_at_again() -> None:
    loaded: list[object] = []
    loaded.append(loaded)

    async def main() -> None:
        stopped, loading = asyncio.Event(), asyncio.get_running_loop().create_future()
        state = SimpleNamespace(pipelines=SimpleNamespace(warm_up=lambda: loading))
        double = cast(Server, SimpleNamespace(app=SimpleNamespace(state=state)))
        serving = asyncio.create_task(_load_and_wait(double, stopped))
        await asyncio.sleep(1)
        assert any(one is loaded for one in gc.get_objects()), "it is still being loaded"
        loading.set_result(None)
        await asyncio.sleep(1)
        assert not any(one is loaded for one in gc.get_objects())
        stopped.set()
        assert await serving == 0

    try:
        run(main())
    finally:
        gc.unfreeze()
