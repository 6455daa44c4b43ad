"""Captions for speech as it is spoken: a transcription session, fed from a WAV file at the pace of a microphone.

uv run vivavoce serve                                          # in one terminal: the embedded engines
uv run python examples/live_captions.py speech.wav             # in another; any PCM WAV
uv run python examples/live_captions.py speech.wav "wss://api.openai.com/v1/realtime?intent=transcription"
"""

import asyncio
import sys

import vivavoce
from vivavoce import config, events
from vivavoce.audio import wav
from vivavoce.audio.resample import resample

URL = "http://127.0.0.1:8080/v1/realtime?intent=transcription"
RATE_HZ = 24_000
CHUNK_S = 0.1
CHUNK_BYTES = int(RATE_HZ * CHUNK_S) * 2
TAIL = bytes(RATE_HZ * 2)
"""A second of silence, so that the end of the last turn is found."""
HEARING = config.AudioInput(
    transcription=config.Transcription(model="whisper-1"), turn_detection=config.ServerVad(silence_duration_ms=500)
)
SESSION = config.TranscriptionSession(audio=config.TranscriptionAudioConfig(input=HEARING))


async def captions(url: str, speech: bytes, chunk_s: float = CHUNK_S) -> list[str]:
    """Speak PCM16 mono at 24 kHz, print each caption as it comes; returns them."""
    found: list[str] = []
    async with vivavoce.connect(url=url) as connection, asyncio.TaskGroup() as tasks:
        await connection.update_session(SESSION)
        tasks.create_task(speak(connection, speech + TAIL, chunk_s))
        is_over, pending = False, set[str]()
        while not is_over or pending:
            match await connection.recv():
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
    return found


async def speak(connection: vivavoce.Session, speech: bytes, chunk_s: float) -> None:
    """Append the audio, piece by piece, as a microphone would; the answer to the last event says that all was heard."""
    for at in range(0, len(speech), CHUNK_BYTES):
        await connection.append_audio(speech[at : at + CHUNK_BYTES])
        await asyncio.sleep(chunk_s)
    await connection.send(events.InputAudioBufferClear())


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit("usage: live_captions.py FILE.wav [URL]")
    failed: BaseException | None = None
    try:
        samples, rate_hz = wav.read(sys.argv[1])
        asyncio.run(captions(sys.argv[2] if len(sys.argv) > 2 else URL, resample(samples, rate_hz, RATE_HZ)))
    except* (vivavoce.VivavoceError, OSError, ValueError) as group:  # a task group has them in groups
        failed = group.exceptions[0]
    if failed:
        raise SystemExit(str(failed))
