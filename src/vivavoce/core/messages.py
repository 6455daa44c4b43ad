"""Everything the session machine hears (inputs) and everything it asks for (effects): its whole vocabulary.

The runtime interprets the effects and feeds their outcomes back as inputs. Every engine report names what it serves
(`response_id`, `item_id`, `epoch`), so that a report which comes late, after its owner ended, can be told and dropped.
Invariant: nothing else goes in or out of `Session.handle`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from vivavoce.audio.formats import Format
from vivavoce.protocol.config import FunctionTool, McpTool, ToolChoice
from vivavoce.protocol.events import AnyClientEvent, AnyServerEvent, ErrorDetail, LogProb
from vivavoce.protocol.items import Item, McpError, McpListedTool


class _Message(msgspec.Struct, frozen=True):
    """Common ground of inputs and effects."""


# --- inputs -----------------------------------------------------------------------------------------------------------
# A client event is an input as it is; an ErrorDetail stands for a client frame that is no event, and says why.


class Opened(_Message, frozen=True):
    """The connection is there. Must be the first input."""


class WakeUp(_Message, frozen=True):
    """The time that `Session.deadline()` named has come."""


class Drain(_Message, frozen=True):
    """The server stops: finish the running responses, begin no new one, then close."""


EXPELLED = "session_closed_by_operator"
"""The code of the error by which a client is told of that."""


class Expel(_Message, frozen=True):
    """An operator ends the session: tell the client `reason`, and close now."""

    reason: str


class Gone(_Message, frozen=True):
    """The client has gone: what runs ends here and is accounted for, and nothing that this asks for is done."""


class SpeechScored(_Message, frozen=True):
    """Speech probabilities, one per `frame_ms` of audio, in order and without gaps since the epoch began."""

    epoch: int
    frame_ms: int
    probabilities: tuple[float, ...]


class NoiseReduced(_Message, frozen=True):
    """Clean audio, in the format that `ReduceNoise` had, in order and without gaps since the epoch began.

    `is_over`: the reducer has failed, and no more is cleaned.
    """

    epoch: int
    audio: bytes
    is_over: bool = False


class TurnJudged(_Message, frozen=True):
    """Whether the user, who paused, has finished. `probability` None: the detector could not tell."""

    item_id: str
    pause: int
    probability: float | None


class WordsHeard(_Message, frozen=True):
    """Words of a turn that is still being spoken, which follow those that were told before and will stay.

    `guess`: what probably comes behind them, in place of any guess before.
    """

    item_id: str
    text: str
    guess: str = ""


class TranscriptDelta(_Message, frozen=True):
    """A piece of the transcript of a user item's audio; `logprobs` are those of its tokens, where they were wanted."""

    item_id: str
    text: str
    logprobs: tuple[LogProb, ...] = ()


class TranscriptSegment(_Message, frozen=True):
    """Who said which part of the transcript, and when; its text comes as a `TranscriptDelta` as well. Times in s."""

    item_id: str
    text: str
    speaker: str
    start_s: float
    end_s: float


class TranscriptEnded(_Message, frozen=True):
    """The transcript is complete: the deltas so far."""

    item_id: str


class TranscriptFailed(_Message, frozen=True):
    """There will be no transcript."""

    item_id: str
    code: str
    message: str


class TextGenerated(_Message, frozen=True):
    """The language model wrote more text."""

    response_id: str
    text: str


class CallStarted(_Message, frozen=True):
    """The language model began to call a function; a call that was open before it is complete."""

    response_id: str
    name: str


class CallArguments(_Message, frozen=True):
    """More of the open call's arguments, JSON text."""

    response_id: str
    text: str


class GenerationEnded(_Message, frozen=True):
    """The language model has finished. Token counts are its own; text only."""

    response_id: str
    reason: Literal["stop", "length", "content_filter"]
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class GenerationFailed(_Message, frozen=True):
    """The language model gave up."""

    response_id: str
    code: str
    message: str


class AudioSynthesized(_Message, frozen=True):
    """More speech for a phrase, in the format that `Speak` asked for."""

    response_id: str
    item_id: str
    audio: bytes


class PhraseSpoken(_Message, frozen=True):
    """All speech of the phrase with this number has been delivered."""

    response_id: str
    item_id: str
    phrase: int


class SynthesisFailed(_Message, frozen=True):
    """The synthesizer gave up on the item."""

    response_id: str
    item_id: str
    code: str
    message: str


class McpToolsListed(_Message, frozen=True):
    """The tools of an MCP server."""

    item_id: str
    tools: tuple[McpListedTool, ...]


class McpListFailed(_Message, frozen=True):
    """The MCP server's tools could not be had."""

    item_id: str
    message: str


class McpCallEnded(_Message, frozen=True):
    """An MCP tool answered, or failed: exactly one of `output` and `error`."""

    item_id: str
    output: str | None = None
    error: McpError | None = None


class PlaybackStarted(_Message, frozen=True):
    """The server's player has begun to play a response, or goes on with it after it ran dry."""

    response_id: str


class PlaybackDrained(_Message, frozen=True):
    """The server's player has played all that there is of a response."""

    response_id: str


EngineReport = (
    SpeechScored
    | NoiseReduced
    | TurnJudged
    | WordsHeard
    | TranscriptDelta
    | TranscriptSegment
    | TranscriptEnded
    | TranscriptFailed
    | TextGenerated
    | CallStarted
    | CallArguments
    | GenerationEnded
    | GenerationFailed
    | AudioSynthesized
    | PhraseSpoken
    | SynthesisFailed
    | McpToolsListed
    | McpListFailed
    | McpCallEnded
)
Input = (
    AnyClientEvent
    | ErrorDetail
    | Opened
    | WakeUp
    | Drain
    | Expel
    | Gone
    | PlaybackStarted
    | PlaybackDrained
    | EngineReport
)

# --- effects ----------------------------------------------------------------------------------------------------------


class Send(_Message, frozen=True):
    """Send this event to the client. It has already been applied to the conversation."""

    event: AnyServerEvent


class DetectSpeech(_Message, frozen=True):
    """Score this audio for speech; a new epoch means a new stream. Answered by `SpeechScored`, in order."""

    epoch: int
    audio: bytes
    format: Format


class ReduceNoise(_Message, frozen=True):
    """Clean this audio; a new epoch means a new stream. Answered by `NoiseReduced`, in order.

    The n-th sample that comes back is the n-th that went in; the last few milliseconds may be missing.
    """

    epoch: int
    audio: bytes
    format: Format
    field: Literal["near_field", "far_field"]
    strength: float


LOOKS = frozenset({DetectSpeech, ReduceNoise})
"""Effects that look at the audio, many times a second, and change nothing."""


class JudgeTurn(_Message, frozen=True):
    """Say whether the user has finished: `audio` is the turn so far, with the pause at its end.

    `pause` numbers the pauses of a session. Answered by one `TurnJudged`.
    """

    item_id: str
    pause: int
    audio: bytes
    format: Format
    language: str | None = None


class Listen(_Message, frozen=True):
    """More audio of a turn that is being spoken, for a transcriber that hears it along. Ends with `StopListening`.

    `start` says how many bytes of the turn came before. Answered by `WordsHeard`.
    """

    item_id: str
    start: int
    audio: bytes
    format: Format
    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()


class StopListening(_Message, frozen=True):
    """The turn is over; what was asked of it with `Transcribe` before this is still wanted."""

    item_id: str


class Transcribe(_Message, frozen=True):
    """Transcribe a user item. Answered by `TranscriptDelta`*, then `TranscriptEnded` or `TranscriptFailed`.

    `turn_id` names the turn that this is, or is the beginning of, where it was given to `Listen`.

    Details that are wanted come where the transcriber has them: log probabilities with the deltas, speakers as
    `TranscriptSegment`s between them.
    """

    item_id: str
    audio: bytes
    format: Format
    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    with_logprobs: bool = False
    with_speakers: bool = False
    turn_id: str = ""


class Generate(_Message, frozen=True):
    """Run the language model. Audio parts of `items` carry what was heard as `transcript`, and no audio.

    Answered by `TextGenerated` and `CallStarted`/`CallArguments` in any number, then `GenerationEnded` or
    `GenerationFailed`. `max_output_tokens` None means no limit.
    """

    response_id: str
    instructions: str
    items: tuple[Item, ...]
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    max_output_tokens: int | None = None
    effort: str | None = None
    is_parallel: bool | None = None
    temperature: float | None = None


class Prepare(_Message, frozen=True):
    """Let the language model begin to read what it will probably be asked. Not answered; `Generate` follows, or not."""

    wanted: Generate


class Speak(_Message, frozen=True):
    """Speak one phrase. Phrases of an item come numbered from 0 and must be spoken in this order.

    Answered by `AudioSynthesized`*, then `PhraseSpoken` or `SynthesisFailed`.
    """

    response_id: str
    item_id: str
    phrase: int
    text: str
    voice: str
    speed: float
    format: Format


class ListMcpTools(_Message, frozen=True):
    """Ask an MCP server for its tools. Answered by `McpToolsListed` or `McpListFailed`."""

    item_id: str
    server: McpTool


class CallMcpTool(_Message, frozen=True):
    """Call a tool of an MCP server; `arguments` is JSON text. Answered by `McpCallEnded`.

    `owner_id` is the response or item with which the call ends.
    """

    owner_id: str
    item_id: str
    server: McpTool
    name: str
    arguments: str


class Cancel(_Message, frozen=True):
    """Stop all engine work for this response or item. Nothing answers."""

    owner_id: str


class StopPlayback(_Message, frozen=True):
    """Empty the server's player: nothing of what it holds shall be heard."""


class Close(_Message, frozen=True):
    """Close the connection after what has been sent."""

    code: int
    reason: str


Effect = (
    Send
    | DetectSpeech
    | ReduceNoise
    | JudgeTurn
    | Listen
    | StopListening
    | Transcribe
    | Generate
    | Prepare
    | Speak
    | ListMcpTools
    | CallMcpTool
    | Cancel
    | StopPlayback
    | Close
)
