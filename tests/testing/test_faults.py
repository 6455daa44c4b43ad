"""Faults strike where they were declared, as often as declared, and say so when they never could."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plain_client import SECONDS_MAX, connected, text_of, types
from websockets.exceptions import ConnectionClosed, InvalidStatus

from vivavoce.testing.faults import Cut, Drop, Fault, Faults, Moment, Watch, known_events
from vivavoce.testing.real_server import RealServer


@pytest.fixture
def server(realtime_server: RealServer) -> RealServer:
    return realtime_server


# --- declaring --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("cut", {"after": "response.output_audio.dlta"}, "did you mean 'response.output_audio.delta'"),
        ("cut", {"after": "zzz"}, "name a type, a pattern"),
        ("cut", {}, "after= or with before="),
        ("cut", {"after": "error", "before": "error"}, "after= or with before="),
        ("cut", {"after": "error", "count": 0}, "count: expected 1 or more"),
        ("cut", {"after": "error", "times": 0}, "times: expected 1 or more"),
        ("cut", {"after": "error", "close": 1006}, "close: expected a code that can be sent"),
        ("stall", {"before": "error", "seconds": -1}, "seconds: expected 0 or more"),
        ("refuse", {}, "name either a status"),
        ("refuse", {"status": 401, "close": 3000}, "name either a status"),
        ("refuse", {"status": 200}, "status: expected 400 to 599"),
        ("refuse", {"close": 1}, "close: expected"),
    ],
)
def test_what_can_never_happen_is_refused(name: str, how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        getattr(Faults(), name)(**how)


def test_there_is_a_limit_to_the_faults_of_a_server() -> None:
    faults = Faults()
    for _ in range(1_000):
        faults.drop("error")
    with pytest.raises(ValueError, match="at most 1000"):
        faults.drop("error")


@pytest.mark.parametrize("name", ["session.update", "response.done", "response.audio.delta", "session.closed", "audio"])
def test_events_of_every_dialect_are_known(name: str) -> None:
    assert name in known_events()


def fired(faults: Faults, *met: tuple[str, str]) -> list[tuple[int, int]]:
    """How many faults come before and after each message of one connection."""
    watch = Watch(faults)
    return [(len(before), len(after)) for before, after in (watch.meet(*message) for message in met)]  # type: ignore[arg-type]


def test_a_fault_waits_for_the_count_of_its_messages() -> None:
    faults = Faults()
    faults.drop("response.*", count=2)
    faults.cut(after="client", count=2)
    server, client = ("server", "response.done"), ("client", "response.create")
    assert fired(faults, server, client) == [(0, 0), (1, 0)]  # a pattern does not ask who says it
    assert fired(faults, client, client) == [(0, 0), (0, 1)]  # it is counted on each connection, the drop is used up


def test_a_fault_happens_as_often_as_it_says() -> None:
    faults = Faults()
    twice, always = faults.drop("error", times=2), faults.stall(before="error", times=None)
    assert fired(faults, *[("server", "error")] * 4) == [(2, 0), (2, 0), (1, 0), (1, 0)]
    assert (twice.fired, always.fired) == (2, 4)
    always.lift()
    always.lift()
    assert fired(faults, ("server", "error")) == [(0, 0)]


def test_a_fault_can_be_waited_for() -> None:
    fault = Fault(Cut(None, ""), Moment("error", is_after=True), 1)
    with pytest.raises(AssertionError, match="after 'error'; it came 0 times"):
        fault.wait(timeout_s=0)
    fault.take()
    fault.wait(timeout_s=0)
    assert "before" in repr(Fault(Drop(), Moment("error"), 1))


# --- refusing ---------------------------------------------------------------------------------------------------------


def test_a_handshake_is_refused_with_a_status(server: RealServer) -> None:
    server.refuse(429, retry_after_s=7, times=2)
    for _ in range(2):
        with pytest.raises(InvalidStatus) as refused, connected(server):
            pass
        response = refused.value.response
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert json.loads(response.body)["error"]["code"] == "rate_limit_exceeded"
    with connected(server) as client:
        assert client.receive()["type"] == "session.created"
    assert [connection.is_open for connection in server.connections[:2]] == [False, False]


def test_a_handshake_is_refused_with_an_error_and_a_close(server: RealServer) -> None:
    server.refuse(close=3000, code="invalid_api_key", message="No.")
    with connected(server, subprotocols=["realtime"]) as client:
        assert client.socket.subprotocol == "realtime"
        assert client.receive()["error"] == {
            "type": "invalid_request_error",
            "code": "invalid_api_key",
            "message": "No.",
            "param": None,
        }
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (3000, "invalid_request_error.invalid_api_key")


def test_a_refusal_need_not_have_a_code(server: RealServer) -> None:
    server.refuse(close=1011, type="server_error")
    with connected(server) as client, pytest.raises(ConnectionClosed) as closed:
        client.until("nothing")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.reason == "server_error"


# --- cutting ----------------------------------------------------------------------------------------------------------


def test_a_line_is_cut_behind_an_event(server: RealServer) -> None:
    cut = server.cut(after="response.output_text.delta", count=2)
    with connected(server) as client:
        client.ask("one two three")
        with pytest.raises(ConnectionClosed) as closed:
            client.until("response.done")
    assert closed.value.rcvd is None  # no close frame: the line is dead
    assert (cut.fired, len(server.sent("response.output_text.delta"))) == (1, 2)
    server.wait_until_closed()
    assert server.connections[0].closed == 1006
    with connected(server) as client:  # once is once
        client.ask("again")
        assert client.until("response.done")


def test_a_line_is_cut_before_an_event(server: RealServer) -> None:
    server.cut(before="response.created")
    with connected(server) as client:
        client.ask("hello")
        with pytest.raises(ConnectionClosed):
            client.until("response.created")
    assert server.sent("response.created") == []


@pytest.mark.parametrize(("side", "arrived"), [("before", 0), ("after", 1)])
def test_a_line_is_cut_at_what_the_client_says(server: RealServer, side: str, arrived: int) -> None:
    server.cut(**{side: "response.create"})
    with connected(server) as client:
        client.ask("hello")
        with pytest.raises(ConnectionClosed):
            client.until("response.done")
    assert len(server.received("response.create")) == arrived


def test_the_server_ends_a_connection_by_its_own_code(server: RealServer) -> None:
    server.cut(after="session.created", close=1013, reason="later")
    with connected(server) as client, pytest.raises(ConnectionClosed) as closed:
        client.until("session.updated")
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "later")
    server.close()
    assert server.connections[0].closed == 1013


def test_a_session_expires_early(server: RealServer) -> None:
    server.expire(after="response.done")
    with connected(server) as client:
        client.ask("hello")
        client.until("response.done")
        assert client.receive()["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


# --- what is said, or not ---------------------------------------------------------------------------------------------


def test_what_the_server_never_says_is_said(server: RealServer) -> None:
    server.inject({"type": "from.the.future", "event_id": "event_x", "n": 1}, after="session.created")
    server.inject("{not json", after="session.created")
    server.error("Out of luck.", code="bad_luck", before="response.created")
    with connected(server) as client:
        client.receive()
        assert client.receive() == {"type": "from.the.future", "event_id": "event_x", "n": 1}
        assert client.socket.recv(timeout=SECONDS_MAX) == "{not json"
        client.ask("hello")
        said = client.until("response.created")
    assert said[-2]["error"] | {"event_id": said[-2]["event_id"]} == {
        "type": "server_error",
        "code": "bad_luck",
        "message": "Out of luck.",
        "param": None,
        "event_id": "event_injected",
    }


def test_something_is_said_behind_an_event_of_the_client(server: RealServer) -> None:
    server.inject({"type": "from.the.future"}, after="session.update")
    with connected(server) as client:
        client.receive()
        client.send("session.update", session={"type": "realtime", "instructions": "Be brief."})
        assert {client.receive()["type"], client.receive()["type"]} == {"from.the.future", "session.updated"}


def test_messages_are_lost_and_come_twice(server: RealServer) -> None:
    server.drop("response.created")
    server.duplicate("response.done")
    with connected(server) as client:
        client.ask("hello")
        said = client.until("response.done")
        assert "response.created" not in types(said)
        assert client.receive() == said[-1]


def test_what_a_client_says_is_lost_or_comes_twice(server: RealServer) -> None:
    server.drop("session.update")
    server.duplicate("session.update", count=2)
    with connected(server) as client:
        client.receive()
        for word in ("lost", "twice"):
            client.send("session.update", session={"type": "realtime", "instructions": word})
        said = [client.receive(), client.receive()]
    assert [event["session"]["instructions"] for event in said] == ["twice", "twice"]


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_the_server_stalls_until_it_is_let_go(server: RealServer) -> None:
    stall = server.stall(before="response.created")
    with connected(server) as client:
        client.ask("hello")
        stall.wait()
        assert server.sent("response.created") == []
        stall.lift()
        assert text_of(client.until("response.done")[-1]) == "echo: hello"


def test_the_server_stops_reading(server: RealServer) -> None:
    stall = server.stall(before="client", count=2)
    with connected(server) as client:
        client.send("input_audio_buffer.clear")
        client.send("session.update", session={"type": "realtime"})
        client.until("input_audio_buffer.cleared")
        stall.wait()
        assert server.received("session.update") == []
        stall.lift()
        client.until("session.updated")


def test_a_stall_has_an_end(server: RealServer) -> None:
    server.stall(after="session.created", seconds=0.01)
    with connected(server) as client:
        client.ask("hello")
        client.until("response.done")


def test_a_stalled_server_ends_all_the_same() -> None:
    with RealServer() as server, connected(server) as client:
        stall = server.stall(before="response.created", times=None)
        client.ask("hello")
        stall.wait()
    assert stall.lifted.done()  # or it would have ended by its own patience
    assert server.connections[0].closed is not None


def test_a_cut_frees_what_was_stalled(server: RealServer) -> None:
    writing, reading = server.stall(before="response.created"), server.stall(before="session.update")
    server.cut(after="response.created")
    with connected(server) as client:
        client.ask("hello")
        writing.wait()
        client.send("session.update", session={"type": "realtime"})
        reading.wait()
        writing.lift()
        with pytest.raises(ConnectionClosed):
            client.until("session.updated")
    server.close()
    assert server.received("session.update") == []


def test_lifting_all_faults_is_a_new_begin(server: RealServer) -> None:
    server.refuse(401, times=None)
    server.lift_all()
    assert server.declared == ()
    with connected(server) as client:
        assert client.receive()["type"] == "session.created"
