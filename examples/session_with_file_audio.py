"""One session object: speech from a file goes out in the background while typed updates come in.

uv run vivavoce serve                                                     # in one terminal: the embedded engines
uv run python examples/session_with_file_audio.py speech.wav              # in another; with PyAV any audio or video
uv run python examples/session_with_file_audio.py speech.wav wss://api.openai.com/v1      # OPENAI_API_KEY
AZURE_OPENAI_ENDPOINT=https://RESOURCE.openai.azure.com AZURE_OPENAI_API_KEY=… AZURE_OPENAI_DEPLOYMENT=NAME \\
    uv run python examples/session_with_file_audio.py speech.wav azure
"""

import asyncio
import sys
from pathlib import Path

import vivavoce
from vivavoce import events
from vivavoce.audio import wav

URL = "http://127.0.0.1:8080/v1"
REPLY = Path("reply.wav")


async def converse(speech: Path, url: str | None) -> bytes:
    """Say what is in the file, show what comes, return the spoken reply; without a URL, where the environment says."""
    async with vivavoce.connect("gpt-realtime", url=url) as session:
        await session.update_session(
            instructions="You are a friendly assistant.", transcription="whisper-1", turn_detection=None
        )
        speaking = asyncio.create_task(speak(session, speech))
        async for update in session:
            match update:
                case events.SessionCreated():
                    print(f"session {update.session.id} has begun")
                case events.ConversationItemInputAudioTranscriptionCompleted():
                    print(f"      you: {update.transcript.strip()}")
                case events.ResponseOutputAudioTranscriptDone():
                    print(f"assistant: {update.transcript}")
                case events.ErrorEvent():
                    print(f"error: {update.error.message}")
                case events.ResponseDone():
                    break
                case _:
                    print(f"           {update.type}: {update.raw[:60].decode()}…")
        await speaking
        return session.get_items()[-1].audio


async def speak(session: vivavoce.Session, speech: Path) -> None:
    """All of the file, as fast as it goes, and then the request for an answer, which ends the turn."""
    await session.send_audio(speech)
    await session.create_response()


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit("usage: session_with_file_audio.py FILE [URL | azure]")
    where = sys.argv[2] if len(sys.argv) > 2 else URL
    spoken = asyncio.run(converse(Path(sys.argv[1]), None if where == "azure" else where))
    REPLY.write_bytes(wav.encoded(spoken, 24_000))
