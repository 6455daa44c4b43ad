"""Calls from a plain aiortc client, by the documented flow: real ICE, DTLS, RTP and SCTP on this machine (row A2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from plain_caller import TIMEOUT_S, PlainCaller, in_real_time, plain_call
from test_serve import KEY, receive, scripted, socket_to

from vivavoce.engines.scripted import CHARACTER_MS
from vivavoce.protocol.codec import ClientCodec
from vivavoce.protocol.events import Unknown
from vivavoce.server import Server, calls, running
from vivavoce.testing.referee import Referee

SESSION = {"type": "realtime", "model": "m", "instructions": "Be brief."}
HEADERS = {"Authorization": f"Bearer {KEY}"}
LONG = "An answer that takes a while to be spoken to its very end."


@asynccontextmanager
async def serving(**values: Any) -> AsyncIterator[Server]:
    async with running(scripted(api_keys=[KEY], admin_keys=["sk-operator"], **values)) as server:
        yield server


async def post(server: Server, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=TIMEOUT_S) as http:
        return await http.post(f"http://{server.host}:{server.port}{path}", **{"headers": HEADERS, **options})


async def sessions_listed(server: Server, key: str = "sk-operator") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        return await http.get(f"{server.url}/realtime/sessions", headers={"Authorization": f"Bearer {key}"})


def test_a2_a_call_by_form_hears_and_speaks_and_tells_when_it_is_heard() -> None:
    """§1.9.5, §4.4 T8: the whole of a spoken turn, from the user's voice to the end of the answer's sound."""

    async def main() -> None:
        async with serving() as server, plain_call(server.url, key=KEY, session=SESSION) as caller:
            assert caller.location.startswith("/v1/realtime/calls/rtc_")
            created = await caller.until("session.created")
            assert (created["session"]["instructions"], created["session"]["model"]) == ("Be brief.", "m")
            caller.microphone.is_talking = True
            await caller.until("input_audio_buffer.speech_started")
            caller.microphone.is_talking = False
            await caller.until("output_audio_buffer.started")
            first_ms = caller.heard_ms
            await caller.until("output_audio_buffer.stopped")
            await caller.hear_until(caller.heard_ms + 200)
            assert "response.output_audio.delta" not in caller.types, "audio travels by RTP alone"
            for earlier, later in T8:
                assert caller.types.index(earlier) < caller.types.index(later), (earlier, later)
            transcript = next(e["transcript"] for e in caller.seen if e["type"].endswith("audio_transcript.done"))
            assert abs(caller.sounding_ms(first_ms - 200) - CHARACTER_MS * len(transcript)) <= 60
            referee, codec = Referee(), ClientCodec()
            for event in caller.seen:
                told = codec.decode(json.dumps(event))
                assert not isinstance(told, Unknown)
                referee.server(told)

    in_real_time(main())


T8 = [
    ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
    ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"),
    ("input_audio_buffer.committed", "response.created"),
    ("response.content_part.added", "output_audio_buffer.started"),
    ("response.output_audio.done", "response.done"),
    ("response.done", "output_audio_buffer.stopped"),
    ("output_audio_buffer.started", "output_audio_buffer.stopped"),
]
"""What comes before what. Where generation is faster than a packet, `response.done` comes before `started`."""


def test_a2_an_interruption_cuts_the_answer_where_the_peer_stopped_hearing_it() -> None:
    """§4.4 T8: within 60 ms of the audio that really arrived, at no loss."""

    async def main() -> None:
        async with serving() as server, plain_call(server.url, key=KEY, session=SESSION) as caller:
            await caller.until("session.created")
            caller.say(LONG)
            await caller.until("output_audio_buffer.started")
            await caller.hear_until(caller.heard_ms + 700)
            caller.microphone.is_talking = True
            await caller.until("input_audio_buffer.speech_started")
            await caller.until("output_audio_buffer.cleared")
            truncated = await caller.until("conversation.item.truncated")
            caller.microphone.is_talking = False
            await caller.hear_until(caller.heard_ms + 300)
            received_ms = caller.sounding_ms()
            assert received_ms >= 600
            assert abs(truncated["audio_end_ms"] - received_ms) <= 60
            assert "output_audio_buffer.stopped" not in caller.types

    in_real_time(main())


def test_a2_the_client_can_clear_what_is_played() -> None:
    """§3.7: `response.cancel`, `output_audio_buffer.clear`, and the item ends where it was heard."""

    async def main() -> None:
        async with serving() as server, plain_call(server.url, key=KEY, session=SESSION) as caller:
            await caller.until("session.created")
            caller.say(LONG)
            await caller.until("response.done")
            await caller.hear_until(caller.heard_ms + 500)
            caller.send(type="output_audio_buffer.clear", event_id="mine")
            await caller.until("output_audio_buffer.cleared")
            truncated = await caller.until("conversation.item.truncated")
            await caller.hear_until(caller.heard_ms + 300)
            assert abs(truncated["audio_end_ms"] - caller.sounding_ms()) <= 60
            caller.send(type="output_audio_buffer.clear", event_id="again")
            error = (await caller.until("error"))["error"]
            assert (error["code"], error["event_id"]) == ("output_audio_buffer_clear_empty", "again")

    in_real_time(main())


def test_a2_a_short_lived_key_begins_a_call_with_the_bare_offer_and_any_label_will_do() -> None:
    async def main() -> None:
        async with serving() as server:
            made = await post(server, "/v1/realtime/client_secrets", json={"session": SESSION})
            key = made.json()["value"]
            async with plain_call(server.url, key=key, label="realtime-channel") as caller:
                assert (await caller.until("session.created"))["session"]["instructions"] == "Be brief."
                refused = await post(server, f"{caller.location}/hangup", headers={"Authorization": f"Bearer {key}"})
                assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_permissions")

    in_real_time(main())


@pytest.mark.parametrize(
    ("path", "prefix", "is_beta"),
    [
        ("/v1/realtime/calls?model=m", "/v1/realtime/calls/rtc_", False),
        ("/v1/realtime?model=m", "/v1/realtime/calls/rtc_", True),
        ("/openai/v1/realtime/calls?model=m", "/openai/v1/realtime/calls/rtc_", False),
    ],
)
def test_a2_every_path_has_its_dialect_and_a_plain_key_names_the_model(path: str, prefix: str, is_beta: bool) -> None:
    """§1.9.5, §1.9.6, §7."""

    async def main() -> None:
        async with serving() as server:
            url = f"http://{server.host}:{server.port}"
            async with plain_call(url, key=KEY, path=path) as caller:
                session = (await caller.until("session.created"))["session"]
                assert ("modalities" in session, session["model"]) == (is_beta, "m")
                assert caller.location.startswith(prefix)
                caller.say("Hello.")
                await caller.until("output_audio_buffer.started")
                assert ("conversation.item.created" in caller.types) == is_beta

    in_real_time(main())


def test_a2_formats_do_not_matter_where_audio_is_rtp() -> None:
    """§6.1: what is configured is not looked at, neither in the session nor in a response."""

    async def main() -> None:
        pcmu = {"format": {"type": "audio/pcmu"}}
        session = {**SESSION, "audio": {"input": pcmu, "output": pcmu}}
        async with serving() as server, plain_call(server.url, key=KEY, session=session) as caller:
            created = await caller.until("session.created")
            assert created["session"]["audio"]["output"]["format"]["type"] == "audio/pcm"
            caller.send(type="response.create", response={"audio": {"output": pcmu}, "instructions": "Say something."})
            await caller.until("output_audio_buffer.stopped")
            await caller.hear_until(caller.heard_ms + 200)
            transcript = next(e["transcript"] for e in caller.seen if e["type"].endswith("audio_transcript.done"))
            assert abs(caller.sounding_ms() - CHARACTER_MS * len(transcript)) <= 60

    in_real_time(main())


def test_a2_with_the_filter_a_page_is_told_what_it_shows_and_a_sideband_everything() -> None:
    """§7: `webrtcfilter=on`."""

    async def main() -> None:
        async with serving() as server:
            url = f"http://{server.host}:{server.port}"
            path = "/openai/v1/realtime/calls?model=m&webrtcfilter=on"
            async with (
                plain_call(url, key=KEY, path=path) as caller,
                socket_to(server, f"/openai/v1/realtime?call_id={caller.call_id}", headers=HEADERS) as sideband,
            ):
                assert (await receive(sideband))["type"] == "session.created"
                await caller.hear_until(100)
                content = [{"type": "input_text", "text": "Hello."}]
                item = {"type": "message", "role": "user", "content": content}
                await sideband.send(json.dumps({"type": "conversation.item.create", "item": item}))
                await sideband.send(json.dumps({"type": "response.create"}))
                told = []
                while (event := await receive(sideband))["type"] != "output_audio_buffer.stopped":
                    told.append(event["type"])
                await caller.until("output_audio_buffer.stopped")
                assert {"response.done", "response.created"} <= set(told)
                assert set(caller.types) == {
                    "conversation.item.added",
                    "output_audio_buffer.started",
                    "output_audio_buffer.stopped",
                    "response.output_audio_transcript.delta",
                    "response.output_audio_transcript.done",
                }

    in_real_time(main())


def test_a_sideband_is_attached_by_the_id_of_the_call_and_lives_as_long_as_it() -> None:
    """§1.1: it begins with the session as it is; what either end says, both hear the answer to."""

    async def main() -> None:
        async with serving() as server, plain_call(server.url, key=KEY, session=SESSION) as caller:
            await caller.until("session.created")
            caller.send(type="session.update", session={"type": "realtime", "instructions": "Be kind."})
            await caller.until("session.updated")
            path = f"/v1/realtime?call_id={caller.call_id}&model=ignored"
            async with socket_to(server, path, headers=HEADERS) as sideband:
                created = await receive(sideband)
                assert created["type"] == "session.created"
                assert created["session"]["instructions"] == "Be kind."
                update = {"type": "session.update", "session": {"type": "realtime", "instructions": "Be quick."}}
                await sideband.send(json.dumps(update))
                assert (await receive(sideband))["session"]["instructions"] == "Be quick."
                assert (await caller.until("session.updated"))["session"]["instructions"] == "Be quick."
                await sideband.close()
            caller.send(type="session.update", session={"type": "realtime", "instructions": "Go on."})
            await caller.until("session.updated")
            async with socket_to(server, path, headers=HEADERS) as sideband:
                await receive(sideband)
                assert (await post(server, f"{caller.location}/hangup")).status_code == 200
                await sideband.wait_closed()
                assert sideband.close_code == 1000
                async with asyncio.timeout(TIMEOUT_S):
                    await caller.closed.wait()
            gone = await post(server, f"{caller.location}/hangup")
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "call_not_found")

    in_real_time(main())


def test_operators_see_calls_and_others_do_not() -> None:
    async def main() -> None:
        async with serving() as server, plain_call(server.url, key=KEY, session=SESSION) as caller:
            await caller.until("session.created")
            (listed,) = (await sessions_listed(server)).json()["data"]
            assert {name: listed[name] for name in ("kind", "model", "transport", "call_id", "state")} == {
                "kind": "realtime",
                "model": "m",
                "transport": "webrtc",
                "call_id": caller.call_id,
                "state": "idle",
            }
            caller.say(LONG)
            await caller.until("response.done")
            (listed,) = (await sessions_listed(server)).json()["data"]
            assert listed["state"] == "speaking"
            assert listed["output_tokens"] > 0
            assert listed["waiting_inputs"] == 0
            refused = await sessions_listed(server, KEY)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_permissions")
            assert (await sessions_listed(server, "sk-wrong")).status_code == 401

    in_real_time(main())


def test_a_call_that_an_operator_closes_is_told_why_and_hung_up() -> None:
    async def main() -> None:
        async with serving() as server, plain_call(server.url, key=KEY, session=SESSION) as caller:
            session_id = (await caller.until("session.created"))["session"]["id"]
            async with httpx.AsyncClient(trust_env=False, verify=False, timeout=TIMEOUT_S) as http:
                operator = {"Authorization": "Bearer sk-operator"}
                closed = await http.delete(f"{server.url}/realtime/sessions/{session_id}", headers=operator)
            assert (closed.status_code, closed.json()["call_id"]) == (200, caller.call_id)
            assert (await caller.until("error"))["error"]["code"] == "session_closed_by_operator"
            async with asyncio.timeout(TIMEOUT_S):
                await caller.closed.wait()
            assert len(server.app.state.calls) == 0

    in_real_time(main())


def test_a_call_ends_with_the_server_and_running_answers_are_heard_to_their_end() -> None:
    async def main() -> None:
        async with serving() as server, plain_call(server.url, key=KEY, session=SESSION) as caller:
            await caller.until("session.created")
            caller.say("Hi.")
            await caller.until("output_audio_buffer.started")
            await server.app.state.sessions.drain(10)
            await caller.until("output_audio_buffer.stopped")
            async with asyncio.timeout(TIMEOUT_S):
                await caller.closed.wait()
            assert len(server.app.state.calls) == 0

    in_real_time(main())


def test_a_peer_that_hangs_up_ends_its_session() -> None:
    async def main() -> None:
        async with serving() as server:
            async with plain_call(server.url, key=KEY, session=SESSION) as caller:
                await caller.until("session.created")
                assert len(server.app.state.calls) == 1
                tasks = [task for task in asyncio.all_tasks() if task.get_name() == caller.call_id]
            async with asyncio.timeout(TIMEOUT_S):
                await asyncio.wait(tasks)
            assert (len(server.app.state.calls), len(server.app.state.sessions)) == (0, 0)

    in_real_time(main())


# --- what is refused --------------------------------------------------------------------------------------------------

OFFER_WITHOUT_AUDIO = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
    "c=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=sctp-port:5000\r\n"
)
SDP_TYPE = {**HEADERS, "Content-Type": "application/sdp"}
REFUSALS: list[tuple[dict[str, Any], int, str | None, str]] = [
    ({"content": "hello", "headers": SDP_TYPE}, 400, "invalid_offer", "Invalid SDP offer"),
    ({"content": "", "headers": SDP_TYPE}, 400, "invalid_offer", "Invalid SDP offer"),
    ({"content": b"v=0\xff", "headers": SDP_TYPE}, 400, "invalid_offer", "not UTF-8"),
    ({"content": "v=0\r\nm=audio x\r\n", "headers": SDP_TYPE}, 400, "invalid_offer", "Invalid SDP offer"),
    ({"content": OFFER_WITHOUT_AUDIO, "headers": SDP_TYPE}, 400, "invalid_offer", "did not have an audio"),
    ({"content": "v=0", "headers": {"Content-Type": "application/sdp"}}, 401, None, "Missing bearer"),
    (
        {"content": "v=0", "headers": {**SDP_TYPE, "Authorization": "Bearer ek_x"}},
        401,
        "invalid_api_key",
        "Incorrect API key",
    ),
    ({"json": {"sdp": "v=0"}}, 415, "invalid_content_type", "application/sdp"),
    ({"content": "v=0" + " " * 300_000, "headers": SDP_TYPE}, 413, None, "larger than"),
    ({"files": {"session": (None, json.dumps(SESSION))}}, 400, "missing_required_parameter", "'sdp'"),
    ({"files": {"sdp": (None, "x"), "session": (None, "{")}}, 400, "invalid_json", ""),
    (
        {"files": {"sdp": (None, "x"), "session": (None, '{"type":"realtime","model":"m","voice":"alloy"}')}},
        400,
        "unknown_parameter",
        "session.voice",
    ),
    ({"files": {"sdp": (None, "hello"), "session": (None, json.dumps(SESSION))}}, 400, "invalid_offer", "Invalid SDP"),
    ({"files": {"sdp": (None, "hello"), "session": (None, '{"type":"realtime"}')}}, 400, "missing_model", "model"),
    ({"content": "x", "headers": {**HEADERS, "Content-Type": "multipart/form-data"}}, 400, "invalid_form", "form"),
]


def test_what_is_no_offer_is_refused_in_the_words_of_the_api_and_leaves_nothing_behind() -> None:
    """§1.9.5, §1.9."""

    async def main() -> None:
        async with serving() as server:
            for options, status, code, words in REFUSALS:
                path = "/v1/realtime/calls" + ("?model=m" if "content" in options else "")
                answer = await post(server, path, **options)
                error = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (status, code), (options, error)
                assert words in error["message"] or words in str(error["param"]), error
            assert len(server.app.state.calls) == 0
            assert (await sessions_listed(server)).json()["data"] == []

    in_real_time(main())


def test_what_cannot_be_done_to_a_call_by_webrtc_is_said() -> None:
    """§1.9.7."""

    async def main() -> None:
        async with serving() as server, plain_call(server.url, key=KEY, session=SESSION) as caller:
            await caller.until("session.created")  # aiortc may never end what is closed while it connects
            for name, body in (("accept", SESSION), ("reject", {}), ("refer", {"target_uri": "tel:+1"})):
                answer = await post(server, f"{caller.location}/{name}", json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_a_sip_call")
                unknown = await post(server, f"/v1/realtime/calls/rtc_0/{name}", json=body)
                assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "call_not_found")

    in_real_time(main())


def test_there_are_only_so_many_calls_and_one_that_is_not_set_up_gives_its_place_back() -> None:
    async def main() -> None:
        async with serving(webrtc={"peers_max": 1, "setup_ms_max": 300}) as server:
            silent = PlainCaller()
            try:
                form = {"sdp": (None, await silent.offer()), "session": (None, json.dumps(SESSION))}
                answer = await post(server, "/v1/realtime/calls", files=form)
                assert answer.status_code == 201
                second = await post(server, "/v1/realtime/calls", files=form)
                assert (second.status_code, second.json()["error"]["code"]) == (429, "too_many_calls")
                tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("rtc_")]
                async with asyncio.timeout(TIMEOUT_S):
                    await asyncio.wait(tasks)
                assert (len(server.app.state.calls), len(server.app.state.sessions)) == (0, 0)
                async with plain_call(server.url, key=KEY, session=SESSION) as caller:
                    await caller.until("session.created")
            finally:
                await silent.close()

    in_real_time(main())


def test_a_server_without_the_extra_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "find_spec", lambda name: None)

    async def main() -> None:
        async with serving() as server:
            answer = await post(server, "/v1/realtime/calls?model=m", content="v=0", headers=SDP_TYPE)
            assert (answer.status_code, answer.json()["error"]["code"]) == (501, "webrtc_not_available")
            assert (await sessions_listed(server)).json()["data"] == []

    in_real_time(main())


def test_a_call_in_which_nothing_happens_is_over() -> None:
    async def main() -> None:
        async with (
            serving(webrtc={"idle_ms_max": 700}) as server,
            plain_call(server.url, key=KEY, session=SESSION) as caller,
        ):
            await caller.until("session.created")
            async with asyncio.timeout(TIMEOUT_S):
                await caller.closed.wait()

    in_real_time(main())
