"""Everything that a session can be told, one method each; what they return can be awaited to the server's answer.

Half of `Session`, apart for its length. A method sends at once, whether or not it is awaited: to await it is to wait
for the acknowledgement, and to get the server's error for this very event as an exception.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, cast

import msgspec

from vivavoce.core.caller.messages import Heard
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config, items
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe, UnsetType, given

from .acks import Ack
from .configuring import (
    Content,
    DetectionLike,
    FormatLike,
    ItemLike,
    Modality,
    ToolLike,
    content_of,
    converted,
    item_of,
    response_of,
    session_of,
    tools_of,
)
from .live import LiveResponse

if TYPE_CHECKING:
    from .tools import Tool

T = TypeVar("T")

Audio = bytes | bytearray | memoryview
AudioSource = Audio | str | Path | BinaryIO | Iterable[bytes] | AsyncIterable[bytes]
"""What `send_audio` takes: samples, a file, a stream, chunks as they come, a microphone."""
Output = str | Mapping[str, Any]


def _nothing(event: object) -> None:
    """An acknowledgement without a content."""


class Sending(ABC):
    """The sending half of a session. `_send` and `_configure` are the session's own."""

    _configuration: config.SessionConfig | None = None
    _is_streaming = False

    # --- the session's own --------------------------------------------------------------------------------------------

    @abstractmethod
    def _send(self, event: ev.AnyClientEvent, convert: Callable[[Any], T]) -> Ack[T]: ...

    @abstractmethod
    def _send_frame(self, frame: bytes) -> Ack[None]: ...

    @abstractmethod
    def _new_id(self, prefix: str) -> str: ...

    @abstractmethod
    def _lend(self, tool: ToolLike | Tool | Callable[..., Any]) -> ToolLike:
        """The definition of a tool for one response; calls of a function are run."""

    @abstractmethod
    def _request(self, event: ev.ResponseCreate) -> Ack[LiveResponse]: ...

    @abstractmethod
    def _configure(self, change: config.SessionConfig) -> Ack[config.SessionResource]: ...

    @abstractmethod
    def _configure_silently(self, change: config.SessionConfig) -> None:
        """Remember a change that was sent by hand."""

    @abstractmethod
    def _interrupt(self, heard: Heard | None) -> None: ...

    @abstractmethod
    async def _room(self) -> None: ...

    @property
    @abstractmethod
    def _pends(self) -> bool:
        """Whether there is audio that is in no item, and nobody but us who ends turns."""

    @property
    @abstractmethod
    def _input_format(self) -> Any: ...

    # --- anything -----------------------------------------------------------------------------------------------------

    def send(self, event: ev.AnyClientEvent | Mapping[str, Any]) -> Ack[ev.AnyServerEvent | None]:
        """Send any event: a struct of `vivavoce.events`, or the API's JSON as a mapping.

        The acknowledgement is the server's event; None for events that the server does not answer.
        """
        known = cast(ev.AnyClientEvent, converted(event, ev.AnyClientEvent, "event"))
        if isinstance(known, ev.ResponseCreate):
            return cast("Ack[ev.AnyServerEvent | None]", self._send(self._identified(known), lambda answer: answer))
        if isinstance(known, ev.SessionUpdate):
            self._configure_silently(known.session)
        return self._send(self._identified(known), lambda answer: answer)

    def _identified(self, event: ev.AnyClientEvent) -> ev.AnyClientEvent:
        """With an id, by which the server names it in an error; items with one by which it is acknowledged."""
        if isinstance(event, ev.ConversationItemCreate) and not given(getattr(event.item, "id", UNSET), ""):
            item = msgspec.structs.replace(event.item, id=self._new_id("item"))
            event = msgspec.structs.replace(event, item=item)
        if given(event.event_id, ""):
            return event
        return msgspec.structs.replace(event, event_id=self._new_id("event"))

    def send_raw(self, message: str | bytes | Mapping[str, Any]) -> Ack[None]:
        """Send a message as it is, whatever is in it. Nothing is checked, and no acknowledgement is known."""
        if isinstance(message, Mapping):
            message = msgspec.json.encode(message)
        return self._send_frame(message.encode() if isinstance(message, str) else message)

    # --- configuration ------------------------------------------------------------------------------------------------

    def update_session(
        self,
        session: config.SessionConfig | Mapping[str, Any] | None = None,
        /,
        *,
        instructions: Maybe[str] = UNSET,
        voice: Maybe[str] = UNSET,
        modality: Maybe[Modality] = UNSET,
        turn_detection: Maybe[DetectionLike] = UNSET,
        transcription: Maybe[config.Transcription | Mapping[str, Any] | str | None] = UNSET,
        noise_reduction: Maybe[Literal["near_field", "far_field"] | None] = UNSET,
        input_format: Maybe[FormatLike] = UNSET,
        output_format: Maybe[FormatLike] = UNSET,
        speed: Maybe[float] = UNSET,
        tools: Maybe[Sequence[ToolLike]] = UNSET,
        tool_choice: Maybe[config.ToolChoice] = UNSET,
        max_output_tokens: Maybe[int | Literal["inf"]] = UNSET,
    ) -> Ack[config.SessionResource]:
        """`session.update`: change what is given, leave the rest. Before connecting, it is kept until then.

        By keywords for what is changed most, or whole: a struct of `vivavoce.config`, or the API's JSON as a mapping.
        `tools` replaces the tools that were given here before; those of `add_tool` stay. The acknowledgement is the
        configuration in force. Raises `LocalProtocolError` for two tools of one name.
        """
        by_name = session_of(
            instructions=instructions,
            voice=voice,
            modality=modality,
            turn_detection=turn_detection,
            transcription=transcription,
            noise_reduction=noise_reduction,
            input_format=input_format,
            output_format=output_format,
            speed=speed,
            tools=tools,
            tool_choice=tool_choice,
            max_output_tokens=max_output_tokens,
        )
        if session is None:
            return self._configure(by_name)
        if by_name != config.RealtimeSession():
            raise LocalProtocolError("update_session takes either a whole configuration or keywords, not both")
        if isinstance(session, Mapping) and "type" not in session:
            session = {"type": "realtime", **session}
        return self._configure(cast(config.SessionConfig, converted(session, config.SessionConfig, "session")))

    # --- audio in -----------------------------------------------------------------------------------------------------

    def append_audio(self, audio: Audio) -> Ack[None]:
        """`input_audio_buffer.append`: more of the user's audio, raw samples in the session's input format.

        The server does not answer; to await it is to wait while too much is on its way out.
        """
        event = ev.InputAudioBufferAppend(event_id=self._new_id("event"), audio=bytes(audio))
        return self._send(event, _nothing)

    async def send_audio(self, source: AudioSource, *, pace: float | None = None, chunk_ms: int = 100) -> float:
        """Send all of a source in chunks, and return how many seconds that were.

        A source is samples in the session's input format, a file in any format, a binary stream, chunks as they come, a
        microphone. `pace` 1.0 is real time; without it audio is sent as fast as it comes, in pieces of `chunk_ms`.
        Raises `LocalProtocolError` where another source is being sent already, or this one cannot be read.
        """
        from .sources import chunks

        if self._is_streaming:
            raise LocalProtocolError("another send_audio is going on; wait for its end, or cancel it, before the next")
        self._is_streaming = True
        format, sent = self._input_format, 0
        try:
            async with aclosing(chunks(source, chunk_ms=chunk_ms, format=format, pace=pace)) as pieces:
                async for chunk in pieces:
                    await self.append_audio(chunk)
                    sent += len(chunk)
        finally:
            self._is_streaming = False
        return sent / float(format.rate_hz * format.sample_bytes)

    def commit_audio(self) -> Ack[str]:
        """`input_audio_buffer.commit`: the audio becomes a user item, whose id is the acknowledgement.

        The item itself follows a moment later; `wait_for_next_item` waits for it.
        """
        return self._send(ev.InputAudioBufferCommit(event_id=self._new_id("event")), lambda answer: str(answer.item_id))

    def clear_audio(self) -> Ack[None]:
        """`input_audio_buffer.clear`: forget the audio that is in no item yet."""
        return self._send(ev.InputAudioBufferClear(event_id=self._new_id("event")), _nothing)

    # --- items --------------------------------------------------------------------------------------------------------

    def create_item(self, item: ItemLike, *, after: str | None = None) -> Ack[items.Item]:
        """`conversation.item.create`: `after` is an item's id, "root" for the first place, None for the end.

        `vivavoce.items` has structs, and factories: `items.user_message("Hello!")`. The acknowledgement is the item as
        the server states it.
        """
        event = ev.ConversationItemCreate(item=item_of(item), previous_item_id=UNSET if after is None else after)
        return self._send(self._identified(event), lambda answer: cast(items.Item, answer.item))

    def delete_item(self, item_id: str) -> Ack[None]:
        """`conversation.item.delete`."""
        return self._send(ev.ConversationItemDelete(event_id=self._new_id("event"), item_id=item_id), _nothing)

    def retrieve_item(self, item_id: str) -> Ack[items.Item]:
        """`conversation.item.retrieve`: the server's copy, with its audio."""
        event = ev.ConversationItemRetrieve(event_id=self._new_id("event"), item_id=item_id)
        return self._send(event, lambda answer: cast(items.Item, answer.item))

    def truncate_item(self, item_id: str, audio_end_ms: int, content_index: int = 0) -> Ack[None]:
        """`conversation.item.truncate`: the user heard no more than this. `interrupt` does it by itself."""
        event = ev.ConversationItemTruncate(
            event_id=self._new_id("event"), item_id=item_id, content_index=content_index, audio_end_ms=audio_end_ms
        )
        return self._send(event, _nothing)

    # --- responses ----------------------------------------------------------------------------------------------------

    def create_response(
        self,
        response: ev.ResponseParams | Mapping[str, Any] | None = None,
        /,
        *,
        instructions: Maybe[str] = UNSET,
        modality: Maybe[Modality] = UNSET,
        voice: Maybe[str] = UNSET,
        tools: Maybe[Sequence[ToolLike | Tool | Callable[..., Any]]] = UNSET,
        tool_choice: Maybe[config.ToolChoice] = UNSET,
        input: Maybe[Sequence[items.InputItem | Mapping[str, Any]]] = UNSET,
        out_of_band: bool = False,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        max_output_tokens: Maybe[int | Literal["inf"]] = UNSET,
    ) -> Ack[LiveResponse]:
        """`response.create`: ask for an answer, otherwise than the session says where something is given.

        While another response is running it waits for its end; `out_of_band` ones run beside the conversation. Where
        nobody but the application ends turns, audio that is in no item yet is committed first. The acknowledgement is
        the response as it comes.

        `tools` are this response's own, in place of the session's: definitions, and functions or `tool(…)`. Those are
        run where they are called in the conversation, as the ones of `add_tool` are; the session remembers them for
        life, but offers them to no other response than the one that follows on their answers, which is asked for with
        the same parameters but `input` and `tool_choice`. Raises `LocalProtocolError` for a name that another tool has.
        """
        lent = tools if isinstance(tools, UnsetType) else [self._lend(one) for one in tools]
        by_name = response_of(
            instructions=instructions,
            modality=modality,
            voice=voice,
            tools=lent,
            tool_choice=tool_choice,
            input=input,
            out_of_band=out_of_band,
            metadata=metadata,
            max_output_tokens=max_output_tokens,
        )
        if response is not None and by_name is not UNSET:
            raise LocalProtocolError("create_response takes either whole parameters or keywords, not both")
        params = (
            by_name if response is None else cast(ev.ResponseParams, converted(response, ev.ResponseParams, "response"))
        )
        if self._pends and not out_of_band:
            self.commit_audio()
        return self._request(ev.ResponseCreate(event_id=self._new_id("event"), response=params))

    def send_user_message(self, content: Content = ()) -> Ack[LiveResponse]:
        """Say something as the user, and ask for the answer: text, speech as samples, or several parts.

        Without content it only asks. The acknowledgement is the response as it comes.
        """
        parts = content_of(content, role="user")
        if parts:
            self.create_item(items.Message(role="user", content=parts))
        return self.create_response()

    def send_function_output(self, call: str | items.FunctionCall, output: object) -> Ack[items.Item]:
        """The answer to a function call, or to its `call_id`, that no tool of the session answers.

        Text stays text, all else is written as JSON.
        """
        call_id = call if isinstance(call, str) else given(call.call_id, "")
        text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        return self.create_item(items.FunctionCallOutput(call_id=call_id, output=text))

    def cancel_response(self, response_id: str | None = None) -> Ack[items.Response]:
        """`response.cancel`: stop an answer; the one of the conversation where none is named."""
        event = ev.ResponseCancel(
            event_id=self._new_id("event"), response_id=UNSET if response_id is None else response_id
        )
        return self._send(event, lambda answer: cast(items.Response, answer.response))

    def interrupt(self, item_id: str | None = None, samples: int | None = None) -> None:
        """Cut in: cancel the answer that is running, stop its playback, and cut it at what was heard.

        Where the session has a player, it knows what was heard. Otherwise `samples` says how much of `item_id` was
        played, in samples of the output format: more than there is counts as all of it, and 0 deletes the item. Nothing
        fails where there is nothing to interrupt.
        """
        if item_id is None:
            self._interrupt(None)
        else:
            self._interrupt(Heard(item_id, samples or 0))


__all__ = ["Audio", "AudioSource", "Sending", "tools_of"]
