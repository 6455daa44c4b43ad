"""The tools of a session: functions of the client, and those of MCP servers, which are called from here (T17).

Knows which MCP servers a session defined, imports their tools, offers everything to the language model under names that
are unique, and runs the calls that a user approved. Invariants: an import or a call is announced, and done, exactly
once; what is secret about a server (authorization, headers) stays here and in the effects, and is never sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, structs

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.config import (
    FunctionTool,
    McpApprovalFilter,
    McpTool,
    McpToolFilter,
    Tool,
    ToolChoice,
    ToolChoiceFunction,
    ToolChoiceMcp,
)
from vivavoce.protocol.items import (
    McpApprovalResponse,
    McpCall,
    McpListedTool,
    McpListTools,
    McpToolExecutionError,
)

from .desk import Desk
from .messages import CallMcpTool, Cancel, ListMcpTools, McpCallEnded, McpListFailed, McpToolsListed
from .refused import Refused, invalid

NAME_CHARS_MAX = 64
"""Longest name of a function that language models take."""

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True, slots=True)
class Target:
    """A tool of an MCP server, that the language model knows as a function."""

    server: McpTool
    name: str
    needs_approval: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """What one response may call: functions as the language model is told, and which of them are an MCP server's."""

    functions: tuple[FunctionTool, ...] = ()
    choice: ToolChoice = "auto"
    targets: Mapping[str, Target] = field(default_factory=dict)

    def name_of(self, server_label: str, tool: str) -> str:
        """Under which name the language model knows an MCP server's tool, or would."""
        for name, target in self.targets.items():
            if (target.server.server_label, target.name) == (server_label, tool):
                return name
        return _legal(tool)


@dataclass(frozen=True, slots=True)
class Source:
    """What decides which tools an import brings: where it goes, as whom, and what is asked for."""

    label: str
    url: str
    authorization: str | None
    headers: tuple[tuple[str, str], ...]
    allowed: tuple[str, ...] | McpToolFilter | None


class Toolbox:
    """All tools of one session."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._servers: dict[tuple[str, str], McpTool] = {}
        """What the session knows of a server, secrets included, by label and URL."""
        self._urls: dict[str, str] = {}
        """The URL that a label alone stands for."""
        self._listed: dict[Source, tuple[McpListedTool, ...] | None] = {}
        """What was imported; None while it is being imported."""
        self._imports: dict[str, Source] = {}
        self._asked: dict[str, tuple[Target, str]] = {}
        self._calls: dict[str, McpCall] = {}

    # --- what a client defines ----------------------------------------------------------------------------------------

    def check(self, tools: tuple[Tool, ...], choice: ToolChoice | UnsetType, where: str) -> None:
        """Refuse tools and choices that cannot be served; `where` is `session` or `response`. Changes nothing."""
        names: set[str] = set()
        labels: set[str] = set()
        sources = set(self._listed)
        for index, tool in enumerate(tools):
            path = f"{where}.tools[{index}]"
            if isinstance(tool, McpTool):
                self._check_server(tool, labels, path)
                labels.add(tool.server_label)
                sources.add(_source(self._whole(tool)))
            elif tool.name in names:
                raise invalid(f"{path}.name", f"There is more than one tool with the name '{tool.name}'.")
            else:
                names.add(tool.name)
        if len(sources) > self._desk.limits.mcp_servers_max:
            raise Refused(
                "array_above_max_length",
                f"A session can use at most {self._desk.limits.mcp_servers_max} MCP servers; one that is defined with "
                "another URL, other credentials or other 'allowed_tools' counts again.",
                f"{where}.tools",
            )
        if isinstance(choice, ToolChoiceMcp) and choice.server_label not in labels:
            raise invalid(f"{where}.tool_choice.server_label", f"There is no MCP server '{choice.server_label}'.")
        if isinstance(choice, ToolChoiceFunction) and choice.name not in names:
            raise invalid(f"{where}.tool_choice.name", f"There is no tool with the name '{choice.name}'.")

    def _check_server(self, tool: McpTool, labels: set[str], path: str) -> None:
        label = tool.server_label
        if not self._desk.abilities.mcp:
            raise invalid(f"{path}.type", "This server calls no MCP servers.")
        if label in labels:
            raise invalid(f"{path}.server_label", f"There is more than one MCP server with the label '{label}'.")
        for name in ("connector_id", "tunnel_id"):
            if not isinstance(getattr(tool, name), UnsetType):
                raise invalid(f"{path}.{name}", f"'{name}' is not available on this server; use 'server_url'.")
        if isinstance(tool.server_url, UnsetType) and label not in self._urls:
            raise Refused(
                "missing_required_parameter",
                f"Missing required parameter: '{path}.server_url'. The MCP server '{label}' is not defined yet.",
                f"{path}.server_url",
            )
        if not isinstance(tool.authorization, UnsetType) and any(
            name.lower() == "authorization" for name in _headers(tool)
        ):
            raise invalid(f"{path}.authorization", "Use either 'authorization' or an Authorization header, not both.")

    def define(self, tools: Iterable[Tool], *, is_lasting: bool) -> None:
        """Remember MCP servers, and import the tools of those whose tools are not known.

        A session's definitions last. What one response says otherwise about a server that is known holds for it alone.
        """
        for tool in tools:
            if not isinstance(tool, McpTool):
                continue
            server = self._whole(tool)
            label, url = tool.server_label, given(server.server_url, "")
            if is_lasting or (label, url) not in self._servers:
                self._servers[label, url] = server
            if is_lasting or label not in self._urls:
                self._urls[label] = url
            if (source := _source(server)) not in self._listed:
                self._import(server, source)

    def _whole(self, tool: McpTool) -> McpTool:
        """The entry with what an earlier one of the same label, for the same URL, said beyond it."""
        label = tool.server_label
        known = self._servers.get((label, given(tool.server_url, self._urls.get(label, ""))))
        if known is None:
            return tool
        if not isinstance(tool.authorization, UnsetType):
            others = {name: value for name, value in _headers(known).items() if name.lower() != "authorization"}
            known = structs.replace(known, headers=others or UNSET)
        elif any(name.lower() == "authorization" for name in _headers(tool)):
            known = structs.replace(known, authorization=UNSET)
        said = {name: value for name in tool.__struct_fields__ if (value := getattr(tool, name)) is not UNSET}
        return structs.replace(known, **said)

    def _import(self, server: McpTool, source: Source) -> None:
        desk, item_id = self._desk, self._desk.new_id("mcpl")
        self._imports[item_id], self._listed[source] = source, None
        item = McpListTools(id=item_id, server_label=server.server_label, tools=())
        desk.send(ev.ConversationItemAdded(item=item, previous_item_id=desk.conversation.last_item_id))
        desk.send(ev.McpListToolsInProgress(item_id=item_id))
        desk.ask(ListMcpTools(item_id, server))

    def listed(self, report: McpToolsListed | McpListFailed) -> None:
        """An import is over, well or badly; after a bad one, the next definition tries again."""
        source = self._imports.pop(report.item_id, None)
        if source is None:
            return
        tools = report.tools if isinstance(report, McpToolsListed) else ()
        if isinstance(report, McpToolsListed):
            self._listed[source] = tools
            self._desk.send(ev.McpListToolsCompleted(item_id=report.item_id))
        else:
            del self._listed[source]
            self._desk.send(ev.McpListToolsFailed(item_id=report.item_id))
        if report.item_id in self._desk.conversation:
            item = McpListTools(id=report.item_id, server_label=source.label, tools=tools)
            previous = self._desk.conversation.previous_item_id(report.item_id)
            self._desk.send(ev.ConversationItemDone(item=item, previous_item_id=previous))

    # --- what the language model is offered ---------------------------------------------------------------------------

    def offer(self, tools: tuple[Tool, ...], choice: ToolChoice) -> Offer:
        """Functions for everything that can be called now; tools that are still being imported are not among them."""
        functions = [tool for tool in tools if isinstance(tool, FunctionTool)]
        targets: dict[str, Target] = {}
        names = {tool.name for tool in functions}
        for tool in tools:
            if not isinstance(tool, McpTool):
                continue
            server = self._whole(tool)
            for listed in self._listed.get(_source(server)) or ():
                name = _unique(listed.name, tool.server_label, names)
                names.add(name)
                targets[name] = Target(server, listed.name, _needs_approval(server, listed))
                functions.append(_function(name, listed))
        return _chosen(tuple(functions), choice, targets)

    # --- approval -----------------------------------------------------------------------------------------------------

    def ask_approval(self, item_id: str, target: Target, arguments: str) -> None:
        """A response asks the user under this item id; a later item answers."""
        self._asked[item_id] = (target, arguments)
        for oldest in list(self._asked)[: -self._desk.limits.mcp_approvals_max]:
            del self._asked[oldest]

    def check_answer(self, item: McpApprovalResponse) -> None:
        """Refuse an answer to what nobody asked, or to what was answered."""
        if item.approval_request_id not in self._asked:
            raise invalid(
                "item.approval_request_id", f"No approval request '{item.approval_request_id}' waits for an answer."
            )

    def answered(self, item: McpApprovalResponse) -> None:
        """The user has decided: make the call, or do not."""
        target, arguments = self._asked.pop(item.approval_request_id)
        if not item.approve:
            return
        desk, item_id = self._desk, self._desk.new_id("mcp")
        call = McpCall(
            id=item_id,
            server_label=target.server.server_label,
            name=target.name,
            arguments=arguments,
            approval_request_id=item.approval_request_id,
        )
        self._calls[item_id] = call
        desk.send(ev.ConversationItemAdded(item=call, previous_item_id=desk.conversation.last_item_id))
        desk.send(ev.ResponseMcpCallInProgress(item_id=item_id, output_index=0))
        desk.ask(CallMcpTool(item_id, item_id, target.server, target.name, arguments))

    def called(self, report: McpCallEnded) -> None:
        """An approved call is over."""
        call = self._calls.pop(report.item_id, None)
        if call is None:
            return
        desk, item = self._desk, outcome(call, report)
        kind = ev.ResponseMcpCallCompleted if report.error is None else ev.ResponseMcpCallFailed
        desk.send(kind(item_id=report.item_id, output_index=0))
        previous = desk.conversation.previous_item_id(report.item_id)
        desk.send(ev.ConversationItemDone(item=item, previous_item_id=previous))

    def forget(self, item_id: str) -> None:
        """The item was deleted; what it stood for ends."""
        self._asked.pop(item_id, None)
        if self._calls.pop(item_id, None) is not None:
            self._desk.ask(Cancel(item_id))


def shown(tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """Tools as a session states them: without what is secret about an MCP server."""
    return tuple(
        structs.replace(tool, authorization=UNSET, headers=UNSET) if isinstance(tool, McpTool) else tool
        for tool in tools
    )


def outcome(call: McpCall, report: McpCallEnded) -> McpCall:
    """The call with what came of it."""
    if report.error is not None:
        return structs.replace(call, error=report.error, output=None)
    return structs.replace(call, output=report.output or "", error=None)


def broken_off(call: McpCall) -> McpCall:
    """The call, ended before its server answered."""
    return structs.replace(call, error=McpToolExecutionError(message="The call was cancelled."), output=None)


def _headers(server: McpTool) -> dict[str, str]:
    return given(server.headers, None) or {}


def _source(server: McpTool) -> Source:
    return Source(
        server.server_label,
        given(server.server_url, ""),
        given(server.authorization, None),
        tuple(sorted(_headers(server).items())),
        given(server.allowed_tools, None),
    )


def _legal(name: str) -> str:
    """The name as language models take it; MCP servers may call their tools as they like."""
    return _NOT_IN_A_NAME.sub("_", name)[:NAME_CHARS_MAX] or "_"


def _unique(name: str, label: str, taken: set[str]) -> str:
    candidate, number = _legal(name), 1
    while candidate in taken:
        suffix = f"_{number}" if number > 1 else ""
        candidate, number = _legal(f"{label}_{name}")[: NAME_CHARS_MAX - len(suffix)] + suffix, number + 1
    return candidate


def _function(name: str, listed: McpListedTool) -> FunctionTool:
    schema: Any = listed.input_schema
    return FunctionTool(
        name=name,
        description=given(listed.description, None) or "",
        parameters=schema if isinstance(schema, dict) else {"type": "object", "properties": {}},
    )


def _chosen(functions: tuple[FunctionTool, ...], choice: ToolChoice, targets: dict[str, Target]) -> Offer:
    if isinstance(choice, ToolChoiceMcp):
        wanted = given(choice.name, None)
        names = {
            name
            for name, target in targets.items()
            if target.server.server_label == choice.server_label and wanted in (None, target.name)
        }
        functions, choice = tuple(tool for tool in functions if tool.name in names), "required"
    if choice == "required" and not functions:
        choice = "auto"
    return Offer(functions, choice, targets)


def _needs_approval(server: McpTool, listed: McpListedTool) -> bool:
    rule = given(server.require_approval, None)
    if isinstance(rule, McpApprovalFilter):
        always, never = given(rule.always, None), given(rule.never, None)
        return (always is not None and _matches(always, listed)) or never is None or not _matches(never, listed)
    return rule != "never"


def _matches(wanted: McpToolFilter, listed: McpListedTool) -> bool:
    names, read_only = given(wanted.tool_names, None), given(wanted.read_only, None)
    annotations = given(listed.annotations, None)
    is_read_only = isinstance(annotations, dict) and annotations.get("readOnlyHint") is True
    return (names is None or listed.name in names) and (read_only is None or read_only == is_read_only)
