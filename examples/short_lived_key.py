"""Let a client connect that must not know your key: make a short-lived one for it, with the session attached.

uv run vivavoce serve --model scripted --api-key sk-house                  # in one terminal
uv run python examples/short_lived_key.py sk-house                         # in another
uv run python examples/short_lived_key.py $OPENAI_API_KEY https://api.openai.com/v1
"""

import asyncio
import json
import sys
from urllib.request import Request, urlopen

import vivavoce
from vivavoce import config

URL = "http://127.0.0.1:8080/v1"
SESSION = {"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief.", "output_modalities": ["text"]}


def make_key(url: str, key: str, seconds: int = 60) -> str:
    """What your backend does: ask for a key that opens such sessions for so long."""
    body = {"expires_after": {"anchor": "created_at", "seconds": seconds}, "session": SESSION}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = Request(f"{url}/realtime/client_secrets", json.dumps(body).encode(), headers)  # noqa: S310
    with urlopen(request) as answer:  # noqa: S310
        return str(json.load(answer)["value"])


async def ask(url: str, short_lived: str, question: str) -> str:
    """What the client does; it needs to know nothing but the key."""
    async with vivavoce.connect("gpt-realtime", url=url, api_key=short_lived) as session:
        assert isinstance(session.session, config.RealtimeSession)
        print(f"the session comes with {session.session.instructions!r}")
        answer = await session.ask(question)
    print(answer)
    return answer


async def main(key: str, url: str = URL) -> str:
    """Both ends, one after the other."""
    short_lived = await asyncio.to_thread(make_key, url, key)
    return await ask(url, short_lived, "Hello!")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit("usage: short_lived_key.py KEY [URL]")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (vivavoce.VivavoceError, OSError) as error:  # HTTPError and URLError are of the latter kind
        raise SystemExit(str(error)) from None
