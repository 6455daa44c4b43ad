"""What Prometheus reads: the format, who may read it, and that it says what happened."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
from test_serve import scripted, socket_to, within_time

from vivavoce import ServerError, connect, events, items
from vivavoce.server import Server, running
from vivavoce.server import metrics as mx

LINE = re.compile(
    r'(?P<name>[a-z_:][a-z0-9_:]*)(?:\{(?P<labels>[a-z_]+="(?:[^"\\\n]|\\.)*"(?:,[a-z_]+="(?:[^"\\\n]|\\.)*")*)\})? '
    r"(?P<value>[-+]?[0-9.e+-]+)"
)


def read(text: str) -> dict[str, float]:
    """Every series by name and labels, as the exposition format says they are written."""
    found: dict[str, float] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if not line.startswith("#"):
            parsed = LINE.fullmatch(line)
            assert parsed is not None, line
            key = f"{parsed['name']}{{{parsed['labels']}}}" if parsed["labels"] else parsed["name"]
            assert key not in found, line
            found[key] = float(parsed["value"])
    return found


# --- the format -------------------------------------------------------------------------------------------------------


def test_a_counter_a_gauge_and_a_histogram_as_the_format_has_them() -> None:
    counter = mx.Counter("seen_total", "What was seen.", ("who",))
    counter.add(1, "a")
    counter.add(1.5, "a")
    gauge = mx.Gauge("level", "A\nlevel \\.", (), lambda: {(): 0.25})
    steps = mx.Histogram("step_seconds", "Steps.", ("step",), (0.1, 1))
    for value in (0.1, 0.5, 7):
        steps.observe(value, "x")
    assert mx.exposition((counter, gauge, steps)) == (
        "# HELP seen_total What was seen.\n"
        "# TYPE seen_total counter\n"
        'seen_total{who="a"} 2.5\n'
        "# HELP level A\\nlevel \\\\.\n"
        "# TYPE level gauge\n"
        "level 0.25\n"
        "# HELP step_seconds Steps.\n"
        "# TYPE step_seconds histogram\n"
        'step_seconds_bucket{step="x",le="0.1"} 1\n'
        'step_seconds_bucket{step="x",le="1"} 2\n'
        'step_seconds_bucket{step="x",le="+Inf"} 3\n'
        'step_seconds_sum{step="x"} 7.6\n'
        'step_seconds_count{step="x"} 3\n'
    )


def test_label_values_are_escaped() -> None:
    counter = mx.Counter("seen_total", "", ("who",))
    counter.add(1, 'a"\\\nb')
    assert r'seen_total{who="a\"\\\nb"} 1' in mx.exposition((counter,))


@pytest.mark.parametrize("family", [mx.Counter("c", "", ("who",)), mx.Histogram("h", "", ("who",), (1.0,))])
def test_a_family_that_is_full_counts_the_rest_as_other(family: Any) -> None:
    add = family.add if isinstance(family, mx.Counter) else family.observe
    for number in range(2 * mx.SERIES_MAX):
        add(1.0, f"client {number}")
    found = read(mx.exposition((family,)))
    assert len({key for key in found if "le=" not in key and "_sum" not in key}) == mx.SERIES_MAX + 1
    assert mx.SERIES_MAX in {value for key, value in found.items() if 'who="other"' in key}


def test_label_values_that_do_not_fit_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="seen_total"):
        mx.Counter("seen_total", "", ("who",)).add(1)


# --- who may read it --------------------------------------------------------------------------------------------------


def asked(headers: dict[str, str], **settings: Any) -> httpx.Response:
    async def main() -> httpx.Response:
        async with running(scripted(**settings)) as server, httpx.AsyncClient(trust_env=False) as http:
            return await http.get(f"http://{server.host}:{server.port}/metrics", headers=headers)

    return asyncio.run(main())


KEYS = {"api_keys": ["sk-user"], "admin_keys": ["sk-operator"]}


@pytest.mark.parametrize(
    ("key", "readers", "status"),
    [
        ("sk-operator", "operators", 200),
        ("sk-user", "operators", 403),
        ("sk-nobody", "operators", 401),
        ("sk-nobody", "everybody", 200),
        ("sk-operator", "off", 404),
    ],
)
def test_operators_read_it_unless_the_settings_say_otherwise(key: str, readers: str, status: int) -> None:
    response = asked({"Authorization": f"Bearer {key}", "Host": "voice.example"}, metrics=readers, **KEYS)
    assert response.status_code == status
    assert response.headers["content-type"] == (mx.TYPE if status == 200 else "application/json")


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("evil.example", 403)])
def test_a_server_without_keys_tells_this_machine_and_no_page_of_elsewhere(host: str, status: int) -> None:
    assert asked({"Host": host}).status_code == status


# --- what it says -----------------------------------------------------------------------------------------------------


async def scraped(server: Server) -> dict[str, float]:
    async with httpx.AsyncClient(trust_env=False) as http:
        return read((await http.get(f"http://{server.host}:{server.port}/metrics")).text)


def test_what_happened_is_counted() -> None:
    async def main() -> None:
        async with running(scripted(sessions_max=1)) as server:
            async with connect("any name that a client likes", url=server.url) as session:
                await session.create_item(items.user_message("Hello"))
                await (await session.create_response(modality="text"))
                await session.create_item(items.user_message("Speak!"))
                spoken = await (await session.create_response())
                await session.send(events.InputAudioBufferAppend(audio=bytes(48_000)))
                with pytest.raises(ServerError):
                    await session.send(events.ResponseCancel())
                during = await scraped(server)
                async with socket_to(server) as refused:
                    await refused.recv()
            after = await scraped(server)
        where = '{kind="realtime",transport="websocket"}'
        assert during[f"vivavoce_sessions{where}"] == 1
        assert f"vivavoce_sessions{where}" not in after
        assert after[f"vivavoce_sessions_total{where}"] == 1
        assert after['vivavoce_sessions_refused_total{code="too_many_sessions"}'] == 1
        assert after['vivavoce_responses_total{pipeline="scripted",status="completed"}'] == 2
        assert after['vivavoce_errors_total{type="invalid_request_error"}'] == 1
        assert after['vivavoce_audio_seconds_total{direction="in"}'] == 1.0
        assert after['vivavoce_audio_seconds_total{direction="out"}'] > 0
        text_out = sum(value for key, value in after.items() if 'content="text",direction="out"' in key)
        audio_out = sum(value for key, value in after.items() if 'content="audio",direction="out"' in key)
        assert text_out > 0
        assert spoken.usage is not None
        assert audio_out > 0
        steps = {key: value for key, value in after.items() if key.startswith("vivavoce_step_seconds_count")}
        assert {value for key, value in steps.items() if 'step="first_token"' in key} == {2}
        assert {value for key, value in steps.items() if 'step="first_audio"' in key} == {1}
        assert not [key for key in after if "client likes" in key], "a client's word is no label"

    within_time(main())
