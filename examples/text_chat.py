"""Chat by text with any Realtime endpoint, with vivavoce's client.

uv run vivavoce serve                          # in one terminal; with --model scripted for one without models
uv run python examples/text_chat.py            # in another; an empty line ends it
uv run python examples/text_chat.py wss://api.openai.com/v1      # with OPENAI_API_KEY
"""

import asyncio
import sys
from collections.abc import Callable

import vivavoce

URL = "http://127.0.0.1:8080/v1"


async def chat(url: str, read_line: Callable[[], str]) -> list[str]:
    """Say each line, show the answer as it comes, up to an empty line; returns the answers."""
    answers = []
    async with vivavoce.connect("gpt-realtime", url=url) as session:
        await session.update_session(modality="text")
        # In a thread: while somebody types, the connection still has to answer the server's pings.
        while line := await asyncio.to_thread(read_line):
            response = await session.send_user_message(line)
            async for words in response.words():
                print(words, end="", flush=True)
            print()
            answers.append(await response.text())
    return answers


def typed_line() -> str:
    """What the user types; nothing at the end of the input."""
    try:
        return input("> ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    try:
        asyncio.run(chat(sys.argv[1] if len(sys.argv) > 1 else URL, typed_line))
    except vivavoce.VivavoceError as error:
        raise SystemExit(str(error)) from None
