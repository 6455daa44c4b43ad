"""MCP servers: defined, imported, offered, called, approved (reference §2.4, §4.4 T17)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from vivavoce.core.abilities import Abilities
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    CallArguments,
    CallMcpTool,
    CallStarted,
    Cancel,
    Generate,
    GenerationEnded,
    GenerationFailed,
    ListMcpTools,
    McpCallEnded,
    McpListFailed,
    McpToolsListed,
    Opened,
    Send,
    SpeechScored,
    TextGenerated,
    TranscriptEnded,
)
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.core.tools import NAME_CHARS_MAX
from vivavoce.protocol import config as cfg
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    InputAudioBufferAppend,
    ResponseCancel,
    ResponseCreate,
    ResponseOutputItemAdded,
    ResponseParams,
    SessionUpdate,
)
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    McpApprovalResponse,
    McpCall,
    McpHttpError,
    McpListedTool,
    McpToolExecutionError,
)
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import tone

URL = "https://notes.example/mcp"
SCHEMA = {"type": "object", "properties": {}}
READ = McpListedTool(name="read", description="Read.", input_schema=SCHEMA, annotations={"readOnlyHint": True})
WRITE = McpListedTool(name="write", input_schema=SCHEMA)


def machine(**limits: int) -> Session:
    return Session(
        id="sess_1",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        limits=Limits(**limits),
        surroundings=Surroundings(abilities=Abilities(mcp=True)),
    )


@pytest.fixture
def play() -> Iterator[Playbook]:
    with playbook(machine()) as play:
        play >> Opened() << ...
        yield play


def notes(**fields: object) -> cfg.McpTool:
    return cfg.McpTool(**{"server_label": "notes", "server_url": URL, "require_approval": "never", **fields})  # type: ignore[arg-type]


AGAIN = cfg.McpTool(server_label="notes")
"""The same server, by its label alone."""


def update(*tools: cfg.Tool, **fields: object) -> SessionUpdate:
    session = cfg.RealtimeSession(tools=tools, output_modalities=("text",), **fields)  # type: ignore[arg-type]
    return SessionUpdate(session=session, event_id="mine")


def create(**params: object) -> ResponseCreate:
    return ResponseCreate(response=ResponseParams(**params), event_id="mine")  # type: ignore[arg-type]


def refused(param: str, code: str = "invalid_value") -> Expected:
    return sends("error", error={"type": "invalid_request_error", "code": code, "param": param, "event_id": "mine"})


def importing(play: Playbook, item: str, server: dict[str, object], previous: str | None = None) -> Playbook:
    empty = {"id": item, "type": "mcp_list_tools", "server_label": server.get("server_label", "notes"), "tools": []}
    play << sends("conversation.item.added", item=empty, previous_item_id=previous)
    play << sends("mcp_list_tools.in_progress", item_id=item)
    return play << asks(ListMcpTools, item_id=item, server=server)


def define(play: Playbook, *tools: McpListedTool, **fields: object) -> None:
    """The server is defined, and its tools are imported."""
    play >> update(notes(**fields)) << sends("session.updated")
    importing(play, "mcpl_1", {"server_label": fields.get("server_label", "notes"), "server_url": URL})
    play >> McpToolsListed("mcpl_1", tools) << sends("mcp_list_tools.completed", item_id="mcpl_1") << ...


def offered(play: Playbook, *names: str, event: ResponseCreate | None = None, choice: object = "auto") -> None:
    """A response is offered tools of these names; it ends at once."""
    response = Id("response")
    play >> (event or ResponseCreate()) << sends("response.created", response={"id": response})
    play << asks(Generate, tools=[{"name": name} for name in names], tool_choice=choice)
    play >> GenerationEnded(response, "stop") << ...


def begun(play: Playbook, event: ResponseCreate | None = None) -> Id:
    response = Id("response")
    play >> (event or ResponseCreate()) << sends("response.created", response={"id": response}) << ...
    return response


def calling(play: Playbook, response: Id, name: str = "write") -> Id:
    """The model calls a tool that needs no approval; its arguments are complete, save that nobody knows it yet."""
    call = Id("call")
    begins = {"id": call, "type": "mcp_call", "server_label": "notes", "name": name, "arguments": ""}
    play >> CallStarted(response, name)
    play << sends("response.output_item.added", output_index=0, item=begins)
    play << sends("conversation.item.added", item=begins)
    for piece in ('{"a":', "1}"):
        play >> CallArguments(response, piece) << sends("response.mcp_call_arguments.delta", item_id=call, delta=piece)
    return call


def running(play: Playbook, response: Id, end: GenerationEnded | None = None) -> Id:
    """A call that its server is at work on."""
    call = calling(play, response)
    play >> (end or GenerationEnded(response, "stop"))
    play << sends("response.mcp_call_arguments.done", item_id=call, arguments='{"a":1}')
    play << sends("response.mcp_call.in_progress", item_id=call, output_index=0)
    play << asks(CallMcpTool, owner_id=response, item_id=call, server={"server_url": URL}, name="write")
    return call


def finished(play: Playbook, call: Id, kind: str, item: dict[str, object]) -> Playbook:
    """The call is over, and told so in order."""
    play << sends(f"response.mcp_call.{kind}", item_id=call, output_index=0)
    play << sends("conversation.item.done", item={"id": call, **item})
    return play << sends("response.output_item.done", output_index=0, item={"id": call, **item})


def broken_off(play: Playbook, call: Id) -> Playbook:
    error = {"type": "tool_execution_error", "message": "The call was cancelled."}
    return finished(play, call, "failed", {"output": None, "error": error})


# --- what a client may define (§2.4) ----------------------------------------------------------------------------------


def test_without_mcp_servers_are_refused(session: Session) -> None:
    with playbook(session) as play:
        play >> Opened() << ...
        play >> update(notes()) << refused("session.tools[0].type")


@pytest.mark.parametrize(
    ("tools", "param", "code"),
    [
        ((notes(), notes()), "session.tools[1].server_label", "invalid_value"),
        ((notes(connector_id="connector_dropbox"),), "session.tools[0].connector_id", "invalid_value"),
        ((notes(tunnel_id="tunnel_" + "a" * 32),), "session.tools[0].tunnel_id", "invalid_value"),
        ((AGAIN,), "session.tools[0].server_url", "missing_required_parameter"),
        (
            (notes(authorization="a", headers={"AUTHORIZATION": "b"}),),
            "session.tools[0].authorization",
            "invalid_value",
        ),
        ((cfg.FunctionTool(name="f"), cfg.FunctionTool(name="f")), "session.tools[1].name", "invalid_value"),
    ],
)
def test_a_definition_with_a_mistake_is_refused_before_any_import(
    play: Playbook, tools: tuple[cfg.Tool, ...], param: str, code: str
) -> None:
    play >> update(*tools) << refused(param, code)
    play >> update() << sends("session.updated", session={"tools": []})


def test_a_mistake_in_the_tools_of_a_response_begins_none(play: Playbook) -> None:
    play >> create(tools=(AGAIN,)) << refused("response.tools[0].server_url", "missing_required_parameter")
    play >> create(tool_choice=cfg.ToolChoiceMcp(server_label="x")) << refused("response.tool_choice.server_label")
    play >> create(tool_choice=cfg.ToolChoiceFunction(name="x")) << refused("response.tool_choice.name")


def test_a_session_can_use_so_many_servers() -> None:
    with playbook(machine(mcp_servers_max=2)) as play:
        play >> Opened() << ...
        three = [notes(server_label=str(number)) for number in range(3)]
        play >> update(*three) << refused("session.tools", "array_above_max_length")
        play >> update(*three[:2]) << ...
        play >> update(*three[:2]) << sends("session.updated")
        play >> create(tools=(three[2],)) << refused("response.tools", "array_above_max_length")
        play >> update(three[0], notes(server_label="1", server_url="https://other.example")) << ...
        play << refused("session.tools", "array_above_max_length")


# --- import -----------------------------------------------------------------------------------------------------------


def test_t17_an_import_is_announced_and_done(play: Playbook) -> None:
    play >> update(notes()) << sends("session.updated", session={"tools": [{"server_label": "notes"}]})
    importing(play, "mcpl_1", {"server_label": "notes", "server_url": URL})
    (
        play
        >> McpToolsListed("mcpl_1", (READ, WRITE))
        << sends("mcp_list_tools.completed", item_id="mcpl_1")
        << sends("conversation.item.done", previous_item_id=None, item={"tools": [{"name": "read"}, {"name": "write"}]})
    )
    play >> McpToolsListed("mcpl_1", ())


def test_tools_are_offered_only_once_they_are_imported(play: Playbook) -> None:
    play >> update(notes()) << ...
    offered(play)
    play >> McpToolsListed("mcpl_1", (READ,)) << ...
    offered(play, "read")


def test_an_import_that_fails_is_tried_again_by_the_next_definition(play: Playbook) -> None:
    play >> update(notes()) << ...
    (
        play
        >> McpListFailed("mcpl_1", "not there")
        << sends("mcp_list_tools.failed", item_id="mcpl_1")
        << sends("conversation.item.done", item={"id": "mcpl_1", "tools": []})
    )
    offered(play)
    play >> update(AGAIN) << sends("session.updated")
    importing(play, "mcpl_2", {"server_url": URL}, "mcpl_1")
    play >> McpToolsListed("mcpl_2", (READ,)) << ...
    offered(play, "read")


def test_an_import_goes_on_when_its_item_is_deleted(play: Playbook) -> None:
    play >> update(notes()) << ...
    play >> ConversationItemDelete(item_id="mcpl_1") << sends("conversation.item.deleted")
    play >> McpToolsListed("mcpl_1", (READ,)) << sends("mcp_list_tools.completed", item_id="mcpl_1")
    offered(play, "read")


def test_a_server_that_is_known_is_not_imported_again(play: Playbook) -> None:
    define(play, READ)
    for same in (notes(), AGAIN, notes(server_description="My notes."), notes(require_approval="always")):
        play >> update(same) << sends("session.updated")
    offered(play, "read", event=create(tools=(AGAIN,)))


@pytest.mark.parametrize("other", [{"authorization": "b"}, {"headers": {"x": "y"}}, {"allowed_tools": ("read",)}])
def test_a_server_that_is_defined_otherwise_is_imported_anew(play: Playbook, other: dict[str, object]) -> None:
    define(play, READ)
    play >> update(notes(**other)) << sends("session.updated")
    importing(play, "mcpl_2", {"server_url": URL, **other}, "mcpl_1")
    offered(play)
    play >> McpToolsListed("mcpl_2", (WRITE,)) << ...
    offered(play, "write")


def test_a_late_import_of_an_older_definition_is_not_offered(play: Playbook) -> None:
    other = notes(server_url="https://other.example")
    play >> update(notes()) << ...
    play >> update(other) << ...
    play >> McpToolsListed("mcpl_2", (WRITE,)) << ...
    play >> McpToolsListed("mcpl_1", (READ,)) << sends("mcp_list_tools.completed", item_id="mcpl_1") << ...
    offered(play, "write")


def test_what_a_response_says_about_a_server_holds_for_it_alone(play: Playbook) -> None:
    define(play, READ, WRITE, authorization="secret")
    elsewhere = create(tools=(notes(server_url="https://other.example"),))
    response = Id("response")
    play >> elsewhere << sends("response.created", response={"id": response})
    importing(play, "mcpl_2", {"server_url": "https://other.example", "authorization": UNSET}, "mcpl_1")
    play << asks(Generate, tools=[])
    play >> GenerationEnded(response, "stop") << ...
    narrow = create(tools=(cfg.McpTool(server_label="notes", allowed_tools=("read",)),))
    play >> narrow << ... << asks(ListMcpTools, item_id="mcpl_3", server={"authorization": "secret"}) << ...
    play >> GenerationEnded("resp_2", "stop") << ...
    offered(play, "read", "write")
    offered(play, "read", "write", event=create(tools=(AGAIN,)))


def test_a_response_can_bring_a_server_and_later_ones_use_it_by_its_label(play: Playbook) -> None:
    response = Id("response")
    play >> create(tools=(notes(),)) << sends("response.created", response={"id": response})
    importing(play, "mcpl_1", {"server_url": URL})
    play << asks(Generate, tools=[])
    play >> GenerationEnded(response, "stop") << ...
    play >> McpToolsListed("mcpl_1", (READ,)) << ...
    offered(play)
    offered(play, "read", event=create(tools=(AGAIN,)))


def test_an_import_behind_a_noise_does_not_have_the_noise_answered(play: Playbook) -> None:
    play >> InputAudioBufferAppend(audio=tone(500)) << ...
    play >> SpeechScored(1, 20, (1.0,) * 10 + (0.0,) * 15) << ... << sends("response.created")
    play >> update(notes()) << ...
    play >> McpToolsListed("mcpl_1", (READ,)) << ...
    play >> TranscriptEnded("item_1") << sends("response.done", response={"status": "completed", "output": []})


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRETS = ("token-one", "token-two")


def test_no_secret_of_a_server_is_ever_sent(play: Playbook) -> None:
    secret = notes(authorization=SECRETS[0], headers={"X-Key": SECRETS[1]})
    play >> update(secret) << sends("session.updated", session={"tools": [{"server_url": URL}]}) << ...
    play >> McpToolsListed("mcpl_1", (WRITE,)) << ...
    play >> update(secret, secret) << ...
    response = begun(play, create(tools=(secret,)))
    call = running(play, response)
    play >> McpCallEnded(call, output="done") << ...
    play >> create(conversation="none", tools=(secret,)) << ...
    sent = b"".join(msgspec.json.encode(moment.message) for moment in play.record if isinstance(moment.message, Send))
    assert b"notes" in sent
    assert not [secret for secret in SECRETS if secret.encode() in sent]


def test_the_echo_sent_back_uses_the_secret_again(play: Playbook) -> None:
    define(play, WRITE, authorization="token", headers={"X-Key": "key"})
    assert isinstance(play.machine, Session)
    echo = play.machine.config
    assert isinstance(echo, cfg.RealtimeSessionResource)
    assert isinstance(echo.tools, tuple)
    assert isinstance(echo.tools[0], cfg.McpTool)
    assert echo.tools[0].authorization is UNSET
    assert echo.tools[0].headers is UNSET
    play >> update(*echo.tools) << sends("session.updated")
    call = calling(play, begun(play))
    play >> GenerationEnded("resp_1", "stop") << ...
    play << asks(CallMcpTool, item_id=call, server={"authorization": "token", "headers": {"X-Key": "key"}})


def test_a_secret_does_not_go_to_another_url(play: Playbook) -> None:
    define(play, READ, authorization="token")
    play >> update(notes(server_url="https://thief.example")) << sends("session.updated")
    importing(play, "mcpl_2", {"server_url": "https://thief.example", "authorization": UNSET}, "mcpl_1")


def test_new_credentials_take_the_place_of_the_old(play: Playbook) -> None:
    define(play, READ, headers={"Authorization": "Bearer old", "X-Key": "k"})
    play >> update(cfg.McpTool(server_label="notes", authorization="new")) << sends("session.updated")
    importing(play, "mcpl_2", {"authorization": "new", "headers": {"X-Key": "k"}}, "mcpl_1")
    play >> update(cfg.McpTool(server_label="notes", headers={"authorization": "Bearer newer"})) << ...
    play << asks(ListMcpTools, server={"authorization": UNSET, "headers": {"authorization": "Bearer newer"}})


# --- what the language model is offered -------------------------------------------------------------------------------


def test_names_are_unique_across_servers_and_functions(play: Playbook) -> None:
    function = cfg.FunctionTool(name="read")
    play >> update(function, notes(), notes(server_label="mail", server_url="https://mail.example")) << ...
    play >> McpToolsListed("mcpl_1", (READ, WRITE)) << ...
    play >> McpToolsListed("mcpl_2", (READ, WRITE, McpListedTool(name="mail_read", input_schema=None))) << ...
    offered(play, "read", "notes_read", "write", "mail_read", "mail_write", "mail_mail_read")


def test_names_are_such_as_language_models_take(play: Playbook) -> None:
    wild = ("files/read.all", "gelb & grün", "", "x" * 70, "x" * 71, "x" * 72)
    tools = tuple(McpListedTool(name=name, input_schema=SCHEMA) for name in wild)
    define(play, *tools, server_label="my notes!")
    xs = "x" * NAME_CHARS_MAX
    labelled = ("my_notes__" + xs)[:NAME_CHARS_MAX]
    offered(play, "files_read_all", "gelb___gr_n", "_", xs, labelled, labelled[:-2] + "_2")


def test_a_tool_of_a_wild_name_is_called_by_its_own(play: Playbook) -> None:
    define(play, McpListedTool(name="files/read.all", input_schema=SCHEMA))
    play >> ResponseCreate() << ...
    play >> CallStarted("resp_1", "files_read_all") << sends("response.output_item.added") << ...
    play >> GenerationEnded("resp_1", "stop") << ... << asks(CallMcpTool, item_id="mcp_1", name="files/read.all")
    play >> McpCallEnded("mcp_1", output="all") << ...
    # and the language model sees it again under the name by which it called
    play >> ResponseCreate() << ... << asks(Generate, items=[{"name": "files_read_all"}, {"output": "all"}])
    play >> GenerationEnded("resp_2", "stop") << ...
    play >> create(tools=()) << ... << asks(Generate, items=[{"name": "files_read_all"}, {"output": "all"}])


def test_a_schema_that_is_none_takes_no_arguments(play: Playbook) -> None:
    define(play, McpListedTool(name="now", input_schema=None, description=None))
    play >> ResponseCreate() << ...
    play << asks(Generate, tools=[{"name": "now", "description": "", "parameters": SCHEMA}])


def test_tool_choice(play: Playbook) -> None:
    function = cfg.FunctionTool(name="f")
    play >> update(function, notes(), notes(server_label="mail", server_url="https://mail.example")) << ...
    choice = cfg.ToolChoiceMcp(server_label="notes")
    offered(play, choice="auto", event=create(tool_choice=choice))  # nothing of it has been imported: nothing to call
    play >> McpToolsListed("mcpl_1", (READ, WRITE)) << ...
    play >> McpToolsListed("mcpl_2", (READ,)) << ...
    offered(play, "read", "write", choice="required", event=create(tool_choice=choice))
    one = cfg.ToolChoiceMcp(server_label="mail", name="read")
    offered(play, "mail_read", choice="required", event=create(tool_choice=one))
    offered(play, choice="auto", event=create(tool_choice=cfg.ToolChoiceMcp(server_label="mail", name="unknown")))
    offered(play, "f", "read", "write", "mail_read", choice="required", event=create(tool_choice="required"))
    offered(play, choice="auto", event=create(tools=(), tool_choice="required"))
    offered(play, "f", "read", "write", "mail_read", choice="none", event=create(tool_choice="none"))
    named = cfg.ToolChoiceFunction(name="f")
    offered(play, "f", "read", "write", "mail_read", choice=named, event=create(tool_choice=named))


FILTER = cfg.McpToolFilter
APPROVAL = cfg.McpApprovalFilter


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (UNSET, {"read", "write"}),
        (None, {"read", "write"}),
        ("always", {"read", "write"}),
        ("never", set()),
        (APPROVAL(never=FILTER(read_only=True)), {"write"}),
        (APPROVAL(never=FILTER(read_only=False)), {"read"}),
        (APPROVAL(never=FILTER(tool_names=("write",))), {"read"}),
        (APPROVAL(never=FILTER(tool_names=("write",), read_only=True)), {"read", "write"}),
        (APPROVAL(always=FILTER(tool_names=("write",))), {"read", "write"}),
        (APPROVAL(always=FILTER(tool_names=("write",)), never=FILTER()), {"write"}),
        (APPROVAL(always=FILTER(read_only=True), never=FILTER(tool_names=("read", "write"))), {"read"}),
        (APPROVAL(), {"read", "write"}),
    ],
)
def test_require_approval_in_all_its_forms(play: Playbook, rule: object, asked: set[str]) -> None:
    define(play, READ, WRITE, require_approval=rule)
    for number, name in enumerate(("read", "write"), 1):
        play >> ResponseCreate() << ...
        play >> CallStarted(f"resp_{number}", name) << ...
        play >> GenerationEnded(f"resp_{number}", "length") << ...
    sent = [moment.message.event for moment in play.record if isinstance(moment.message, Send)]
    added = [event.item for event in sent if isinstance(event, ResponseOutputItemAdded)]
    called = {item.name for item in added if isinstance(item, McpCall)}
    assert called == {"read", "write"} - asked  # of half a call that needs an approval nobody hears


@pytest.mark.parametrize("hint", ["true", 1, None])
def test_a_tool_is_read_only_where_its_server_says_so_plainly(play: Playbook, hint: object) -> None:
    define(
        play,
        McpListedTool(name="write", input_schema=SCHEMA, annotations={"readOnlyHint": hint}),
        require_approval=APPROVAL(never=FILTER(read_only=True)),
    )
    play >> ResponseCreate() << ...
    play >> CallStarted("resp_1", "write")


# --- calls ------------------------------------------------------------------------------------------------------------


def test_t17_a_call_runs_before_the_response_is_done(play: Playbook) -> None:
    define(play, WRITE)
    response = begun(play)
    call = running(play, response, GenerationEnded(response, "stop", input_tokens=5, output_tokens=2))
    play >> McpCallEnded(call, output="done")
    finished(play, call, "completed", {"arguments": '{"a":1}', "output": "done", "error": None})
    play << sends("response.done", response={"status": "completed", "output": [{"id": call}]})
    play >> McpCallEnded(call, output="again")


@pytest.mark.parametrize("error", [McpToolExecutionError(message="No."), McpHttpError(code=500, message="Down.")])
def test_t17_a_call_that_fails_ends_no_response(play: Playbook, error: McpHttpError | McpToolExecutionError) -> None:
    define(play, WRITE)
    response = begun(play)
    call = running(play, response)
    play >> McpCallEnded(call, error=error)
    finished(play, call, "failed", {"output": None, "error": error})
    play << sends("response.done", response={"status": "completed"})
    play >> ResponseCreate() << ...
    play << asks(Generate, items=[{"name": "write"}, {"output": f"Error: {error.message}"}])


def test_empty_pieces_do_not_end_a_call_before_its_time(play: Playbook) -> None:
    define(play, WRITE)
    response = begun(play)
    calling(play, response)
    play >> TextGenerated(response, "")
    play >> CallArguments(response, "")
    play >> GenerationEnded(response, "stop") << sends("response.mcp_call_arguments.done", arguments='{"a":1}') << ...


def test_what_follows_a_call_waits_for_it(play: Playbook) -> None:
    define(play, READ, WRITE)
    response = begun(play)
    call = calling(play, response)
    play >> TextGenerated(response, "Noted.") << sends("response.mcp_call_arguments.done") << ...
    play << asks(CallMcpTool, item_id=call)
    play >> CallStarted(response, "read")
    play >> CallArguments(response, "{}")
    play >> GenerationEnded(response, "stop")
    play >> McpCallEnded(call, output="done") << ...
    play << sends("response.output_text.delta", output_index=1, delta="Noted.") << ...
    play << sends("response.output_item.done", output_index=1)
    second = Id("second")
    play << sends("response.output_item.added", output_index=2, item={"id": second, "name": "read"}) << ...
    play << asks(CallMcpTool, item_id=second, arguments="{}")
    play >> McpCallEnded(second, output="all") << ...
    play << sends("response.done", response={"output": [{"id": call}, {"type": "message"}, {"id": second}]})


def test_a_call_counts_as_a_sign_of_life(play: Playbook) -> None:
    define(play, WRITE)
    response = begun(play)
    call = calling(play, response)
    play >> CallStarted(response, "write") << ...
    play.after(50_000)
    play >> McpCallEnded(call, output="done") << ...
    play.after(50_000)
    (
        play.after(10_000)
        << ...
        << sends("response.done", response={"status_details": {"error": {"code": "engine_timeout"}}})
    )


def ended(status: str, **details: object) -> Expected:
    return sends(
        "response.done", response={"status": status, "status_details": details, "output": [{"type": "mcp_call"}]}
    )


def test_cancelling_while_the_arguments_stream(play: Playbook) -> None:
    define(play, WRITE)
    call = calling(play, begun(play))
    play >> ResponseCancel() << Cancel("resp_1")
    play << sends("response.mcp_call_arguments.done", item_id=call, arguments='{"a":1}')
    broken_off(play, call) << ended("cancelled", reason="client_cancelled")


def test_cancelling_while_the_call_runs(play: Playbook) -> None:
    define(play, WRITE)
    call = running(play, begun(play))
    play >> ResponseCancel() << Cancel("resp_1")
    broken_off(play, call) << ended("cancelled", reason="client_cancelled")
    play >> McpCallEnded(call, output="too late")
    play >> ResponseCreate() << ...
    play << asks(Generate, items=[{"name": "write"}, {"output": "Error: The call was cancelled."}])
    play >> McpCallEnded(call, output="too late for another response, too")


def test_barge_in_while_the_call_runs(play: Playbook) -> None:
    define(play, WRITE)
    call = running(play, begun(play))
    play >> InputAudioBufferAppend(audio=tone(200)) << ...
    play >> SpeechScored(1, 20, (1.0,) * 10) << sends("input_audio_buffer.speech_started") << Cancel("resp_1")
    broken_off(play, call) << ended("cancelled", reason="turn_detected")
    play >> McpCallEnded(call, output="too late")


def test_a_limit_of_length_in_the_arguments_makes_no_call(play: Playbook) -> None:
    define(play, WRITE)
    call = calling(play, begun(play))
    play >> GenerationEnded("resp_1", "length") << sends("response.mcp_call_arguments.done", item_id=call)
    broken_off(play, call) << ended("incomplete", reason="max_output_tokens")


def test_a_limit_of_length_behind_a_call_lets_it_run(play: Playbook) -> None:
    define(play, WRITE)
    response = begun(play)
    call = calling(play, response)
    play >> CallStarted(response, "write") << ... << asks(CallMcpTool, item_id=call)
    play >> GenerationEnded(response, "length")
    play >> McpCallEnded(call, output="done")
    finished(play, call, "completed", {"output": "done"}) << ...
    play << sends("response.done", response={"status": "incomplete", "output": [{"output": "done"}, {"output": None}]})


def test_a_generation_that_fails_while_the_arguments_stream(play: Playbook) -> None:
    define(play, WRITE)
    call = calling(play, begun(play))
    play >> GenerationFailed("resp_1", "broken", "It broke.") << Cancel("resp_1")
    play << sends("response.mcp_call_arguments.done", item_id=call)
    broken_off(play, call) << ended("failed", error={"code": "broken"})


def test_a_server_that_is_removed_finishes_its_call(play: Playbook) -> None:
    define(play, WRITE)
    call = running(play, begun(play))
    play >> update() << sends("session.updated", session={"tools": []})
    play >> McpCallEnded(call, output="done")
    finished(play, call, "completed", {"output": "done"}) << sends("response.done")
    offered(play)


def test_a_call_that_runs_cannot_be_deleted(play: Playbook) -> None:
    define(play, WRITE)
    response = begun(play)
    call = calling(play, response)
    play >> ConversationItemDelete(item_id=call, event_id="mine") << refused("item_id")
    play >> GenerationEnded(response, "stop") << ...
    play >> ConversationItemDelete(item_id=call, event_id="mine") << refused("item_id")
    play >> McpCallEnded(call, output="done") << ... << sends("response.done")
    play >> ConversationItemDelete(item_id=call) << sends("conversation.item.deleted")


def test_a_response_beside_the_conversation_calls_without_touching_it(play: Playbook) -> None:
    define(play, WRITE)
    response, call = begun(play, create(conversation="none", input=())), Id("call")
    play >> CallStarted(response, "write") << sends("response.output_item.added", item={"id": call})
    play >> GenerationEnded(response, "stop") << sends("response.mcp_call_arguments.done", arguments="") << ...
    play << asks(CallMcpTool, owner_id=response, item_id=call)
    play >> McpCallEnded(call, output="done") << sends("response.mcp_call.completed", item_id=call)
    play << sends("response.output_item.done", item={"output": "done"}) << sends("response.done")
    play >> ResponseCreate() << ... << asks(Generate, items=[])


# --- approval ---------------------------------------------------------------------------------------------------------


def answer(request: str, approve: bool, **fields: object) -> ConversationItemCreate:
    item = McpApprovalResponse(approval_request_id=request, approve=approve, **fields)  # type: ignore[arg-type]
    return ConversationItemCreate(item=item, event_id="mine")


UNKNOWN = refused("item.approval_request_id")


def asked(play: Playbook, event: ResponseCreate | None = None) -> str:
    """A response has asked for an approval; the id of its request."""
    define(play, READ, WRITE, require_approval="always")
    response = begun(play, event)
    play >> CallStarted(response, "write")
    play >> CallArguments(response, '{"a":1}')
    request = {"id": "mcpr_1", "type": "mcp_approval_request", "name": "write", "arguments": '{"a":1}'}
    play >> GenerationEnded(response, "stop") << sends("response.output_item.added", item=request)
    if event is None:
        play << sends("conversation.item.added", item=request) << sends("conversation.item.done", item=request)
    play << sends("response.output_item.done", item=request) << sends("response.done", response={"output": [request]})
    return "mcpr_1"


def approved(play: Playbook, request: str) -> None:
    play >> answer(request, True) << sends("conversation.item.added", item={"approve": True})
    play << sends("conversation.item.done", item={"approve": True})
    begins = {
        "id": "mcp_1",
        "type": "mcp_call",
        "name": "write",
        "arguments": '{"a":1}',
        "approval_request_id": request,
    }
    play << sends("conversation.item.added", item=begins)
    play << sends("response.mcp_call.in_progress", item_id="mcp_1")
    play << asks(CallMcpTool, owner_id="mcp_1", item_id="mcp_1", server={"server_url": URL}, name="write")


def test_t17_an_approved_call_runs(play: Playbook) -> None:
    approved(play, asked(play))
    play >> ResponseCreate() << ... << asks(Generate, items=[])  # it still runs: the model does not see it
    play >> GenerationEnded("resp_2", "stop") << ...
    (
        play
        >> McpCallEnded("mcp_1", output="done")
        << sends("response.mcp_call.completed", item_id="mcp_1")
        << sends("conversation.item.done", item={"id": "mcp_1", "output": "done", "approval_request_id": "mcpr_1"})
    )
    call = FunctionCall(id="mcp_1", call_id="mcp_1", name="write", arguments='{"a":1}', status="completed")
    output = FunctionCallOutput(call_id="mcp_1", output="done")
    play >> ResponseCreate() << ... << asks(Generate, items=[call, output])


def test_t17_an_approved_call_that_fails(play: Playbook) -> None:
    approved(play, asked(play))
    play >> McpCallEnded("mcp_1", error=McpToolExecutionError(message="No."))
    play << sends("response.mcp_call.failed", item_id="mcp_1") << sends("conversation.item.done", item={"output": None})


def test_t17_a_call_that_is_not_approved_is_not_made(play: Playbook) -> None:
    play >> answer(asked(play), False, reason="Too risky.") << sends("conversation.item.added") << ...
    play >> ResponseCreate() << ...
    said = {"output": "The user did not allow this call. Reason: Too risky."}
    play << asks(Generate, items=[{"name": "write", "call_id": "mcpr_1"}, {"call_id": "mcpr_1", **said}])


def test_without_a_reason_none_is_told_and_without_the_request_nothing(play: Playbook) -> None:
    play >> answer(asked(play), False) << ...
    play >> ResponseCreate() << ... << asks(Generate, items=[{}, {"output": "The user did not allow this call."}])
    play >> GenerationEnded("resp_2", "stop") << ...
    play >> ConversationItemDelete(item_id="mcpr_1") << ...
    play >> ResponseCreate() << ... << asks(Generate, items=[])


def test_an_approval_is_given_once_and_only_where_it_was_asked_for(play: Playbook) -> None:
    play >> answer("mcpr_1", True) << UNKNOWN
    request = asked(play)
    approved(play, request)
    play >> answer(request, True) << UNKNOWN
    play >> answer(request, False) << UNKNOWN


def test_a_request_that_was_deleted_can_be_answered_no_more(play: Playbook) -> None:
    request = asked(play)
    play >> ConversationItemDelete(item_id=request) << sends("conversation.item.deleted")
    play >> answer(request, True) << UNKNOWN


def test_deleting_an_approved_call_ends_it(play: Playbook) -> None:
    approved(play, asked(play))
    play >> ConversationItemDelete(item_id="mcp_1") << sends("conversation.item.deleted") << Cancel("mcp_1")
    play >> McpCallEnded("mcp_1", output="too late")


def test_of_half_a_call_nobody_is_asked(play: Playbook) -> None:
    define(play, WRITE, require_approval="always")
    response = begun(play)
    play >> CallStarted(response, "write")
    play >> ResponseCancel() << Cancel(response) << sends("response.done", response={"output": []})
    play >> answer("mcpr_1", True) << UNKNOWN


def test_several_requests_of_one_response(play: Playbook) -> None:
    define(play, READ, WRITE, require_approval="always")
    response = begun(play)
    for name in ("read", "write"):
        play >> CallStarted(response, name) << ...
        play >> CallArguments(response, "{}")
    play >> GenerationEnded(response, "stop") << ...
    play << sends("response.done", response={"output": [{"name": "read"}, {"name": "write"}]})
    play >> answer("mcpr_2", True) << ... << asks(CallMcpTool, name="write")
    play >> answer("mcpr_1", True) << ... << asks(CallMcpTool, name="read")


def test_only_so_many_requests_wait() -> None:
    with playbook(machine(mcp_approvals_max=1)) as play:
        play >> Opened() << ...
        define(play, READ, WRITE, require_approval="always")
        for number in (1, 2):
            play >> ResponseCreate() << ...
            play >> CallStarted(f"resp_{number}", "write")
            play >> GenerationEnded(f"resp_{number}", "stop") << ...
        play >> answer("mcpr_1", True) << UNKNOWN
        play >> answer("mcpr_2", True) << ... << asks(CallMcpTool)


def test_a_request_from_beside_the_conversation_is_answered_in_it(play: Playbook) -> None:
    """The request itself is no item of the conversation; the client's answer, and the call that it allows, are."""
    approved(play, asked(play, create(conversation="none")))
    play >> McpCallEnded("mcp_1", output="done") << ... << sends("conversation.item.done", item={"output": "done"})
