"""Captions for speech as it is spoken: a transcription session, fed from a file at the pace of a microphone.

uv run vivavoce serve                                          # in one terminal: the embedded engines
uv run python examples/live_captions.py speech.wav             # in another; with PyAV any audio or video
uv run python examples/live_captions.py speech.wav wss://api.openai.com/v1      # with OPENAI_API_KEY
"""

import asyncio
import sys

import vivavoce
from vivavoce import config, events

URL = "http://127.0.0.1:8080/v1"
TAIL = bytes(48_000)
"""A second of silence, so that the end of the last turn is found."""
HEARING = config.AudioInput(
    transcription=config.Transcription(model="whisper-1"), turn_detection=config.ServerVad(silence_duration_ms=500)
)
SESSION = config.TranscriptionSession(audio=config.TranscriptionAudioConfig(input=HEARING))


async def captions(url: str, speech: str, pace: float | None = 1.0) -> list[str]:
    """Speak what is in the file, print each caption as it comes; returns them."""
    found: list[str] = []
    async with vivavoce.connect(url=url, kind="transcription", session=SESSION) as session:
        speaking = asyncio.create_task(speak(session, speech, pace))
        is_over, pending = False, set[str]()
        while not is_over or pending:
            match await session.recv():
                case events.InputAudioBufferCommitted() as turn:
                    pending.add(turn.item_id)
                case events.ConversationItemInputAudioTranscriptionCompleted() as caption:
                    found.append(caption.transcript.strip())
                    print(found[-1], flush=True)
                    pending.discard(caption.item_id)
                case events.InputAudioBufferCleared():
                    is_over = True
                case events.ErrorEvent() | events.ConversationItemInputAudioTranscriptionFailed() as failure:
                    raise SystemExit(failure.error.message)
        await speaking
    return found


async def speak(session: vivavoce.Session, speech: str, pace: float | None) -> None:
    """All of the file, as a microphone would; the answer to the last event says that all was heard."""
    await session.send_audio(speech, pace=pace)
    await session.send_audio(TAIL, pace=pace)
    await session.clear_audio()


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit("usage: live_captions.py FILE [URL]")
    try:
        asyncio.run(captions(sys.argv[2] if len(sys.argv) > 2 else URL, sys.argv[1]))
    except (vivavoce.VivavoceError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
