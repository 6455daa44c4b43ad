"""The public `openai` package makes short-lived keys here, connects with them, and knows the shape of the answers."""

from __future__ import annotations

from typing import Any

import pytest
from openai import AsyncOpenAI, AuthenticationError, BadRequestError
from openai.types.beta.realtime import SessionCreateResponse, TranscriptionSession
from openai.types.realtime import ClientSecretCreateResponse
from test_serve import KEY, scripted, within_time

from vivavoce.server import Server, running


def client(server: Server, key: str = KEY) -> AsyncOpenAI:
    where = f"{server.host}:{server.port}"
    return AsyncOpenAI(api_key=key, base_url=f"http://{where}/v1", websocket_base_url=f"ws://{where}/v1", max_retries=0)


def valid(model: Any, answer: Any) -> None:
    """Raises where the answer is not what the package says that it is; reading it, the package lets much pass."""
    model.model_validate(answer.to_dict(), strict=True)


def test_a_ga_key_is_made_and_used() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server, client(server) as with_key:
            made = await with_key.realtime.client_secrets.create(
                expires_after={"anchor": "created_at", "seconds": 60},
                session={
                    "type": "realtime",
                    "model": "gpt-realtime",
                    "instructions": "Be brief.",
                    "audio": {"output": {"voice": "echo"}},
                    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}],
                },
            )
            valid(ClientSecretCreateResponse, made)
            assert made.session.type == "realtime"
            async with (
                client(server, made.value) as holder,
                holder.realtime.connect(model="gpt-realtime") as connection,
            ):
                created = await connection.recv()
                assert created.type == "session.created"
                assert created.session.type == "realtime"
                assert created.session.instructions == "Be brief."

    within_time(main())


def test_a_ga_transcription_key_is_made() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server, client(server) as with_key:
            made = await with_key.realtime.client_secrets.create(
                session={"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
            )
            valid(ClientSecretCreateResponse, made)
            assert made.session.type == "transcription"

    within_time(main())


def test_beta_keys_are_made_and_used() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server, client(server) as with_key:
            made = await with_key.beta.realtime.sessions.create(
                model="gpt-4o-realtime-preview", voice="echo", modalities=["text", "audio"], temperature=0.7
            )
            valid(SessionCreateResponse, made)
            assert (made.voice, made.temperature) == ("echo", 0.7)
            transcription = await with_key.beta.realtime.transcription_sessions.create(
                input_audio_format="pcm16", input_audio_transcription={"model": "whisper-1"}
            )
            valid(TranscriptionSession, transcription)
            holder = client(server, made.client_secret.value)
            async with holder, holder.beta.realtime.connect(model="gpt-4o-realtime-preview") as connection:
                created = await connection.recv()
                assert created.type == "session.created"
                assert created.session.voice == "echo"

    within_time(main())


def test_errors_reach_the_package_as_it_expects_them() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            async with client(server, "wrong") as stranger:
                with pytest.raises(AuthenticationError) as wrong:
                    await stranger.realtime.client_secrets.create()
            assert (wrong.value.status_code, wrong.value.code) == (401, "invalid_api_key")
            async with client(server) as with_key:
                with pytest.raises(BadRequestError) as bad:
                    await with_key.realtime.client_secrets.create(expires_after={"seconds": 5})
            assert (bad.value.code, bad.value.param) == ("integer_below_min_value", "expires_after.seconds")

    within_time(main())
