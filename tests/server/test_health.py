"""Whether a server is well: what load balancers are told, and what operators are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from test_metrics import scraped
from test_serve import RESPOND, get, receive, scripted, socket_to, until, within_time

from vivavoce.engines import cores
from vivavoce.engines.health import UNWELL_AFTER, EngineHealth
from vivavoce.engines.registry import Registry
from vivavoce.engines.scripted import ScriptedSettings, ScriptedVad, scripted_pipeline
from vivavoce.server import Server, health, running
from vivavoce.server.pipelines import Pipelines, build

KEYS = {"api_keys": ["sk-user"], "admin_keys": ["sk-operator"]}


def test_one_success_makes_up_for_all_failures_before_it() -> None:
    now_s = 5.0
    engines = EngineHealth(lambda: now_s)
    for count in range(1, UNWELL_AFTER + 1):
        engines.failed("vad", f"code_{count}")
        assert (engines.failing["vad"].failures, engines.failing["vad"].is_unwell) == (count, count == UNWELL_AFTER)
    assert (engines.failing["vad"].code, engines.failing["vad"].at_s) == (f"code_{UNWELL_AFTER}", 5.0)
    engines.failed("transcriber", "engine_timeout")
    engines.worked("vad")
    engines.worked("language_model")
    assert list(engines.failing) == ["transcriber"]


async def told(server: Server) -> tuple[int, dict[str, Any]]:
    response = await get(server, "/readyz")
    return response.status_code, response.json()


class Broken(ScriptedVad):
    """A detector that fails as long as the test wants."""

    is_broken = True

    def open(self) -> Any:
        if self.is_broken:
            raise RuntimeError("a secret of the engine")
        return super().open()


def test_a_server_that_is_well_says_so_to_operators_in_detail_and_to_others_in_a_word() -> None:
    async def main() -> None:
        async with running(scripted(sessions_max=5)) as server, socket_to(server) as socket:
            await receive(socket)
            status, body = await told(server)
            assert (status, body["status"], body["reasons"]) == (200, "ready", [])
            ok = {"status": "ok", "failures_in_a_row": 0, "last_error": None}
            assert body["engines"]["scripted.vad"] == body["engines"]["scripted.language_model"] == ok
            assert body["cores"] == {"count": cores.core_count(), "waiting": 0}
            assert body["sessions"] == {"live": 1, "places_left": 4}
        async with running(scripted(**KEYS)) as server:
            assert await told(server) == (200, {"status": "ready"})

    within_time(main())


def test_an_engine_that_fails_again_and_again_degrades_the_server_until_it_works() -> None:
    """By the language model, whose failures end responses and no session."""

    async def main() -> None:
        broken = scripted_pipeline(language_model=ScriptedSettings(fail_at_piece=1))
        well = scripted_pipeline()
        async with running(scripted(), pipelines={"scripted": broken}) as server, socket_to(server) as socket:
            await receive(socket)
            for count in range(1, UNWELL_AFTER + 1):
                await socket.send(RESPOND)
                done = await until(socket, "response.done")
                assert done["response"]["status"] == "failed"
                status, body = await told(server)
                engine = body["engines"]["scripted.language_model"]
                assert (status, engine["failures_in_a_row"]) == (200, count)
                assert body["status"] == ("degraded" if count == UNWELL_AFTER else "ready")
            assert engine["status"] == "degraded"
            (reason,) = body["reasons"]
            assert reason.startswith(f"scripted.language_model has failed {UNWELL_AFTER} times in a row")
            name = 'vivavoce_engine_failures_in_a_row{pipeline="scripted",role="language_model"}'
            assert (await scraped(server))[name] == UNWELL_AFTER
        async with (
            running(scripted(), pipelines={"scripted": replace(well, health=broken.health)}) as server,
            socket_to(server) as socket,
        ):
            assert (await told(server))[1]["status"] == "degraded"
            await socket.send(RESPOND)
            await until(socket, "response.done")
            assert (await told(server))[1]["status"] == "ready"

    within_time(main())


def test_a_detector_that_fails_is_noticed_too_and_its_words_are_not_repeated() -> None:
    async def main() -> None:
        vad = Broken()
        pipelines = {"scripted": replace(scripted_pipeline(), vad=vad)}
        audio = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 6_400})
        async with running(scripted(), pipelines=pipelines) as server:
            for _ in range(UNWELL_AFTER):
                async with socket_to(server) as socket:
                    await socket.send(audio)
                    await until(socket, "error")
            _, body = await told(server)
            assert body["engines"]["scripted.vad"] == {
                "status": "degraded",
                "failures_in_a_row": UNWELL_AFTER,
                "last_error": "engine_error",
            }
            assert "secret" not in json.dumps(body)
            vad.is_broken = False
            async with socket_to(server) as socket:
                await socket.send(audio)
                await socket.send('{"type": "input_audio_buffer.clear"}')
                await until(socket, "input_audio_buffer.cleared")
            assert (await told(server))[1]["status"] == "ready"

    within_time(main())


def test_what_else_makes_a_server_slow_or_full_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running(scripted(sessions_max=1)) as server:
            async with socket_to(server) as socket:
                await receive(socket)
                _, body = await told(server)
                assert (body["status"], body["reasons"]) == (
                    "degraded",
                    ["every place is taken, and new sessions are refused"],
                )
            monkeypatch.setattr(cores.Cores, "waiting", health.CALLS_PER_CORE_MAX * cores.core_count() + 1)
            status, body = await told(server)
            assert (status, body["status"]) == (200, "degraded")
            assert body["reasons"][-1].endswith("calls of engines wait for a core")

    within_time(main())


def test_the_cores_of_a_server_are_those_that_its_engines_share() -> None:
    registry = Registry.load()
    settings = scripted(pipeline="scripted")
    pipelines = Pipelines(build(settings, registry), default="scripted", models={}, cores=registry.cores)
    assert pipelines.cores is registry.cores
    assert pipelines.roles[:2] == ["scripted.vad", "scripted.transcriber"]
