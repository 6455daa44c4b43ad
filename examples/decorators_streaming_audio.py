"""Talk with a model by decorators: one function streams speech, others get the answer's sound and its words.

uv run vivavoce serve                                                     # in one terminal
uv run python examples/decorators_streaming_audio.py                      # in another: the microphone; Ctrl-C ends it
uv run python examples/decorators_streaming_audio.py speech.wav           # or a recording, at the pace of speech
uv run python examples/decorators_streaming_audio.py speech.wav wss://api.openai.com/v1      # with OPENAI_API_KEY
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import vivavoce
from vivavoce.client.sources import chunks

URL = "http://127.0.0.1:8080/v1"


def app_for(
    url: str,
    recording: str | None,
    play: Callable[[bytes], Awaitable[None]] = vivavoce.play,
    pace: float | None = 1.0,
) -> vivavoce.App:
    """An app that speaks what is recorded, or what the microphone hears; `play` gets each answer."""
    app = vivavoce.App("gpt-realtime", url=url)

    @app.sender
    async def speak() -> AsyncIterator[bytes]:
        speech = vivavoce.record_as_stream() if recording is None else chunks(recording, pace=pace)
        async for chunk in speech:
            yield chunk

    @app.receiver("transcript_chunk")
    def show(words: str) -> None:
        print(words, end="", flush=True)

    @app.receiver("transcript")
    def end_line(transcript: str) -> None:
        print()

    @app.receiver("audio")
    async def hear(audio: bytes) -> None:
        await play(audio)

    return app


if __name__ == "__main__":
    recording, url = [*sys.argv[1:], None, None][:2]
    try:
        app_for(url or URL, recording).run()
    except (vivavoce.VivavoceError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
