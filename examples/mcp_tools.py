"""Give the model the tools of an MCP server, which runs here, and approve each call.

VIVAVOCE_MCP_HOSTS=127.0.0.1 uv run vivavoce serve --model scripted     # in one terminal: it may reach this machine
uv run python examples/mcp_tools.py                                     # in another
"""

import asyncio
import socket
import sys

import uvicorn
from mcp.server import MCPServer

import vivavoce
from vivavoce import config, events, items

URL = "http://127.0.0.1:8080/v1"
QUESTION = 'call weather {"city": "Oslo"}'
tools = MCPServer("house", log_level="WARNING")


@tools.tool()
def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


async def ask(url: str, mcp_url: str) -> str:
    """Let the model call the tool, approve it, and return what it says in the end."""
    house = config.McpTool(server_label="house", server_url=mcp_url, require_approval="always")
    async with vivavoce.connect("gpt-realtime", url=url) as session:
        await session.update_session(modality="text", tools=[house])
        async for event in session:
            match event:
                case events.McpListToolsCompleted():
                    await session.send_user_message(QUESTION)
                case events.McpListToolsFailed():
                    raise SystemExit(f"the server cannot list the tools at {mcp_url}; may it reach them?")
                case events.ConversationItemDone(item=items.McpApprovalRequest() as asked):
                    print(f"the model wants {asked.name}({asked.arguments}); approved")
                    yes = items.McpApprovalResponse(approval_request_id=str(asked.id), approve=True)
                    await session.create_item(yes)
                case events.ConversationItemDone(item=items.McpCall() as call):
                    print(f"the tool says: {call.output or call.error}")
                    await session.create_response()
                case events.ResponseOutputTextDone():
                    print(f"the model says: {event.text}")
                    return event.text
                case events.ErrorEvent():
                    raise SystemExit(event.error.message)
    raise SystemExit("the server closed the session")


async def main(url: str) -> str:
    """An MCP server on any free port for as long as the conversation takes."""
    listener = socket.create_server(("127.0.0.1", 0))
    serving = uvicorn.Server(uvicorn.Config(tools.streamable_http_app(), log_level="warning"))
    task = asyncio.create_task(serving.serve(sockets=[listener]))
    try:
        return await ask(url, f"http://127.0.0.1:{listener.getsockname()[1]}/mcp")
    finally:
        serving.should_exit = True
        await task


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else URL))
    except vivavoce.VivavoceError as error:
        raise SystemExit(str(error)) from None
