"""Give a web app of your own a Realtime endpoint: mount vivavoce in it. FastAPI mounts it in the same way.

    uv run uvicorn --app-dir examples mount_in_fastapi_or_starlette:app
    uv run vivavoce talk --text "Hello!" --url http://127.0.0.1:8000/voice/v1

An app that is mounted does not see the beginning and the end of the process, so the outer one passes them on: models
load before the first call, and at the end running responses may finish. `vivavoce serve` limits idle connections,
unread pongs and fragments of messages; your own uvicorn does not: put a reverse proxy in front of it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from vivavoce.server import create_app, lifespan, load_settings

voice = create_app(load_settings(model="scripted"))  # "local" for the embedded engines, config=Path(…) for your own


@asynccontextmanager
async def life(_: Starlette) -> AsyncIterator[None]:
    """Yours goes here; vivavoce's is inside."""
    async with lifespan(voice):
        yield


async def home(_: Request) -> PlainTextResponse:
    """The rest of your app."""
    return PlainTextResponse("The voice is at /voice/v1/realtime")


app = Starlette(routes=[Route("/", home), Mount("/voice", voice)], lifespan=life)
# FastAPI: app = FastAPI(lifespan=life); app.mount("/voice", voice)
